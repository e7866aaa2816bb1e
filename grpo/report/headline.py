"""The numbers at the top of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from grpo.report.series import column, compare_quarters, format_duration, format_number, mean

Rows = Sequence[Mapping[str, float]]


def headline(rows: Rows) -> str:
    """Tiles; empty before the first step."""
    tiles = [_change_tile(rows), _change_tile(rows, "reward/pass_rate", "pass rate", wide=False)]
    length = column(rows, "rollout/completion_length_mean")
    if rows:
        last = mean(length[-max(1, len(rows) // 4) :])
        tiles.append(_tile(format_number(last), "tokens a completion, last quarter"))
        tokens, seconds = sum(column(rows, "rollout/num_tokens")), sum(column(rows, "time/step_s"))
        tiles.append(_tile("-" if math.isnan(tokens) else f"{tokens:,.0f}", "tokens sampled"))
        tiles.append(_tile(format_duration(seconds), "time in steps"))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _change_tile(rows: Rows, name: str = "reward/mean", label: str = "mean reward", wide: bool = True) -> str:
    """First against last quarter of the steps; nothing below two steps."""
    quarters = compare_quarters(column(rows, name))
    if quarters is None:
        return ""
    shown = _percent if name.endswith("rate") else format_number
    sign, kind = ("+", "good") if quarters.difference >= 0 else ("", "bad")
    change = f'<span class="{kind}">{sign}{shown(quarters.difference)}</span>'
    value = f"{shown(quarters.first)} → {shown(quarters.last)}"
    if not wide:
        return _tile(value, f"{label}, first to last quarter ({change})")
    known = not math.isnan(quarters.standard_error)
    error = f" <small>± {shown(quarters.standard_error)}</small>" if known else ""
    quarter = f"{quarters.num_steps} step{'s' if quarters.num_steps > 1 else ''} each"
    note = "; ± standard error from the spread between steps" if known else ""
    return _tile(f"{value} {change}{error}", f"{label}, first to last quarter of the run ({quarter}{note})", wide=True)


def _tile(value: str, label: str, *, wide: bool = False) -> str:
    return f'<div class="tile{" wide" if wide else ""}"><b>{value}</b><span>{label}</span></div>'


def _percent(value: float) -> str:
    return f"{value:.0%}"
