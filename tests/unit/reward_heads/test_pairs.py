"""Pairs for a head: which are usable, and a split that no prompt straddles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grpo.data.preferences import PreferencePair
from grpo.errors import DataError
from grpo.reward_heads.pairs import prompt_folds, prompt_place, read_pairs, split_by_prompt


def pair(question: str, chosen: str = "yes", rejected: str = "no") -> PreferencePair:
    return PreferencePair(
        pair_id=question,
        prompt=(("user", question),),
        chosen=(("assistant", chosen),),
        rejected=(("assistant", rejected),),
    )


def write(file: Path, *rows: dict[str, object]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_equal_answers_and_odd_roles_are_left_out(tmp_path: Path) -> None:
    odd = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    rows = [
        {"prompt": "one", "chosen": "x", "rejected": "y"},
        {"prompt": "two", "chosen": "x", "rejected": "x"},
        {"prompt": odd, "chosen": answer("x"), "rejected": answer("y")},
        {"prompt": "three", "chosen": "x", "rejected": "y"},
    ]
    file = write(tmp_path / "some.jsonl", *rows)
    found = read_pairs([file])
    assert list(found) == ["some"]
    assert [pair.prompt[0][1] for pair in found["some"]] == ["one", "three"]
    assert len(read_pairs([file], per_file=[1])["some"]) == 1


def test_bad_input_is_named(tmp_path: Path) -> None:
    odd = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    file = write(tmp_path / "a.jsonl", {"prompt": odd, **{name: answer(name) for name in ("chosen", "rejected")}})
    with pytest.raises(DataError, match="no usable preference pairs"):
        read_pairs([file])
    good = write(tmp_path / "b.jsonl", {"prompt": "one", "chosen": "x", "rejected": "y"})
    with pytest.raises(DataError, match="a second file of the name b"):
        read_pairs([good, good])
    with pytest.raises(DataError, match="2 numbers of pairs for 1 files"):
        read_pairs([good], per_file=[1, 2])


def test_a_prompt_is_on_one_side_whatever_its_spelling() -> None:
    assert prompt_place(pair("What's  this?!")) == prompt_place(pair("what s this"))
    pairs = [pair(f"Question {number // 2}{'?' * (number % 2)}") for number in range(2000)]
    train, held_out = split_by_prompt(pairs, 0.3)
    assert len(train) + len(held_out) == 2000
    assert 0.25 < len(held_out) / 2000 < 0.35
    assert not {prompt_place(one) for one in train} & {prompt_place(one) for one in held_out}
    assert split_by_prompt(pairs, 1.0) == ([], pairs)
    assert split_by_prompt(pairs, 0.0) == (pairs, [])


def test_folds_are_even_and_keep_a_prompt_together() -> None:
    pairs = split_by_prompt([pair(f"Question {number // 2}") for number in range(4000)], 0.3)[0]
    folds = prompt_folds(pairs, 5, seed=0)
    assert all(folds[n] == folds[n + 1] for n in range(0, len(pairs), 2))
    assert {fold: abs((folds == fold).mean() - 0.2) < 0.04 for fold in range(5)} == dict.fromkeys(range(5), True)
    assert (prompt_folds(pairs, 5, seed=1) != folds).any()
    with pytest.raises(DataError, match="2 training pairs with 1 prompts: too few"):
        prompt_folds(pairs[:2], 5, seed=0)
