"""What a dead worker's log says of its death."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from grpo.config import ClusterConfig, RunConfig
from grpo.worker_process import free_port, last_traceback, node_address

ENGINE = "(EngineCore pid=4711) "
STAMP = ENGINE + "ERROR 11-23 23:12:54 [core.py:1042] "

CAUSE = [
    "Traceback (most recent call last):",
    '  File "/venv/vllm/v1/engine/core.py", line 1033, in run_engine_core',
    "    engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)",
    "                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
    '  File "/venv/vllm/v1/core/kv_cache_utils.py", line 694, in check_enough_kv_cache_memory',
    "    raise ValueError(",
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.",
]

FOLLOW_UP = [
    "Traceback (most recent call last):",
    '  File "/work/grpo/rollout/engine.py", line 61, in start',
    "    self._engine = AsyncLLM.from_engine_args(arguments)",
    '  File "/venv/vllm/v1/engine/utils.py", line 951, in wait_for_engine_startup',
    '    raise RuntimeError("Engine core initialization failed. "',
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
]

VLLM_LOG = "\n".join(
    [
        "INFO 11-23 23:12:40 [model.py:541] Resolved architecture: LlamaForCausalLM",
        ENGINE + "INFO 11-23 23:12:50 [core.py:93] Initializing a V1 LLM engine (v0.32.0)",
        STAMP + "EngineCore failed to start.",
        *(STAMP + line for line in CAUSE),
        ENGINE + "Process EngineCore:",
        *(ENGINE + line for line in CAUSE),
        *FOLLOW_UP,
        "",
    ]
)


def test_the_cause_is_found_under_prefixes_and_before_the_follow_up():
    assert last_traceback(VLLM_LOG).rstrip() == "\n".join(CAUSE)


def test_a_stamped_traceback_keeps_its_indentation():
    log = "\n".join(STAMP + line for line in CAUSE)
    assert last_traceback(log) == "\n".join(CAUSE)


@pytest.mark.parametrize("prefix", ["(EngineCore_DP0 pid=1) ", "(Worker_TP1 pid=99) ", "(APIServer pid=5) ", ""])
def test_prefixes_of_several_vllm_versions(prefix: str):
    assert last_traceback("\n".join(prefix + line for line in CAUSE)) == "\n".join(CAUSE)


def test_the_last_of_several_unrelated_tracebacks():
    earlier = [*CAUSE[:-1], "KeyError: 'an earlier, survived one'"]
    assert last_traceback("\n".join([*earlier, "INFO going on", *CAUSE])) == "\n".join(CAUSE)


def test_a_message_of_several_lines_is_kept_whole():
    log = [
        *CAUSE[:-1],
        "pydantic_core.ValidationError: 1 validation error for ModelConfig",
        "  Value error, Model architectures ['X'] are not supported for now.",
        "    For further information visit https://errors.pydantic.dev",
    ]
    assert last_traceback("\n".join(log)) == "\n".join(log)


def test_a_long_traceback_keeps_its_end():
    frames = [line for n in range(100) for line in (f'  File "deep.py", line {n}, in f', "    f()")]
    found = last_traceback("\n".join([CAUSE[0], *frames, "RecursionError: too deep"]), limit=10).splitlines()
    assert len(found) == 10
    assert found[-1] == "RecursionError: too deep"


def test_what_is_logged_after_a_traceback_does_not_push_it_out():
    noise = [f"INFO 11-23 23:13:{n:02d} [shutdown.py:1] closing" for n in range(60)]
    found = last_traceback("\n".join([*CAUSE, *noise])).splitlines()
    assert found[: len(CAUSE)] == CAUSE
    assert len(found) <= 40


def test_a_long_traceback_and_much_after_it():
    frames = [line for n in range(100) for line in (f'  File "deep.py", line {n}, in f', "    f()")]
    noise = [f"INFO 11-23 23:13:{n:02d} [shutdown.py:1] closing" for n in range(60)]
    found = last_traceback("\n".join([CAUSE[0], *frames, "torch.OutOfMemoryError: CUDA", *noise])).splitlines()
    assert "torch.OutOfMemoryError: CUDA" in found
    assert '  File "deep.py", line 99, in f' in found
    assert len(found) <= 40


@pytest.mark.parametrize("log", ["", "INFO all is well\n", "\n".join(FOLLOW_UP)])
def test_no_traceback_that_names_a_cause(log: str):
    assert last_traceback(log) == ""


def test_a_real_traceback(tmp_path: Path):
    """Out of a real process, through `log_to_file`, its child's output included."""
    log = tmp_path / "logs" / "worker.log"
    program = (
        "import subprocess, sys\n"
        "from pathlib import Path\n"
        "from grpo.worker_process import log_to_file\n"
        "print('before')\n"
        f"log_to_file(Path({str(log)!r}))\n"
        "subprocess.run([sys.executable, '-c', 'print(\"from the child\")'], check=True)\n"
        "raise LookupError('gone')\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == "before\n"
    assert done.stderr == ""
    text = log.read_text()
    assert "from the child" in text
    assert last_traceback(text).splitlines()[-1] == "LookupError: gone"


def test_a_free_port_can_be_bound():
    port = free_port("127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


def test_a_local_cluster_is_reached_by_loopback():
    assert node_address(RunConfig(cluster=ClusterConfig(address=None))) == "127.0.0.1"
