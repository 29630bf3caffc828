"""An erasure that is killed at any step leaves the old state or the new one on its way, and can be asked for again."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.audit.run import verify
from core.canonical import ZERO_DIGEST
from core.errors import LedgerUnreachableError, RunError, UsageError
from core.ledger import MemoryLedger
from core.storage.artifacts import Artifacts
from core.storage.run_folder import RunFolder
from llm.served import serving
from server_app.rounds import Rounds
from tests.server_app.worlds import World, make_world
from tests.unlearning.test_erasing import forget, holds


class KilledError(BaseException):
    """As kill -9: nothing of ours may catch it."""


STEPS: dict[str, tuple[type, str, int, bool]] = {
    "before the attestation": (RunFolder, "attest", 1, False),
    "after the attestation": (RunFolder, "attest", 1, True),
    "after it was anchored": (MemoryLedger, "attest", 1, True),
    "after the chain opened the generation": (MemoryLedger, "open_generation", 1, True),
    "after the generation was opened": (RunFolder, "open_generation", 1, True),
    "between the rounds that are re-aggregated": (RunFolder, "append", 1, True),
    "in the round that is trained": (Rounds, "admit", 2, True),
    "before anything is destroyed": (Artifacts, "destroy", 1, False),
    "while it is destroyed": (Artifacts, "destroy", 3, True),
    "while salts are destroyed": (RunFolder, "destroy_salts", 2, True),
    "before the certificate": (RunFolder, "certify", 1, False),
    "after the certificate": (RunFolder, "certify", 1, True),
}
"""A method, the call of it that is the last, and whether that one still happens."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> Iterator[World]:
    """A run of two rounds, and one like it from which coding was erased at once."""
    with pytest.MonkeyPatch.context() as patch:
        world = make_world(tmp_path_factory.mktemp("crash") / "state", base, data, patch)
        world.run("smooth", rounds=2)
        world.run("killed", rounds=2)
        forget(world, "smooth", "coding", "repair", rounds=2)
        yield world


@pytest.fixture
def world(finished: World, tmp_path: Path, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy that may be killed."""
    world = make_world(tmp_path / "state", base, data, monkeypatch)
    world.take_over(finished)
    return world


def killed(patch: pytest.MonkeyPatch, owner: type, method: str, last: int, *, done: bool) -> None:
    original: Callable[..., Any] = getattr(owner, method)
    calls = []

    def deadly(*args: Any, **kwargs: Any) -> Any:
        calls.append(method)
        if len(calls) < last:
            return original(*args, **kwargs)
        if done:
            original(*args, **kwargs)
        raise KilledError

    patch.setattr(owner, method, deadly)


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_it_goes_on(world: World, finished: World, step: str) -> None:
    owner, method, last, done = STEPS[step]
    with pytest.MonkeyPatch.context() as patch:
        killed(patch, owner, method, last, done=done)
        with pytest.raises(KilledError):
            forget(world, "killed", "coding", "repair", rounds=2)
    run = world.state.run("killed")
    assert verify(run, world.ledger).failures == ()
    if run.unfinished():
        # Its rounds would be trained on what is to be erased, and certified as if they were not.
        with pytest.raises(UsageError, match="the erasure of coding by repair is not finished: ask for that one again"):
            world.run("killed", resume=True, rounds=2)
    certificate = forget(world, "killed", "coding", "repair", rounds=2)
    assert certificate.aggregate == serving(run).state.digest == serving(finished.state.run("smooth")).state.digest
    assert holds(world, run) == (6, 2)


def test_a_certificate_without_its_copy_is_pending_until_the_chain_knows_it(world: World) -> None:
    """Killed just after it was written: its copy, and rounds on the members' chain, may still be missing."""
    run = world.state.run("smooth")
    (attestation,) = (signed.value for signed in run.erasures())
    place = run.genesis.digest, attestation.erasure
    told = world.ledger._erasures[place]
    world.ledger._erasures[place] = replace(told, certificate=ZERO_DIGEST)
    for path in (run.folder / "artifacts" / "certificates").iterdir():
        path.unlink()
    report = verify(run, world.ledger)
    assert report.failures == ()
    assert report.checked["pending copies"] == 1
    world.ledger._erasures[place] = told
    assert "certificates/L0000-G0001" in str(verify(run, world.ledger).failures[0])


@pytest.mark.parametrize("asked", ["attest", "open_generation", "commit", "certify"])
def test_a_chain_that_is_down_is_told_and_waited_for(world: World, finished: World, asked: str) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise LedgerUnreachableError("nothing answers")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryLedger, asked, down)
        patch.setattr("server_app.erasure.steps._ANCHOR_SECONDS", 0.2)
        with pytest.raises(LedgerUnreachableError, match=r"nothing answers|round 1 is not on the chain yet"):
            forget(world, "killed", "coding", "remove", rounds=2)
    run = world.state.run("killed")
    assert verify(run, world.ledger).failures == ()
    assert len(run.erasures()) == 1
    forget(world, "killed", "coding", "remove", rounds=2)
    assert len(run.erasures()) == 1
    assert run.unfinished() is None
    assert holds(world, run) == (2, 2)


def test_a_chain_that_does_not_answer_before_leaves_the_run_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any) -> None:
        raise LedgerUnreachableError("nothing answers")

    run = world.state.run("killed")
    before = sorted(run.folder.rglob("*"))
    monkeypatch.setattr("server_app.chains.open_ledger", down)
    with pytest.raises(LedgerUnreachableError, match="nothing answers"):
        forget(world, "killed", "coding", "remove", rounds=2)
    assert sorted(run.folder.rglob("*")) == before


def test_a_run_still_training_is_told_to_be_resumed_and_left_alone(world: World) -> None:
    world.run("short", rounds=2)
    run = world.state.run("short")
    last = max((run.folder / "records").iterdir())
    last.unlink()  # it was killed before its last round was closed
    before = sorted(run.folder.rglob("*"))
    with pytest.raises(UsageError, match="run short: expected 2 rounds, got 1: resume it first"):
        forget(world, "short", "coding", "remove", rounds=2)
    assert sorted(run.folder.rglob("*")) == before


def test_another_erasure_has_to_wait(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch:
        killed(patch, RunFolder, "attest", 1, done=True)
        with pytest.raises(KilledError):
            forget(world, "killed", "coding", "repair", rounds=2)
    with pytest.raises(UsageError, match="the erasure of coding by repair is not finished"):
        forget(world, "killed", "medical", "repair", rounds=2)


def test_a_run_that_does_not_hold_is_left_alone(world: World) -> None:
    run = world.state.run("killed")
    name = next(iter(run.records())).value.admitted[0].signed.value.update
    path = run.folder / "artifacts" / f"{run.artifacts.place(name)}.sealed"
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    before = sorted(path for path in run.folder.rglob("*"))
    with pytest.raises(RunError, match="nothing was erased, since the run does not hold"):
        forget(world, "killed", "coding", "remove", rounds=2)
    assert sorted(path for path in run.folder.rglob("*")) == before
    assert not run.erasures()
