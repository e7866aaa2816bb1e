"""One small row in each public set's layout, written for these tests, becomes the task that rewards read."""

import json

import pytest

from grpo.config import DataConfig, DataSchema, Prefill
from grpo.data.fields import LeftOut
from grpo.data.schemas import READERS
from grpo.errors import DataError

HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": 'import math\n\n\ndef helper(x):\n    return x\n\n\ndef area(r: float) -> float:\n    """Area."""\n',
    "canonical_solution": "    return math.pi * helper(r) ** 2\n",
    "test": "def check(candidate):\n    assert candidate(0) == 0\n",
    "entry_point": "area",
}
LEETCODE = {
    "task_id": "sum-two",
    "question_id": 9000,
    "difficulty": "Easy",
    "problem_description": "Add two integers.",
    "starter_code": "class Solution:\n    def add(self, a: int, b: int) -> int:\n        ",
    "prompt": "import math\nfrom typing import *\n",
    "entry_point": "Solution().add",
    "test": "def check(candidate):\n    assert candidate(a=1, b=2) == 3\n",
}
KODCODE = {
    "style": "instruct",
    "subset": "Prefill",
    "question_id": "Prefill_9_I",
    "question": "Write a function that halves a number.",
    "solution": "def halve(x):\n    return x / 2",
    "test": "from solution import halve\n\ndef test_halve():\n    assert halve(4) == 2\n",
    "test_info": [{"function_name": "halve", "function_declaration": "def halve(x):", "parameter_list": "(x)"}],
}
EXERCISM = {
    "slug": "two-step",
    "difficulty": 1,
    "instructions": "# Instructions\n\nReturn two.\n",
    "stub_file": "two_step.py",
    "stub": "def two():\n    pass\n",
    "test_file": "two_step_test.py",
    "test": "import unittest\nfrom two_step import two\n",
}
APPS = {
    "problem_id": 3,
    "question": "Read a number and print its double.\n",
    "input_output": json.dumps({"inputs": ["2\n", ["3", "4"]], "outputs": ["4\n", ["6", "8"]]}),
    "difficulty": "introductory",
    "starter_code": "",
}
CALLS = {
    **APPS,
    "input_output": json.dumps({"fn_name": "add", "inputs": [[1, 2], [0, 0]], "outputs": [[3], [0]]}),
}
TACO = {name: value for name, value in APPS.items() if name != "problem_id"}
STDIN_CASES = [{"input": "2\n", "output": "4\n"}, {"input": "3\n4", "output": "6\n8"}]
SYNTHETIC = {
    "problem_id": "vcp_7",
    "task_type": "verifiable_code",
    "prompt": "Print twice the number read.",
    "verification_info": {
        "language": "python",
        "test_cases": [{"input": "2\n", "output": "4\n", "type": "stdin_stdout", "fn_name": None}],
    },
}
GYM = {"question": "2 + 2?", "answer": "4", "metadata": {"source_index": 0}, "dataset": "sums", "id": "sums-0-0"}


def read(row, schema, **config):
    return READERS[DataSchema(schema)](row, DataConfig(schema=DataSchema(schema), **config))


def prompt(task):
    ((role, content),) = task.messages
    assert role == "user"
    return content


def test_humaneval():
    task = read(HUMANEVAL, "humaneval", prefill=Prefill.signature)
    assert (task.task_id, task.domain) == ("HumanEval/900", "code")
    assert prompt(task).endswith(f"```python\n{HUMANEVAL['prompt'].strip()}\n```")
    assert task.prefill == "```python\ndef area(r: float) -> float:"
    assert task.reference == {
        "form": "check",
        "test": HUMANEVAL["test"],
        "entry_point": "area",
        "preamble": "import math\n\n\ndef helper(x):\n    return x\n\n\n",
    }


def test_leetcode():
    task = read(LEETCODE, "leetcode")
    assert (
        prompt(task)
        == f"Add two integers.\n\nUse this starter code:\n\n```python\n{LEETCODE['starter_code'].strip()}\n```"
    )
    assert task.reference == {
        "form": "check",
        "test": LEETCODE["test"],
        "entry_point": "Solution().add",
        "preamble": LEETCODE["prompt"],
    }
    query = f"Solve this.\n{LEETCODE['starter_code']}"
    assert prompt(read({**LEETCODE, "query": query}, "leetcode")) == query, "it shows the starter code already"


def test_leetcode_with_prose_for_a_prompt():
    row = {k: v for k, v in LEETCODE.items() if k != "problem_description"} | {"prompt": "Add two integers, please."}
    task = read(row, "leetcode")
    assert prompt(task).startswith("Add two integers, please.\n\nUse this starter code")
    assert task.reference["preamble"] == ""
    with pytest.raises(DataError, match="missing field 'problem_description'"):
        read({**row, "prompt": "import math"}, "leetcode")


def test_kodcode():
    task = read(KODCODE, "kodcode", prefill=Prefill.signature)
    assert prompt(task) == "Write a function that halves a number.\n\nUse this signature: `def halve(x):`"
    assert task.prefill == "```python\ndef halve(x):"
    assert task.reference == {
        "form": "test_file",
        "test": KODCODE["test"],
        "module": "solution",
        "entry_point": "halve",
    }
    named = {**KODCODE, "question": "Write halve(x)."}
    assert prompt(read(named, "kodcode")) == "Write halve(x)."
    several = read({**KODCODE, "test_info": KODCODE["test_info"] * 2}, "kodcode")
    assert (prompt(several), several.reference["entry_point"]) == (KODCODE["question"], None)
    with pytest.raises(DataError, match="field 'test_info': expected a list of objects"):
        read({**KODCODE, "test_info": ["halve"]}, "kodcode")


def test_exercism():
    task = read(EXERCISM, "exercism")
    assert task.task_id == "exercism-two-step"
    assert prompt(task).endswith("Return two.\n\nStart from this code:\n\n```python\ndef two():\n    pass\n```")
    assert task.reference == {
        "form": "test_file",
        "test": EXERCISM["test"],
        "module": "two_step",
        "entry_point": None,
    }
    with pytest.raises(DataError, match=r"field 'stub_file': 'two-step\.py' is not the name of a Python module"):
        read({**EXERCISM, "stub_file": "two-step.py"}, "exercism")


def test_apps_stdin():
    task = read(APPS, "apps")
    assert task.task_id == "apps-3"
    assert prompt(task).endswith(
        "print its double.\n\nWrite a program that reads from standard input and writes to standard output."
    )
    assert task.reference == {"form": "stdin", "cases": STDIN_CASES}


def test_apps_calls():
    task = read(CALLS, "apps")
    assert prompt(task).endswith("Write a function named `add`.")
    cases = [{"args": [1, 2], "expected": 3}, {"args": [0, 0], "expected": 0}]
    assert task.reference == {"form": "calls", "entry_point": "add", "cases": cases}


def test_outputs_are_unwrapped_only_where_all_are_wrapped():
    tests = {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[3], []]}
    task = read({**APPS, "input_output": json.dumps(tests)}, "apps")
    assert task.reference["cases"] == [{"args": [1], "expected": [3]}, {"args": [2], "expected": []}]


def test_apps_starter_code():
    starter = "def add(a, b):"
    assert prompt(read({**CALLS, "starter_code": starter}, "apps")).endswith(f"```python\n{starter}\n```")


@pytest.mark.parametrize("empty", ["", None, "{}", '{"inputs": [], "outputs": []}'])
def test_apps_without_tests_is_left_out(empty):
    with pytest.raises(LeftOut, match="no test cases"):
        read({**APPS, "input_output": empty}, "apps")


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ('{"inputs": ["1"], "outputs": []}', "field 'input_output': 1 inputs and 0 outputs"),
        ('{"inputs": 3, "outputs": []}', "field 'inputs': expected a list, found int '3'"),
        ('{"inputs": [3], "outputs": ["3"]}', "field 'inputs': expected a string or a list of lines, found int '3'"),
        ('{"fn_name": "f", "inputs": [3], "outputs": [3]}', "a call's arguments must be a list, found int '3'"),
        ("[1]", "field 'input_output': expected an object, found list"),
        ("{'inputs': [", "field 'input_output': neither JSON nor a Python literal"),
    ],
)
def test_malformed_tests_are_named(tests, message):
    with pytest.raises(DataError, match=r"^field") as caught:
        read({**APPS, "input_output": tests}, "apps")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "sentence",
    [
        "If there are multiple answers, print any of them.",
        "If there are several possible answers, you can output any.",
        "Any valid answer will be accepted.",
        "Print any permutation.",
        "If there exist multiple optimal solutions, you may print any one of these.",
    ],
)
def test_several_right_outputs_are_left_out(sentence):
    for schema, row in (("apps", APPS), ("taco", TACO)):
        with pytest.raises(LeftOut, match="several outputs are right"):
            read({**row, "question": f"{row['question']}{sentence}"}, schema)
    with pytest.raises(LeftOut, match="several outputs are right"):
        read({**SYNTHETIC, "prompt": sentence}, "synthetic1")


@pytest.mark.parametrize(
    "sentence",
    [
        "Print the answer.",
        "There are many solutions to this riddle.",
        "If any number is odd, print NO.",
        "Print anything.",
    ],
)
def test_one_right_output_stays(sentence):
    assert read({**APPS, "question": sentence}, "apps")


def test_taco_gets_its_id_from_the_question():
    one, same, other = (read(row, "taco") for row in (TACO, {**TACO, "url": "x"}, {**TACO, "question": "Other."}))
    assert one.task_id == same.task_id != other.task_id
    assert one.task_id.startswith("taco#")
    assert one.reference == {"form": "stdin", "cases": STDIN_CASES}


@pytest.mark.parametrize("written", [lambda info: info, json.dumps, repr])
def test_synthetic1_stdin(written):
    task = read({**SYNTHETIC, "verification_info": written(SYNTHETIC["verification_info"])}, "synthetic1")
    assert (task.task_id, task.domain, prompt(task)) == ("vcp_7", "code", SYNTHETIC["prompt"])
    assert task.reference == {"form": "stdin", "cases": [{"input": "2\n", "output": "4\n"}]}


def test_synthetic1_calls_and_answers():
    cases = [{"fn_name": "add", "input": "[1, 2]", "output": "[3]", "type": "function_call"}]
    task = read({**SYNTHETIC, "verification_info": {"language": "python", "test_cases": cases}}, "synthetic1")
    assert task.reference == {"form": "calls", "entry_point": "add", "cases": [{"args": [1, 2], "expected": 3}]}
    task = read({**SYNTHETIC, "verification_info": '{"ground_truth": "42"}'}, "synthetic1")
    assert (task.domain, task.reference) == ("math", {"answer": "42"})


@pytest.mark.parametrize(
    ("info", "error", "message"),
    [
        ({"language": "javascript", "test_cases": []}, LeftOut, "a language other than Python"),
        ({"language": "python", "test_cases": []}, LeftOut, "no test cases"),
        ({"criteria": "be kind"}, LeftOut, "a kind of verification other than"),
        ("true", DataError, "field 'verification_info': expected an object"),
        ({"test_cases": ["x"]}, DataError, "field 'test_cases': expected a list of objects"),
        ({"test_cases": [{"input": "", "output": "", "type": "x"}]}, DataError, "field 'type': expected stdin_stdout"),
        ({"test_cases": [{"input": "[]", "output": "1", "type": "function_call"}]}, DataError, "field 'fn_name'"),
    ],
)
def test_synthetic1_that_is_no_task(info, error, message):
    with pytest.raises(error, match=message):
        read({**SYNTHETIC, "verification_info": info}, "synthetic1")


@pytest.mark.parametrize(
    ("schema", "row", "asked", "answer", "domain"),
    [
        (
            "instruction",
            {"instruction": "Say it.", "input": "Hi", "output": "Hi!"},
            "Say it.\n\nHi",
            "Hi!",
            "helpfulness",
        ),
        ("instruction", {"instruction": "Say it.", "input": "", "output": None}, "Say it.", None, "helpfulness"),
        (
            "dolly",
            {"instruction": "Who?", "context": "A king.", "response": "He.", "category": "closed_qa"},
            "Who?\n\nA king.",
            "He.",
            "helpfulness",
        ),
        ("magicoder_evol", {"instruction": "Code it.", "response": "x = 1"}, "Code it.", "x = 1", "code"),
        ("magicoder_oss", {"lang": "python", "index": 4, "problem": "P", "solution": "s"}, "P", "s", "code"),
    ],
)
def test_instructions(schema, row, asked, answer, domain):
    task = read(row, schema)
    assert (prompt(task), task.domain) == (asked, domain)
    assert task.reference == ({"answer": answer} if answer else {})
    assert task.task_id == ("magicoder-oss-4" if "index" in row else read(row, schema).task_id)


def test_rlhflow():
    turns = [
        {"content": "Hi", "role": "user"},
        {"content": "Hello", "role": "assistant"},
        {"content": "Bye", "role": "user"},
    ]
    row = {"dataset": "some_set", "context": "...", "context_messages": turns, "id": "some_1"}
    task = read(row, "rlhflow")
    assert task.messages == (("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"))
    assert (task.task_id, task.domain, task.reference) == ("some_1", "helpfulness", {})
    for broken, message in [
        (turns[:2], "the last message is the assistant's; there is nothing to answer"),
        ([], "expected a list of messages, found list"),
        ([{"role": "human", "content": "x"}], r"field 'context_messages\.0\.role': expected system, user, assistant"),
        ([{"role": "user", "content": " "}], r"field 'context_messages\.0\.content': expected a string that is not"),
        (["x"], r"field 'context_messages\.0': expected an object with role and content"),
    ]:
        with pytest.raises(DataError, match=message):
            read({**row, "context_messages": broken}, "rlhflow")


def test_hh():
    start = "\n\nHuman: Hi there\n\nAssistant: Hello.\n\nHuman: Bye\n\nAssistant:"
    task = read({"chosen": f"{start} Good bye.", "rejected": f"{start} What?"}, "hh")
    assert task.messages == (("user", "Hi there"), ("assistant", "Hello."), ("user", "Bye"))
    assert (task.domain, task.reference) == ("helpfulness", {"answer": "Good bye."})
    with pytest.raises(LeftOut, match="begin differently"):
        read({"chosen": f"{start} a", "rejected": "\n\nHuman: Other\n\nAssistant: b"}, "hh")
    with pytest.raises(DataError, match="a transcript must begin with 'Human:'"):
        read({"chosen": "Hi", "rejected": "Hi"}, "hh")


@pytest.mark.parametrize(
    ("written", "answer"),
    [("2+2=4\n#### 4", "4"), ("x\n#### 1,234,000", "1234000"), ("x\n#### -3.5 ", "-3.5"), ("#### 7", "7")],
)
def test_gsm8k(written, answer):
    task = read({"question": "How many? ", "answer": written}, "gsm8k")
    assert (prompt(task), task.domain, task.reference) == ("How many?", "math", {"answer": answer})
    with pytest.raises(DataError, match="expected to end in '#### number', found str"):
        read({"question": "How many?", "answer": written.replace("####", "so")}, "gsm8k")


def test_reasoning_gym():
    task = read(GYM, "reasoning_gym")
    entry = {"question": "2 + 2?", "answer": "4", "metadata": {"source_index": 0}}
    assert (task.task_id, task.domain, prompt(task)) == ("sums-0-0", "reasoning", "2 + 2?")
    assert task.reference == {"reasoning_gym": {"dataset": "sums", "entry": entry}}


@pytest.mark.parametrize(
    ("schema", "row", "required"),
    [
        ("humaneval", HUMANEVAL, ["task_id", "prompt", "test", "entry_point"]),
        ("leetcode", LEETCODE, ["task_id", "test", "entry_point"]),
        ("kodcode", KODCODE, ["question_id", "question", "test"]),
        ("exercism", EXERCISM, ["slug", "instructions", "stub_file", "test"]),
        ("apps", APPS, ["problem_id", "question"]),
        ("taco", TACO, ["question"]),
        ("synthetic1", SYNTHETIC, ["prompt"]),
        ("instruction", {"instruction": "x"}, ["instruction"]),
        ("dolly", {"instruction": "x", "response": "y"}, ["instruction"]),
        ("magicoder_evol", {"instruction": "x", "response": "y"}, ["instruction"]),
        ("magicoder_oss", {"problem": "x", "solution": "y"}, ["problem"]),
        ("hh", {"chosen": "x", "rejected": "y"}, ["chosen", "rejected"]),
        ("gsm8k", {"question": "x", "answer": "#### 1"}, ["question", "answer"]),
        ("reasoning_gym", GYM, ["id", "question", "dataset"]),
    ],
)
def test_every_missing_field_is_named(schema, row, required):
    for name in required:
        rest = {key: value for key, value in row.items() if key != name}
        with pytest.raises(DataError, match=f"missing field '{name}' .*see data.schema"):
            read(rest, schema)


@pytest.mark.parametrize("schema", list(DataSchema))
def test_every_schema_has_a_reader(schema):
    assert callable(READERS[schema])


def test_data_domain_goes_before_the_schemas_own():
    assert read(APPS, "apps", domain="contests").domain == "contests"
