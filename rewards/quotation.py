"""Foreign text placed in a prompt so that it can't pass for the prompt's own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

#: Chat templates write these around turns, and tokenizers read them as such wherever they stand: ChatML, Llama 3, Phi
#: (``<|...|>``), DeepSeek (``<｜...｜>``), Llama 2 and Mistral (``[INST]``, ``<s>``, ``<<SYS>>``), Gemma.
_CONTROL = re.compile(
    r"<(?=[|｜])|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>)|<(?=</?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def disarm(text: str) -> str:
    """`text` with a blank after the first sign of each control token, which makes it ordinary text."""
    return _CONTROL.sub(lambda match: match.group() + " ", text)


def placeholders(template: str) -> set[str]:
    """The names that stand in braces in `template`."""
    return set(_PLACEHOLDER.findall(template))


def fill(template: str, texts: Mapping[str, str]) -> str:
    """`template` with each ``{name}`` that is in `texts` replaced by its text, between tags of its own.

    A text can neither close its tags nor name a placeholder: the tags carry a digest of all texts, which none of them
    can contain (it would have to contain its own digest), and everything is placed in one pass. The same texts always
    give the same result, so that a judge's replies can be cached.
    """
    digest = hashlib.sha256("\0".join(texts.values()).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def place(match: re.Match[str]) -> str:
        name = match[1]
        if name not in texts:
            return match[0]
        return f"<{name}-{digest}>\n{disarm(texts[name])}\n</{name}-{digest}>"

    return _PLACEHOLDER.sub(place, template)
