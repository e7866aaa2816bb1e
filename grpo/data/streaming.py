"""A draw over a source too large to hold: block by block, exact on resume."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from grpo.config import DataConfig
from grpo.data.blocks import Blocks
from grpo.data.prompts import position, render
from grpo.data.sources import count_row
from grpo.data.tally import LoadReport, Tally
from grpo.errors import CheckpointError, DataError
from grpo.records import Prompt, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LOG = logging.getLogger(__name__)


class StreamedPrompts:
    """An endless, reproducible draw over a source of which one block is in memory at a time.

    With `data.shuffle` the rows of a block are permuted, and the blocks too where they can be read in any order; both
    permutations depend on nothing but the seed, the epoch's number and the block's. So a position is five numbers, and
    going on from one costs the reading of one block. Ids are checked for repeats within a block only.

    Attributes:
        num_dropped: prompts so far that were longer than `data.max_prompt_tokens`.
        domains: domains of the tasks seen so far, in order of first appearance; those of a block from the start.
    """

    def __init__(self, blocks: Blocks, tokenizer: PreTrainedTokenizerBase, config: DataConfig, *, seed: int) -> None:
        """Read up to the first task, so that a source that can't work is found out at once.

        Raises:
            DataError: as `read_tasks`, as far as has been read.
        """
        self.num_dropped = 0
        self.domains: tuple[str, ...] = ()
        self._blocks, self._tokenizer, self._config, self._seed = blocks, tokenizer, config, seed
        self._tally, self._is_resumed, self._has_drawn = Tally(config), False, False
        self._drawn = self._epoch = self._block = self._offset = 0
        self._items: list[Task] = []
        self._read_block()
        self._skip_empty_blocks()

    @property
    def epoch(self) -> float:
        """Epochs drawn so far; with the fraction of the current one where the number of blocks is known."""
        if self._blocks.num_blocks is None:
            return float(self._epoch)
        within = self._offset / len(self._items) if self._items else 0.0
        return self._epoch + min(self._block + within, self._blocks.num_blocks) / self._blocks.num_blocks

    def reports(self) -> tuple[LoadReport, ...]:
        """What became of the rows of the first epoch so far, since the start or the resume."""
        return (self._tally.report(),)

    def take(self, n: int) -> list[Prompt]:
        """The next `n` prompts; their uids go on counting over the whole run.

        Raises:
            DataError: too many rows are malformed, or a whole epoch held no prompt.
        """
        return [self._next() for _ in range(n)]

    def state(self) -> dict[str, int | str]:
        """The position, ready for JSON; `restore` of it continues exactly where this stream stands."""
        return {
            "drawn": self._drawn,
            "epoch": self._epoch,
            "block": self._block,
            "offset": self._offset,
            "fingerprint": self._blocks.fingerprint,
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go to a position that `state` returned.

        Raises:
            CheckpointError: the position is malformed, or belongs to another source.
        """
        drawn, epoch, block, offset = (position(state, name) for name in ("drawn", "epoch", "block", "offset"))
        if state.get("fingerprint") != self._blocks.fingerprint:
            raise CheckpointError(
                f"data.path={self._config.path!r}: its files are not those the checkpoint was made with. Resume with "
                "the data keys of that run (path, split, shuffle_buffer), or start a new run"
            )
        self._drawn, self._epoch, self._block, self._offset = drawn, epoch, block, offset
        self._tally, self._is_resumed, self._has_drawn = Tally(self._config), True, True
        self._read_block()

    def _next(self) -> Prompt:
        while True:
            self._skip_empty_blocks()
            task = self._items[self._offset]
            self._offset += 1
            token_ids = render(task, self._tokenizer, self._config.system_prompt)
            if len(token_ids) > self._config.max_prompt_tokens:
                self.num_dropped += 1
                continue
            prompt = Prompt(uid=self._drawn, task=task, token_ids=token_ids)
            self._drawn, self._has_drawn = self._drawn + 1, True
            return prompt

    def _skip_empty_blocks(self) -> None:
        """Go to the next task, if this block has no more."""
        while self._offset >= len(self._items):
            self._block, self._offset = self._block + 1, 0
            self._read_block()

    def _read_block(self) -> None:
        """The tasks of the block at this position, in the order of the draw; behind the last one, of the next epoch."""
        rows = self._blocks.block(self._number())
        if not rows and (self._blocks.num_blocks is None or self._block >= self._blocks.num_blocks):
            self._end_epoch()
            rows = self._blocks.block(self._number())
        tally = self._tally if self._epoch == 0 else Tally(self._config)  # later epochs hold the same rows again
        num_told = len(tally.report().examples)
        found = [count_row(located, self._config, tally) for located in rows]
        tally.forget()
        if self._epoch == 0:
            for example in tally.report().examples[num_told:]:
                _LOG.warning("malformed row: %s", example)
        tasks = [task for task in found if task is not None]
        self.domains = tuple(dict.fromkeys([*self.domains, *(task.domain for task in tasks)]))
        if self._config.shuffle:
            order = self._generator(1 + self._number()).permutation(len(tasks))
            tasks = [tasks[index] for index in order]
        self._items = tasks

    def _end_epoch(self) -> None:
        if self._epoch == 0 and not self._is_resumed:
            self._tally.finish()
        if not self._has_drawn:
            raise DataError(
                f"data.max_prompt_tokens={self._config.max_prompt_tokens}: a whole pass over {self._config.path} found "
                "no prompt that is short enough. Raise it"
            )
        self._epoch, self._block, self._offset = self._epoch + 1, 0, 0
        self._has_drawn = False

    def _number(self) -> int:
        """The block at this position."""
        if not self._config.shuffle or self._blocks.num_blocks is None or self._block >= self._blocks.num_blocks:
            return self._block
        return int(self._generator(0).permutation(self._blocks.num_blocks)[self._block])

    def _generator(self, purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self._seed, self._epoch, purpose]))
