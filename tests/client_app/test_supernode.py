"""A SuperNode's process ends with it, whatever threads it leaves; test_coordinator_faults.py has a real one."""

import subprocess
import sys

import pytest

LEFT = "threading.Thread(target=time.sleep, args=(600,)).start()"
"""A thread that Python would wait for at its end, as the one of Flower's runtime API."""


def served(*lines: str) -> "subprocess.CompletedProcess[str]":
    """A SuperNode that does nothing but these lines."""
    script = ["import sys, threading, time", "from client_app import supernode", "def ends():"]
    script += [*(f"    {line}" for line in lines), "supernode.flower_supernode = ends", "supernode.serve()"]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(script)], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("end", "status", "said"), [("pass", 1, ""), ("sys.exit(7)", 7, ""), ("1 / 0", 1, "ZeroDivisionError")]
)
def test_a_supernode_that_serves_no_more_ends_its_process(end: str, status: int, said: str) -> None:
    done = served(LEFT, end)
    assert done.returncode == status
    assert said in done.stderr


def test_it_receives_messages_as_one_that_no_ended_run_holds_up() -> None:
    done = served(
        "loop = supernode.start_client_internal", "print(loop._pull_and_store_message is supernode.receive_next)"
    )
    assert done.stdout == "True\n", done.stderr
