"""Every kind of data source, and every way it can fail, with the words the user gets."""

import ast
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grpo.config import DataConfig, DataSchema, Prefill
from grpo.data.draw import open_sources
from grpo.data.sources import load_tasks, read_tasks
from grpo.data.transcripts import DIFFERENT_PROMPTS, EMPTY_MESSAGE
from grpo.errors import ConfigError, DataError
from launch.configuration import load_config
from rewards.code_reference import read_tests

MBPP = Path(__file__).resolve().parents[4] / "shared" / "data" / "mbpp"
ROOT = Path(__file__).resolve().parents[3]


def rows(n=3):
    return [{"id": f"t{i}", "level": i + 1, "prompt": f"task {i}", "tests": [f"assert f({i})"]} for i in range(n)]


def lines(items):
    return "".join(json.dumps(item) + "\n" for item in items)


def ids(path, **config):
    return [task.task_id for task in load_tasks(DataConfig(path=str(path), **config))]


def failure(path, **config):
    """The message, checked to be one line."""
    with pytest.raises(DataError) as caught:
        load_tasks(DataConfig(path=str(path), **config))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_builtin_set():
    tasks = load_tasks(DataConfig(prefill=Prefill.signature))
    assert len(tasks) >= 150
    assert next(t for t in tasks if t.task_id == "py-0001").prefill == "```python\ndef add(a, b):"


def test_unknown_builtin():
    assert failure("builtin:python_task").endswith("did you mean builtin:python_tasks?")
    message = failure("builtin:x")
    assert "no built-in set of that name; there is builtin:" in message
    assert "builtin:helpful_prompts" in message
    assert "builtin:python_tasks" in message


def test_jsonl_json_gz_and_parquet_agree(tmp_path):
    import pyarrow
    import pyarrow.parquet

    # A byte order mark and blank lines are no errors.
    (tmp_path / "a.jsonl").write_text("\ufeff" + lines(rows()[:1]) + "\n" + lines(rows()[1:]), encoding="utf-8")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(rows()).encode()))
    (tmp_path / "a.json").write_text(json.dumps(rows()), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows()), tmp_path / "a.parquet")
    loaded = [load_tasks(DataConfig(path=str(file))) for file in sorted(tmp_path.iterdir())]
    assert len(loaded) == 4
    assert all(tasks == loaded[0] for tasks in loaded)
    assert [task.task_id for task in loaded[0]] == ["t0", "t1", "t2"]


def test_limit_and_level(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines(rows(5)))
    assert ids(path, limit=2) == ["t0", "t1"]
    assert ids(path, max_level=3, limit=2) == ["t0", "t1"]
    assert ids(path, max_level=2) == ["t0", "t1"]
    path.write_text(lines(rows(5)[2:]))
    left = "no task is left. Left out: 3 of 3 rows (above data.max_level=1)"
    assert failure(path, max_level=1) == f"data.path='{path}': {left}"
    path.write_text(lines([{k: v for k, v in rows(1)[0].items() if k != "level"}]))
    assert failure(path, max_level=1).startswith(f"{path}:1: missing field 'level', which data.max_level selects by")
    assert "schema mbpp has no levels" in failure(path, max_level=1, schema=DataSchema.mbpp)


def test_missing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text("")
    message = failure("trian.jsonl")
    assert message.startswith("data.path='trian.jsonl': no such file or directory")
    assert f"looked for {tmp_path / 'trian.jsonl'}; there is train.jsonl" in message
    assert f"its directory {tmp_path / 'no'} does not exist" in failure("no/such/train.jsonl")
    for path in ("./name", "~/no-such-directory-x", "/no/x", "a/b/c"):
        assert "no such file or directory (looked for /" in failure(path)


def test_unusable_files(tmp_path):
    for name in ("a.jsonl", "a.json", "a.parquet"):
        (tmp_path / name).write_text("")
        assert failure(tmp_path / name) == f"{tmp_path / name}: the file is empty"
    (tmp_path / "a.jsonl").write_text("\n\n")
    assert failure(tmp_path / "a.jsonl").endswith("it holds no rows")
    (tmp_path / "a.csv").write_text("id,prompt")
    assert "unknown kind of file; data.path takes .jsonl, .jsonl.gz, .json, .parquet" in failure(tmp_path / "a.csv")
    (tmp_path / "a.parquet").write_text("PAR1 no")
    assert failure(tmp_path / "a.parquet").startswith(f"{tmp_path / 'a.parquet'}: not a readable Parquet file (")
    (tmp_path / "a.json").write_text('{"rows": []}')
    assert failure(tmp_path / "a.json").endswith("expected one JSON array of objects, found dict")
    (tmp_path / "a.json").write_text("[]")
    assert failure(tmp_path / "a.json").endswith("it holds no rows")
    (tmp_path / "a.json").write_text(lines(rows()))
    assert failure(tmp_path / "a.json").endswith("Then name the file .jsonl")
    (tmp_path / "a.json").write_text('[\n{"id": }\n]')
    assert failure(tmp_path / "a.json") == f"{tmp_path / 'a.json'}:2: malformed JSON, Expecting value at column 8"


def test_broken_gzip(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_text(lines(rows()))
    assert failure(path).startswith(f"{path}: broken gzip data after line 0 (")
    whole = gzip.compress(lines(rows(500)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    assert failure(path).startswith(f"{path}: broken gzip data after line ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "x", "prompt": \n', "malformed JSON, Expecting value at column 22"),
        (b'["id"]\n', "expected an object with fields, found list"),
        (b"null\n", "expected an object with fields, found NoneType"),
        (b'{"id": "\xff"}\n', "not UTF-8 text (invalid start byte at byte 8 of the line)"),
        (b'{"id": "x", "tests": ["t"]}\n', "missing field 'prompt' (the row has id, tests; see data.schema)"),
        (b'{"id": "t0", "prompt": "p", "tests": ["t"]}\n', "id 't0' is taken already, at {path}:1"),
        (b"[" * 100_000, "malformed JSON, maximum recursion depth exceeded"),
    ],
)
def test_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(rows(2)).encode() + b"\n" + line)
    assert failure(path).startswith(f"{path}:4: {message.format(path=path)}")


def test_bad_row_of_a_columnar_file_is_named_by_its_index(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([*rows(2), {**rows(1)[0], "id": "z", "prompt": None}]), path)
    message = f"{path}: row 2: field 'prompt': expected a string, found null (1 of 3 rows malformed; "
    assert failure(path) == message + "data.max_malformed_share=0.01)"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines(rows()))
    path.chmod(0)
    assert "can't be read" in failure(path)


def test_directory_of_files(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert "holds no data" in failure(tmp_path)
    (tmp_path / "data" / "part-1.jsonl").write_text(lines(rows(4)[2:]))
    (tmp_path / "data" / "part-0.jsonl").write_text(lines(rows(2)))
    assert ids(tmp_path) == ["t0", "t1", "t2", "t3"]
    (tmp_path / "data" / "part-1.jsonl").write_text(lines(rows(2)))
    assert f"id 't0' is taken already, at {tmp_path}/data/part-0.jsonl:1" in failure(tmp_path)


def test_directory_with_splits_in_file_names(tmp_path):
    (tmp_path / "train-00000.jsonl").write_text(lines(rows(2)))
    (tmp_path / "test-00000.jsonl").write_text(lines(rows(4)[2:]))
    assert ids(tmp_path) == ["t0", "t1"]
    assert ids(tmp_path, split="test") == ["t2", "t3"]
    assert failure(tmp_path, split="dev") == f"{tmp_path}: no files of data.split='dev'; there are test, train"


def test_saved_dataset(tmp_path):
    import datasets

    one = datasets.Dataset.from_list(rows())
    one.save_to_disk(tmp_path / "one")
    assert ids(tmp_path / "one") == ["t0", "t1", "t2"]
    assert load_tasks(DataConfig(path=str(tmp_path / "one")))[0].reference["tests"] == ("assert f(0)",)
    datasets.DatasetDict({"train": one, "held_out": one.select([2])}).save_to_disk(tmp_path / "two")
    assert ids(tmp_path / "two", split="held_out") == ["t2"]
    message = failure(tmp_path / "two", split="test")
    assert message == f"{tmp_path / 'two'}: no data.split='test'; there are train, held_out"
    (tmp_path / "one" / "dataset_info.json").unlink()
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"x")
    assert "not a readable saved dataset" in failure(tmp_path / "one")


def test_hub_id_offline_fails_fast():
    # In a process of its own: the hub's client reads the variable when it is first imported.
    program = (
        "import sys\nfrom grpo.config import DataConfig\nfrom grpo.data.sources import load_tasks\n"
        "from grpo.errors import DataError\n"
        "try: load_tasks(DataConfig(path='no-such-owner/no-such-set'))\nexcept DataError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("data.path='no-such-owner/no-such-set': no such file or directory here, and the")
    assert "can't be reached. Copy the dataset here" in done.stdout
    assert done.stdout.count("\n") == 1
    assert time.monotonic() - started < 20, "the imports take seconds, the answer none"


def test_hub_that_nothing_answers_for(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: refused at once
    started = time.monotonic()
    assert "the Hugging Face hub (http://127.0.0.1:9) can't be reached" in failure("owner/name")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (lambda d: d.exceptions.DatasetNotFoundError("no"), "no such dataset on .* HF_TOKEN"),
        (
            lambda d: ValueError('Unknown split "x".\nShould be one of ["a"].'),
            r"data.split='train'\): .*one of \[\"a\"\]",
        ),
        (lambda d: ConnectionError("reset"), "can't be reached"),
        (lambda d: RuntimeError("Dataset scripts are no longer supported"), "scripts are no longer supported"),
    ],
)
def test_hub_errors_are_plain(monkeypatch, error, words):
    import datasets

    def refuse(*_, **__):
        raise error(datasets)

    monkeypatch.setattr("grpo.data.hub._reachable", lambda endpoint: True)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match=words):
        load_tasks(DataConfig(path="owner/name"))


def test_hub_rows(monkeypatch):
    import datasets

    def load(path, name, split):
        assert (path, name, split) == ("owner/name", "main", "dev")
        return datasets.Dataset.from_list(rows(2))

    monkeypatch.setattr("grpo.data.hub._reachable", lambda endpoint: True)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert ids("owner/name", subset="main", split="dev") == ["t0", "t1"]


@pytest.mark.skipif(not MBPP.is_dir(), reason="no copy of MBPP at ../shared/data/mbpp")
@pytest.mark.parametrize(("name", "num_rows"), [("mbpp.jsonl", 974), ("sanitized-mbpp.json", 427)])
def test_real_mbpp(name, num_rows):
    config = DataConfig(path=str(MBPP / name), schema=DataSchema.mbpp, prefill=Prefill.signature)
    tasks = load_tasks(config)
    assert len(tasks) == num_rows
    for task in tasks:
        assert task.prefill.startswith(f"```python\ndef {task.reference['entry_point']}(")
        ast.parse(task.prefill.removeprefix("```python\n") + " pass")
        ast.parse(str(task.reference["setup"]))


def test_a_hub_set_made_by_a_program_is_read_as_the_hub_keeps_it(monkeypatch):
    import datasets

    def load(path, *, split, name=None, data_files=None, revision=None):
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found apps.py")
        assert (path, data_files, revision) == ("o/apps", {"train": "all/train/*.parquet"}, "refs/convert/parquet")
        return datasets.Dataset.from_list(rows(2))

    monkeypatch.setattr("grpo.data.hub._reachable", lambda endpoint: True)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert ids("o/apps", subset="all") == ["t0", "t1"]


def report(path, **config):
    return read_tasks(DataConfig(path=str(path), **config))[1]


def test_filters(tmp_path):
    path = tmp_path / "a.jsonl"
    found = [
        {**row, "set": f"s{i % 3}", "tags": ["x", f"y{i}"], "n": i, "ok": i == 1, "deep": [{"k": f"v{i}"}]}
        for i, row in enumerate(rows(6))
    ]
    path.write_text(lines(found))
    assert ids(path, filters={"set": ["s0", "s2"]}) == ["t0", "t2", "t3", "t5"]
    assert ids(path, filters={"set": ["s0"], "n": ["3", "4"]}) == ["t3"]
    assert ids(path, filters={"tags": ["y2", "y4"]}) == ["t2", "t4"], "any value of a list"
    assert ids(path, filters={"ok": ["true"]}) == ["t1"], "as YAML writes it"
    assert ids(path, filters={"deep.0.k": ["v5"]}) == ["t5"]
    assert report(path, filters={"set": ["s0"]}).left_out == {"data.filters.set": 4}
    assert failure(path, filters={"set": ["no"]}).endswith("no task is left. Left out: 6 of 6 rows (data.filters.set)")
    assert "missing field 'lang', which data.filters selects by" in failure(path, filters={"lang": ["python"]})
    assert "a filter can't compare dict" in failure(path, filters={"deep": ["x"]})


def test_malformed_rows_are_told_where_nothing_else_is_left(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("{\n" + lines(rows(1)))
    message = failure(path, filters={"id": ["x"]}, max_malformed_share=0.9)
    assert f"Left out: 1 of 2 rows (data.filters.id), 1 malformed, {path}:1: malformed JSON" in message


def test_fields_with_other_names(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines([{"key": 3, "turns": ["Hi?", "And?"], "checks": {"all": ["assert f()"]}, "prompt": "no"}]))
    (task,) = load_tasks(DataConfig(path=str(path), fields={"id": "key", "prompt": "turns.0", "tests": "checks.all"}))
    assert (task.task_id, task.messages) == ("3", (("user", "Hi?"),))
    assert task.reference["tests"] == ("assert f()",)
    assert "missing field 'prompt'" in failure(path, fields={"id": "key", "prompt": "turns.7"})


def test_malformed_rows_below_the_limit_are_counted_and_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    found = lines(rows(396)).splitlines(keepends=True)
    path.write_text("".join([*found[:9], "{\n", '{"id": "x"}\n', *found[9:], found[0], "[]\n"]))
    counted = report(path)
    assert (counted.num_rows, counted.num_kept, counted.num_malformed, counted.is_whole) == (400, 396, 4, True)
    assert counted.lines() == [
        f"{path}: 396 tasks of 400 rows: 4 malformed",
        f"{path}:10: malformed JSON, Expecting property name enclosed in double quotes at column 2",
        f"{path}:11: missing field 'prompt' (the row has id; see data.schema)",
        f"{path}:399: id 't0' is taken already, at {path}:1",
        "... and 1 more",
    ]
    message = failure(path, max_malformed_share=0.009)
    assert message.startswith(f"{path}:10: malformed JSON")
    assert f"; also {path}:11: missing field" in message
    assert message.endswith("(4 of 400 rows malformed; data.max_malformed_share=0.009)")
    assert failure(path, max_malformed_share=0.0).endswith(
        "(1 of 10 rows read so far malformed; data.max_malformed_share=0.0)"
    )


def test_a_long_source_of_the_wrong_schema_stops_early(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines([{"text": str(i)} for i in range(5000)]))
    assert failure(path).endswith("(11 of 11 rows read so far malformed; data.max_malformed_share=0.01)")


def test_nothing_to_report_where_all_rows_became_tasks(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines(rows(3)))
    assert report(path).lines() == []
    assert report(path, limit=2).lines() == []


def test_the_same_row_twice_is_left_out_where_rows_have_no_ids(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines([{"instruction": "a"}, {"instruction": "b"}, {"instruction": "a"}]))
    counted = report(path, schema=DataSchema.instruction)
    assert (counted.num_kept, counted.left_out, counted.num_malformed) == (2, {"the same row twice": 1}, 0)


def test_held_out_tasks_are_the_rest_whatever_the_order_and_the_size(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines(rows(400)))
    trained, held = set(ids(path, held_out_share=0.2)), set(ids(path, held_out_share=0.2, held_out=True))
    assert trained | held == {f"t{i}" for i in range(400)}
    assert not trained & held
    assert 55 <= len(held) <= 105, "a fifth, give or take three standard deviations"
    path.write_text(lines(reversed(rows(300))))
    assert set(ids(path, held_out_share=0.2, held_out=True)) == {name for name in held if int(name[1:]) < 300}
    assert held <= set(ids(path, held_out_share=0.5, held_out=True)) | {f"t{i}" for i in range(300, 400)}
    assert "not held out" in failure(path, held_out_share=1e-9, held_out=True)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"held_out": True}, r"data\.held_out=True: no tasks are held out"),
        ({"held_out_share": 1.0}, r"data\.held_out_share=1\.0: nothing is left"),
        ({"held_out_share": -0.1}, r"data\.held_out_share=-0\.1: out of range"),
        ({"max_malformed_share": 1.1}, r"data\.max_malformed_share=1\.1: out of range"),
        ({"shuffle_buffer": 0}, r"data\.shuffle_buffer=0: too small"),
    ],
)
def test_keys_that_can_not_work(keys, words):
    with pytest.raises(ConfigError, match=words):
        DataConfig(**keys)


def opened(config):
    return [source.tasks[0] for source in open_sources(config) if source.tasks]


def test_two_domains_built_in():
    config = load_config(["data=two_domains", "data.limit=null"]).data
    code, helpful = opened(config)
    assert {task.domain for task in code} == {"code"}
    assert {task.domain for task in helpful} == {"helpfulness"}
    assert len(helpful) >= 60
    assert all(task.reference == {} and task.prefill == "" for task in helpful)
    easy = load_config(["data=two_domains", "data.limit=null", "data.max_level=1"]).data
    assert [len(tasks) for tasks in opened(easy)] == [132, 24]


SHARED = MBPP.parent


@pytest.mark.skipif(not SHARED.is_dir(), reason="no copy of the public sets at ../shared/data")
@pytest.mark.parametrize(
    ("path", "schema", "fields", "num_tasks", "left_out"),
    [
        ("exercism_python/practice.jsonl", "exercism", {}, 139, {}),
        ("gsm8k/test.jsonl", "gsm8k", {}, 1319, {}),
        ("hh_helpful/helpful-base.test.jsonl.gz", "hh", {}, 2341, {DIFFERENT_PROMPTS: 9, EMPTY_MESSAGE: 4}),
        ("hh_helpful/helpful-rejection-sampled.test.jsonl.gz", "hh", {}, 2746, {DIFFERENT_PROMPTS: 3}),
        ("self_instruct/seed_tasks.jsonl", "instruction", {"input": "instances.0.input"}, 175, {}),
        ("self_instruct/user_oriented_instructions.jsonl", "instruction", {"output": "instances.0.output"}, 252, {}),
        ("mt_bench/question.jsonl", "instruction", {"instruction": "turns.0", "id": "question_id"}, 80, {}),
    ],
)
def test_real_public_sets(path, schema, fields, num_tasks, left_out):
    config = DataConfig(path=str(SHARED / path), schema=DataSchema(schema), fields=fields, max_malformed_share=0.0)
    tasks, counted = read_tasks(config)
    assert (len(tasks), counted.left_out, counted.num_malformed) == (num_tasks, left_out, 0)
    assert len({task.task_id for task in tasks}) == num_tasks
    assert all(read_tests(task.reference) for task in tasks) or schema != "exercism"
