"""The training loop.

for each step:
    groups             <- G completions of each of P prompts, sampled by the engines  (rollout)
    verdicts           <- every reward term on every completion, as groups arrive     (reward)
    advantages         <- rewards relative to their group
    policy             <- clipped, importance-weighted policy gradient update         (learner)
    engines            <- the new weights, verified by checksum                       (sync)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from grpo.collection import make_collector
from grpo.config import SYNC, RunConfig
from grpo.data.prompts import Prompts
from grpo.errors import KeelError, RewardsFailedError, TrainingError
from grpo.fleet import Fleet
from grpo.kernels.objective import has_kl_reward
from grpo.records import JudgedGroup, ScoredGroup
from grpo.reference_kl import kl_penalties, plan_reference_pass
from grpo.report.display import Display
from grpo.report.failures import failed_terms, write_failures
from grpo.report.metrics_log import MetricsLog
from grpo.report.rollouts import write_rollouts
from grpo.report.run_directory import RunDirectory
from grpo.report.warnings import look_wrong
from grpo.reward_worker import TermSpec
from grpo.run_state import CheckpointWriter, RunState, identity, rotate
from grpo.schedule.intake import Intake
from grpo.schedule.staleness import staleness
from grpo.scoring import score_groups, step_micro_batches
from grpo.step_metrics import merge_reports, rollout_metrics, staleness_metrics, sync_metrics

T = TypeVar("T")
#: Consecutive steps without a finite gradient after which training ends.
MAX_SKIPPED_STEPS = 3
#: How long a failing run may take to save what it has, seconds.
RESCUE_TIMEOUT_S = 300.0


class Interrupted(Exception):
    """Someone asked the run to stop; the step in progress left no trace."""


class Controller:
    """One run: workers that are up, a stream of prompts and the account of it, a directory to write to."""

    def __init__(
        self,
        config: RunConfig,
        fleet: Fleet,
        prompts: Prompts,
        intake: Intake,
        directory: RunDirectory,
        display: Display,
        terms: Mapping[str, TermSpec],
        *,
        first_step: int = 1,
    ) -> None:
        self._config = config
        self._terms = terms
        self._fleet = fleet
        self._prompts = prompts
        self._intake = intake
        self._collector = make_collector(config, fleet, intake, display, finished_steps=first_step - 1)
        self._directory = directory
        self._display = display
        self._step = first_step - 1  # steps finished
        self._saved_step = self._step
        self._stop = asyncio.Event()
        self._log = MetricsLog(directory.metrics, directory.tensorboard)
        self._skipped_steps = 0
        self._learning = False

    def request_stop(self) -> None:
        """End the run at the next safe moment, with a checkpoint. Safe from a signal handler of the loop."""
        self._stop.set()

    async def run(self, model_path: Path, checkpoint: Path | None = None) -> bool:
        """Start the workers and train until `steps` are done or a stop is asked for; then write a checkpoint.

        Args:
            model_path: Hugging Face model directory.
            checkpoint: to go on from.

        Returns:
            True where all steps were done.
        """
        try:
            await self._start(model_path, checkpoint)
            while self._step < self._config.steps and not self._stop.is_set():
                await self._one_step(self._step + 1)
                every = self._config.checkpoint_every
                if every and self._step % every == 0:
                    await self._checkpoint()
        except Interrupted:
            self._display.note(f"Stopping after step {self._step}; the step in progress is dropped.")
        except KeelError:
            await self._rescue()
            raise
        finally:
            await self._collector.close()
        # The engines end while the checkpoint is written: they need seconds, and someone is waiting for the prompt.
        ending = asyncio.ensure_future(self._fleet.end_sampling())
        if self._saved_step != self._step:
            await self._checkpoint()
        await ending
        self._log.close()
        return self._step >= self._config.steps

    async def _rescue(self) -> None:
        """After a failure: save what the learners have, unless the failure may have left them inside a step."""
        if self._learning or self._saved_step == self._step:
            return
        self._display.note(f"The run fails after step {self._step}; saving a checkpoint first.")
        with suppress(KeelError, TimeoutError):  # the failure itself is what has to be reported
            await asyncio.wait_for(self._checkpoint(), RESCUE_TIMEOUT_S)

    async def _start(self, model_path: Path, checkpoint: Path | None) -> None:
        started = time.perf_counter()
        self._display.phase("starting workers", 0, 0)
        await self._unless_stopped(self._fleet.launch(model_path, self._terms))
        if checkpoint is not None:
            await self._unless_stopped(self._fleet.on_learners("load", str(checkpoint)))
        # Also at the very start, where nothing has changed yet: a channel that does not work is found out here.
        await self._unless_stopped(self._fleet.sync_weights(self._step))
        await self._unless_stopped(self._collector.start())
        by = self._fleet.sync_backend
        self._display.note(f"Workers are up after {time.perf_counter() - started:.0f} s; weights travel by {by}")

    async def _one_step(self, step: int) -> None:
        started = time.perf_counter()
        judged, waits = await self._unless_stopped(self._collector.collect(step))
        scoring_started = time.perf_counter()
        self._check_rewards(step, judged)
        scored = await self._unless_stopped(self._score(judged))
        self._check_staleness(step, scored)
        packed = time.perf_counter()
        self._learning = True
        learned = await self._learn(scored)
        self._learning = False
        learner_s = time.perf_counter() - packed
        # The weights have changed: from here on the step counts, also when a stop is asked for.
        self._step = step
        sampling = self._intake.commit(judged)
        queues = self._collector.metrics()
        sync_started = time.perf_counter()
        self._display.phase("sync", 0, 0)
        await self._collector.quiesce()
        received = await self._fleet.sync_weights(step)
        self._collector.advance(step)
        sync_s = time.perf_counter() - sync_started
        metrics = rollout_metrics(scored, self._prompts.domains) | learned | {"epoch": self._prompts.epoch}
        metrics |= sync_metrics(received) | staleness_metrics(scored, step) | sampling | queues
        times = {
            "rollout": waits.rollout_s,
            "reward": waits.reward_s + packed - scoring_started,
            "learner": learner_s,
            "sync": sync_s,
        }
        self._record(step, scored, metrics, times, started)

    def _check_rewards(self, step: int, judged: list[JudgedGroup]) -> None:
        """Pause the run where a term failed on too much of the step: its evidence is written, the step is dropped."""
        limit = self._config.reward.max_failed_share
        broken = [failed for failed in failed_terms(judged) if failed.share > limit]
        if broken:
            evidence = self._directory.failures_file(step)
            write_failures(evidence, step, judged)
            raise RewardsFailedError(
                f"step {step} is not trained on: {'; '.join(map(str, broken))}. That is more than "
                f"reward.max_failed_share={limit:g}. The failed verdicts are in {evidence}. Mend the cause, or raise "
                f"that key, and go on with {_resume_hint(self._step, self._directory)}."
            )

    def _check_staleness(self, step: int, scored: Sequence[ScoredGroup]) -> None:
        """The schedule makes sure of this; a completion that is too old would be trained on in silence."""
        limit = self._config.schedule.staleness
        oldest = min(c.first_policy_version for s in scored for c in s.group.completions)
        if staleness(step, oldest) > limit:
            raise TrainingError(
                f"step {step} was given a completion of policy version {oldest}, which is older than "
                f"schedule.max_staleness={limit} allows. This is an error in Keel; please report it."
            )

    async def _score(self, judged: list[JudgedGroup]) -> list[ScoredGroup]:
        config, penalties = self._config, None
        if has_kl_reward(config.algorithm):
            asked = plan_reference_pass(
                [j.group for j in judged],
                num_ranks=config.learner.num_ranks,
                max_tokens=config.learner.micro_batch_tokens,
            )
            logprobs = await self._fleet.reference_logprobs(asked.batches)
            penalties = kl_penalties(asked, logprobs, group_size=config.rollout.group_size)
        return score_groups(
            judged,
            config.reward.term_weights,
            config.algorithm,
            max_new_tokens=config.rollout.max_new_tokens,
            kl_penalties=penalties,
        )

    async def _learn(self, scored: list[ScoredGroup]) -> dict[str, float]:
        config = self._config
        self._display.phase("learner", 0, 0)
        per_update = len(scored) // config.algorithm.updates_per_step
        updates = [
            step_micro_batches(
                scored[start : start + per_update],
                config.algorithm,
                num_ranks=config.learner.num_ranks,
                max_tokens=config.learner.micro_batch_tokens,
                constant_length=config.rollout.max_new_tokens,
            )
            for start in range(0, len(scored), per_update)
        ]
        step = asyncio.ensure_future(self._fleet.train_step(updates))
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({step, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not step.done():
            self._fleet.interrupt_step()
        stop.cancel()
        reports = await step
        if reports is None:
            raise Interrupted
        return merge_reports(reports)

    def _record(
        self,
        step: int,
        scored: list[ScoredGroup],
        metrics: dict[str, float],
        times: dict[str, float],
        started: float,
    ) -> None:
        """Write the step down: rollouts, metrics, display, warnings."""
        write_rollouts(self._directory.rollout_file(step), step, scored)
        metrics |= {f"time/{stage}_s": seconds for stage, seconds in times.items()}
        # A stream is sampled all the time; what the step waited for it says nothing of its rate.
        sampling_s = times["rollout"] if self._config.schedule.mode is SYNC else time.perf_counter() - started
        metrics["rollout/tokens_per_s"] = metrics["rollout/num_tokens"] / max(sampling_s, 1e-9)
        metrics["learner/tokens_per_s"] = metrics["learner/num_tokens"] / max(times["learner"], 1e-9)
        metrics["time/step_s"] = time.perf_counter() - started
        metrics["time/idle_s"] = metrics["time/step_s"] - sum(times.values())
        updates = self._config.algorithm.updates_per_step
        wrong = look_wrong(metrics, self._log.history, updates_per_step=updates)
        self._log.append(step, step, metrics)
        self._display.step({"step": step, **metrics})
        for message in wrong:
            self._display.warn(message)
        self._check_progress(metrics)

    def _check_progress(self, metrics: Mapping[str, float]) -> None:
        self._skipped_steps = self._skipped_steps + 1 if metrics.get("learner/skipped_updates") else 0
        if self._skipped_steps >= MAX_SKIPPED_STEPS:
            raise TrainingError(
                f"the gradient was not finite in {MAX_SKIPPED_STEPS} steps running; these updates were skipped, the "
                "weights are as before them. Lower learner.lr, or use model.param_dtype=float32."
            )

    async def _checkpoint(self) -> None:
        """Learners and controller state, written aside and renamed when complete."""
        started = time.perf_counter()
        self._display.phase("checkpoint", 0, 0)
        writer = CheckpointWriter(self._directory.checkpoints, self._step)
        await self._fleet.on_learners("save", str(writer.directory))
        state = RunState(step=self._step, prompts=self._intake.state(), identity=identity(self._config))
        final = await asyncio.to_thread(writer.commit, state)
        rotate(self._directory.checkpoints, self._config.keep_checkpoints)
        self._saved_step = self._step
        self._display.note(f"Checkpoint {final} ({time.perf_counter() - started:.1f} s)")

    async def export(self, directory: Path) -> None:
        """Write the policy as a Hugging Face model directory."""
        self._display.phase("export", 0, 0)
        await self._fleet.on_learners("export", str(directory))

    async def _unless_stopped(self, work: Awaitable[T]) -> T:
        """The result of `work`, given up as soon as a stop is asked for."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
        raise Interrupted


def _resume_hint(finished: int, directory: RunDirectory) -> str:
    """How to go on: from the checkpoint that a failing run saves, or from the start where nothing is finished yet."""
    return f"the same command and resume={directory.path}" if finished else "the same command"
