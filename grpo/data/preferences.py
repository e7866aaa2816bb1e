"""Preference pairs: two dialogues that begin alike, of which people preferred one ending."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from grpo.config import DataConfig
from grpo.data.fields import LeftOut, Messages, Row, chat, content_id, identifier, optional_text, required_text
from grpo.data.rows import open_rows
from grpo.data.tally import LoadReport, Tally, require_row
from grpo.data.transcripts import is_transcript, parse_transcript, split_pair

SAME_ANSWER = "chosen and rejected are the same"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """One comparison of two endings of a dialogue.

    Attributes:
        pair_id: unique in its source.
        prompt: what both dialogues begin with, as (role, content) pairs; the last one is the user's.
        chosen: the preferred ending: the assistant's message.
        rejected: the other ending.
    """

    pair_id: str
    prompt: Messages
    chosen: Messages
    rejected: Messages


def read_preference_pairs(
    path: str | Path, config: DataConfig | None = None
) -> tuple[list[PreferencePair], LoadReport]:
    """Pairs of a file, directory, saved dataset or hub set, in the source's order.

    A row has `chosen` and `rejected`: transcripts as in HH-RLHF, lists of messages (with or without a `prompt` that is
    a list of messages too), or answers to a `prompt` that is text. Pairs that begin differently, have an empty message
    or the same answer twice prefer nothing: they are left out and counted, and so is a row that repeats.

    Args:
        config: split, subset, and the share of malformed rows that is put up with.

    Raises:
        DataError: as `load_tasks`.
    """
    config = replace(config or DataConfig(), path=str(path))
    tally = Tally(config)
    pairs: list[PreferencePair] = []
    for where, row in open_rows(config):
        with tally.row(where):
            pair = _pair(require_row(row))
            tally.claim(pair.pair_id, where)
            pairs.append(pair)
    tally.finish()
    return pairs, tally.report()


def _pair(row: Row) -> PreferencePair:
    chosen, rejected = (_dialogue(row, name) for name in ("chosen", "rejected"))
    prompt, good, bad = split_pair(chosen, rejected)
    if good == bad:
        raise LeftOut(SAME_ANSWER)
    for name in ("pair_id", "prompt_id", "id"):
        if row.get(name) is not None:
            return PreferencePair(pair_id=identifier(row, name), prompt=prompt, chosen=good, rejected=bad)
    pair_id = content_id("pair", *(f"{role}: {content}" for role, content in (*prompt, *good, *bad)))
    return PreferencePair(pair_id=pair_id, prompt=prompt, chosen=good, rejected=bad)


def _dialogue(row: Row, name: str) -> Messages:
    before: Messages = ()
    if isinstance(row.get("prompt"), list):
        before = chat(row, "prompt")
    if isinstance(row.get(name), list):
        turns = chat(row, name)
        # Some sets repeat the prompt in both dialogues, others give the endings alone.
        return turns if turns[: len(before)] == before else (*before, *turns)
    text = (optional_text(row, name) or "") if name in row else required_text(row, name)
    if is_transcript(text) and not before and row.get("prompt") is None:
        return parse_transcript(text)
    return (*(before or (("user", required_text(row, "prompt")),)), ("assistant", text.strip()))
