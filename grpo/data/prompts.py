"""Tasks rendered for one model, and the order in which a run draws them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from grpo.config import DataConfig
from grpo.data.tally import LoadReport
from grpo.errors import CheckpointError, DataError, ModelError
from grpo.records import IntArray, Prompt, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render(task: Task, tokenizer: PreTrainedTokenizerBase, system_prompt: str | None) -> IntArray:
    """Token ids of a task's messages, of the opened assistant turn and of its prefill, [P] int64.

    The chat template is rendered to text first and tokenised without special tokens: the template itself writes the
    BOS token, where the model has one.

    Args:
        system_prompt: None keeps the template's own default.

    Raises:
        ModelError: the tokenizer has no chat template, or the template refuses the messages.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise ModelError(
            f"model.path: the tokenizer in {tokenizer.name_or_path!r} has no chat template. Take an instruction-tuned "
            "model, or put a chat_template.jinja beside its tokenizer.json"
        )
    messages = [{"role": role, "content": content} for role, content in task.messages]
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": system_prompt})
    try:
        text = cast(str, tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise ModelError(
            f"model.path: the chat template of {tokenizer.name_or_path!r} refuses task {task.task_id!r}: {error}. "
            "If it knows no system role, set data.system_prompt=null"
        ) from error
    # verbose=False: a prompt beyond the model's length is no news here, it is dropped below.
    encoded = tokenizer(text + task.prefill, add_special_tokens=False, verbose=False)
    return np.asarray(encoded["input_ids"], dtype=np.int64)


class Prompts(Protocol):
    """An endless, reproducible draw of prompts, whatever they come from."""

    @property
    def num_dropped(self) -> int:
        """Tasks left out because their prompt is longer than `data.max_prompt_tokens`."""
        ...

    @property
    def domains(self) -> tuple[str, ...]:
        """The tasks' domains, in order of first appearance."""
        ...

    @property
    def epoch(self) -> float:
        """Epochs drawn so far."""
        ...

    def take(self, n: int) -> list[Prompt]:
        """The next `n` prompts; their uids go on counting over the whole run."""
        ...

    def state(self) -> dict[str, Any]:
        """The position, ready for JSON; `restore` of it continues exactly where this stream stands."""
        ...

    def restore(self, state: Mapping[str, object]) -> None:
        """Go to a position that `state` returned. Raises CheckpointError where it belongs to other tasks."""
        ...

    def reports(self) -> tuple[LoadReport, ...]:
        """What became of the rows, of each source one."""
        ...


class PromptStream:
    """An endless, reproducible draw over tasks, in epochs.

    Every epoch holds every task once: in the source's order, or in a permutation that depends on nothing but the seed
    and the epoch's number.

    Attributes:
        num_dropped: tasks left out because their prompt is longer than `data.max_prompt_tokens`.
        domains: the tasks' domains, in order of first appearance.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        tokenizer: PreTrainedTokenizerBase,
        config: DataConfig,
        *,
        seed: int,
        reports: tuple[LoadReport, ...] = (),
    ) -> None:
        """Render all tasks at once. `reports` are kept for whoever asks.

        Raises:
            DataError: no prompt is short enough.
            ModelError: as `render`.
        """
        rendered = [(task, render(task, tokenizer, config.system_prompt)) for task in tasks]
        self._items: list[tuple[Task, IntArray]] = [
            item for item in rendered if len(item[1]) <= config.max_prompt_tokens
        ]
        self.num_dropped = len(rendered) - len(self._items)
        if not self._items:
            shortest = min((len(token_ids) for _, token_ids in rendered), default=0)
            raise DataError(
                f"data.max_prompt_tokens={config.max_prompt_tokens}: all {len(rendered)} prompts are longer; the "
                f"shortest has {shortest} tokens. Raise it to that or more"
            )
        self.domains: tuple[str, ...] = tuple(dict.fromkeys(task.domain for task, _ in self._items))
        self._path, self._shuffle, self._seed = config.path, config.shuffle, seed
        self._fingerprint = _fingerprint([task.task_id for task, _ in self._items])
        self._reports = reports
        self._drawn = 0
        self._order_epoch = -1
        self._order: IntArray = np.arange(len(self._items))

    def __len__(self) -> int:
        """Prompts in one epoch."""
        return len(self._items)

    @property
    def epoch(self) -> float:
        """Epochs drawn so far, with the fraction of the current one."""
        return self._drawn / len(self._items)

    def reports(self) -> tuple[LoadReport, ...]:
        """What became of the rows that the tasks were made of."""
        return self._reports

    def take(self, n: int) -> list[Prompt]:
        """The next `n` prompts; their uids go on counting over the whole run."""
        return [self._next() for _ in range(n)]

    def state(self) -> dict[str, int | str]:
        """The position, ready for JSON; `restore` of it continues exactly where this stream stands."""
        return {"drawn": self._drawn, "fingerprint": self._fingerprint}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go to a position that `state` returned.

        Raises:
            CheckpointError: the position is malformed, or belongs to other tasks than these.
        """
        drawn = position(state, "drawn")
        if state.get("fingerprint") != self._fingerprint:
            raise CheckpointError(
                f"data.path={self._path!r}: its {len(self)} tasks are not those the checkpoint was made with. Resume "
                "with the data keys of that run (path, split, limit, max_level, max_prompt_tokens), or start a new run"
            )
        self._drawn = drawn

    def _next(self) -> Prompt:
        epoch, place = self._drawn // len(self._items), self._drawn % len(self._items)
        if self._shuffle and epoch != self._order_epoch:
            generator = np.random.Generator(np.random.PCG64([self._seed, epoch]))
            self._order, self._order_epoch = generator.permutation(len(self._items)), epoch
        task, token_ids = self._items[self._order[place]]
        prompt = Prompt(uid=self._drawn, task=task, token_ids=token_ids)
        self._drawn += 1
        return prompt


def position(state: Mapping[str, object], name: str) -> int:
    """A count out of a state.

    Raises:
        CheckpointError: it is none.
    """
    value = state.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise CheckpointError(f"the checkpoint's data position is malformed: {name}={value!r}")
    return value


def _fingerprint(task_ids: list[str]) -> str:
    """Of the ids in their order; each is preceded by its length, so that no two lists collide by concatenation."""
    digest = hashlib.sha256()
    for task_id in task_ids:
        digest.update(f"{len(task_id)}:{task_id}".encode())
    return digest.hexdigest()[:16]
