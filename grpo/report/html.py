"""report.html: one file that needs no network, made from the files of a run alone, finished or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any, cast

import yaml

from grpo.report.files import write_text
from grpo.report.headline import headline
from grpo.report.metrics_log import read_metrics
from grpo.report.page_style import STYLE
from grpo.report.run_charts import charts_section
from grpo.report.run_directory import RunDirectory
from grpo.report.run_log import read_warnings
from grpo.report.samples import samples_section

#: The page may run no script and load nothing, whatever a completion that it shows holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

Rows = Sequence[Mapping[str, float]]


def write_report(run_dir: Path) -> Path:
    """Write or rewrite report.html from the files in `run_dir`, as far as they are there. Returns its path.

    Raises:
        DataError: metrics.jsonl is damaged before its last line.
    """
    run = RunDirectory(run_dir)
    rows = read_metrics(run.metrics) if run.metrics.exists() else []
    config_text = run.config.read_text(encoding="utf-8") if run.config.exists() else ""
    config = _read_yaml(config_text)
    sections = [
        _header(run, config, rows),
        charts_section(rows),
        _warnings(run),
        samples_section(run),
        _policy(run),
        _config(config, config_text),
        _environment(run),
    ]
    title = escape(str(config.get("experiment", run_dir.name)))
    write_text(
        run.report,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} - Keel</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main>{''.join(sections)}</main></body></html>\n",
    )
    return run.report


def _read_yaml(text: str) -> dict[str, Any]:
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return cast("dict[str, Any]", read) if isinstance(read, dict) else {}


def _header(run: RunDirectory, config: Mapping[str, Any], rows: Rows) -> str:
    done, planned = int(rows[-1]["step"]) if rows else 0, config.get("steps")
    state = f"{done} of {planned} steps" if planned else f"{done} steps"
    state += ", finished" if planned and done >= int(planned) else " so far"
    model = config.get("model")
    name = str(cast("Mapping[str, Any]", model).get("path", "")) if isinstance(model, Mapping) else ""
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return (
        f"<header><h1>{escape(str(config.get('experiment', run.path.name)))}</h1>"
        f'<div class="soft">{escape(" · ".join(part for part in (name, state, f"written {made}") if part))}</div>'
        f"</header>{headline(rows)}"
    )


def _warnings(run: RunDirectory) -> str:
    found = read_warnings(run.run_log)
    items = "".join(
        f'<div class="warning">{escape(message)}{f" <b>(x{count})</b>" if count > 1 else ""}</div>'
        for message, count in found
    )
    body = items or '<p class="soft">None.</p>'
    return f"<section><h2>Warnings</h2>{body}</section>"


def _policy(run: RunDirectory) -> str:
    if run.policy.is_dir() and any(run.policy.iterdir()):
        path = escape(str(run.policy.resolve()))
        body = (
            f"<p>The trained policy is in <code>{path}</code>, in Hugging Face format. Load it with</p>"
            f"<pre>from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{path}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{path}")</pre>'
            f"<p>or serve it with</p><pre>vllm serve {path}</pre>"
        )
    else:
        names = sorted(entry.name for entry in run.checkpoints.glob("*")) if run.checkpoints.is_dir() else []
        held = f"Checkpoints: {escape(', '.join(names))}. " if names else "No checkpoint yet. "
        body = (
            f"<p>No policy exported yet. {held}Go on with the run by "
            f"<code>resume={escape(str(run.path.resolve()))}</code>.</p>"
        )
    return f'<section><h2>The policy</h2><div class="card">{body}</div></section>'


def _config(config: Mapping[str, Any], text: str) -> str:
    if not config:
        body = f"<pre>{escape(text)}</pre>" if text else '<p class="soft">config.yaml is missing.</p>'
        return f"<section><h2>Configuration</h2>{body}</section>"
    top = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    parts = [_table("run", top)] if top else []
    parts += [
        _table(key, _flat(cast("Mapping[str, Any]", value)))
        for key, value in config.items()
        if isinstance(value, Mapping)
    ]
    return f"<section><h2>Configuration</h2>{''.join(parts)}</section>"


def _environment(run: RunDirectory) -> str:
    try:
        found = cast("dict[str, Any]", json.loads(run.environment.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return ""
    earlier = found.pop("earlier_starts", [])
    tables = [_table("this start" if earlier else "environment", _flat(found))]
    tables += [_table(f"started {entry.get('started_at', '')}", _flat(entry)) for entry in earlier]
    return f"<section><h2>Environment</h2>{''.join(tables)}</section>"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(cast("Mapping[str, Any]", value), f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _table(name: str, values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(key)}</td><td><code>{escape(_cell(value))}</code></td></tr>" for key, value in values.items()
    )
    return f"<details><summary>{escape(name)}</summary><table>{rows}</table></details>"


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, cast("list[object]", value)))
    # As YAML spells them.
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
