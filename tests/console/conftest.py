"""A world for the commands, and runs in it that several tests read."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import World, foedus, make_base, make_data
from tests.console.audited import Audited


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("world") / "data")


@pytest.fixture
def world(base: Path, data: Path, tmp_path: Path) -> World:
    return World(base, data, tmp_path / "state")


@pytest.fixture(scope="session", params=["ensemble", "routing"])
def composed(request: pytest.FixtureRequest, base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world with one finished run of lanes of one, served as an ensemble or by routing."""
    made = World(base, data, tmp_path_factory.mktemp(request.param) / "state")
    done = made.inline("--lane-size", 1, "--composition", request.param)
    assert done.code == 0, done.err
    return made


@pytest.fixture(scope="session")
def finished(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world with one finished run of two rounds."""
    made = World(base, data, tmp_path_factory.mktemp("finished") / "state")
    done = made.inline(rounds=2)
    assert done.code == 0, done.err
    return made


@pytest.fixture(scope="session")
def audited(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    """A finished run of two rounds with an auditor."""
    folder = tmp_path_factory.mktemp("audited")
    public = json.loads(foedus("keys", "new", folder / "auditor", "--json").out)["public_key"]
    world = World(base, data, folder / "state")
    store = folder / "bucket"
    done = world.inline("--store", store, "--auditors", public, "--set", "anchor-every=2", rounds=2)
    assert done.code == 0, done.err
    chain = world.command("chain start").json
    run = done.json["run"]
    urls, address = chain["urls"], chain["addresses"]["PublicLedger"]
    yield Audited(world, urls["public"], urls["private"], address, store / run, folder / "auditor")
    world.command("chain stop")
