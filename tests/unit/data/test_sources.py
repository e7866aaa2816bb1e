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
from grpo.data.sources import load_tasks
from grpo.errors import DataError

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
    assert failure("builtin:x").endswith("no built-in set of that name; there is builtin:python_tasks")


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
    left = "no task is left. Left out: 3 of 3 rows above data.max_level=1"
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
