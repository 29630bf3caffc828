"""The processes of a command that stays in the foreground: they end when it ends, however it ends."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

_PATIENCE_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1
_STDERR = 2
_PRCTL = ctypes.CDLL(None).prctl
"""Looked up here: a child of a process with threads must take no lock before it runs its program."""


class Children:
    """Starts processes, and ends them all, the newest first, when it is closed."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Start a process whose output is this command's."""
        process = subprocess.Popen(  # noqa: S603 - a command of ours, with arguments from the machine's own settings
            list(map(str, command)),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=_STDERR,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - it makes one system call, and takes no lock
        )
        self._processes = [child for child in self._processes if child.poll() is None] + [process]
        return process


class Kept:
    """A process that is started again whenever it has ended."""

    def __init__(self, children: Children, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        self._children, self._command, self._environment = children, command, environment
        self.restarts = -1
        self.start()

    def start(self) -> None:
        """Start it, once more after the first time."""
        self.process = self._children.start(self._command, self._environment)
        self._since, self.restarts = time.monotonic(), self.restarts + 1

    @property
    def alive(self) -> bool:
        """Whether it lives."""
        return self.process.poll() is None

    @property
    def lived(self) -> float:
        """Seconds since it was started last."""
        return time.monotonic() - self._since


def script(name: str) -> list[str]:
    """The command of a script that is installed beside this interpreter."""
    return [sys.executable, str(Path(sys.executable).parent / name)]


def flower_environment(home: Path) -> dict[str, str]:
    """The environment of Flower's processes with a home of their own; they start each other by name."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return QUIET | {"FLWR_HOME": str(home), "PATH": path}


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "OMP_NUM_THREADS": "1",
}
"""The environment of Flower's processes: nothing is reported, looked up or installed.

Ray would run its workers at niceness 15: the training of a simulation would wait for whatever else the machine does.
"""


def end_with_parent() -> None:
    """Have the kernel end this process with its parent, which may be killed."""
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)
