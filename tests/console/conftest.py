"""A world for the commands, and one run in it that several tests read."""

from pathlib import Path

import pytest

from tests.commands import World, make_base, make_data


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
