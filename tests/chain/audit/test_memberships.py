"""The audit of a run whose members changed: every change is signed by all whom it takes, and opens its generation."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.audit.report import AuditReport, What
from chain.audit.run import verify
from core import keys, lora
from core.canonical import from_json, to_json
from core.generations import GenerationRecord
from core.membership import Admission, Leave, MembershipRecord
from core.rejections import Reason
from core.rotations import Rotation
from core.rounds import RoundRecord
from core.signed import Signed
from core.update import Organisation
from server_app.membership import change, propose, signed_change
from tests import federation as f
from tests.server_app.clients import Clients, Federation, answer, fail, sequence

FOUNDERS = ("medical", "financial", "coding")
CHANGE, OPENING = "memberships/L0000-G0001.json", "generations/L0000-G0001.json"


def newcomer() -> Organisation:
    return next(member for member in f.members() if member.name == "mathematical")


def changed(folder: Path, *, leaves: str = "", joins: bool = True) -> Federation:
    """Four rounds of three, with a change of members behind the second."""
    federation = Federation.create(folder, FOUNDERS, rounds=4, quorum=2, retries=0)
    federation.run.artifacts.put(lora.factor(f.fresh(), "A"))
    federation.clients.behave = {name: sequence(answer, answer, fail) for name in ("medical", "coding")}
    with pytest.raises(Exception, match="expected a quorum"):
        federation.start()
    run, ledger = federation.run.read_with(f.COORDINATOR), federation.ledger
    proposal = propose(run, 0, [newcomer()] if joins else [])
    signing = ("mathematical", "medical", "financial") if joins else ()
    admissions = [
        Admission(run.genesis.digest, f.address(name), proposal.digest).sign(f.key(name), run.genesis.chain)
        for name in sorted(signing, key=lambda name: int(f.address(name), 16))
    ]
    leaving = [Leave(run.genesis.digest, f.address(leaves)).sign(f.key(leaves), run.genesis.chain)] if leaves else []
    change(
        run, f.COORDINATOR, ledger, signed_change(run, f.COORDINATOR, proposal, admissions=admissions, leaves=leaving)
    )
    federation.clients = Clients([*FOUNDERS, *(["mathematical"] if joins else [])], 2)
    federation.start()
    return federation


def audit(federation: Federation) -> AuditReport:
    return verify(federation.run.read_with(f.COORDINATOR), federation.ledger, strict=True)


@pytest.mark.parametrize(("leaves", "joins"), [("", True), ("coding", False), ("coding", True)])
def test_a_run_whose_members_changed_holds(tmp_path: Path, leaves: str, joins: bool) -> None:
    federation = changed(tmp_path, leaves=leaves, joins=joins)
    report = audit(federation)
    assert report.failures == ()
    assert (report.checked["memberships"], report.recomputed) == (1, 4)
    asked = {name for s in federation.run.records() if s.value.generation for name in s.value.asked}
    assert (f.address("mathematical") in asked) == joins
    assert (f.address("coding") in asked) == (not leaves)


Forge = Callable[[Federation, Signed[MembershipRecord]], Signed[MembershipRecord]]


def rewrite(federation: Federation, forge: Forge) -> None:
    """A coordinator that puts another change in the place of one, and signs all that it can itself."""
    run = federation.run
    path = run.folder / CHANGE
    made = forge(federation, Signed.parse(MembershipRecord, from_json(path.read_bytes())))
    path.write_bytes(to_json(made.to_dict()))


def resigned(federation: Federation, record: MembershipRecord) -> Signed[MembershipRecord]:
    return record.sign(f.COORDINATOR, federation.genesis.chain)


FORGERIES: dict[str, tuple[Forge, What]] = {
    "fewer agreed than a quorum": (
        lambda fed, s: resigned(fed, replace(s.value, admissions=s.value.admissions[:1])), What.MEMBERSHIP
    ),
    "more examples than were signed for": (
        lambda fed, s: resigned(
            fed, replace(s.value, proposal=replace(s.value.proposal, joins=(replace(newcomer(), examples=9999),)))
        ),
        What.MEMBERSHIP,
    ),
    "not the coordinator's signature": (
        lambda fed, s: s.value.sign(f.key("medical"), fed.genesis.chain), What.MEMBERSHIP
    ),
    "another salt than the ledger's": (lambda fed, s: resigned(fed, replace(s.value, salt="22" * 32)), What.MEMBERSHIP),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_change_that_was_not_agreed_to_is_found(tmp_path: Path, forgery: str) -> None:
    federation = changed(tmp_path)
    forge, what = FORGERIES[forgery]
    rewrite(federation, forge)
    assert what in {failure.what for failure in audit(federation).failures}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"members": [f.address("medical")]}, What.MEMBERSHIP),
        ({"parent_round": 1}, What.PARENT),
        ({"rounds": 9}, What.ROUNDS),
        ({"membership": "0x" + "00" * 32}, What.MEMBERS),
    ],
)
def test_a_change_opens_its_generation_at_the_head_and_nowhere_else(
    tmp_path: Path, changes: dict[str, Any], what: What
) -> None:
    federation = changed(tmp_path)
    path = federation.run.folder / OPENING
    plain = json.loads(path.read_bytes())["value"] | changes
    signed = GenerationRecord.from_dict(plain).sign(f.COORDINATOR, federation.genesis.chain)
    path.write_bytes(to_json(signed.to_dict()))
    assert what in {failure.what for failure in audit(federation).failures}


def test_a_change_that_was_left_out_is_missed(tmp_path: Path) -> None:
    federation = changed(tmp_path)
    (federation.run.folder / CHANGE).unlink()
    assert What.MEMBERSHIP in {failure.what for failure in audit(federation).failures}


def test_a_change_on_no_ledger_is_found_once_the_run_is_complete(tmp_path: Path) -> None:
    federation = changed(tmp_path)
    federation.ledger._erasures.clear()
    assert What.NOT_ON_LEDGER in {failure.what for failure in audit(federation).failures}


# --- a key that was replaced ------------------------------------------------------------------------------------------

NEW = keys.derive(7, "coding, again")


def rotated(folder: Path) -> Federation:
    """Four rounds of three; behind the second a key is replaced, and its organisation goes on with the old one."""
    federation = Federation.create(folder, FOUNDERS, rounds=4, quorum=2, retries=0)
    federation.run.artifacts.put(lora.factor(f.fresh(), "A"))
    federation.clients.behave = {name: sequence(answer, answer, fail) for name in ("medical", "coding")}
    with pytest.raises(Exception, match="expected a quorum"):
        federation.start()
    run = federation.run.read_with(f.COORDINATOR)
    old = f.key("coding")
    said = Rotation(run.genesis.digest, old.address, old.address, NEW.address, old.address)
    signed = said.sign(old, run.genesis.chain, NEW)
    made = signed_change(run, f.COORDINATOR, propose(run, 0), rotations=[signed])
    change(run, f.COORDINATOR, federation.ledger, made)
    federation.clients = Clients(list(FOUNDERS), 2)
    federation.start()
    return federation


def test_an_update_by_a_key_that_was_replaced_is_rejected(tmp_path: Path) -> None:
    federation = rotated(tmp_path)
    report = audit(federation)
    assert report.failures == ()
    assert (report.checked["memberships"], report.recomputed) == (1, 4)
    rejected = [rejection for signed in behind(federation) for rejection in signed.value.rejected]
    assert [(r.organisation, r.reason) for r in rejected] == [(f.address("coding"), Reason.FORGED_SIGNATURE)] * 2


def behind(federation: Federation) -> list[Signed[RoundRecord]]:
    """The rounds behind the change."""
    return [signed for signed in federation.run.records() if signed.value.generation]


def with_rotation(record: MembershipRecord, **changes: Any) -> MembershipRecord:
    """The same with another rotation, signed by what the coordinator has, and by the new key."""
    (signed,) = record.rotations
    value = replace(signed.value, **changes)
    chain = f.genesis(FOUNDERS).chain
    by = f.COORDINATOR.sign_statement(chain, value)
    return replace(record, rotations=(Signed(value, (by, NEW.sign_statement(chain, value))),))


ROTATIONS: dict[str, Callable[[MembershipRecord], MembershipRecord]] = {
    "without the old key's signature": lambda record: replace(
        record, rotations=(replace(record.rotations[0], signatures=record.rotations[0].signatures[1:]),)
    ),
    "signed by the coordinator in its place": with_rotation,
    "by the coordinator": lambda record: with_rotation(record, by=f.COORDINATOR.address),
    "of another run": lambda record: with_rotation(record, genesis=f.other("run")),
    "of a key that does not sign": lambda record: with_rotation(record, old=f.address("medical")),
}


@pytest.mark.parametrize("forgery", ROTATIONS)
def test_a_rotation_that_does_not_hold_is_found(tmp_path: Path, forgery: str) -> None:
    federation = rotated(tmp_path)
    rewrite(federation, lambda fed, signed: resigned(fed, ROTATIONS[forgery](signed.value)))
    assert What.MEMBERSHIP in {failure.what for failure in audit(federation).failures}


def test_a_record_that_counts_the_old_key_behind_a_rotation_is_found(tmp_path: Path) -> None:
    """A coordinator that goes on with whoever has stolen the key."""
    federation = rotated(tmp_path)
    run, chain = federation.run, federation.genesis.chain
    signed = behind(federation)[0]
    first = signed.value.admitted[0]
    forged = replace(first, signed=first.signed.value.sign(f.key("coding"), chain))
    record = replace(signed.value, admitted=(forged, *signed.value.admitted[1:]))
    (path,) = (run.folder / "records").glob(f"{record.key.file_name}-*.json")
    path.write_bytes(to_json(record.sign(f.COORDINATOR, chain).to_dict()))
    assert What.MANIFEST_SIGNATURE in {failure.what for failure in audit(federation).failures}
