"""The live panel as a picture of its state; fits 80 x 24."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from grpo.report.panel_state import PanelState
from grpo.report.run_log import WarningTally, printable
from grpo.report.series import TIME_PARTS, format_duration, format_number, reward_terms, time_shares

_BLUE, _GREEN = "#4f8ff7", "#3fb67f"
PART_STYLES = dict(zip(TIME_PARTS, (_BLUE, "#ee8d52", _GREEN, "#bb8cea", "grey50"), strict=True))
MAX_WIDTH = 120
_MAX_TERMS = 4
_SPARKS = "▁▂▃▄▅▆▇█"


def draw(state: PanelState, *, width: int, height: int, now: float) -> Panel:
    """The panel at time `now` for a terminal of `width` x `height` characters."""
    inner = min(width, MAX_WIDTH) - 4
    now = now if state.closed_at is None else state.closed_at
    parts: list[RenderableType] = [_header(state, inner), _progress(state, now, inner), _phase(state, now, inner)]
    if state.metrics:
        parts += [Text(), _numbers(state.metrics, inner), Text()]
        parts += [*_time_bar(state.metrics, inner), sparkline(state.mean_rewards, inner)]
    taken = 2 + sum(part.row_count if isinstance(part, Table) else 1 for part in parts)
    parts += _warnings(state.warnings, inner, height - 1 - taken)
    title = Text.assemble(("Keel", "bold default"), " · ", (printable(state.plan.experiment), "default"))
    return Panel(Group(*parts), title=title, title_align="left", border_style="grey50", width=inner + 4)


def _header(state: PanelState, width: int) -> Text:
    model = Text(printable(state.plan.model), style="cyan")
    model.truncate(max(12, width // 2), overflow="ellipsis")
    directory = printable(state.plan.output_dir)
    room = width - model.cell_len - 4
    # The end of a path tells runs apart, so its beginning goes first.
    shown = directory if len(directory) <= room else "…" + directory[-(room - 1) :]
    return Text.assemble(model, "  → ", (shown, "dim"), no_wrap=True, overflow="ellipsis")


def _progress(state: PanelState, now: float, width: int) -> Table:
    total, step = max(state.plan.num_steps, 1), state.progress.step
    left = state.progress.remaining_s(now - state.step_at)
    label = Text(f"step {step}/{state.plan.num_steps}", style="bold")
    times = f"{step / total:4.0%}  {format_duration(now - state.started_at)}"
    times += "" if state.closed_at is not None else f"  left {format_duration(left)}"
    bar = ProgressBar(total=total, completed=step, complete_style=_BLUE, finished_style=_GREEN)
    row = Table.grid(padding=(0, 1))
    row.add_column(no_wrap=True)
    row.add_column(width=max(8, width - label.cell_len - len(times) - 2))
    row.add_column(no_wrap=True)
    row.add_row(label, bar, times)
    return row


def _phase(state: PanelState, now: float, width: int) -> Text:
    name, done, total = state.phase
    if state.closed_at is not None:
        return Text(f"ended in: {name}" if state.progress.step < state.plan.num_steps else "finished", style="dim")
    if name == "sampling" and total:
        name = f"sampling {done}/{total} groups"
    elif total:
        name = f"{name} {done}/{total}"
    text = Text.assemble(("● ", _BLUE), name, (f"  {format_duration(now - state.phase_at)}", "dim"))
    text.truncate(width, overflow="ellipsis")
    return text


def _numbers(metrics: Mapping[str, float], width: int) -> Table:
    left, right = _reward_rows(metrics), _policy_rows(metrics)
    grid = Table.grid(padding=(0, 0), expand=False)
    half = width // 2
    label = 15
    for value in (half - label, width - half - label):
        grid.add_column(width=label, style="dim", no_wrap=True)
        grid.add_column(width=value, no_wrap=True, overflow="ellipsis")
    for index in range(max(len(left), len(right))):
        cells = [*(left[index] if index < len(left) else ("", "")), *(right[index] if index < len(right) else ("", ""))]
        grid.add_row(*cells)
    return grid


def _reward_rows(metrics: Mapping[str, float]) -> list[tuple[Text | str, Text]]:
    rows: list[tuple[Text | str, Text]] = []
    if "reward/mean" in metrics:
        spread = f" ± {format_number(metrics['reward/std'])}" if "reward/std" in metrics else ""
        rows.append(("reward", Text.assemble((format_number(metrics["reward/mean"]), "bold"), (spread, "dim"))))
    terms = reward_terms([metrics])
    for term in terms[:_MAX_TERMS]:
        failed = metrics.get(f"reward/{term}/failed", 0.0)
        value = Text(format_number(metrics[f"reward/{term}/mean"]))
        value.append(f"  {failed:g} failed" if failed > 0 else "", style="yellow")
        rows.append((Text(f"  {printable(term)}", no_wrap=True, overflow="ellipsis"), value))
    if len(terms) > _MAX_TERMS:
        rows.append(("", Text(f"and {len(terms) - _MAX_TERMS} more", style="dim")))
    for label, name in (("pass rate", "reward/pass_rate"), ("no signal", "reward/zero_variance_share")):
        if name in metrics:
            rows.append((label, Text(f"{metrics[name]:.0%}" + (" of groups" if label == "no signal" else ""))))
    if "learner/lr" in metrics:
        rows.append(("learning rate", Text(format_number(metrics["learner/lr"]))))
    return rows


def _policy_rows(metrics: Mapping[str, float]) -> list[tuple[Text | str, Text]]:
    def shown(name: str, suffix: str = "") -> str:
        return format_number(metrics[name]) + suffix if name in metrics else ""

    def joined(*parts: str) -> Text:
        return Text(" · ".join(part for part in parts if part))

    truncated = metrics.get("rollout/truncated_share", math.nan)
    rows = [
        ("length", joined(shown("rollout/completion_length_mean"), shown("rollout/completion_length_max", " max"))),
        ("truncated", Text("" if math.isnan(truncated) else f"{truncated:.0%}")),
        ("KL(beh.||pol.)", Text(shown("learner/kl_behavior_policy"))),
        ("entropy", Text(shown("learner/entropy"))),
        ("grad norm", Text(shown("learner/grad_norm"))),
        ("rollout", Text(shown("rollout/tokens_per_s", " tokens/s"))),
        ("learner", Text(shown("learner/tokens_per_s", " tokens/s"))),
    ]
    return [(label, value) for label, value in rows if value.plain]


def _time_bar(metrics: Mapping[str, float], width: int) -> list[Text]:
    shares = time_shares(metrics)
    if not shares:
        return []
    bar, legend = Text(no_wrap=True), Text(no_wrap=True, overflow="ellipsis")
    for part, cells in split_cells(shares, width).items():
        bar.append("█" * cells, style=PART_STYLES[part])
    for part, share in shares.items():
        legend.append("■ ", style=PART_STYLES[part]).append(f"{part} {share:.0%}  ")
    if "time/step_s" in metrics:
        legend.append(f"{metrics['time/step_s']:.1f} s", style="dim")
    return [bar, legend]


def split_cells(shares: Mapping[str, float], width: int) -> dict[str, int]:
    """Whole cells for each share, `width` together, by the largest remainder."""
    exact = {part: share * width for part, share in shares.items()}
    cells = {part: math.floor(value) for part, value in exact.items()}
    by_remainder = sorted(exact, key=lambda part: cells[part] - exact[part])
    for part in by_remainder[: width - sum(cells.values())]:
        cells[part] += 1
    return cells


def sparkline(values: Sequence[float], width: int) -> Text:
    """The last mean rewards as a line of blocks, between their lowest and highest."""
    label = "reward "
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Text()
    shown = values[-max(1, width - len(label) - 18) :]
    recent = [value for value in shown if math.isfinite(value)] or finite[-1:]
    low, high = min(recent), max(recent)
    scale = (len(_SPARKS) - 1) / (high - low) if high > low else 0.0
    blocks = "".join(_SPARKS[round((value - low) * scale)] if math.isfinite(value) else " " for value in shown)
    span = f" {format_number(low)} to {format_number(high)}"
    return Text.assemble((label, "dim"), (blocks, _BLUE), (span, "dim"), no_wrap=True)


def _warnings(tally: WarningTally, width: int, room: int) -> list[Text]:
    """The three most recent, one line each, or two where there is `room` for that many lines."""
    shown: list[Text] = []
    recent = tally.recent(3)
    lines_each = 2 if room >= 2 * len(recent) else 1
    for message, count in recent:
        times = f" (x{count})" if count > 1 else ""
        text = Text(" ".join(message.split()), style="yellow")
        text.truncate(width * lines_each - 2 - len(times) - 12 * (lines_each - 1), overflow="ellipsis")
        shown.append(Text.assemble(("! ", "bold yellow"), text, (times, "dim")))
    return shown
