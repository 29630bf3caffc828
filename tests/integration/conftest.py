"""A world for whole runs, on a new state folder each time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from chain.devnet.anvil import binary
from console.backends import processes
from core.errors import UsageError
from core.storage.state_folder import State
from tests.commands import World, make_base, make_data
from tests.integration.deployed import Deployment, deployed


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


@pytest.fixture(scope="session")
def deployment() -> Iterator[Deployment]:
    try:
        binary()
    except UsageError as error:
        pytest.skip(str(error))
    # Other users must reach their folders, and each start of pytest closes those of its own.
    with TemporaryDirectory(prefix="foedus-") as name:
        Path(name).chmod(0o755)
        yield from deployed(Path(name))
