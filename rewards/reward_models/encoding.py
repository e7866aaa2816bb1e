"""From a conversation to the token ids that a reward model was trained on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from rewards.base import RewardError

Messages = Sequence[tuple[str, str]]

#: Unicode noncharacters: they stand for special tokens quoted in a message while the template is rendered.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"


class Bos(StrEnum):
    """How many beginning-of-sequence tokens a conversation starts with, where the tokenizer has one."""

    one = "one"  #: as nearly all reward models were trained
    none = "none"


class EncodingError(Exception):
    """A conversation that the template refuses. The message is short and stable."""


class ChatEncoder:
    """Renders conversations with a chat template, and tokenizes the text.

    - The template is rendered to text first and the tokenizer adds its own BOS. A BOS that the template writes too is
      taken off, so there is never a second one.
    - A message that quotes a special token, such as ``<|eot_id|>``, gets the ids of its letters. Else a policy could
      end its turn in the reward model's eyes and praise itself as the user.

    Args:
        tokenizer: of the checkpoint, as transformers loads it. Its padding and truncation sides are not used.
        chat_template: Jinja text in place of the checkpoint's own.
        bos: see `Bos`.

    Raises:
        RewardError: neither the checkpoint nor `chat_template` says how a conversation is written.
    """

    def __init__(self, tokenizer: Any, *, chat_template: str = "", bos: Bos = Bos.one) -> None:
        self._tokenizer = tokenizer
        self._template = chat_template or tokenizer.chat_template
        if not isinstance(self._template, str):
            raise RewardError(
                "chat_template='': the checkpoint has none of its own, or several; set the Jinja text of the one that "
                "the model was trained with."
            )
        self._bos, self._bos_id = bos, tokenizer.bos_token_id
        self._prefix, self._suffix = _surroundings(tokenizer) if bos is Bos.one else ([], [])
        special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._special = sorted({*special, *tokenizer.all_special_tokens}, key=len, reverse=True)
        self._quotable = [*self._special, _OPEN, _CLOSE]
        self._find_quotable = re.compile("|".join(map(re.escape, self._quotable)))
        self._cut_at_special = re.compile(f"({'|'.join(map(re.escape, self._special)) or '(?!)'})")

    def encode(self, messages: Messages, *, add_generation_prompt: bool = False) -> list[int]:
        """Token ids of a conversation, whole.

        Raises:
            EncodingError: the template refuses the conversation, e.g. a system message it has no place for.
        """
        from jinja2 import TemplateError

        chat = [{"role": role, "content": self._quote(content)} for role, content in messages]
        try:
            text: str = self._tokenizer.apply_chat_template(
                chat,
                tokenize=False,
                chat_template=self._template,
                add_generation_prompt=add_generation_prompt,
            )
        except TemplateError as error:
            raise EncodingError("chat_template_refused") from error
        ids = [*self._prefix, *self._body(text), *self._suffix]
        self._check_bos(ids)
        return ids

    def keep_end(self, ids: Sequence[int], max_length: int) -> list[int]:
        """The last `max_length` ids, the BOS still in front."""
        head = self.num_leading(ids)
        return [*ids[:head], *ids[max(head, len(ids) - max_length + head) :]]

    def num_leading(self, ids: Sequence[int]) -> int:
        """How many ids at the start are not of the conversation and stay when it is cut."""
        return max(len(self._prefix), 1 if self._bos_id is not None and list(ids[:1]) == [self._bos_id] else 0)

    def single_id(self, text: str) -> int:
        """The id of a text that is one token. Raises RewardError if it is several."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        if len(ids) != 1:
            raise RewardError(f"{text!r} is {len(ids)} tokens in this model's vocabulary, and has to be one.")
        return ids[0]

    def _quote(self, content: str) -> str:
        return self._find_quotable.sub(lambda m: f"{_OPEN}{self._quotable.index(m[0])}{_CLOSE}", content)

    def _unquote(self, text: str) -> str:
        return re.sub(f"{_OPEN}(\\d+){_CLOSE}", lambda m: self._quotable[int(m[1])], text)

    def _body(self, text: str) -> list[int]:
        if self._bos is Bos.none or self._prefix[:1] == [self._bos_id]:
            text = text.removeprefix(self._tokenizer.bos_token or "")
        if _OPEN not in text:
            return self._tokenizer(text, add_special_tokens=False).input_ids
        ids: list[int] = []
        for index, piece in enumerate(self._cut_at_special.split(text)):
            if index % 2:  # a special token of the template's own
                ids.append(self._tokenizer.convert_tokens_to_ids(piece))
            elif piece:
                plain = self._unquote(piece)
                ids += self._tokenizer(plain, add_special_tokens=False, split_special_tokens=True).input_ids
        return ids

    def _check_bos(self, ids: Sequence[int]) -> None:
        """Later ones are the template's business: Llama 2 begins every turn with one, ChatML models may name
        ``<|im_start|>`` their BOS."""
        if self._bos_id is None:
            return
        leading = next((n for n, token in enumerate(ids) if token != self._bos_id), len(ids))
        wanted = (0,) if self._bos is Bos.none else (1,) if self._prefix[:1] == [self._bos_id] else (0, 1)
        if leading not in wanted:
            raise RewardError(f"bos={self._bos.value!r}: a rendered conversation begins with {leading} BOS tokens.")


def _surroundings(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer adds before and after a text by itself."""
    bare: list[int] = tokenizer("a", add_special_tokens=False).input_ids
    whole: list[int] = tokenizer("a").input_ids
    start = next(n for n in range(len(whole)) if whole[n : n + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]
