"""A tokenizer, and large sources in every layout."""

import gzip
import json

import pytest

from grpo.models import tiny_model


@pytest.fixture(scope="session")
def data_tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model(tmp_path_factory.mktemp("model")))


def numbered(n, start=0):
    """Rows of the keel schema with ids t0, t1, ..."""
    return [{"id": f"t{i}", "prompt": f"task {i}", "tests": [f"assert f({i})"]} for i in range(start, start + n)]


def as_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_source(kind, directory, rows):
    """The rows as a source of one kind; its `data.path`."""
    if kind == "saved":
        import datasets

        datasets.Dataset.from_list(rows).save_to_disk(directory / "saved")
        return directory / "saved"
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), directory / "a.parquet", row_group_size=7)
        return directory / "a.parquet"
    if kind == "directory":
        (directory / "parts").mkdir()
        for part in range(3):
            (directory / "parts" / f"part-{part}.jsonl").write_text(as_lines(rows[part::3]))
        return directory / "parts"
    if kind == "gz":
        (directory / "a.jsonl.gz").write_bytes(gzip.compress(as_lines(rows).encode()))
        return directory / "a.jsonl.gz"
    (directory / "a.jsonl").write_text(as_lines(rows))
    return directory / "a.jsonl"
