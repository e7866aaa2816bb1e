"""Every error Keel raises on purpose, as one tree.

KeelError
├── ConfigError (also ValueError)    a key of the configuration is unknown, of the wrong type or impossible
├── DataError (also ValueError)      a data file is missing, empty or malformed; names file and line
├── ModelError (also ValueError)     a model path that is missing or holds no usable model
├── CheckpointError (also ValueError) a checkpoint is missing, torn, or belongs to another run
├── SyncError                        weights arrived in an engine late, not at all, or different
├── RewardsFailedError               a reward term failed on more of a step than may be; says why and how to go on
├── TrainingError                    the optimisation itself failed (NaN loss or gradient)
└── WorkerError                      a Ray worker died; carries the worker's own traceback
"""

from __future__ import annotations


class KeelError(Exception):
    """Base of all errors that Keel raises on purpose."""


class ConfigError(KeelError, ValueError):
    """A configuration value that can't work.

    Args:
        field: dotted key, e.g. ``rollout.group_size``.
        value: the value found.
        problem: what is wrong with it.
        remedy: what to do instead.
    """

    def __init__(self, field: str, value: object, problem: str, remedy: str) -> None:
        self.field = field
        self.value = value
        super().__init__(f"{field}={value!r}: {problem}. {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.field, self.value, str(self)))


class DataError(KeelError, ValueError):
    """A data source that can't be read, or a row in it; the message names file and line."""


class ModelError(KeelError, ValueError):
    """A model path that does not exist or holds no model Keel can train."""


class CheckpointError(KeelError, ValueError):
    """A checkpoint that is missing, torn or of another run."""


class SyncError(KeelError):
    """A weight sync that failed, timed out, or delivered something other than was sent."""


class RewardsFailedError(KeelError):
    """A reward term failed on more of a step than `reward.max_failed_share`: the run is paused, nothing is lost."""


class TrainingError(KeelError):
    """The optimisation step produced a value that must not reach the weights."""


class WorkerError(KeelError):
    """A worker died; the message holds the worker's own traceback."""


def _rebuild(kind: type[ConfigError], field: str, value: object, message: str) -> ConfigError:
    """Unpickle a ConfigError (it crosses process boundaries inside Ray)."""
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.field, error.value = field, value
    return error
