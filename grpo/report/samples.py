"""Sample rollouts of a run as HTML: best, worst and a random completion of the first and of the last step."""

# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq

from grpo.report.run_directory import RunDirectory
from grpo.report.series import format_number

_MAX_CHARACTERS = 6000

Row = Mapping[str, Any]


def samples_section(run: RunDirectory) -> str:
    """The section, or a line saying that there is nothing yet."""
    steps = run.rollout_steps()
    blocks = [_step_block(run.rollout_file(step), step) for step in dict.fromkeys(steps[:1] + steps[-1:])]
    body = "".join(blocks) or '<p class="soft">No rollouts written yet.</p>'
    return f"<section><h2>Sample rollouts</h2>{body}</section>"


def read_texts(path: Path) -> list[Row]:
    """Rows of a rollout file without the token columns, for people to read."""
    file = pq.ParquetFile(path)
    wanted = [name for name in file.schema_arrow.names if name not in ("token_ids", "behavior_logprobs")]
    return cast("list[Row]", file.read(columns=wanted).to_pylist())


def pick(rows: Sequence[Row], step: int) -> list[tuple[str, Row]]:
    """Best, worst and a random row, the same ones each time; fewer where there are fewer rows."""
    rewarded = [row for row in rows if row["reward"] is not None]
    picked: list[tuple[str, Row]] = []
    if rewarded:
        picked.append(("best", max(rewarded, key=lambda row: row["reward"])))
        picked.append(("worst", min(reversed(rewarded), key=lambda row: row["reward"])))
    left = [row for row in rows if not any(row is taken for _, taken in picked)]
    if left:
        picked.append(("random", random.Random(step).choice(left)))
    if len(picked) > 1 and picked[0][1] is picked[1][1]:
        del picked[1]
    return picked


def _step_block(path: Path, step: int) -> str:
    try:
        rows = read_texts(path)
        cards = "".join(_card(kind, row) for kind, row in pick(rows, step))
    except (OSError, ValueError, KeyError) as error:
        return f'<p class="warning">{escape(path.name)} can\'t be read: {escape(str(error))}</p>'
    return f'<h3>Step {step} <span class="soft">({len(rows)} completions)</span></h3><div class="samples">{cards}</div>'


def _card(kind: str, row: Row) -> str:
    chips = [f"<b>reward {_shown(row['reward'])}</b>", f"advantage {_shown(row['advantage'])}"]
    chips += [_term_chip(name.removesuffix("_outcome"), row) for name in row if name.endswith("_outcome")]
    chips += [escape(f"{row['domain']} · {row['task_id']}"), escape(f"ended by {row['finish_reason']}")]
    turns = "".join(
        f'<div class="role">{escape(str(turn["role"]))}</div><pre class="scroll">{_text(turn["content"])}</pre>'
        for turn in json.loads(row["prompt"])
    )
    prefill = f'<span class="prefill">{_text(row["prefill"])}</span>' if row["prefill"] else ""
    note = '<span class="soft"> (prefill marked)</span>' if prefill else ""
    marked = "".join(f'<span class="chip">{chip}</span>' for chip in chips)
    return (
        f'<div class="card"><h3 style="margin-top:0">{escape(kind.capitalize())}</h3>'
        f"<div>{marked}</div>{turns}"
        f'<div class="role">completion{note}</div><pre class="scroll">{prefill}{_text(row["completion"])}</pre></div>'
    )


def _term_chip(term: str, row: Row) -> str:
    outcome, reason = row[f"{term}_outcome"], row[f"{term}_reason"]
    value = _shown(row[term]) if outcome == "valid" else f"{outcome}{f': {reason}' if reason else ''}"
    return escape(f"{term} {value}")


def _text(text: object) -> str:
    """Model output, escaped; very long texts lose their middle."""
    shown = str(text)
    if len(shown) > _MAX_CHARACTERS:
        half = _MAX_CHARACTERS // 2
        shown = f"{shown[:half]}\n[... {len(shown) - 2 * half} characters left out ...]\n{shown[-half:]}"
    return escape(shown)


def _shown(value: float | None) -> str:
    return "none" if value is None else format_number(value)
