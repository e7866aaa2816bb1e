"""What a command says of an error that Keel raised on purpose."""

from __future__ import annotations

import sys

from grpo.errors import KeelError
from rewards.base import RewardError


class one_screen_errors:
    """Turns Keel's own errors into one plain message and an exit code; others keep their traceback."""

    def __init__(self, failed: str = "The run failed") -> None:
        self._failed = failed

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, KeelError | RewardError):
            bad_input = isinstance(error, ValueError)
            print(f"\n{'Error' if bad_input else self._failed}: {error}", file=sys.stderr)
            sys.exit(2 if bad_input else 1)
