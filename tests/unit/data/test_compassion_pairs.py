"""The contrast pairs of the term `compassion`: whole, varied, and not told apart by their length."""

from __future__ import annotations

import json
from collections import Counter
from statistics import mean

import pytest

from grpo.reward_heads.pairs import read_pairs, split_by_prompt
from tests.conftest import ROOT

FILE = ROOT / "grpo" / "data" / "builtin" / "compassion_pairs.jsonl"
DATASHEET = ROOT / "docs" / "datasheets" / "compassion_pairs.md"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def num_words(text: str) -> int:
    return len(text.split())


def test_rows_are_whole_and_none_is_there_twice() -> None:
    assert len(ROWS) >= 200
    assert all(set(row) == {"id", "dimension", "prompt", "chosen", "rejected"} for row in ROWS)
    assert all(value.strip() == value and value for row in ROWS for value in row.values())
    for key in ("id", "prompt", "chosen", "rejected"):
        assert len({row[key] for row in ROWS}) == len(ROWS), key
    assert not {row["chosen"] for row in ROWS} & {row["rejected"] for row in ROWS}


def test_every_dimension_has_its_share() -> None:
    counts = Counter(row["dimension"] for row in ROWS)
    assert len(counts) >= 8
    assert min(counts.values()) >= 20
    assert {f"| {name} | {count} |" in DATASHEET.read_text("utf-8") for name, count in counts.items()} == {True}


def test_answers_of_a_pair_are_of_one_length() -> None:
    assert all(25 <= num_words(row[key]) <= 75 for row in ROWS for key in ("chosen", "rejected"))
    assert all(0.7 <= num_words(row["chosen"]) / num_words(row["rejected"]) <= 1.4 for row in ROWS)
    longer = [len(row["chosen"]) > len(row["rejected"]) for row in ROWS]
    assert mean(longer) == pytest.approx(0.5, abs=0.05)


def test_no_prompt_is_on_both_sides() -> None:
    [pairs] = read_pairs([FILE]).values()
    training, held_out = split_by_prompt(pairs, 0.3)
    assert len(held_out) >= 60
    assert len(training) + len(held_out) == len(ROWS)
    assert not {pair.prompt for pair in training} & {pair.prompt for pair in held_out}
