"""A SuperNode's process ends with it, whatever threads it leaves; test_coordinator_faults.py has a real one."""

import subprocess
import sys

import pytest

LEFT = "threading.Thread(target=time.sleep, args=(600,)).start()"
"""A thread that Python would wait for at its end, as the one of Flower's runtime API."""


@pytest.mark.parametrize(
    ("end", "status", "said"), [("pass", 1, ""), ("sys.exit(7)", 7, ""), ("1 / 0", 1, "ZeroDivisionError")]
)
def test_a_supernode_that_serves_no_more_ends_its_process(end: str, status: int, said: str) -> None:
    lines = ["import sys, threading, time", "from client_app import supernode"]
    lines += ["def ends():", f"    {LEFT}", f"    {end}"]
    lines += ["supernode.flower_supernode = ends", "supernode.serve()"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status
    assert said in done.stderr
