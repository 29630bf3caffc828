"""Keys are replaced behind a run's newest round: real apps, a small model, a ledger in memory."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.audit.run import verify
from client_app.hosting import Node
from core import keys
from core.canonical import to_json
from core.errors import (
    ConfigError,
    ForgeryError,
    LedgerUnreachableError,
    ObjectionError,
    QuorumError,
    RunError,
    UsageError,
)
from core.keys import Key
from core.rotations import Rotation
from core.signed import Signed
from core.storage import artifacts
from core.storage.run_folder import RunFolder
from server_app.rotation import changes_of, read_rotation
from tests.server_app.test_membership import COORDINATOR, key, until
from tests.server_app.worlds import World

OLD = key("medical")
NEW, NEXT, ADMINISTRATOR = (keys.derive(7, name) for name in ("medical, again", "coordinator, again", "administrator"))


@pytest.fixture(params=[artifacts.MOST_WRAPS, 2], ids=["few readers", "more readers than one key is wrapped for"])
def most_wraps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many readers are few."""
    monkeypatch.setattr(artifacts, "MOST_WRAPS", request.param)
    return int(request.param)


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunFolder]:
    """A run that stopped behind its first of three rounds, on a ledger that somebody administers."""
    monkeypatch.setattr(world.ledger, "_administrator", ADMINISTRATOR.address)
    world.settings |= {"rounds": 3, "retries": 0, "quorum": 1}
    with pytest.raises(QuorumError):
        world.run("one", through=until(1))
    yield world.state.run("one")
    Node.simulated.cache_clear()


def file_of(folder: Path, which: Key) -> str:
    path = folder / f"{which.address}.key"
    path.write_text(which.secret.hex() + "\n")
    path.chmod(0o600)
    return str(path)


def signed(run: RunFolder, by: Key, new: Key = NEW) -> Signed[Rotation]:
    owner = OLD.address
    said = Rotation(run.genesis.digest, owner, run.genesis.signing(owner), new.address, by.address)
    return said.sign(by, run.genesis.chain, new)


def request_of(folder: Path, rotation: Signed[Rotation]) -> str:
    path = folder / "rotation.json"
    path.write_bytes(to_json(rotation.to_dict()))
    return str(path)


def replaced_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """The organisation's node holds its new key."""
    derive = keys.derive
    new = replace(NEW, derived=True)
    monkeypatch.setattr(keys, "derive", lambda seed, name: new if name == "medical" else derive(seed, name))
    Node.simulated.cache_clear()


def signers(run: RunFolder) -> list[tuple[int, str, set[str]]]:
    """For each round that is counted: its number, and the names of the keys that signed record and updates."""
    names = {who.address: name for name, who in (("old", OLD), ("new", NEW))}
    names |= {COORDINATOR.address: "coordinator", NEXT.address: "next"}
    chain = run.genesis.chain

    def name(statement: Signed[Any]) -> str:
        return names.get(keys.address_of(statement.public_key(chain)), "another")

    return [
        (s.value.round, name(s), {name(a.signed) for a in s.value.admitted} - {"another"}) for s in run.lineage(0)
    ]  # fmt: skip


def test_a_coordinator_s_key_is_replaced_and_each_record_is_verified_by_the_key_of_then(
    most_wraps: int, world: World, run: RunFolder, tmp_path: Path
) -> None:
    new = file_of(tmp_path, NEXT)
    world.run("one", mode="rotate", **{"coordinator-key": new, "former-key": file_of(tmp_path, COORDINATOR)})
    run = world.run("one", resume=True, organisations=3, **{"coordinator-key": new})
    assert [(number, by) for number, by, _ in signers(run)] == [(1, "coordinator"), (2, "next"), (3, "next")]
    assert run.genesis.coordinator == COORDINATOR.address
    report = verify(run, world.ledger, strict=True)
    assert report.failures == ()
    assert (report.recomputed, report.checked["memberships"]) == (3, 1)
    (event,) = world.events("one", "members")
    assert (event["lane"], event["generation"]) == (0, 1)
    # Nobody but the new key reads what was stored, and it reads all of it.
    assert not verify(run.read_with(NEXT), world.ledger, strict=True).failures
    assert verify(run.read_with(COORDINATOR), world.ledger, strict=True).failures


def test_an_organisation_s_key_is_replaced_and_it_stays_who_it_was(
    most_wraps: int, world: World, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotation = signed(run, OLD)
    world.run("one", mode="rotate", request=request_of(tmp_path, rotation))
    replaced_at_home(monkeypatch)
    run = world.run("one", resume=True)
    assert [by for _, _, by in signers(run)] == [{"old"}, {"new"}, {"new"}]
    everyone = [{admitted.organisation for admitted in s.value.admitted} for s in run.lineage(0)]
    assert everyone[0] == everyone[1] == everyone[2] == {member.address for member in run.genesis.organisations}
    assert verify(run, world.ledger, strict=True).failures == ()
    assert verify(run.read_with(NEW), world.ledger, strict=True).failures == ()
    # Erased by its new key, all that it taught by the old one goes, too.
    run = world.run("one", mode="unlearn", organisation="medical", method="remove")
    assert OLD.address not in {a.organisation for s in run.lineage(0) for a in s.value.admitted}
    assert verify(run, world.ledger, strict=True).failures == ()


def test_a_node_with_the_old_key_speaks_for_nobody_any_more(
    world: World, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run("one", mode="rotate", request=request_of(tmp_path, signed(run, OLD)))
    monkeypatch.setattr("server_app.app._SIMULATED_BIND_SECONDS", 0.5)
    with pytest.raises(RunError, match=r"2 of 3 organisations .* its key was replaced by another"):
        world.run("one", resume=True, **{"bind-timeout": 0.5})


def test_a_lost_key_is_replaced_with_the_administrator_s_signature(
    world: World, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = signed(run, ADMINISTRATOR)
    request = request_of(tmp_path, Signed(whole.value, whole.signatures[1:]))
    with pytest.raises(ForgeryError, match="expected 2 signatures, got 1"):
        world.run("one", mode="rotate", request=request)
    world.run("one", mode="rotate", request=request, **{"administrator-key": file_of(tmp_path, ADMINISTRATOR)})
    replaced_at_home(monkeypatch)
    run = world.run("one", resume=True)
    assert [by for _, _, by in signers(run)] == [{"old"}, {"new"}, {"new"}]
    assert verify(run, world.ledger, strict=True).failures == ()
    monkeypatch.setattr(world.ledger, "_administrator", None)
    (failure,) = verify(run, world.ledger, strict=True).failures
    assert (failure.what, failure.want) == ("change of members", "an administrator of the contract")


def test_what_does_not_hold_replaces_nothing(world: World, run: RunFolder, tmp_path: Path) -> None:
    rotation = signed(run, OLD)
    for wrong, error, reason in (
        (signed(run, COORDINATOR), ObjectionError, "the old key or the administrator"),
        (Signed(rotation.value, rotation.signatures[::-1]), ForgeryError, "the signature of"),
        (signed(run, OLD, key("coding")), ObjectionError, "never used"),
    ):
        with pytest.raises(error, match=reason):
            world.run("one", mode="rotate", request=request_of(tmp_path, wrong))
    with pytest.raises(ConfigError, match="former-key"):
        world.run("one", mode="rotate", **{"coordinator-key": file_of(tmp_path, NEXT)})
    with pytest.raises(UsageError, match="sign-rotation"):
        read_rotation(tmp_path / "none.json")
    with pytest.raises(UsageError, match="it has no members"):
        world.run("other", mode="rotate", request=request_of(tmp_path, rotation))
    assert not world.state.run("one").memberships()
    assert not world.state.run("one").generations(0)


def test_a_rotation_that_a_crash_has_interrupted_is_gone_on_with(
    world: World, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any) -> Any:
        raise LedgerUnreachableError("down")

    settings = {"coordinator-key": file_of(tmp_path, NEXT), "former-key": file_of(tmp_path, COORDINATOR)}
    with monkeypatch.context() as patch:
        patch.setattr(world.ledger, "attest", down)
        with pytest.raises(LedgerUnreachableError):
            world.run("one", mode="rotate", **settings)
    assert len(world.state.run("one").memberships()) == 1
    with pytest.raises(UsageError, match="expected changes of members to be carried out"):
        changes_of(world.state.run("one"), COORDINATOR, signed(run, OLD))
    world.run("one", mode="rotate", **settings)
    run = world.run("one", resume=True, organisations=3, **{"coordinator-key": settings["coordinator-key"]})
    assert [by for _, by, _ in signers(run)] == ["coordinator", "next", "next"]
    assert verify(run, world.ledger, strict=True).failures == ()
