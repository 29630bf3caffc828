"""An organisation's machine that is short of something: memory, open files, or a link of some kilobytes a second."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
import pytest

from tests.integration.deployed import Deployment
from tests.integration.faults import Live
from tests.nginx import needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.chain, needs_nginx]

OTHERS = {"coding", "financial"}


@pytest.mark.parametrize("short_of", ["as", "nofile"])
def test_a_worker_that_runs_out_of_something_costs_its_own_updates_and_comes_back(
    deployment: Deployment, short_of: str
) -> None:
    run = Live(deployment, f"short-of-{short_of}", rounds=8, **{"local-steps": 20})
    run.wait_for("round-closed", 2)
    (worker,) = deployment.workers("medical")
    with limited(deployment, worker, short_of):
        run.wait_for("round-closed", 4)
    records = run.finish()
    assert all(run.names(record) >= OTHERS for record in records)
    assert any(run.names(record) == OTHERS for record in records), "the limit did nothing"
    after = Live(deployment, f"no-longer-short-of-{short_of}", rounds=1)
    assert after.names(after.finish()[0]) == {*OTHERS, "medical"}


def test_a_slow_link_makes_its_organisation_late_and_loses_nothing(deployment: Deployment) -> None:
    settings = deployment.node("medical") / "node.toml"
    before = settings.read_text()
    with slow_link(deployment.port) as link:
        settings.write_text(before.replace(f"localhost:{deployment.port}", f"localhost:{link.port}"))
        ready = deployment.log("node-medical").count("worker ready")
        node_again(deployment)
        deployment.wait_for_worker("medical", ready + 1)
        try:
            # The app that comes with a run has a megabyte.
            run = Live(deployment, "slow-link", rounds=8, **{"bind-timeout": 400.0})
            run.wait_for("round-closed", 1)
            usual, link.bytes_a_second = link.bytes_a_second, 1_000
            run.wait_for("late")
            link.bytes_a_second = usual
            records = run.finish()
        finally:
            settings.write_text(before)
            node_again(deployment)
    assert all(run.names(record) >= OTHERS for record in records)
    assert {"medical"} in [run.late(record) for record in records]
    assert run.rejected("medical") <= {"no-reply"}


def node_again(deployment: Deployment) -> None:
    """End medical's node, and start it with the settings of now."""
    node = deployment.command("node", deployment.node("medical"))
    node.kill()
    with suppress(psutil.Error):
        node.wait(timeout=60)
    time.sleep(3)  # a SuperNode of before is known to the SuperLink until its connection is gone
    deployment.start_again("node", deployment.node("medical"), "medical")


@contextmanager
def limited(deployment: Deployment, worker: psutil.Process, what: str) -> Iterator[None]:
    """A process that gets no more of something than it has: address space (`as`), or open files (`nofile`)."""
    had = worker.memory_info().vms if what == "as" else worker.num_fds()
    user = worker.username()
    # The soft limit alone: without a capability nobody raises a hard one again.
    for limit in (had, None):
        text = f"--{what}={limit if limit else 'unlimited' if what == 'as' else 1024}:"
        done = deployment.as_user(user, ["prlimit", f"--pid={worker.pid}", text])
        if done.returncode and limit:
            pytest.skip(f"needs prlimit of another process: {done.stderr.strip()}")
        if limit:
            yield


@dataclass
class Link:
    """A port that leads elsewhere, and how fast."""

    port: int
    bytes_a_second: int = 64_000


@contextmanager
def slow_link(port: int, delay: float = 0.01) -> Iterator[Link]:
    """A link to a port of the loopback."""
    ended = threading.Event()

    def carry(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while not ended.is_set() and (part := one.recv(1600)):
                time.sleep(delay + len(part) / link.bytes_a_second)
                other.sendall(part)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def accept() -> None:
        with suppress(OSError):
            while not ended.is_set():
                inside, _ = listening.accept()
                outside = socket.create_connection(("127.0.0.1", port))
                for pair in ((inside, outside), (outside, inside)):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        link = Link(listening.getsockname()[1])
        threading.Thread(target=accept, daemon=True).start()
        yield link
        ended.set()
