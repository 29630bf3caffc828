"""A world for whole runs, on a new state folder each time."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from console.backends import processes
from core.storage.state_folder import State
from tests.commands import World, make_base, make_data


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("world") / "data")


@pytest.fixture
def new_world(base: Path, data: Path, tmp_path: Path) -> Iterator[Callable[[], World]]:
    """Make worlds; afterwards their chains, and whatever a failed test left of their runs, are ended."""
    made: list[World] = []

    def make() -> World:
        made.append(World(base, data, tmp_path / f"state{len(made)}"))
        return made[-1]

    yield make
    for world in made:
        for settings in (world.state / "settings").glob("*.json"):
            processes.end_all(State(world.state).run(settings.stem).folder)
        world.command("chain stop")


@pytest.fixture
def world(new_world: Callable[[], World]) -> World:
    return new_world()
