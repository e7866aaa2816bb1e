# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from grpo.errors import ConfigError
from grpo.report.rollouts import write_rollouts
from grpo.report.samples import pick, read_texts

if TYPE_CHECKING:
    from .conftest import GroupMaker


def test_one_row_a_completion(tmp_path: Path, scored_group: GroupMaker) -> None:
    path = tmp_path / "rollouts" / "step_000004.parquet"
    write_rollouts(path, 4, [scored_group(terms=("unit_tests", "brevity")), scored_group(uid=6)])
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == 6
    first, failed = rows[0], rows[2]
    assert (first["step"], first["prompt_uid"], first["task_id"], first["group_index"]) == (4, 5, "task/5", 0)
    assert json.loads(first["prompt"]) == [{"role": "user", "content": "Write add(a, b)."}]
    assert first["token_ids"] == [0, 1, 2, 3]
    assert first["behavior_logprobs"] == [-0.5] * 4
    assert (first["finish_reason"], first["first_policy_version"], first["last_policy_version"]) == ("stop", 2, 3)
    assert first["version_spans"] == [[2, 1], [3, 3]]
    assert (first["reward"], first["advantage"], first["unit_tests"]) == (1.0, 0.25, 1.0)
    assert (failed["reward"], failed["unit_tests"], failed["unit_tests_outcome"]) == (None, None, "failed")
    assert failed["unit_tests_reason"] == "sandbox died"
    # A term that one group lacks is absent there.
    assert [row["brevity_outcome"] for row in rows] == ["absent"] * 6
    assert [row["brevity_reason"] for row in rows] == ["no tests"] * 3 + [""] * 3


def test_types_and_compression(tmp_path: Path, scored_group: GroupMaker) -> None:
    path = tmp_path / "step_000001.parquet"
    write_rollouts(path, 1, [scored_group()])
    file = pq.ParquetFile(path)
    assert str(file.schema_arrow.field("token_ids").type.value_type) == "int32"
    assert str(file.schema_arrow.field("behavior_logprobs").type.value_type) == "float"
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_no_groups_make_an_empty_file(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "empty.parquet", 1, [])
    assert pq.read_table(tmp_path / "empty.parquet").num_rows == 0


def test_lone_surrogates_are_survived(tmp_path: Path, scored_group: GroupMaker) -> None:
    write_rollouts(tmp_path / "s.parquet", 1, [scored_group(("a\udcff",), (1.0,))])
    assert read_texts(tmp_path / "s.parquet")[0]["completion"] == "a?"


def test_term_named_like_a_column_is_refused(tmp_path: Path, scored_group: GroupMaker) -> None:
    with pytest.raises(ConfigError, match="Rename the term"):
        write_rollouts(tmp_path / "x.parquet", 1, [scored_group(terms=("prompt",))])
    assert not list(tmp_path.iterdir())


def test_samples_are_best_worst_and_another(tmp_path: Path, scored_group: GroupMaker) -> None:
    write_rollouts(tmp_path / "x.parquet", 1, [scored_group(tuple("abcde"), (0.5, 0.9, math.nan, 0.1, 0.5))])
    rows = read_texts(tmp_path / "x.parquet")
    picked = pick(rows, 1)
    assert [(kind, row["completion"]) for kind, row in picked[:2]] == [("best", "b"), ("worst", "d")]
    assert picked[2][0] == "random"
    assert picked[2][1]["completion"] in "ace"
    assert pick(rows, 1) == picked
    assert [kind for kind, _ in pick(rows[:1], 1)] == ["best"]
    assert pick([], 1) == []
