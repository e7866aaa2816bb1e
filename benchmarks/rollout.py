"""How fast do rollout workers sample, against bare vLLM given the same requests in the same run?

`grpo bench rollout` is the same command.
"""

from __future__ import annotations

import sys

from launch.bench import rollout

if __name__ == "__main__":
    rollout(sys.argv[1:], prog=None, description=(__doc__ or "").split("\n")[0])
