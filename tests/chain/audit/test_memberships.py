"""The audit of a run whose members changed: every change is signed by all whom it takes, and opens its generation."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.audit.report import AuditReport, What
from chain.audit.run import verify
from core import lora
from core.canonical import from_json, to_json
from core.generations import GenerationRecord
from core.membership import Admission, Leave, MembershipRecord
from core.signed import Signed
from core.update import Organisation
from server_app.membership import change, propose
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
    change(run, f.COORDINATOR, ledger, proposal, admissions, leaving)
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
