"""A chain that goes down while an organisation is erased: one clear line, nothing lost, and it goes on later."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chain.control import stop
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from server_app.rounds import Rounds
from tests.commands import Done, World, make_base, make_data

pytestmark = [pytest.mark.slow, pytest.mark.chain]

CHAINS = ("public", "private")


class Chain:
    """The embedded chains of a world: while they are down, their daemon cannot start."""

    def __init__(self, world: World) -> None:
        self.state = world.state
        self.folder = world.state / "chain" / "embedded"

    def down(self) -> None:
        stop("embedded", self.state)
        for name in CHAINS:
            store = self.folder / f"{name}.sqlite"
            store.rename(self.folder / f"{name}.away")
            store.mkdir()

    def up(self) -> None:
        for name in CHAINS:
            (self.folder / f"{name}.sqlite").rmdir()
            (self.folder / f"{name}.away").rename(self.folder / f"{name}.sqlite")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(make_base(tmp_path / "base"), make_data(tmp_path / "data"), tmp_path / "state")
    yield world
    stop("embedded", world.state)


def forget(world: World) -> Done:
    return world.command("forget", "--organisation", "coding", "--method", "replay", "--backend", "inline")


def after(patch: pytest.MonkeyPatch, owner: type, method: str, down: Callable[[], None]) -> None:
    """The chains go down after the first call of a method."""
    original: Callable[..., Any] = getattr(owner, method)

    def last(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        patch.undo()
        down()
        return result

    patch.setattr(owner, method, last)


def files(run: RunFolder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


def test_a_chain_that_is_down_delays_an_erasure_and_loses_nothing(world: World) -> None:
    world.inline(rounds=4)
    run, chain = State(world.state).existing(), Chain(world)
    before = files(run)

    chain.down()
    done = forget(world)
    assert done.code == 1
    assert "did not start" in done.error
    assert files(run) == before
    chain.up()
    assert world.command("verify").json["ok"]

    for owner, method in ((RunFolder, "attest"), (RunFolder, "open_generation"), (Rounds, "reaggregate")):
        with pytest.MonkeyPatch.context() as patch:
            after(patch, owner, method, chain.down)
            done = forget(world)
        assert done.code == 1, method
        assert "did not start" in done.error
        chain.up()
        report = world.command("verify").json
        assert report["ok"], report["failures"]
        assert report["checked"]["unfinished erasures"] == 1

    with pytest.MonkeyPatch.context() as patch:
        after(patch, RunFolder, "certify", chain.down)
        done = forget(world)
    assert done.code == 1
    assert "did not start" in done.error
    (path,) = (run.folder / "certificates").iterdir()
    chain.up()
    assert not world.command("check", path).json["ok"]  # the chain was not told yet

    done = forget(world)
    assert done.code == 0, done.err
    assert world.command("check", path).json["ok"]
    assert world.command("verify", "--strict").json["ok"]
    assert len(run.erasures()) == 1
