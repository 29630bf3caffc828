"""An update waits for a person, and what that person lets go is what leaves: this manifest, these bytes."""

from dataclasses import replace
from pathlib import Path

import pytest

from client_app.approvals import Approvals, HeldUpdates
from core.errors import FormatError, HeldError, NotNowError, PolicyError, UsageError
from core.storage import jsonl
from core.update import UpdateManifest
from tests import federation as f

GENESIS = f.genesis()


def manifest(number: int = 1, nonce: str = "one", **changes: object) -> UpdateManifest:
    return replace(f.manifest(GENESIS), round=number, nonce=f.other(nonce), **changes)


def held(approvals: Approvals, made: UpdateManifest, approve: str) -> bool:
    try:
        approvals.check(made, approve)
    except HeldError:
        return True
    return False


@pytest.fixture
def approvals(tmp_path: Path) -> Approvals:
    return Approvals(tmp_path / "approvals.jsonl")


def test_never_holds_nothing_and_keeps_no_note(approvals: Approvals, tmp_path: Path) -> None:
    approvals.check(manifest(), "never")
    assert not (tmp_path / "approvals.jsonl").exists()


def test_each_update_waits_until_it_is_let_go(approvals: Approvals) -> None:
    first, second = manifest(1), manifest(2)
    assert held(approvals, first, "each")
    assert [found.digest for found in approvals.waiting()] == [first.digest]
    approvals.decide(first.digest, released=True)
    assert not held(approvals, first, "each")
    assert held(approvals, second, "each")


def test_the_first_update_of_a_federation_opens_the_way_for_those_after_it(approvals: Approvals) -> None:
    first, second, elsewhere = manifest(1), manifest(2), manifest(1, genesis=f.other("another federation"))
    assert held(approvals, first, "first")
    assert held(approvals, second, "first"), "the first was not looked at"
    approvals.decide(second.digest, released=True)
    assert not held(approvals, first, "first")
    assert held(approvals, elsewhere, "first")


def test_letting_one_update_go_lets_no_other_go(approvals: Approvals) -> None:
    assert held(approvals, manifest(), "each")
    approvals.decide(manifest().digest, released=True)
    others = {"update": f.other("other bytes")}, {"parent": f.other("parent")}, {"generation": 1}
    for other in (manifest(nonce="another"), manifest(2), *(manifest(1, "one", **changes) for changes in others)):
        assert held(approvals, other, "each")


def test_an_update_that_was_refused_never_leaves_and_opens_nothing(approvals: Approvals) -> None:
    assert held(approvals, manifest(), "first")
    approvals.decide(manifest().digest, released=False)
    with pytest.raises(NotNowError, match="has looked at this update and keeps it") as refusal:
        approvals.check(manifest(), "first")
    assert not isinstance(refusal.value, HeldError)
    assert held(approvals, manifest(2), "first")


def test_what_does_not_wait_is_not_decided(approvals: Approvals) -> None:
    assert held(approvals, manifest(1), "each")
    assert held(approvals, manifest(2), "each")  # of the same lane: round 1 is over
    for gone in (manifest(1).digest, f.other("nothing")):
        with pytest.raises(UsageError, match=f"expected an update that waits \\({manifest(2).digest}\\), got {gone}"):
            approvals.decide(gone, released=True)
    approvals.decide(manifest(2).digest, released=True)
    with pytest.raises(UsageError, match=r"expected an update that waits \(none\)"):
        approvals.decide(manifest(2).digest, released=False)


def test_a_round_that_is_tried_without_end_does_not_fill_the_disk(approvals: Approvals, tmp_path: Path) -> None:
    for number in range(100):
        assert held(approvals, manifest(nonce=str(number)), "each")
        assert held(approvals, manifest(nonce=str(number)), "each")
    with pytest.raises(PolicyError, match="expected at most 100 updates to look at"):
        approvals.check(manifest(nonce="one more"), "each")
    assert len(jsonl.read(tmp_path / "approvals.jsonl")) == 100


def test_what_a_node_keeps_is_given_back_for_its_own_round_and_parent_alone(tmp_path: Path) -> None:
    kept, update = HeldUpdates(tmp_path), f.update_of(GENESIS, "medical")
    made = manifest(update=update.digest)
    kept.keep(made, update)
    found = kept.of(made.key, made.parent)
    assert found
    assert (found[0], found[1].digest) == (made, update.digest)
    assert kept.of(replace(made.key, round=2), made.parent) is None
    assert kept.of(made.key, f.other("another parent")) is None
    kept.drop(made.lane)
    assert kept.of(made.key, made.parent) is None
    kept.drop(made.lane)


@pytest.mark.parametrize(("place", "stays"), [((0, 2), True), ((0, 3), False), ((1, 3), True), ((2, 4), True)], ids=str)
def test_what_an_erasure_takes_back_is_kept_no_longer(tmp_path: Path, place: tuple[int, int], stays: bool) -> None:
    """Generation 1 opens behind round 2: of lane 0, and of no other."""
    kept, update = HeldUpdates(tmp_path), f.update_of(GENESIS, "medical")
    made = manifest(place[1], generation=place[0], update=update.digest)
    for lane in (0, 1):
        kept.keep(replace(made, lane=lane), update)
    for _ in range(2):  # once more changes nothing
        kept.drop_after(0, 2, 1)
        assert [path.name for path in sorted(tmp_path.glob("L0000.*"))] == ["L0000.json", "L0000.update"] * stays
    assert kept.of(replace(made.key, lane=1), made.parent)


@pytest.mark.parametrize("damage", ["L0000.json", "L0000.update"])
@pytest.mark.parametrize("data", [None, b"{"])
def test_of_what_is_not_whole_nobody_can_say_what_it_knows(tmp_path: Path, damage: str, data: bytes | None) -> None:
    kept, update = HeldUpdates(tmp_path), f.update_of(GENESIS, "medical")
    kept.keep(manifest(1, update=update.digest), update)
    if data is None:
        (tmp_path / damage).unlink()
    else:
        (tmp_path / damage).write_bytes(data)
    kept.drop_after(0, 2, 1)
    assert not list(tmp_path.iterdir())


def test_bytes_that_are_not_those_of_the_manifest_are_not_given_back(tmp_path: Path) -> None:
    kept = HeldUpdates(tmp_path)
    made = manifest(update=f.update_of(GENESIS, "medical").digest)
    kept.keep(made, f.update_of(GENESIS, "coding"))
    with pytest.raises(FormatError, match=f"held update: expected {made.update} as in its manifest, got 0x"):
        kept.of(made.key, made.parent)
    (tmp_path / "L0000.update").unlink()
    with pytest.raises(UsageError, match=r"expected it in .*, got No such file"):
        kept.open(made)
