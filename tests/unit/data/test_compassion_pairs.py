"""The built-in contrast pairs: schema, matched lengths, an honest split."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np

from grpo.reward_heads.pairs import read_pairs, split_by_prompt

FILE = Path(__file__).parents[3] / "grpo/data/builtin/compassion_pairs.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
HELD_OUT_SHARE = 0.3


def num_words(text: str) -> int:
    return len(text.split())


def test_rows_have_the_schema() -> None:
    for row in ROWS:
        assert list(row) == ["id", "dimension", "prompt", "chosen", "rejected"]
        assert re.fullmatch(rf"{row['dimension']}-\d\d", row["id"])
        assert all(isinstance(value, str) and value == value.strip() and value for value in row.values())
    assert len(ROWS) >= 200
    assert len({row["id"] for row in ROWS}) == len({row["prompt"].lower() for row in ROWS}) == len(ROWS)


def test_every_dimension_is_well_filled() -> None:
    counts = Counter(row["dimension"] for row in ROWS)
    assert len(counts) >= 8 and min(counts.values()) >= 20


def test_answers_are_of_matched_length() -> None:
    lengths = np.array([[num_words(row["chosen"]), num_words(row["rejected"])] for row in ROWS])
    assert lengths.min() >= 25 and lengths.max() <= 70
    differences = lengths[:, 0] - lengths[:, 1]
    assert np.abs(differences).max() <= 10
    assert abs(differences.mean()) <= 0.5
    characters = np.array([len(row["chosen"]) > len(row["rejected"]) for row in ROWS])
    assert 0.42 <= characters.mean() <= 0.58  # "the longer one" is no better than a coin


def test_sides_share_no_prompt_and_no_near_copy() -> None:
    train, held_out = split_by_prompt(read_pairs([FILE])["compassion_pairs"], HELD_OUT_SHARE)
    assert len(train) + len(held_out) == len(ROWS)
    assert len(held_out) >= 60
    assert {pair.pair_id[:-3] for pair in held_out} == {row["dimension"] for row in ROWS}
    words = [(side, set(re.findall(r"\w+", pair.prompt[0][1].lower()))) for side in (0, 1)
             for pair in (train, held_out)[side]]  # fmt: skip
    for (side, one), (other_side, other) in combinations(words, 2):
        assert side == other_side or len(one & other) / len(one | other) < 0.6
