"""Nothing stays behind, and a lost zygote is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rewards.sandbox.pool import Sandbox
from rewards.sandbox.program import Kind, Limits, Program, ProgramResult

GOOD = Program(source="def f(x): return x + 1", tests=("assert f(1) == 2",))
SLEEPS = Program(source="import time\ntime.sleep(60)", tests=("True",), limits=Limits(wall_time_s=60.0))


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The sandbox's directories go here, and must be gone at the end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)  # pytest's are private; a candidate of another user has to pass through
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def descriptors() -> list[str]:
    return [fd.name for fd in Path("/proc/self/fd").iterdir()]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_close_leaves_nothing(base: Path) -> None:
    num_descriptors, threads = len(descriptors()), threading.active_count()
    sandbox = Sandbox(3)
    pids = sandbox.zygote_pids()
    assert len(pids) == 3
    assert all(result.kind is Kind.PASSED for result in sandbox.run_many([GOOD] * 20))
    assert len(list(base.glob("keel-sandbox-*/slot-*"))) == 3
    sandbox.close()
    sandbox.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)  # not even as zombies
    assert (len(descriptors()), threading.active_count()) == (num_descriptors, threads)
    with pytest.raises(RuntimeError, match="closed"):
        sandbox.run(GOOD)
    with pytest.raises(RuntimeError, match="closed"):
        sandbox.run_many([GOOD])


def test_no_slots_no_sandbox() -> None:
    with pytest.raises(ValueError, match="slots=0"):
        Sandbox(0)


LISTING = "import os\ndef listing(): return os.listdir(os.environ['TMPDIR'])"


def test_stubborn_directories_go_too(base: Path) -> None:
    stubborn = (
        "import os\nos.makedirs('a/b/c'); open('a/b/f', 'w'); os.symlink('/', 'a/link'); os.mkdir('n', 0)\n"
        "os.umask(0o777); os.makedirs('m')"
    )
    deep = "import os\nfor _ in range(2000): os.mkdir('d'); os.chdir('d')"
    with Sandbox(1) as sandbox:
        for source in (stubborn, deep):
            assert sandbox.run(Program(source=source, tests=("True",))).kind is Kind.PASSED
            empty = Program(source=LISTING, tests=("assert listing() == []",))
            assert sandbox.run(empty).kind is Kind.PASSED


def test_a_killed_zygote_is_replaced(base: Path) -> None:
    with Sandbox(2) as sandbox:
        for pid in sandbox.zygote_pids():
            os.kill(pid, signal.SIGKILL)
        assert [result.kind for result in sandbox.run_many([GOOD] * 8)] == [Kind.PASSED] * 8


def test_a_program_survives_the_death_of_its_zygote(base: Path) -> None:
    results: list[ProgramResult] = []
    slow = Program(source="import time\ntime.sleep(1)\n" + GOOD.source, tests=GOOD.tests)
    with Sandbox(1) as sandbox:
        sandbox.run(GOOD)
        (zygote,) = sandbox.zygote_pids()
        thread = threading.Thread(target=lambda: results.append(sandbox.run(slow)))
        thread.start()
        wait_until(lambda: len(children(zygote)) > 0)
        (candidate,) = children(zygote)
        os.kill(zygote, signal.SIGKILL)
        thread.join()
        assert [result.kind for result in results] == [Kind.PASSED]
        assert sandbox.zygote_pids() != [zygote]
        assert not alive(candidate)


def test_a_program_that_loses_two_zygotes_is_a_fault(base: Path) -> None:
    results: list[ProgramResult] = []
    with Sandbox(1) as sandbox:
        thread = threading.Thread(target=lambda: results.append(sandbox.run(SLEEPS)))
        thread.start()
        killed: set[int] = set()
        while len(killed) < 2:
            wait_until(lambda: any(alive(pid) and children(pid) for pid in set(sandbox.zygote_pids()) - killed))
            (pid,) = sandbox.zygote_pids()
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        thread.join()
        assert [result.kind for result in results] == [Kind.SANDBOX_FAULT]
        assert "zygote died" in results[0].message
        assert sandbox.run(GOOD).kind is Kind.PASSED


def test_four_threads_share_two_slots(sandbox: Sandbox) -> None:
    results: dict[int, list[bool]] = {index: [] for index in range(4)}

    def work(index: int) -> None:
        for step in range(15):
            right = (index + step) % 2 == 0
            source = f"def f(x): return x + {index if right else 99}"
            result = sandbox.run(Program(source=source, tests=(f"assert f(1) == {1 + index}",)))
            results[index].append((result.kind is Kind.PASSED) is right)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(column) == 15 and all(column) for column in results.values())


def test_zygotes_outlive_the_thread_that_asked_for_them(base: Path) -> None:
    made: list[Sandbox] = []
    thread = threading.Thread(target=lambda: made.append(Sandbox(1)))
    thread.start()
    thread.join()
    with made[0] as sandbox:
        pids = sandbox.zygote_pids()
        assert sandbox.run(GOOD).kind is Kind.PASSED
        assert sandbox.zygote_pids() == pids


def test_closing_ends_running_and_waiting_programs(base: Path) -> None:
    results: list[ProgramResult] = []
    sandbox = Sandbox(1)
    (zygote,) = sandbox.zygote_pids()
    threads = [threading.Thread(target=lambda: results.append(sandbox.run(SLEEPS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(children(zygote)) > 0)
    (candidate,) = children(zygote)
    time.sleep(0.1)
    sandbox.close()
    for thread in threads:
        thread.join(10)
    assert [result.kind for result in results] == [Kind.SANDBOX_FAULT] * 3
    assert not alive(zygote)
    assert not alive(candidate)


def test_high_descriptors_of_the_trainer_stay_closed(base: Path) -> None:
    spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(300)]
    try:
        with Sandbox(1) as sandbox:
            listing = (
                "import fcntl\ndef f(fd):\n    try: fcntl.fcntl(fd, fcntl.F_GETFD)\n    except OSError: return False\n"
                "    return True\nprint([fd for fd in range(1000) if f(fd)], flush=True)"
            )
            result = sandbox.run(Program(source=listing, tests=()))
    finally:
        for fd in spare:
            os.close(fd)
    assert result.output == "[0, 1, 2, 3, 4]\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_everything_ends_with_the_trainer(base: Path, number: signal.Signals) -> None:
    script = f"""
        import sys, threading, time
        sys.path[:0] = {[str(Path(__file__).parents[4])]!r}
        from rewards.sandbox.pool import Sandbox
        from rewards.sandbox.program import Limits, Program
        sandbox = Sandbox(2)
        print(*sandbox.zygote_pids(), flush=True)
        sandbox.run_many([Program(source="import time; time.sleep(60)", tests=(), limits=Limits(wall_time_s=60.0))] * 2)
    """
    environment = {**os.environ, "TMPDIR": str(base)}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, env=environment, text=True
    ) as trainer:
        assert trainer.stdout is not None
        zygotes = [int(pid) for pid in trainer.stdout.readline().split()]
        wait_until(lambda: all(children(pid) for pid in zygotes))
        candidates = [child for pid in zygotes for child in children(pid)]
        trainer.send_signal(number)
        trainer.wait(10)
    wait_until(lambda: not any(alive(pid) for pid in (*zygotes, *candidates)))
    wait_until(lambda: list(base.iterdir()) == [])
