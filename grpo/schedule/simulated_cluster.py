"""What a simulated cluster is, and what is found out about it."""

from __future__ import annotations

from dataclasses import dataclass

from grpo.schedule.samplers import ZERO, Sampler
from grpo.schedule.simulated_engine import DecodeCost


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedCluster:
    """Workers, and what they have to do.

    Attributes:
        num_workers: rollout workers, one engine each.
        max_num_seqs: sequences that an engine decodes at a time.
        decode: what a decode step costs.
        lengths: of completions, tokens.
        prompt_lengths: of prompts, tokens.
        groups_per_step: P.
        group_size: G.
        learner_s: seconds of a step in the learner, whatever is in it...
        learner_token_s: ...and of each of its completion tokens.
        sync_s: seconds of a weight sync; engines and learner stand still.
        judge_s: seconds from a group's last token to its verdicts; any number of groups at a time.
        overhead_s: seconds of the controller between two steps, in which the learner waits and the engines do not.
        share_without_signal: of groups; they are replaced.
        most_dropped: such groups a step, at most; beyond it they are trained on.
        overlap_speed: speed of engines and learner, of their own, while both are at work: 1 with hardware of their
            own, 0.5 where they share cores that either could fill alone.
    """

    num_workers: int
    max_num_seqs: int
    decode: DecodeCost
    lengths: Sampler
    groups_per_step: int
    group_size: int
    learner_s: Sampler
    prompt_lengths: Sampler = ZERO
    learner_token_s: float = 0.0
    sync_s: Sampler = ZERO
    judge_s: Sampler = ZERO
    overhead_s: Sampler = ZERO
    share_without_signal: float = 0.0
    most_dropped: int = 10**9
    overlap_speed: float = 1.0

    @property
    def full_token_s(self) -> float:
        """Seconds an engine that is full takes for a token."""
        return self.decode.step_s(self.max_num_seqs) / self.max_num_seqs


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRun:
    """What was found in the steps after the warm-up.

    Attributes:
        step_s: seconds a step.
        rollout_s: seconds of engine work in a step, were all engines always full: the engines' bound.
        learner_s: seconds of learner work in a step: the learner's bound.
        bound_s: no schedule makes a step faster: the larger of the two with hardware of their own; weight syncs are
            not in it.
        learner_idle_share: of time; the learner waits for groups.
        engine_idle_share: of time, mean over engines; they stand still.
        engine_unused_share: of the tokens that full engines would have decoded, those that were not.
        num_by_staleness: completions by the staleness of their first token, steps.
        num_drawn, num_trained, num_dropped, num_expired: groups up to the last step, warm-up included; expired ones
            begin again.
    """

    step_s: float
    rollout_s: float
    learner_s: float
    bound_s: float
    learner_idle_share: float
    engine_idle_share: float
    engine_unused_share: float
    num_by_staleness: dict[int, int]
    num_drawn: int
    num_trained: int
    num_dropped: int
    num_expired: int

    @property
    def over_bound(self) -> float:
        """Step time over the bound, 1 at best."""
        return self.step_s / self.bound_s
