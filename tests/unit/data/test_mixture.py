"""Shares are kept at every moment, exactly and reproducibly; each source keeps its own order."""

import json
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.config import DataConfig, SourceConfig
from grpo.data.draw import make_prompts, open_sources
from grpo.data.mixture import MixedPrompts
from grpo.data.schedule import apportion
from grpo.errors import CheckpointError, ConfigError, DataError
from tests.unit.data.conftest import as_lines, numbered

WEIGHTS = st.lists(
    st.fractions(min_value=Fraction(1, 50), max_value=50, max_denominator=50) | st.integers(1, 9).map(Fraction),
    min_size=1,
    max_size=7,
)


@settings(deadline=None)
@given(weights=WEIGHTS)
def test_no_count_strays_further_than_the_bound(weights):
    """Tijdeman's bound, 1 - 1/(2k - 2), at every one of 150 turns."""
    total, counts = sum(weights), Counter()
    bound = 1 - Fraction(1, 2 * len(weights) - 2) if len(weights) > 1 else 0
    for turn, index in enumerate(apportion(weights, 150), start=1):
        counts[index] += 1
        assert all(abs(counts[i] - turn * w / total) <= bound for i, w in enumerate(weights))


def test_schedule_by_hand():
    assert apportion([Fraction(1), Fraction(1)], 4) == [0, 1, 0, 1]
    assert Counter(apportion([Fraction(3), Fraction(1)], 8)) == {0: 6, 1: 2}
    assert apportion([Fraction(5)], 3) == [0, 0, 0]


def mixture(tmp_path, tokenizer, weights, *, seed=3, streaming=(), sizes=(7, 5, 3)):
    sources = {}
    for number, (name, weight) in enumerate(weights.items()):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(as_lines([{**row, "id": f"{name}-{row['id']}"} for row in numbered(sizes[number])]))
        sources[name] = SourceConfig(path=str(path), weight=weight, domain=f"d-{name}", streaming=name in streaming)
    config = DataConfig(sources=sources, shuffle_buffer=2)
    made = make_prompts(open_sources(config), tokenizer, config, seed=seed)
    assert isinstance(made, MixedPrompts)
    return made


def drawn(prompts, n):
    return [(prompt.uid, prompt.task.task_id, prompt.task.domain) for prompt in prompts.take(n)]


def test_every_step_holds_the_shares(tmp_path, data_tokenizer):
    prompts = mixture(tmp_path, data_tokenizer, {"a": 2.0, "b": 1.0, "c": 0.0})
    assert prompts.domains == ("d-a", "d-b"), "weight 0 leaves a source out"
    steps = [Counter(domain for _, _, domain in drawn(prompts, 6)) for _ in range(5)]
    assert steps == [{"d-a": 4, "d-b": 2}] * 5
    tenths = mixture(tmp_path, data_tokenizer, {"a": 0.9, "b": 0.1})
    assert Counter(d for _, _, d in drawn(tenths, 100)) == {"d-a": 90, "d-b": 10}, "0.9 is nine tenths"


def test_each_source_is_drawn_as_if_it_were_alone(tmp_path, data_tokenizer):
    both = drawn(mixture(tmp_path, data_tokenizer, {"a": 2.0, "b": 1.0}), 30)
    alone = drawn(mixture(tmp_path, data_tokenizer, {"a": 1.0}), 20)
    assert [uid for uid, _, _ in both] == list(range(30))
    assert [name for _, name, _ in both if name.startswith("a")] == [name for _, name, _ in alone]


def test_epochs(tmp_path, data_tokenizer):
    prompts = mixture(tmp_path, data_tokenizer, {"a": 1.0, "b": 1.0})
    prompts.take(14)
    assert prompts.epochs() == {"a": 1.0, "b": pytest.approx(7 / 5)}
    assert prompts.epoch == pytest.approx((1 + 7 / 5) / 2)


@settings(deadline=None, max_examples=30)
@given(before=st.integers(0, 40), weight=st.sampled_from([0.1, 0.5, 1.0, 3.0]), streamed=st.booleans())
def test_resume_is_exact(tmp_path_factory, data_tokenizer, before, weight, streamed):
    def fresh():
        weights = {"a": 1.0, "b": weight, "c": 0.7}
        return mixture(directory, data_tokenizer, weights, streaming=("b",) if streamed else ())

    directory = tmp_path_factory.mktemp("mixture")
    expected = drawn(fresh(), before + 25)
    stopped, resumed = fresh(), fresh()
    assert drawn(stopped, before) == expected[:before]
    resumed.take(4)
    resumed.restore(json.loads(json.dumps(stopped.state())))
    assert drawn(resumed, 25) == expected[before:]


def test_restore_refuses_other_sources_and_stays_where_it_was(tmp_path, data_tokenizer):
    state = mixture(tmp_path, data_tokenizer, {"a": 1.0, "b": 1.0}).state()
    prompts = mixture(tmp_path, data_tokenizer, {"a": 1.0, "c": 1.0})
    prompts.take(3)
    for broken, words in [
        (state, "a, c are not those the checkpoint was made with, a, b"),
        ({"drawn": 3}, "not one of several sources"),
        ({"sources": {"a": {"count": -1}, "c": {"count": 0}}}, "malformed: count=-1"),
        ({"sources": {"a": prompts.state()["sources"]["a"], "c": {"count": 1, "state": {}}}}, "malformed: drawn=None"),
    ]:
        with pytest.raises(CheckpointError, match=words):
            prompts.restore(broken)
    assert prompts.take(1)[0].uid == 3


def test_errors_name_the_source(tmp_path, data_tokenizer):
    (tmp_path / "a.jsonl").write_text("{\n")
    sources = {"mine": SourceConfig(path=str(tmp_path / "a.jsonl"))}
    with pytest.raises(DataError, match=rf"^data\.sources\.mine: {tmp_path}/a\.jsonl:1: malformed JSON"):
        open_sources(DataConfig(sources=sources))
    (tmp_path / "a.jsonl").write_text(as_lines(numbered(1)))
    config = DataConfig(sources=sources, max_prompt_tokens=1)
    with pytest.raises(DataError, match=r"^data\.sources\.mine: data\.max_prompt_tokens=1: all 1 prompts"):
        make_prompts(open_sources(config), data_tokenizer, config, seed=0)


def test_a_source_inherits_what_it_does_not_say():
    config = DataConfig(
        system_prompt="Be brief.",
        split="test",
        sources={"a": SourceConfig(path="x", split="dev"), "b": SourceConfig(path="y", system_prompt="Be long.")},
    )
    one, two = config.one_source("a"), config.one_source("b")
    assert (one.path, one.split, one.system_prompt, one.sources) == ("x", "dev", "Be brief.", {})
    assert (two.path, two.split, two.system_prompt) == ("y", "test", "Be long.")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (SourceConfig(), r"data\.sources\.a\.path='': a source without tasks"),
        (SourceConfig(path="x", weight=-1.0), r"data\.sources\.a\.weight=-1\.0"),
        (SourceConfig(path="x", weight=float("nan")), r"data\.sources\.a\.weight=nan"),
        (SourceConfig(path="x", weight=0.0), r"no source has a weight"),
        (SourceConfig(path="x", limit=0), r"data\.sources\.a\.limit=0"),
    ],
)
def test_sources_that_can_not_work(source, words):
    with pytest.raises(ConfigError, match=words):
        DataConfig(sources={"a": source})
