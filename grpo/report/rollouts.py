"""Rollouts of a step as parquet, one row a completion, readable without a tokenizer."""

# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from grpo.errors import ConfigError
from grpo.records import ScoredGroup
from grpo.report.files import replacing
from rewards.base import Outcome

_COLUMNS: dict[str, Any] = {
    "step": pa.int64(),
    "prompt_uid": pa.int64(),
    "task_id": pa.string(),
    "domain": pa.string(),
    "group_index": pa.int32(),
    "prompt": pa.string(),
    "prefill": pa.string(),
    "completion": pa.string(),
    "token_ids": pa.list_(pa.int32()),
    "behavior_logprobs": pa.list_(pa.float32()),
    "finish_reason": pa.string(),
    "first_policy_version": pa.int64(),
    "last_policy_version": pa.int64(),
    "version_spans": pa.list_(pa.list_(pa.int64(), 2)),
    "reward": pa.float32(),
    "advantage": pa.float32(),
}


def write_rollouts(path: Path, step: int, scored_groups: Sequence[ScoredGroup]) -> None:
    """Write all completions of one step, compressed with zstd.

    `prompt` is the chat as JSON, a list of {"role", "content"}. Each reward term has three columns: `<term>` (its
    value, null unless valid), `<term>_outcome` and `<term>_reason`. `reward` is null where a weighted term failed.

    Raises:
        ConfigError: a reward term is named like one of the other columns.
    """
    terms = list(dict.fromkeys(term for scored in scored_groups for term in scored.verdicts))
    schema = dict(_COLUMNS)
    for term in terms:
        for name, kind in ((term, pa.float64()), (f"{term}_outcome", pa.string()), (f"{term}_reason", pa.string())):
            if name in schema:
                raise ConfigError(
                    "reward.weights", term, f"rollouts have a column {name!r} already", "Rename the term."
                )
            schema[name] = kind
    rows = [row for scored in scored_groups for row in _rows(step, scored, terms)]
    table = pa.table(
        {name: pa.array([row[name] for row in rows], type=kind) for name, kind in schema.items()}, pa.schema(schema)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        pq.write_table(table, aside, compression="zstd")


def _rows(step: int, scored: ScoredGroup, terms: Sequence[str]) -> Iterator[dict[str, Any]]:
    prompt, task = scored.group.prompt, scored.group.prompt.task
    messages = json.dumps([{"role": role, "content": content} for role, content in task.messages], ensure_ascii=False)
    for index, completion in enumerate(scored.group.completions):
        row: dict[str, Any] = {
            "step": step,
            "prompt_uid": prompt.uid,
            "task_id": task.task_id,
            "domain": task.domain,
            "group_index": index,
            "prompt": _encodable(messages),
            "prefill": _encodable(task.prefill),
            "completion": _encodable(completion.text),
            "token_ids": completion.token_ids,
            "behavior_logprobs": completion.behavior_logprobs,
            "finish_reason": completion.finish_reason.value,
            "first_policy_version": completion.first_policy_version,
            "last_policy_version": completion.last_policy_version,
            "version_spans": [list(span) for span in completion.version_spans],
            "reward": _null_if_nan(scored.rewards[index]),
            "advantage": float(scored.advantages[index]),
        }
        for term in terms:
            verdict = scored.verdicts[term][index] if term in scored.verdicts else None
            valid = verdict is not None and verdict.outcome is Outcome.VALID
            row[term] = verdict.value if verdict is not None and valid else None
            row[f"{term}_outcome"] = (verdict.outcome if verdict is not None else Outcome.ABSENT).value
            row[f"{term}_reason"] = _encodable(verdict.reason) if verdict is not None else ""
        yield row


def _null_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _encodable(text: str) -> str:
    # A lone surrogate can't become UTF-8, which is what parquet stores.
    return text.encode("utf-8", errors="replace").decode("utf-8")
