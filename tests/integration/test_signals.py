"""SIGTERM (a service manager, Slurm, `docker stop`) and SIGHUP (a closed terminal) leave no process of a run behind."""

import signal

import psutil
import pytest

from console.backends import processes
from tests.commands import World, ended
from tests.integration.test_kills import Run

pytestmark = [pytest.mark.slow, pytest.mark.chain]


def left(run: Run) -> list[str]:
    """The processes of a run, and those that serve its state folder."""
    found = [" ".join(process.cmdline()) for process in processes.marked(run.state.run(run.name).folder)]
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if str(run.state.folder) in command:
            found.append(command)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("backend", ["ray", "inline"])
def test_a_signal_ends_everything_that_a_run_has_started(world: World, backend: str, number: signal.Signals) -> None:
    run = Run(world, "--backend", backend)
    run.wait_for("round-started", 1)
    assert len(left(run)) > 1
    run.process.send_signal(number)
    done = ended(run.process)
    assert left(run) == []
    assert done.code == 128 + number
    assert done.error == f"ended by {number.name}"
    assert world.resume(run.name).code == 0
