"""A change of members holds with the signatures of all whom it takes, in its place, and nowhere else."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from core.canonical import from_json, to_json
from core.errors import ForgeryError, FormatError, ObjectionError
from core.generations import GenerationRecord, check_members
from core.genesis import Genesis, Membership
from core.membership import Admission, Leave, MembershipRecord, Proposal, quorum
from core.signed import Signed
from tests import federation as f

FOUNDERS = ("medical", "financial", "coding")
GENESIS = f.genesis(FOUNDERS)
NEWCOMER = next(member for member in f.members() if member.name == "mathematical")
PROPOSAL = Proposal(GENESIS.digest, 0, 1, f.other("head"), GENESIS.lanes[0], (NEWCOMER,))
SALT = "11" * 32


def admission(name: str, proposal: Proposal = PROPOSAL, by: str = "") -> Signed[Admission]:
    said = Admission(proposal.genesis, f.address(name), proposal.digest)
    return said.sign(f.key(by or name), GENESIS.chain)


def leave(name: str, by: str = "") -> Signed[Leave]:
    return Leave(GENESIS.digest, f.address(name)).sign(f.key(by or name), GENESIS.chain)


def record(
    agreed: Sequence[str] = ("mathematical", "medical", "coding"),
    proposal: Proposal = PROPOSAL,
    leaves: Sequence[str] = (),
) -> MembershipRecord:
    admissions = tuple(admission(name, proposal) for name in agreed)
    return MembershipRecord(GENESIS.digest, proposal, admissions, tuple(map(leave, leaves)), SALT)


def signed(made: MembershipRecord) -> Signed[MembershipRecord]:
    return made.sign(f.COORDINATOR, GENESIS.chain)


def opening(made: MembershipRecord, **changes: Any) -> GenerationRecord:
    values = {
        "genesis": GENESIS.digest, "lane": 0, "generation": 1, "parent_generation": 0, "parent_round": 1,
        "parent": made.proposal.parent, "previous": made.proposal.parent, "rounds": 2, "erasure": made.change,
        "members": made.members, "membership": made.digest,
    }  # fmt: skip
    return GenerationRecord(**values | changes)


def test_a_newcomer_and_more_than_half_of_the_members_let_it_in() -> None:
    made = record()
    amended = GENESIS.amended([signed(made)])
    assert amended.digest == GENESIS.digest
    assert amended.to_dict() == GENESIS.to_dict()
    assert amended.organisations == GENESIS.organisations
    assert amended.everyone == (*GENESIS.organisations, NEWCOMER)
    assert amended.organisation(NEWCOMER.address) == NEWCOMER
    assert amended.lanes_of(NEWCOMER.address) == (0,)
    assert (amended.examples[NEWCOMER.address], amended.names[NEWCOMER.address]) == (200, "mathematical")
    assert set(made.members) == {*GENESIS.lanes[0], NEWCOMER.address}
    assert list(made.members) == sorted(made.members, key=lambda address: int(address, 16))
    check_members(amended, [opening(made)])


@pytest.mark.parametrize(("members", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_a_quorum_is_more_than_half(members: int, needed: int) -> None:
    assert quorum(members) == needed


def test_who_leaves_signs_alone_and_what_it_taught_keeps_its_name() -> None:
    made = record((), replace(PROPOSAL, joins=()), ["medical"])
    amended = GENESIS.amended([signed(made)])
    assert amended.organisation(f.address("medical")) == GENESIS.organisation(f.address("medical"))
    assert made.members == tuple(m for m in GENESIS.lanes[0] if m != f.address("medical"))
    check_members(amended, [opening(made)])


ATTACKS: dict[str, tuple[Callable[[], MembershipRecord], str]] = {
    "without a quorum": (lambda: record(("mathematical", "medical")), "expected 2 of 3 members to agree, got 1"),
    "without the newcomer": (lambda: record(FOUNDERS), "expected the signature of the newcomer 0x"),
    "a quorum that signed another proposal": (
        lambda: replace(
            record(), admissions=(*record(("mathematical", "medical")).admissions,
                                  admission("coding", replace(PROPOSAL, parent=f.other("earlier")))),
        ),
        "expected signatures under this change, each once, got others",
    ),
    "one member twice": (
        lambda: record(("mathematical", "medical", "medical")), "expected signatures under this change, each once"
    ),
    "nobody": (
        lambda: record((), replace(PROPOSAL, joins=())), "expected somebody who joins or leaves"
    ),
    "a stranger who leaves": (
        lambda: record((), replace(PROPOSAL, joins=()), ["mathematical"]), "and members that leave, each once"
    ),
    "a member that joins again": (
        lambda: record(FOUNDERS, replace(PROPOSAL, joins=GENESIS.organisations[:1])), "expected newcomers that are none"
    ),
    "another federation's proposal": (
        lambda: replace(record(), genesis=GENESIS.digest, proposal=replace(PROPOSAL, genesis=f.other("x"))),
        "expected a change of|expected signatures under this change",
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_coordinator_cannot_change_members(attack: str) -> None:
    made, reason = ATTACKS[attack]
    with pytest.raises(ObjectionError, match=reason):
        GENESIS.amended([signed(made())])


def test_a_signature_of_another_s_key_is_none() -> None:
    forged = record().admissions[0:2], admission("coding", by="financial")
    made = replace(record(), admissions=(*forged[0], forged[1]))
    for wrong in (
        signed(made),
        record().sign(f.key("medical"), GENESIS.chain),
        signed(replace(record((), replace(PROPOSAL, joins=())), leaves=(leave("medical", by="coding"),))),
    ):
        with pytest.raises(ForgeryError):
            GENESIS.amended([wrong])


def test_whoever_has_left_does_not_come_back_and_names_stay_distinct() -> None:
    gone = signed(record((), replace(PROPOSAL, joins=()), ["medical"]))
    members = tuple(m for m in GENESIS.lanes[0] if m != f.address("medical"))
    back = next(o for o in GENESIS.organisations if o.name == "medical")
    proposal = replace(PROPOSAL, generation=2, members=members, joins=(back,))
    with pytest.raises(ObjectionError, match="never members"):
        GENESIS.amended([gone, signed(record(("medical", "financial", "coding"), proposal))])
    twin = replace(PROPOSAL, joins=(replace(NEWCOMER, name="MEDICAL"),))
    with pytest.raises(FormatError, match="MEDICAL"):
        GENESIS.amended([signed(record(proposal=twin))])


def test_a_newcomer_registers_no_more_than_the_genesis_allows() -> None:
    capped = replace(GENESIS, membership=Membership(most_examples=400))
    proposal = replace(PROPOSAL, genesis=capped.digest, joins=(replace(NEWCOMER, examples=401),))
    made = replace(record(proposal=proposal), genesis=capped.digest)
    with pytest.raises(ObjectionError, match="expected at most 400 examples of a member, got more of 'mathematical'"):
        capped.amended([signed(made)])


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"members": GENESIS.lanes[0]}, "members: expected"),
        ({"parent": f.other("another head")}, "place: expected"),
        ({"generation": 2}, "place: expected"),
        ({"erasure": f.other("an erasure")}, "id on the chain: expected"),
        ({"membership": f.other("another record")}, "expected its membership record, got none"),
    ],
)
def test_a_record_opens_one_generation_at_one_place(changes: dict[str, Any], what: str) -> None:
    """A coordinator that shows an old membership record again, elsewhere."""
    made = record()
    with pytest.raises(ObjectionError, match=what):
        check_members(GENESIS.amended([signed(made)]), [opening(made, **changes)])


def test_a_record_that_leaves_members_out_of_the_count_opens_nothing() -> None:
    """With fewer members before, fewer would make a quorum."""
    made = record(("mathematical", "medical"), replace(PROPOSAL, members=(f.address("medical"),)))
    with pytest.raises(ObjectionError, match="members before: expected"):
        check_members(GENESIS.amended([signed(made)]), [opening(made)])


def test_an_erasure_brings_nobody_in() -> None:
    made = record()
    sneaked = opening(made, membership="0x" + "00" * 32)
    with pytest.raises(ObjectionError, match="expected some of those before, got others"):
        check_members(GENESIS.amended([signed(made)]), [sneaked])


def test_a_message_carries_what_was_founded_and_what_changed_since() -> None:
    amended = GENESIS.amended([signed(record())])
    plain = from_json(to_json(amended.to_message()))
    assert Genesis.from_message(plain).memberships == amended.memberships
    assert Genesis.from_message(from_json(to_json(GENESIS.to_message()))) == GENESIS
    plain["memberships"][0]["signatures"] = [f"0x{'11' * 65}"]
    with pytest.raises(ForgeryError):
        Genesis.from_message(plain)
    for malformed in ({}, GENESIS.to_dict(), {"founded": GENESIS.to_dict(), "memberships": [{}]}):
        with pytest.raises(FormatError):
            Genesis.from_message(malformed)


@pytest.mark.parametrize("wrong", [{"generation": 0}, {"lane": 2**32}, {"joins": (replace(NEWCOMER, examples=0),)}])
def test_a_malformed_proposal_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        Proposal.from_dict(from_json(to_json(replace(PROPOSAL, **wrong).to_dict())))


def test_a_record_is_read_back_byte_for_byte() -> None:
    plain = to_json(signed(record()).to_dict())
    assert to_json(Signed.parse(MembershipRecord, from_json(plain)).to_dict()) == plain
