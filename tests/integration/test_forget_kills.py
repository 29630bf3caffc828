"""kill -9 at any moment of `foedus forget`: the old state or the new one on its way, and the same command goes on."""

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from core.storage.state_folder import State
from tests.commands import PATIENCE_SECONDS, World, ended, started

pytestmark = [pytest.mark.slow, pytest.mark.chain]

ROUNDS = 3
ERASED = "coding"

STEPS: Mapping[str, tuple[str, str]] = {
    "while it starts": ("replay", ".started"),
    "attested": ("replay", "runs/*/erasures/L0000-G0001.json"),
    "opened": ("replay", "runs/*/generations/L0000-G0001.json"),
    "a round trained again": ("replay", "runs/*/records/L0000-G0001-R00002-A01.json"),
    "certified": ("replay", "runs/*/certificates/L0000-G0001.json"),
    "attested, to be summed": ("remove", "runs/*/erasures/L0000-G0001.json"),
    "a round summed again": ("remove", "runs/*/records/L0000-G0001-R00001-A01.json"),
    "everything summed again": ("remove", "runs/*/records/L0000-G0001-R00003-A01.json"),
}
"""The method, and the file in the state folder that says that a step is done: a moment later it is killed."""

Digests = Callable[[str], str]


@pytest.fixture(scope="module")
def undisturbed(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Digests:
    """What is served when nobody disturbs the erasure, by method."""
    found: dict[str, str] = {}

    def digest(method: str) -> str:
        if method not in found:
            world = World(base, data, tmp_path_factory.mktemp(method))
            world.inline(rounds=ROUNDS)
            found[method] = str(forget(world, method).json["aggregate"])
            world.command("chain stop")
        return found[method]

    return digest


def test_a_replay_on_ray_gathers_everybodys_receipt(world: World, undisturbed: Digests) -> None:
    world.inline(rounds=ROUNDS)
    done = world.command("forget", "--organisation", ERASED, "--method", "replay", "--backend", "ray")
    assert done.code == 0, done.err
    assert done.json["aggregate"] == undisturbed("replay")
    assert sorted(done.json["receipts"]) == ["coding", "financial", "medical"]
    assert done.json["outstanding"] == []
    assert world.command("check", done.json["certificate"]).json["ok"]


def words(method: str) -> tuple[object, ...]:
    return ("--organisation", ERASED, "--method", method, "--backend", "inline")


def forget(world: World, method: str) -> Any:
    done = world.command("forget", *words(method))
    assert done.code == 0, done.err
    return done


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_of_forget(step: str, world: World, undisturbed: Digests) -> None:
    method, file = STEPS[step]
    expected = undisturbed(method)
    world.inline(rounds=ROUNDS)
    (world.state / ".started").touch()
    process = started("forget", *words(method), "--state", world.state, "--json")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not list(world.state.glob(file)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(random.Random(step).uniform(0.0, 0.02))  # noqa: S311 - a moment need not be unpredictable
    process.kill()
    ended(process)
    holds(world)
    goes_on(world, method, expected)


@pytest.mark.parametrize("moment", range(6))
def test_killed_at_random_moments_of_forget(moment: int, world: World, undisturbed: Digests) -> None:
    """Of the whole command, of which half is the start of the process; killed twice over."""
    method = ("replay", "remove")[moment % 2]
    expected = undisturbed(method)
    world.inline(rounds=ROUNDS)
    source = random.Random(moment)  # noqa: S311 - a moment need not be unpredictable
    for _ in range(2):
        process = started("forget", *words(method), "--state", world.state, "--json")
        time.sleep(source.uniform(2.0, 14.0))
        process.kill()
        ended(process)
        if holds(world) == (1, 1):
            break
    goes_on(world, method, expected)


def goes_on(world: World, method: str, expected: str) -> None:
    """The same command finishes what was begun, unless the chain knows the certificate already."""
    path = next(world.state.glob("runs/*/certificates/*.json"), None)
    if path is None or not world.command("check", path).json["ok"]:
        path = forget(world, method).json["certificate"]
    assert holds(world) == (1, 1)
    checked = world.command("check", path).json
    assert checked["ok"], checked["failures"]
    assert checked["aggregate"] == expected


def holds(world: World) -> tuple[int, int]:
    """How many erasures were attested and certified, in a run that verifies and says so."""
    report = world.command("verify").json
    assert report["ok"], report["failures"]
    run = State(world.state).existing()
    erasures = run.erasures()
    unfinished = int(run.unfinished() is not None)
    assert report["checked"].get("unfinished erasures", 0) == unfinished
    assert len(erasures) <= 1
    return len(erasures), len(erasures) - unfinished
