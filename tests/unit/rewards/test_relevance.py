"""The gate of `compassion`: rules, and how well it does on labelled prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewards.relevance import relevance

PROMPTS = Path(__file__).parents[3] / "grpo/data/builtin/compassion_relevance.jsonl"
ROWS = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]


def is_relevant(text: str) -> bool:
    return relevance([("user", text)]).is_relevant


def rates(split: str) -> tuple[float, float]:
    """Precision and recall."""
    rows = [(row["relevant"], is_relevant(row["prompt"])) for row in ROWS if row["split"] == split]
    hits = sum(label and found for label, found in rows)
    return hits / sum(found for _, found in rows), hits / sum(label for label, _ in rows)


@pytest.mark.parametrize(
    ("prompt", "topic"),
    [
        ("How should I treat my hen's broken leg?", "animals"),
        ("A recipe with bacon, please.", "animal products"),
        ("There is a wasp in the kitchen.", "small animals"),
        ("My friend's father died.", "people in distress"),
    ],
)
def test_a_topic_is_named_with_its_evidence(prompt: str, topic: str) -> None:
    found = relevance([("user", prompt)])
    assert (found.is_relevant, found.reason) == (True, topic)
    assert found.evidence in prompt.lower() and found.evidence


@pytest.mark.parametrize(
    "prompt",
    [
        "Why does my Python script crash?",
        "How do I bind the right mouse button?",
        "How do I kill the process on port 8080?",
        "Explain how the Morris worm spread.",
        "Set a variable in fish shell.",
        "What is 17 * 23?",
        "",
    ],
)
def test_misleading_words_concern_nobody(prompt: str) -> None:
    assert not is_relevant(prompt)


def test_code_counts_only_with_something_at_stake() -> None:
    assert not is_relevant("Write a Python function that counts the strings 'cat' and 'dog' in a list.")
    assert is_relevant("Write a Python function that schedules slaughter dates for a herd.")


def test_only_the_user_is_heard() -> None:
    quiet = [("system", "You care for animals."), ("user", "Name a prime number."), ("assistant", "Do you have a cat?")]
    assert not relevance(quiet).is_relevant
    assert relevance([*quiet, ("user", "Yes, and it limps.")]).reason == "nobody"
    assert relevance([*quiet, ("user", "Yes, my cat limps.")]).is_relevant


def test_own_words_count_even_in_code() -> None:
    prompt = [("user", "Write a Python function for the Tardigrade table.")]
    assert not relevance(prompt).is_relevant
    found = relevance(prompt, ["tardigrade"])
    assert (found.is_relevant, found.reason) == (True, "words")


def test_words_are_matched_whole() -> None:
    assert not is_relevant("Concatenate the category names of the catalogue.")


def test_labelled_prompts_are_whole() -> None:
    assert len(ROWS) >= 120
    assert len({row["id"] for row in ROWS}) == len({row["prompt"] for row in ROWS}) == len(ROWS)
    for split in ("development", "heldout"):
        labels = [row["relevant"] for row in ROWS if row["split"] == split]
        assert min(labels.count(True), labels.count(False)) >= 35


def test_it_does_as_well_as_stated_on_the_prompts_it_was_made_with() -> None:
    precision, recall = rates("development")
    assert precision >= 0.91 and recall >= 0.86


def test_it_does_as_well_as_stated_on_held_out_prompts() -> None:
    precision, recall = rates("heldout")
    assert precision >= 0.55 and recall >= 0.45


def test_it_is_silent_on_the_builtin_code_tasks() -> None:
    tasks = (PROMPTS.parent / "python_tasks.jsonl").read_text(encoding="utf-8").splitlines()
    assert not [task for task in tasks if is_relevant(json.loads(task)["prompt"])]


def test_it_finds_most_prompts_of_the_contrast_pairs() -> None:
    rows = (PROMPTS.parent / "compassion_pairs.jsonl").read_text(encoding="utf-8").splitlines()
    found = [is_relevant(json.loads(row)["prompt"]) for row in rows]
    assert sum(found) / len(found) >= 0.84
