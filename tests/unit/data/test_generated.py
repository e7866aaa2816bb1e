"""Paths of generated sets, and the tasks that the package makes where it is installed."""

import builtins
from collections import Counter
from typing import Any

import pytest

from grpo.config import DataConfig, DataSchema
from grpo.data.sources import load_tasks
from grpo.errors import DataError


def load(names, **config):
    return load_tasks(DataConfig(path=f"reasoning_gym:{names}", schema=DataSchema.reasoning_gym, **config))


def generated(task) -> Any:
    return task.reference["reasoning_gym"]


def test_tasks_of_several_kinds_in_their_shares():
    gym = pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    tasks = load("leg_counting:2+chain_sum/size-30/seed-5")
    kinds = [generated(task)["dataset"] for task in tasks]
    assert Counter(kinds) == {"leg_counting": 20, "chain_sum": 10}
    assert Counter(kinds[:6]) == {"leg_counting": 4, "chain_sum": 2}, "they are spread over the order"
    assert [t.task_id for t in tasks if "chain" in t.task_id][:2] == ["chain_sum-5-0", "chain_sum-5-1"]
    scorer = gym.get_score_answer_fn("chain_sum")
    for task in tasks:
        entry = generated(task)["entry"]
        assert task.messages == (("user", entry["question"]),)
        assert task.domain == "reasoning"
        if "chain" in task.task_id:
            assert scorer(entry["answer"], entry) == 1.0
    assert load("leg_counting:2+chain_sum/size-30/seed-5") == tasks
    assert load("leg_counting:2+chain_sum/size-30/seed-6") != tasks


def test_limit_and_an_unknown_kind():
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    assert len(load("chain_sum", limit=4)) == 4
    with pytest.raises(DataError, match=r"makes no 'chain_sums'; did you mean chain_sum"):
        load("chain_sums")
    with pytest.raises(DataError, match=r"makes no 'qqqqqq'; it has "):
        load("qqqqqq")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("", "expected reasoning_gym:NAME"),
        ("a,b", "expected reasoning_gym:NAME"),
        ("a:x", "expected reasoning_gym:NAME"),
        ("a+", "expected reasoning_gym:NAME"),
        ("a/size-x", "expected reasoning_gym:NAME"),
        ("a+a", "name 'a' once"),
        ("a:0", "with a weight above 0"),
        ("a/size-0", "a size of 0"),
    ],
)
def test_malformed_paths(names, words):
    with pytest.raises(DataError, match=words):
        load(names)


def test_path_and_schema_go_together():
    with pytest.raises(DataError, match="go together, and the schema is keel"):
        load_tasks(DataConfig(path="reasoning_gym:chain_sum"))
    with pytest.raises(DataError, match="go together, and the schema is reasoning_gym"):
        load_tasks(DataConfig(schema=DataSchema.reasoning_gym))


def test_without_the_package_the_message_names_it(monkeypatch):
    importing = builtins.__import__

    def refuse(name, *rest, **more):
        if name.partition(".")[0] == "reasoning_gym":
            raise ModuleNotFoundError("No module named 'reasoning_gym'")
        return importing(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DataError, match="pip install reasoning-gym"):
        load("chain_sum")
