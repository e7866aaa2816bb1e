"""From the configuration to the draw of a run: one source or several, in memory or streamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo.config import DataConfig
from grpo.data.blocks import Blocks, open_blocks
from grpo.data.mixture import MixedPrompts
from grpo.data.prompts import Prompts, PromptStream
from grpo.data.rows import unreadable
from grpo.data.sources import check_source, read_tasks
from grpo.data.streaming import StreamedPrompts
from grpo.data.tally import LoadReport
from grpo.errors import DataError
from grpo.records import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source, found and, unless it is streamed, read.

    Attributes:
        name: key in `data.sources`; empty where there is one source only.
        config: the configuration of this source alone.
        tasks: all of it, with what became of its rows; None where it is streamed.
        blocks: where it is streamed.
    """

    name: str
    config: DataConfig
    tasks: tuple[list[Task], LoadReport] | None
    blocks: Blocks | None


def open_sources(config: DataConfig) -> list[Source]:
    """Find and read all sources; those of weight 0 are left out. Needs no tokenizer, so that it can come first.

    Raises:
        DataError: as `read_tasks`; the name of the source comes first where there are several.
    """
    if not config.sources:
        return [_open("", config)]
    return [_open(name, config.one_source(name)) for name, source in config.sources.items() if source.weight]


def make_prompts(
    sources: list[Source], tokenizer: PreTrainedTokenizerBase, config: DataConfig, *, seed: int
) -> Prompts:
    """The draw over all sources.

    Raises:
        DataError: no prompt of a source is short enough.
        ModelError: the chat template is missing, or refuses a task.
    """
    streams = {source.name: _stream(source, tokenizer, seed) for source in sources}
    if not config.sources:
        return streams[""]
    return MixedPrompts(streams, {name: config.sources[name].weight for name in streams})


def _open(name: str, config: DataConfig) -> Source:
    try:
        check_source(config)
        if config.streaming:
            return Source(name=name, config=config, tasks=None, blocks=open_blocks(config))
        return Source(name=name, config=config, tasks=read_tasks(config), blocks=None)
    except OSError as error:
        raise unreadable(config, error) from error
    except DataError as error:
        raise _named(name, error) from error.__cause__


def _stream(source: Source, tokenizer: PreTrainedTokenizerBase, seed: int) -> Prompts:
    try:
        if source.blocks is not None:
            return StreamedPrompts(source.blocks, tokenizer, source.config, seed=seed)
        assert source.tasks is not None
        tasks, report = source.tasks
        return PromptStream(tasks, tokenizer, source.config, seed=seed, reports=(report,))
    except DataError as error:
        raise _named(source.name, error) from error.__cause__


def _named(name: str, error: DataError) -> DataError:
    return DataError(f"data.sources.{name}: {error}") if name else error
