"""Rounds with faults from a seeded schedule: every round is accounted for, and nothing grows.

Twenty rounds of three organisations; FOEDUS_ROUNDS and FOEDUS_ORGANISATIONS, of eight at most, make it longer.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.integration.deployed import MEMBERS, Deployment
from tests.integration.faults import Live, stopped
from tests.nginx import needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.chain, needs_nginx]

ROUNDS = int(os.environ.get("FOEDUS_ROUNDS", "20"))
SEED = 7


def parts(deployment: Deployment) -> list[psutil.Process]:
    """Everything that serves the deployment between runs."""
    commands = [("coordinator", deployment.coordinator)]
    commands += [(kind, getattr(deployment, kind)(name)) for kind in ("node", "signer") for name in MEMBERS]
    found = [deployment.command(*command) for command in commands]
    processes = (each for process in found for each in (process, *process.children(recursive=True)))
    return [each for each in processes if not is_of_a_run(each)]


def is_of_a_run(process: psutil.Process) -> bool:
    """Whether it is a run's ServerApp, which Flower's SuperExec waits for only when it starts the next one."""
    with suppress(psutil.ZombieProcess):
        return any("flwr-serverapp" in word for word in process.cmdline())
    return bool(process.name() == "flwr-serverapp")


def programs(deployment: Deployment) -> Counter[str]:
    """How many processes there are of each program."""
    found = Counter[str]()
    for each in parts(deployment):
        with suppress(psutil.NoSuchProcess):  # gone meanwhile; one that nobody waits for is none that is gone
            ended = each.status() == psutil.STATUS_ZOMBIE
            found[each.name() if ended else " ".join(Path(word).name for word in each.cmdline()[:3])] += 1
    return found


def sizes(deployment: Deployment) -> dict[str, float]:
    """Memory in MiB, and open files."""
    processes = parts(deployment)
    return {
        "memory": sum(process.memory_info().rss for process in processes) / 2**20,
        "files": float(sum(process.num_fds() for process in processes)),
    }


def faults(deployment: Deployment, schedule: random.Random) -> Iterator[tuple[str, Callable[[], None]]]:
    """One fault after another, drawn from the schedule."""

    def still() -> None:
        name = schedule.choice(MEMBERS)
        with stopped([deployment.command("node", deployment.node(name))]):
            time.sleep(schedule.uniform(5.0, 20.0))

    def worker() -> None:
        name = schedule.choice(MEMBERS)
        ready = deployment.log(f"node-{name}").count("worker ready")
        for process in deployment.workers(name):
            process.kill()
        deployment.wait_for_worker(name, ready + 1)

    def signer() -> None:
        name = schedule.choice(MEMBERS)
        deployment.command("signer", deployment.signer(name)).kill()
        time.sleep(schedule.uniform(1.0, 5.0))
        deployment.start_again("signer", deployment.signer(name), name)

    def door() -> None:
        deployment.part_of("coordinator", deployment.coordinator, "nginx").kill()

    def chain() -> None:
        deployment.anvil.kill()
        time.sleep(schedule.uniform(5.0, 20.0))
        deployment.anvil.start()

    def reorganisation() -> None:
        deployment.anvil.reorganise(schedule.randint(1, 3))

    kinds = {f.__name__: f for f in (still, worker, signer, door, chain, reorganisation)}
    while True:
        name = schedule.choice(sorted(kinds))
        yield name, kinds[name]


@contextmanager
def grown_by(deployment: Deployment, bounds: dict[str, float]) -> Iterator[None]:
    """Nothing is larger after the block than before by more than these factors, and no process more is there."""
    running, before = programs(deployment), sizes(deployment)
    yield
    deadline = time.monotonic() + 60  # a process that the last fault has killed may not be back yet, or not gone
    while programs(deployment) != running and time.monotonic() < deadline:
        time.sleep(1)
    assert programs(deployment) == running
    after = sizes(deployment)
    assert {name for name, most in bounds.items() if after[name] > most * before[name]} == set(), (before, after)


def test_rounds_of_faults_lose_no_round_and_leave_nothing_behind(deployment: Deployment) -> None:
    warm = Live(deployment, "warm", rounds=3)
    warm.finish()
    done = list[str]()
    with grown_by(deployment, {"memory": 1.3, "files": 1.3}):
        run = Live(deployment, "soak", rounds=ROUNDS, staleness=1)
        for number, (name, fault) in enumerate(faults(deployment, random.Random(SEED)), 1):  # noqa: S311 - a schedule
            run.wait_for("round-started", 2 * number)
            if run.events("finished") or 2 * number >= ROUNDS:
                break
            fault()
            done.append(name)
        records = run.finish()
    assert len(done) >= ROUNDS // 2 - 2, done
    numbers = [record.round for record in records if record.admitted]
    assert numbers == list(range(1, ROUNDS + 1))
    for record in records:
        # Asked, and what became of it: every organisation stands in every record once.
        assert len(record.heard) == len(set(record.heard)) == len(MEMBERS)
