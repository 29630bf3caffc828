"""Processes of a command end with it, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from console.backends import processes
from console.backends.children import Children, flower_environment, free_port, script

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_children_end_when_the_command_leaves() -> None:
    with Children() as children:
        started = [children.start(SLEEP, {}) for _ in range(2)]
        assert [process.poll() for process in started] == [None, None]
    assert [process.returncode for process in started] == [-signal.SIGTERM, -signal.SIGTERM]


def test_children_end_when_the_command_is_killed(tmp_path: Path) -> None:
    code = f"""
import time
from console.backends.children import Children
from console.entry import leave_on_signals
leave_on_signals()
with Children() as children:
    print(children.start({SLEEP!r}, {{}}).pid, flush=True)
    time.sleep(600)
"""
    for ending in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP):
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as parent:
            assert parent.stdout
            child = int(parent.stdout.readline())
            parent.send_signal(ending)
            parent.wait()
        deadline = time.monotonic() + 30
        while processes.alive(child) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not processes.alive(child)


def test_flowers_processes_find_each_other_and_report_nothing(tmp_path: Path) -> None:
    environment = flower_environment(tmp_path)
    assert environment["FLWR_HOME"] == str(tmp_path)
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert Path(script("flower-supernode")[1]).exists()


def test_a_free_port_is_one_of_the_loopback() -> None:
    assert 1024 <= free_port() < 2**16
