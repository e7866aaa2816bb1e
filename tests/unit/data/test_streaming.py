"""Streams: every row once an epoch, one block in memory, exact on resume, and failures that name the row."""

import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grpo.config import DataConfig
from grpo.data.blocks import open_blocks
from grpo.data.streaming import StreamedPrompts
from grpo.errors import CheckpointError, ConfigError, DataError
from tests.unit.data.conftest import as_lines, numbered, write_source

KINDS = ["jsonl", "parquet", "saved", "directory", "gz"]
INDEXED = KINDS[:-1]


def stream(path, tokenizer, *, seed=3, buffer=4, **keys):
    config = DataConfig(path=str(path), streaming=True, shuffle_buffer=buffer, **keys)
    return StreamedPrompts(open_blocks(config), tokenizer, config, seed=seed)


def drawn(prompts, n):
    return [(prompt.uid, prompt.task.task_id, prompt.token_ids.tolist()) for prompt in prompts.take(n)]


def names(prompts, n):
    return [prompt.task.task_id for prompt in prompts.take(n)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_epoch_holds_every_row_once(tmp_path, data_tokenizer, kind, shuffle):
    prompts = stream(write_source(kind, tmp_path, numbered(19)), data_tokenizer, shuffle=shuffle)
    epochs = [names(prompts, 19) for _ in range(3)]
    assert all(sorted(epoch) == sorted(f"t{i}" for i in range(19)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == (3 if shuffle else 1)
    if not shuffle and kind != "directory":
        assert epochs[0] == [f"t{i}" for i in range(19)]


@pytest.mark.parametrize("kind", INDEXED)
def test_blocks_are_permuted_too_where_they_can_be(tmp_path, data_tokenizer, kind):
    order = names(stream(write_source(kind, tmp_path, numbered(40)), data_tokenizer), 40)
    assert {int(name[1:]) for name in order[:4]} != {0, 1, 2, 3} or {int(n[1:]) for n in order[4:8]} != {4, 5, 6, 7}
    early = [int(name[1:]) for name in order[:12]]
    assert max(early) > 12, "the first draws come from all over the source"


def test_a_compressed_file_is_read_on_and_shuffled_within_blocks(tmp_path, data_tokenizer):
    order = names(stream(write_source("gz", tmp_path, numbered(12)), data_tokenizer), 12)
    assert [sorted(order[i : i + 4]) for i in (0, 4, 8)] == [
        ["t0", "t1", "t2", "t3"],
        ["t4", "t5", "t6", "t7"],
        ["t10", "t11", "t8", "t9"],
    ]
    assert order != [f"t{i}" for i in range(12)]


def test_order_depends_on_the_seed_and_on_nothing_else(tmp_path, data_tokenizer):
    path = write_source("jsonl", tmp_path, numbered(19))
    one, two, other = (drawn(stream(path, data_tokenizer, seed=seed), 45) for seed in (3, 3, 4))
    assert one == two
    assert one != other


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """One of each kind, with a malformed row, a blank line and a prompt that is too long."""
    rows = numbered(29)
    rows[5] = {"id": "t5"}
    rows[11]["prompt"] = "long " * 200
    made = {kind: write_source(kind, tmp_path_factory.mktemp(kind), rows) for kind in KINDS}
    lines = as_lines(rows).splitlines(keepends=True)
    made["jsonl"].write_text("".join([*lines[:3], "\n", *lines[3:]]))
    return made


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.integers(0, 70), buffer=st.integers(1, 40), shuffle=st.booleans(), seed=st.integers(0, 3))
def test_resume_draws_what_an_uninterrupted_run_draws(sources, data_tokenizer, kind, before, buffer, shuffle, seed):
    keys = {"buffer": buffer, "shuffle": shuffle, "seed": seed, "max_prompt_tokens": 100, "max_malformed_share": 0.1}

    def fresh():
        return stream(sources[kind], data_tokenizer, **keys)

    uninterrupted = fresh()
    expected = drawn(uninterrupted, before + 40)
    stopped = fresh()
    assert drawn(stopped, before) == expected[:before]
    state = json.loads(json.dumps(stopped.state()))
    resumed = fresh()
    resumed.take(3)
    resumed.restore(state)
    assert resumed.state() == stopped.state()
    assert drawn(resumed, 40) == expected[before:]
    assert resumed.state() == uninterrupted.state()
    assert resumed.epoch == uninterrupted.epoch


def test_long_prompts_and_malformed_rows_are_counted_once(sources, data_tokenizer):
    keys = {"max_prompt_tokens": 100, "max_malformed_share": 0.1}
    prompts = stream(sources["parquet"], data_tokenizer, **keys)
    prompts.take(27 * 3)
    (report,) = prompts.reports()
    assert (report.num_rows, report.num_kept, report.num_malformed, report.is_whole) == (29, 28, 1, True)
    assert report.examples[0].endswith("row 5: field 'prompt': expected a string, found null")
    assert prompts.num_dropped == 3, "it is met again in every epoch"


def test_malformed_rows_are_named_as_they_are_met(sources, data_tokenizer, caplog):
    stream(sources["jsonl"], data_tokenizer, buffer=64, max_malformed_share=0.1).take(60)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"malformed row: {sources['jsonl']}:7: missing field 'prompt'")


def test_too_many_malformed_rows_stop_the_draw(tmp_path, data_tokenizer):
    path = tmp_path / "a.jsonl"
    path.write_text(as_lines(numbered(50)) + "{\n")
    prompts = stream(path, data_tokenizer, shuffle=False)
    with pytest.raises(DataError, match=r":51: malformed JSON.*\(1 of 51 rows malformed; data\.max_malformed_share"):
        prompts.take(51)
    path.write_text("{\n" + as_lines(numbered(50)))
    with pytest.raises(DataError, match=r"1 of 1 rows read so far malformed"):
        stream(path, data_tokenizer, shuffle=False, max_malformed_share=0.0)


def test_domains_and_epoch(tmp_path, data_tokenizer):
    rows = [{**row, "domain": "math" if i >= 4 else "code"} for i, row in enumerate(numbered(8))]
    prompts = stream(write_source("jsonl", tmp_path, rows), data_tokenizer, shuffle=False)
    assert (prompts.domains, prompts.epoch) == (("code",), 0.0)
    prompts.take(5)
    assert prompts.domains == ("code", "math")
    assert prompts.epoch == pytest.approx(5 / 8)
    prompts.take(11)
    assert prompts.epoch == pytest.approx(2.0)


def test_one_block_is_in_memory_not_the_source(tmp_path, data_tokenizer):
    rows = [{"id": i, "prompt": "x" * 2000} for i in range(4000)]
    path = write_source("jsonl", tmp_path, rows)
    assert path.stat().st_size > 8e6
    tracemalloc.start()
    stream(path, data_tokenizer, buffer=100, shuffle=False, max_prompt_tokens=4096).take(1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6


def test_another_source_or_block_size_is_refused(tmp_path, data_tokenizer):
    path = write_source("jsonl", tmp_path, numbered(19))
    state = stream(path, data_tokenizer).state()
    prompts = stream(path, data_tokenizer, buffer=5)
    with pytest.raises(CheckpointError, match=r"its files are not those.*shuffle_buffer"):
        prompts.restore(state)
    with pytest.raises(CheckpointError, match="malformed: block=-1"):
        stream(path, data_tokenizer).restore({**state, "block": -1})
    path.write_text(as_lines(numbered(18)))
    with pytest.raises(CheckpointError, match="its files are not those"):
        stream(path, data_tokenizer).restore(state)


def test_what_can_not_be_streamed(tmp_path, data_tokenizer):
    (tmp_path / "a.json").write_text("[{}]")
    with pytest.raises(DataError, match="an array can't be streamed"):
        stream(tmp_path / "a.json", data_tokenizer)
    (tmp_path / "a.parquet").write_text("PAR1 no")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        stream(tmp_path / "a.parquet", data_tokenizer)
    with pytest.raises(DataError, match="generated tasks can't be streamed"):
        stream("reasoning_gym:leg_counting", data_tokenizer)
    with pytest.raises(ConfigError, match=r"data\.limit=3: a stream has no first tasks"):
        DataConfig(streaming=True, limit=3)
    path = write_source("jsonl", tmp_path, numbered(3))
    prompts = stream(path, data_tokenizer, max_prompt_tokens=1)
    with pytest.raises(DataError, match=r"a whole pass .* found no prompt that is short enough"):
        prompts.take(1)
    path.write_text("\n\n")
    with pytest.raises(DataError, match="it holds no rows"):
        stream(path, data_tokenizer)


def test_hub_rows_are_streamed_and_skipped(monkeypatch, data_tokenizer):
    import datasets

    def load(path, name, split, streaming):
        assert (path, name, split, streaming) == ("owner/name", "main", "dev", True)
        return datasets.Dataset.from_list(numbered(10)).to_iterable_dataset()

    monkeypatch.setattr("grpo.data.hub._reachable", lambda endpoint: True)
    monkeypatch.setattr(datasets, "load_dataset", load)
    whole, stopped, resumed = (stream("owner/name", data_tokenizer, subset="main", split="dev") for _ in range(3))
    expected = drawn(whole, 25)
    stopped.take(7)
    resumed.restore(json.loads(json.dumps(stopped.state())))
    assert drawn(resumed, 18) == expected[7:]
    assert whole.epoch == 2.0, "epochs are whole numbers where the length is unknown"
