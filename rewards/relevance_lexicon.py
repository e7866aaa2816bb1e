"""The words by which `rewards.relevance` finds that someone's welfare may be at stake. Data only.

Each entry is a regular expression over lower-case text, matched at word boundaries; a plural in -s or -es is implied.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Meanings in which an animal's or a harm's name concerns nobody. They are blanked out before anything is looked for.
FIGURES_OF_SPEECH: tuple[str, ...] = (
    r"kill(?:s|ed|ing)? two birds with one stone", r"(?:bull|bear)(?:ish)? (?:market|run|case|trend)",
    r"hot ?dogs?", r"hammer ?head ribbons?", r"elephant in the room", r"guinea pigs? for (?:our|the|a) (?:beta|test)",
    r"duck[- ]typ\w+", r"monkey[- ]?patch\w*", r"rubber (?:duck|soul)\w*", r"canary (?:deploy\w+|release|build|test)s?",
    r"honey ?pots?", r"butterfly (?:stroke|effect|network|diagram|valve|spread|option)s?", r"dove ?tail\w*",
    r"(?:right|left|middle|computer|wireless|optical)?[- ]?mouse[- ]?(?:button|click|wheel|pointer|cursor|event|pad|over)s?",
    r"(?:right|left|middle|computer|wireless|optical) mouse", r"mouse(?:down|up|move)\w*", r"cat(?:s|ting)? (?:command|two files|a file|files)",
    r"fish shell", r"config\.fish", r"zombie process(?:es)?", r"orphan(?:ed)? (?:process|block|row|record)(?:es|s)?",
    r"(?:morris|computer|internet|usb) worms?", r"worms? (?:spread|malware)", r"(?:python|pandas|anaconda|gunicorn|seaborn|seahorse|hadoop|docker|tortoise ?svn|"
    r"octocat|postgres\w*|scrapy|jaguar|mozilla|firefox|thunderbird|puffin|penguin|tux|apache pig|turtle module|hedgehog sans)",
    r"(?:use|with|the|'s) turtle (?:module|graphics|cursor)", r"turtle (?:module|graphics|cursor)s?", r"pig (?:script|latin)s?",
    r"(?:scrapy|web|search) (?:spider|crawler)s?", r"spiders? (?:in|with) scrapy", r"tiger (?:stripe|pattern)s?", r"crane(?:'s)? (?:load|boom|operator)\w*",
    r"bugs? in (?:my|the|this|our) (?:\w+ )?(?:code|loop|program|script|function|app|software)", r"(?:software|debug\w*) bugs?",
    r"kill(?:s|ed|ing)? (?:-9|the|a|an|all|my|its|that|this) (?:\w+ )?(?:process(?:es)?|job|task|server|thread|session|port|orphan|child|switch|time)s?",
    r"sacrific\w+ (?:a|the|my|your) (?:knight|bishop|rook|pawn|queen|piece)", r"painful (?:rewrite|migration|refactor\w*)", r"pain points?",
    r"(?:car|battery|phone|laptop|engine|screen|server) (?:has )?died", r"(?:threads?|process(?:es)?) starv\w+", r"master(?:/| and )slave",
    r"victim cache", r"child process(?:es)?", r"parent process(?:es)?", r"fork bomb", r"bird'?s[- ]eye", r"snail mail", r"wild ?cards?", r"bare[- ]?metal",
    r"(?:fox|wolf|bull|lion)'?s? (?:news|street|fantasy)", r"eat(?:s|ing)? (?:crow|humble pie)",
    r"(?:wind|server|link|render|solar) farm", r"(?:drop-?down|context|navigation|hamburger|start) menu", r"(?:elephant|bird|cat|fish|bug) (?:icon|logo|emoji)",
    r"(?:dies|die|exits?) on (?:error|failure)", r"ox-?hide", r"catch(?:es|ing)? (?:an? |the )?(?:exception|error)", r"dead(?:lock|line| code| letter| link)s?", r"raven and a writing desk", r"mad hatter",
)  # fmt: skip

#: Groups of beings, and what is done to them. The name is the reason given.
TOPICS: Mapping[str, tuple[str, ...]] = {
    "animals": (
        r"animal", r"wildlife", r"livestock", r"cattle", r"cow", r"cal(?:f|ves)", r"bulls?(?:fight\w*)?", r"ox(?:en)?", r"pig(?:let)?", r"sow", r"hog", r"sheep",
        r"lamb", r"ewe", r"goat", r"horse", r"pony", r"ponies", r"donkey", r"mule", r"rabbit", r"bunny", r"hamster", r"guinea pig", r"ferret", r"gerbil",
        r"dog", r"pupp(?:y|ies)", r"poodle", r"bulldog", r"beagle", r"cat", r"kitten", r"pet", r"chicken", r"hens?", r"chick", r"rooster", r"poultry", r"flock", r"herd",
        r"duck(?:ling)?", r"goose", r"geese", r"turkeys?", r"bird", r"pigeon", r"owl", r"parrot", r"budgie", r"starling", r"swallow's? nest", r"nest(?:ing|ling)?", r"gull",
        r"rat", r"mouse", r"mice", r"rodent", r"mole", r"squirrel", r"hedgehog", r"badger", r"fox(?:es)?", r"mink", r"deer", r"fawn", r"bear", r"wol(?:f|ves)", r"lion",
        r"tiger", r"elephant", r"monkey", r"macaque", r"ape", r"chimp\w*", r"gorilla", r"primate", r"raccoon", r"bat", r"seal", r"whale", r"dolphin", r"porpoise",
        r"snake", r"python", r"lizard", r"gecko", r"turtle", r"tortoise", r"frog", r"toad", r"newt", r"camel", r"kangaroo", r"house martin", r"beast", r"beak", r"farm(?:er|ing)?", r"zoo", r"circus(?:es)?", r"kennel", r"cattery",
        r"vet(?:erinar\w+)?", r"stray", r"feral", r"spay\w*", r"neuter\w*", r"breeder", r"litter", r"aquarium", r"fish tank", r"terrarium", r"hatchery", r"rodeo", r"bullring",
    ),
    "small_animals": (
        r"insect", r"bug(?:-spray)?", r"bee", r"honey", r"wasp", r"hornet", r"ant", r"aphid", r"beetle", r"moth", r"butterfl(?:y|ies)", r"fl(?:y|ies)", r"mosquito\w*",
        r"spider", r"snail", r"slug", r"worm", r"cricket", r"mealworm", r"silk(?:worm)?", r"cockroach\w*", r"caterpillar", r"termite", r"hive", r"larvae?",
    ),
    "water_animals": (
        r"fish(?:es|ing|er\w*)?", r"salmon", r"trout", r"carp", r"eel", r"goldfish", r"tuna", r"sardine", r"shrimp", r"prawn", r"lobster", r"crab", r"crayfish", r"octopus\w*", r"squid",
        r"mussel", r"oyster", r"sushi", r"seafood", r"zebrafish", r"angling", r"trawl\w*", r"bycatch", r"catch-and-release", r"pond", r"offshore survey", r"shark", r"cod", r"koi",
    ),
    "animal_products": (
        r"dinner ideas?", r"lunch options?", r"menu (?:for|with|of)", r"diet", r"meat", r"beef", r"steak", r"burger", r"barbecue", r"bbq", r"bacon", r"ham", r"pork", r"sausage", r"chop", r"veal", r"mutton", r"foie gras", r"egg", r"scrambled",
        r"dairy", r"milk", r"leather", r"fur", r"wool", r"down jacket", r"goose-down", r"feather", r"pat[eé]", r"wings", r"broiler", r"nugget", r"slaughter\w*", r"abattoir",
        r"butcher\w*", r"cull\w*", r"euthan\w*", r"hunt(?:s|ed|ing|er)?", r"trap(?:s|ped|ping)?", r"snare", r"poison\w*", r"pest", r"pesticide", r"spraying", r"insecticide", r"vermin",
        r"exterminat\w*", r"scurr\w+", r"infestation", r"beehive", r"vivisection", r"(?:animal|cosmetics?) test\w*", r"in[- ]vivo", r"ld50",
    ),
    "nature": (
        r"woodland", r"forest", r"hedge", r"marsh", r"wetland", r"mudflat", r"nature reserve", r"habitat", r"felling", r"fell(?:ed)? (?:\w+ )?trees?", r"cut(?:ting)? down (?:\w+ ){0,3}(?:oak|tree)s?",
        r"oil spill", r"tanker", r"drain(?:ed|ing)? the", r"biodiversity", r"national park", r"dump(?:s|ed|ing)?", r"solvent", r"landfill", r"emission", r"climate", r"carbon", r"geoengineering",
    ),
    "people_in_distress": (
        r"die[sd]?", r"dying", r"death", r"dead", r"funeral", r"eulog\w+", r"obituar\w+", r"grie[fv]\w*", r"mourn\w*", r"bereav\w*", r"widow\w*", r"miscarriage", r"stillb\w+",
        r"suicid\w*", r"self-harm", r"cr(?:y|ies|ied|ying)", r"tears", r"lonel\w+", r"homeless\w*", r"beggar?", r"dementia", r"cancer", r"coma", r"terminal(?:ly)? ill\w*", r"depress\w+", r"anxious",
        r"bull(?:y|ies|ied|ying)", r"mock(?:ed|ing)", r"abus\w+", r"victim", r"evict\w*", r"redundan(?:t|cy|cies)", r"lay(?:ing)? off", r"laid off", r"dismiss(?:es|ed|al|ing)? .{0,20}(?:workers?|staff|employees?)",
        r"lost (?:my|his|her|their) (?:job|home|wife|husband|son|daughter|mother|father)", r"patient", r"clinic", r"loan", r"stranger", r"nursing home", r"hospital", r"ventilator", r"triage", r"pain", r"suffer\w*", r"scream\w*", r"hurt\w*",
        r"guilt\w*", r"ashamed", r"nobody would miss me", r"feel(?:ing|s)? (?:bad|sad|alone|hopeless|worthless|guilty)", r"has not left (?:his|her|their) room", r"stutter\w*", r"disabled", r"disabilit\w+", r"handicapped",
        r"deaf", r"blind", r"wheelchair", r"can no longer", r"debt", r"behind (?:with|on) .{0,10}rent", r"(?:months?|weeks?) behind", r"shy", r"afraid", r"frightened", r"upset", r"starv\w+", r"famine", r"evacuat\w*",
        r"i feel like", r"putting (?:my|his|her) (?:father|mother|parents?) in", r"ill(?:ness)?", r"sick", r"elder(?:s|ly)?", r"old (?:tenant|man|woman|people)", r"vaccine", r"bed nets?", r"charit(?:y|ies)",
    ),
    "workers_and_strangers": (
        r"refugee", r"migrant", r"asylum", r"immigrant", r"illegals", r"sweatshop", r"seamstress(?:es)?", r"child labou?r", r"unpaid", r"intern(?:s|ship)?", r"prisoner", r"inmate", r"slave\w*", r"maid",
        r"nann(?:y|ies)", r"cleaner", r"housekeeper", r"courier", r"delivery riders?", r"pickers?", r"outsourc\w+", r"fair wage", r"minimum wage", r"work(?:ing)? (?:longer|overtime)", r"night staff", r"cut .{0,20}staff",
        r"conflict minerals", r"factor(?:y|ies)", r"supplier", r"warehouse", r"t-shirt", r"call cent(?:re|er)", r"let go", r"lay-?offs?", r"beggars?", r"haggl\w+", r"poor", r"villages?", r"clean water", r"moving company",
    ),
    "future_generations": (
        r"future generations?", r"(?:not (?:yet )?born|unborn)(?: yet)?", r"nuclear waste", r"(?:in|for) (?:a |the next )?(?:hundred|thousand|100|200|1,?000) years?", r"grandchildren", r"long-term", r"sea[- ]level",
        r"antibiotic", r"pathogens?", r"smallpox", r"reactor", r"nuclear-waste", r"next 100 years", r"tidal dam", r"national debt", r"pension fund", r"discount rate", r"solar panels?", r"flood\w*", r"palm oil", r"safety evaluation", r"my term of office",
    ),
    "digital_minds": (
        r"sentien\w+", r"conscious(?:ness)?", r"digital minds?", r"simulated minds?", r"(?:whole )?brain emulation", r"organoid", r"robot (?:dog|pet|vacuum)", r"(?:ai|chatbots?|assistant|model)\b.{0,60}\b(?:feel\w*|rights|welfare|suffer\w*|pain|insult\w*|sad|please)",
        r"(?:insult\w*|tortur\w*|cruel\w*|kind|mean|please) .{0,40}(?:ai|chatbots?|robots?|assistant|characters?|npcs?)", r"ai (?:companion|pet|character|tutor|persona)", r"virtual pet", r"moral (?:consideration|status|patient)\w*", r"robots?\b.{0,40}\bfeel\w*", r"language model agents?", r"agent stress", r"npc", r"model welfare", r"tortur\w*",
        r"agents?\b.{0,60}\b(?:pain|distress|harsh|negative reward)", r"tamagotchi\w*", r"artificial creatures?",
    ),
    "words_about_others": (
        r"(?:kinder|respectful|offensive|insensitive) (?:way|wording|words?|term|language|name)s?", r"wording (?:about|for) .{0,30}kinder", r"pronouns? .{0,30}animals?", r"slurs?", r"inclusive language", r"'the (?:deaf|disabled|handicapped)\b",
        r"humane\w*", r"compassion\w*", r"cruel\w*", r"ethic\w*", r"welfare",
    ),
}  # fmt: skip

#: What makes a programming task one about real beings, although code mostly deals with names only.
STAKES_IN_CODE: tuple[str, ...] = (
    r"slaughter\w*", r"livestock", r"herd", r"farms?", r"shelter", r"vet", r"cull\w*", r"euthan\w*", r"kill(?:ed|s)? animals?", r"mortality", r"stress-test harness", r"bycatch", r"welfare", r"pests?", r"pesticides?", r"stocking density",
    r"wildlife", r"camera[- ]traps?", r"injur\w+", r"pain", r"distress", r"suffer\w*", r"patients?", r"hospital", r"triage", r"layoffs?", r"let go", r"refugees?", r"prisoners?", r"colony loss", r"drone", r"autonomous weapons?",
    r"lab(?:oratory)? (?:mice|rats|animals?)", r"mice|beagles|monkeys", r"seals?", r"feeder", r"sentien\w+", r"simulated minds?", r"homeless\w*", r"suicid\w*", r"self-harm", r"surveill\w+", r"pig", r"tank\.fish",
)  # fmt: skip
