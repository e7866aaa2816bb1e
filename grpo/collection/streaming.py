"""A stream of groups that never stops: sampled while the learner trains, taken when a step's worth is judged."""

from __future__ import annotations

import asyncio
import time

from grpo.collection.lockstep import engine_seeds
from grpo.collection.protocol import Waits, nothing_finished
from grpo.config import ONE_STEP_OFF, RunConfig
from grpo.fleet import Fleet
from grpo.records import JudgedGroup, Prompt
from grpo.report.display import Display
from grpo.schedule.balance import Balance
from grpo.schedule.intake import Intake
from grpo.schedule.scheduler import Limits, Scheduler


class StreamingCollector:
    """Admits a prompt whenever the schedule has room; each group is judged as soon as its last completion arrives.

    Every queue is bounded: what is in flight by the engines' size, all that is outstanding by the staleness.
    """

    def __init__(
        self, config: RunConfig, fleet: Fleet, intake: Intake, display: Display, *, finished_steps: int
    ) -> None:
        rollout = config.rollout
        self._config, self._fleet, self._intake, self._display = config, fleet, intake, display
        self._finished_steps = finished_steps
        self._balance = make_balance(config)
        limits = Limits(
            groups_per_step=rollout.prompts_per_step,
            max_staleness=config.schedule.staleness,
            last_step=config.steps,
            max_in_flight=self._in_flight_limit(),
        )
        self._scheduler = Scheduler[JudgedGroup](limits, finished_steps=finished_steps)
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._failure: Exception | None = None
        self._is_quiet = False
        self._num_aborted = 0

    async def start(self) -> None:
        """Give every engine random numbers of its own, and begin."""
        await self._fleet.seed(engine_seeds(self._config, self._finished_steps + 1))
        self._pump()

    async def collect(self, step: int) -> tuple[list[JudgedGroup], Waits]:
        """Wait until a step's groups are judged."""
        waits, scheduler = Waits(), self._scheduler
        assert scheduler.next_step == step
        while (batch := scheduler.take()) is None:
            self._show()
            for uid in scheduler.overdue() if self._config.schedule.over_sample else ():
                self._fleet.abort(self._balance.worker_of(uid), uid)
            is_sampling, started = scheduler.num_in_flight > 0, time.perf_counter()
            await self._event()
            waited = time.perf_counter() - started
            waits.rollout_s += waited * is_sampling
            waits.reward_s += waited * (not is_sampling)
        for late in scheduler.expired():
            self._intake.hand_back(late.group.prompt)
        self._pump()
        return sorted(batch, key=lambda one: one.group.prompt.uid), waits

    async def quiesce(self) -> None:
        """Without in-flight updates: begin nothing new, and wait for what is being decoded."""
        if self._config.schedule.mode is not ONE_STEP_OFF:
            return
        self._is_quiet = True
        while self._scheduler.num_in_flight:
            await self._event()

    def advance(self, policy_version: int) -> None:
        """There is room again."""
        self._scheduler.advance(policy_version)
        self._scheduler.expected_share = self._intake.signal_share
        self._is_quiet = False
        self._pump()

    async def close(self) -> None:
        """Give up all that is in flight."""
        self._is_quiet = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def metrics(self) -> dict[str, float]:
        """Lengths of the queues now, and what was aborted since the last call."""
        scheduler, aborted = self._scheduler, self._num_aborted
        self._num_aborted = 0
        return {
            "schedule/num_aborted": float(aborted),
            "schedule/num_in_flight": float(scheduler.num_in_flight),
            "schedule/num_judging": float(scheduler.num_open - scheduler.num_in_flight),
            "schedule/num_ready": float(scheduler.num_ready),
        }

    def _in_flight_limit(self) -> int:
        """As many groups as keep the engines full, by the lengths so far, unless the configuration says."""
        per_worker = self._config.schedule.max_groups_per_worker
        if per_worker is not None:
            return per_worker * self._config.rollout.num_workers
        return self._balance.groups_in_flight(self._config.rollout.max_num_seqs)

    def _pump(self) -> None:
        """Hand out prompts while there is room."""
        while not self._is_quiet and self._failure is None and self._scheduler.may_admit():
            prompt = self._intake.draw()
            self._scheduler.admit(prompt.uid)
            worker = self._balance.assign(prompt.uid, len(prompt.token_ids))
            task = asyncio.create_task(self._follow(prompt, worker))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _follow(self, prompt: Prompt, worker: int) -> None:
        """One group, from the engine to the queue of the learner."""
        try:
            group = await self._fleet.sample(worker, prompt)
            if group is None:
                self._give_up(prompt)
                return
            self._balance.done(prompt.uid, [len(c.token_ids) for c in group.completions])
            self._scheduler.sampled(prompt.uid)
            self._scheduler.max_in_flight = self._in_flight_limit()
            self._moved()
            judged = await self._fleet.rewards.judge(group)
            if self._intake.accepts(judged):
                self._scheduler.ready(prompt.uid, judged)
            else:
                self._scheduler.drop(prompt.uid)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for the next step
            self._failure = self._failure or error
        self._moved()

    def _give_up(self, prompt: Prompt) -> None:
        """It was aborted: nothing of it is kept, the prompt is drawn again."""
        self._num_aborted += 1
        self._balance.done(prompt.uid)
        self._scheduler.drop(prompt.uid)
        self._intake.hand_back(prompt)
        self._moved()

    def _moved(self) -> None:
        self._pump()
        self._changed.set()

    async def _event(self) -> None:
        """Wait until something happens. Raises what went wrong."""
        limit = self._config.rollout.timeout_s
        self._changed.clear()
        if self._failure is None:
            try:
                await asyncio.wait_for(self._changed.wait(), limit)
            except TimeoutError:
                raise nothing_finished(self._config, self._fleet.log_dir) from None
        if self._failure is not None:
            raise self._failure

    def _show(self) -> None:
        total = self._config.rollout.prompts_per_step
        self._display.phase("sampling", min(self._scheduler.num_ready, total), total)


def make_balance(config: RunConfig) -> Balance:
    """Nothing assigned yet."""
    rollout = config.rollout
    return Balance(rollout.num_workers, rollout.group_size, float(rollout.max_new_tokens) / 2)
