"""The numbers at the top of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from grpo.report.series import column, compare_quarters, format_duration, format_number, mean

Rows = Sequence[Mapping[str, float]]


def headline(rows: Rows) -> str:
    """Tiles; empty before the first step."""
    tiles = [_reward_tile(rows), _pass_rate_tile(rows)]
    length = column(rows, "rollout/completion_length_mean")
    if rows:
        last = mean(length[-max(1, len(rows) // 4) :])
        tiles.append(_tile(format_number(last), "tokens a completion, last quarter"))
        tokens, seconds = sum(column(rows, "rollout/num_tokens")), sum(column(rows, "time/step_s"))
        tiles.append(_tile("-" if math.isnan(tokens) else f"{tokens:,.0f}", "tokens sampled"))
        tiles.append(_tile(format_duration(seconds), "time in steps"))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _reward_tile(rows: Rows) -> str:
    quarters = compare_quarters(column(rows, "reward/mean"))
    if quarters is None:
        return ""
    difference = quarters.difference
    sign, kind = ("+", "good") if difference >= 0 else ("", "bad")
    value = f"{format_number(quarters.first)}&nbsp;→&nbsp;{format_number(quarters.last)}"
    label = f"mean reward, first to last quarter of the run ({quarters.num_steps} of {len(rows)} steps each"
    if not math.isnan(quarters.standard_error):
        label += f"; difference ± {format_number(quarters.standard_error)}, standard error over steps"
    return _tile(f'{value} <span class="{kind}">{sign}{format_number(difference)}</span>', label + ")", wide=True)


def _pass_rate_tile(rows: Rows) -> str:
    quarters = compare_quarters(column(rows, "reward/pass_rate"))
    if quarters is None:
        return ""
    value = f"{quarters.first:.0%}&nbsp;→&nbsp;{quarters.last:.0%}"
    return _tile(value, f"pass rate, first to last quarter ({quarters.difference * 100:+.0f} points)")


def _tile(value: str, label: str, *, wide: bool = False) -> str:
    return f'<div class="tile{" wide" if wide else ""}"><b>{value}</b><span>{label}</span></div>'
