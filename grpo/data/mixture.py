"""Several sources in one run, each with its share of the prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

from grpo.data.prompts import Prompts, position
from grpo.data.schedule import next_index
from grpo.data.tally import LoadReport
from grpo.errors import CheckpointError
from grpo.records import Prompt


class MixedPrompts:
    """A draw that takes turns between sources by a fixed schedule, not by chance.

    At every moment of the run each source has had its share of the prompts to within one, so that each step holds the
    shares as closely as whole prompts allow. What a source gives depends on that source alone: taking another one out,
    or changing weights, leaves the order within it as it is.
    """

    def __init__(self, sources: Mapping[str, Prompts], weights: Mapping[str, float]) -> None:
        """`weights` are raw, above 0, by the names of `sources`."""
        self._sources = dict(sources)
        # As they were written: 0.1 is one tenth, not the nearest binary fraction.
        self._weights = [Fraction(str(weights[name])) for name in self._sources]
        self._counts = [0] * len(self._sources)

    @property
    def num_dropped(self) -> int:
        """Prompts left out of all sources for their length."""
        return sum(source.num_dropped for source in self._sources.values())

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains of all sources, in the order of the sources."""
        return tuple(dict.fromkeys(domain for source in self._sources.values() for domain in source.domains))

    @property
    def epoch(self) -> float:
        """Epochs of the sources, averaged by their shares."""
        total = sum(self._weights)
        shares = [float(weight / total) for weight in self._weights]
        return sum(share * source.epoch for share, source in zip(shares, self._sources.values(), strict=True))

    def epochs(self) -> dict[str, float]:
        """Epochs drawn so far of each source."""
        return {name: source.epoch for name, source in self._sources.items()}

    def reports(self) -> tuple[LoadReport, ...]:
        """What became of the rows of each source."""
        return tuple(report for source in self._sources.values() for report in source.reports())

    def take(self, n: int) -> list[Prompt]:
        """The next `n` prompts; their uids go on counting over the whole run, all sources together."""
        return [self._next() for _ in range(n)]

    def state(self) -> dict[str, Any]:
        """The position, ready for JSON; `restore` of it continues exactly where this stream stands."""
        counts = zip(self._sources.items(), self._counts, strict=True)
        return {"sources": {name: {"count": count, "state": source.state()} for (name, source), count in counts}}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go to a position that `state` returned.

        Raises:
            CheckpointError: the position is malformed, or belongs to other sources or other tasks.
        """
        saved = state.get("sources")
        if not isinstance(saved, Mapping) or not all(isinstance(v, Mapping) for v in cast(Any, saved).values()):
            raise CheckpointError("the checkpoint's data position is malformed: it is not one of several sources")
        positions = cast("Mapping[str, Mapping[str, object]]", saved)
        if set(positions) != set(self._sources):
            raise CheckpointError(
                f"data.sources: {', '.join(self._sources)} are not those the checkpoint was made with, "
                f"{', '.join(positions)}. Resume with the sources of that run, or start a new run"
            )
        counts = [position(positions[name], "count") for name in self._sources]
        before = self.state()
        try:
            for name, source in self._sources.items():
                source.restore(cast("Mapping[str, object]", positions[name].get("state") or {}))
        except CheckpointError:
            self._rewind(before)
            raise
        self._counts = counts

    def _rewind(self, state: Mapping[str, Any]) -> None:
        for name, source in self._sources.items():
            source.restore(state["sources"][name]["state"])

    def _next(self) -> Prompt:
        index = next_index(self._counts, self._weights)
        source = list(self._sources.values())[index]
        prompt = replace(source.take(1)[0], uid=sum(self._counts))
        self._counts[index] += 1
        return prompt
