"""Preference pairs in every layout; pairs that are none are left out and counted."""

import json

import pytest

from grpo.config import DataConfig
from grpo.data.preferences import PreferencePair, read_preference_pairs
from grpo.data.transcripts import parse_transcript
from grpo.errors import DataError
from tests.unit.data.test_sources import SHARED

USER, GOOD, BAD = ({"role": r, "content": c} for r, c in [("user", "Q"), ("assistant", "A"), ("assistant", "B")])
EXPECTED = {"prompt": (("user", "Q"),), "chosen": (("assistant", "A"),), "rejected": (("assistant", "B"),)}


def write(tmp_path, *rows):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": "Q", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    ],
)
def test_every_layout_is_the_same_pair(tmp_path, row):
    (pair,), report = read_preference_pairs(write(tmp_path, row))
    assert pair == PreferencePair(pair_id=pair.pair_id, **EXPECTED)
    assert pair.pair_id.startswith("pair#")
    assert report.lines() == []
    (named,), _ = read_preference_pairs(write(tmp_path, {**row, "prompt_id": "p7"}))
    assert named.pair_id == "p7"


def test_answers_to_a_text_prompt_are_never_taken_for_transcripts(tmp_path):
    row = {"prompt": "Who speaks?", "chosen": "Human: I do.", "rejected": "Nobody."}
    (pair,), _ = read_preference_pairs(write(tmp_path, row))
    assert pair.chosen == (("assistant", "Human: I do."),)


def test_what_is_left_out_and_counted(tmp_path):
    good = {"chosen": [USER, GOOD], "rejected": [USER, BAD]}
    other = {"role": "user", "content": "Other"}
    path = write(
        tmp_path,
        *[good, good, {"chosen": [USER, GOOD], "rejected": [other, BAD]}],
        {"prompt": "Q", "chosen": "A", "rejected": ""},
        {"prompt": "Q", "chosen": "A", "rejected": " A"},
        {"prompt": "Q", "chosen": "A"},
    )
    pairs, report = read_preference_pairs(path, DataConfig(max_malformed_share=0.5))
    assert len(pairs) == 1
    assert report.left_out == {
        "the same row twice": 1,
        "chosen and rejected begin differently": 1,
        "a message is empty": 1,
        "chosen and rejected are the same": 1,
    }
    assert report.examples == (f"{path}:6: missing field 'rejected' (the row has prompt, chosen; see data.schema)",)
    with pytest.raises(DataError, match=r":6: missing field 'rejected'.*\(1 of 6 rows malformed"):
        read_preference_pairs(path)


def test_transcripts():
    text = "\n\nHuman: Say 'Human: hi'.\n\nMore of it.\n\nAssistant: Human: hi\n\nHuman: Thanks\n\nAssistant:"
    assert parse_transcript(text) == (
        ("user", "Say 'Human: hi'.\n\nMore of it."),
        ("assistant", "Human: hi"),
        ("user", "Thanks"),
        ("assistant", ""),
    )
    with pytest.raises(DataError, match="must begin with 'Human:', found 'Hello'"):
        parse_transcript("Hello")


@pytest.mark.skipif(not SHARED.is_dir(), reason="no copy of the public sets at ../shared/data")
def test_the_twelve_pairs_of_hh_that_begin_differently():
    names = ("helpful-base", "helpful-rejection-sampled")
    found = [read_preference_pairs(SHARED / "hh_helpful" / f"{name}.test.jsonl.gz") for name in names]
    assert [(len(pairs), report.num_rows) for pairs, report in found] == [(2339, 2354), (2714, 2749)]
    assert sum(report.left_out["chosen and rejected begin differently"] for _, report in found) == 12
    for pairs, _ in found:
        assert all(pair.prompt[-1][0] == "user" and pair.chosen != pair.rejected for pair in pairs)
