"""Failed verdicts of a step: how many, why, and the evidence in a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grpo.records import JudgedGroup
from grpo.report.files import replacing
from rewards.base import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTerm:
    """One term's failures in a step.

    Attributes:
        term: its name.
        share: of its verdicts that are not absent.
        reasons: how often each reason was given, most frequent first.
    """

    term: str
    share: float
    reasons: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        """One line for a person."""
        reasons = ", ".join(f"{reason} {count}x" for reason, count in self.reasons)
        return f"reward term {self.term} failed on {self.share:.0%} of the completions it judged ({reasons})"


def failed_terms(judged: Sequence[JudgedGroup]) -> list[FailedTerm]:
    """Every term that failed on something, the worst first."""
    found: list[FailedTerm] = []
    for term in dict.fromkeys(name for one in judged for name in one.verdicts):
        verdicts = [v for one in judged for v in one.verdicts.get(term, ()) if v.outcome is not Outcome.ABSENT]
        reasons = Counter(v.reason for v in verdicts if v.outcome is Outcome.FAILED)
        if reasons:
            share = reasons.total() / len(verdicts)
            found.append(FailedTerm(term=term, share=share, reasons=tuple(reasons.most_common())))
    return sorted(found, key=lambda failed: -failed.share)


def write_failures(path: Path, step: int, judged: Sequence[JudgedGroup]) -> None:
    """Write every failed verdict with its completion, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside, aside.open("w", encoding="utf-8", errors="replace") as file:
        for one in judged:
            for term, verdicts in one.verdicts.items():
                for index, verdict in enumerate(verdicts):
                    if verdict.outcome is Outcome.FAILED:
                        row = {
                            "step": step,
                            "term": term,
                            "reason": verdict.reason,
                            "details": dict(verdict.details),
                            "task_id": one.group.prompt.task.task_id,
                            "domain": one.group.prompt.task.domain,
                            "group_index": index,
                            "prompt": [list(message) for message in one.group.prompt.task.messages],
                            "completion": one.group.completions[index].text,
                        }
                        file.write(json.dumps(row, ensure_ascii=False) + "\n")
