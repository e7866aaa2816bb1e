"""What is known of the head of a composed model: a file beside its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

FACTS_FILE = "reward_head.json"


def read_facts(model: Path) -> dict[str, Any]:
    """Facts by name; empty for a model without such a file, or with a broken one."""
    try:
        facts: Any = json.loads((model / FACTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", facts) if isinstance(facts, dict) else {}
