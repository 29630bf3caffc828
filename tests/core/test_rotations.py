"""A key is replaced from one record on; what is unsigned, shown again, or of another run replaces nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from core.canonical import Address, from_json, to_json
from core.errors import FoedusError, ForgeryError, ObjectionError
from core.genesis import Genesis
from core.keys import Key, derive
from core.membership import Leave, MembershipRecord, Proposal
from core.rotations import Rotation
from core.signed import Signed
from tests import federation as f

ADMINISTRATOR = derive(7, "administrator")
GENESIS = replace(f.genesis(("medical", "financial")), administrator=ADMINISTRATOR.address)
OLD, NEW, NEWER = f.key("medical"), derive(7, "medical, again"), derive(7, "medical, once more")
COORDINATOR, NEXT = f.COORDINATOR, derive(7, "coordinator, again")
SALT = "11" * 32


def rotation(
    old: Key = OLD, new: Key = NEW, by: Key | None = None, owner: Address = OLD.address, genesis: Genesis = GENESIS
) -> Signed[Rotation]:
    signing = by or old
    said = Rotation(genesis.digest, owner, old.address, new.address, signing.address)
    return said.sign(signing, genesis.chain, new)


def record(
    *rotations: Signed[Rotation], generation: int = 1, by: Key = COORDINATOR, lane: int = 0, genesis: Genesis = GENESIS
) -> Signed[MembershipRecord]:
    proposal = Proposal(genesis.digest, lane, generation, f.other("head"), genesis.lanes[lane], ())
    return MembershipRecord(genesis.digest, proposal, (), (), SALT, rotations).sign(by, genesis.chain)


def test_from_the_next_record_on_the_new_key_is_what_counts() -> None:
    amended = GENESIS.amended([record(rotation())])
    owner = OLD.address
    assert amended.signing(owner) == amended.signing(owner, (0, 1)) == amended.signing(owner, (0, 5)) == NEW.address
    assert amended.signing(owner, (0, 0)) == owner
    assert amended.digest == GENESIS.digest
    assert (amended.keys.owner(NEW.address), amended.keys.owner(owner)) == (owner, owner)
    before, behind = f.manifest(GENESIS), f.manifest(GENESIS, generation=1)
    assert before.sign(OLD, GENESIS.chain).verified(amended) == before
    assert behind.sign(NEW, GENESIS.chain).verified(amended) == behind
    for statement, wrong in ((before, NEW), (behind, OLD)):
        with pytest.raises(ForgeryError, match="expected the signature of"):
            statement.sign(wrong, GENESIS.chain).verified(amended)


def test_what_stands_in_no_lane_needs_the_key_of_now_or_of_what_contains_it() -> None:
    amended = GENESIS.amended([record(rotation())])
    leave = Leave(GENESIS.digest, OLD.address)
    assert leave.sign(NEW, GENESIS.chain).verified(amended) == leave
    assert leave.sign(OLD, GENESIS.chain).verified(amended, (0, 0)) == leave
    with pytest.raises(ForgeryError):
        leave.sign(OLD, GENESIS.chain).verified(amended)


def test_the_coordinator_s_new_key_signs_its_own_rotation() -> None:
    own = rotation(COORDINATOR, NEXT, owner=COORDINATOR.address)
    amended = GENESIS.amended([record(own, by=NEXT)])
    assert amended.signing(GENESIS.coordinator) == NEXT.address
    with pytest.raises(ForgeryError):
        GENESIS.amended([record(own, by=COORDINATOR)])


def test_a_key_is_replaced_again_and_after_a_loss_by_the_administrator() -> None:
    lost = rotation(NEW, NEWER, by=ADMINISTRATOR)
    amended = GENESIS.amended([record(rotation()), record(lost, generation=2)])
    assert [amended.signing(OLD.address, (0, generation)) for generation in range(3)] == [
        OLD.address, NEW.address, NEWER.address,
    ]  # fmt: skip


def test_in_each_lane_the_same_statement_replaces_a_key() -> None:
    """A crash may have rotated in one of two lanes only, whose generations differ."""
    genesis = replace(GENESIS, lanes=((OLD.address,), (OLD.address,)))
    one, two = rotation(genesis=genesis), rotation(NEW, NEWER, genesis=genesis)
    changes = [record(one, genesis=genesis), record(two, genesis=genesis, generation=2)]
    amended = genesis.amended([*changes, record(one, genesis=genesis, generation=5, lane=1)])
    assert amended.signing(OLD.address) == NEWER.address
    assert amended.signing(OLD.address, (1, 9)) == NEW.address
    assert amended.signing(OLD.address, (1, 4)) == OLD.address


def unsigned() -> Signed[Rotation]:
    whole = rotation()
    return Signed(whole.value, whole.signatures[1:])


ELSEWHERE = replace(GENESIS, run="another")
ATTACKS: dict[str, tuple[Callable[[], Sequence[Signed[MembershipRecord]]], type[FoedusError], str]] = {
    "unsigned by the old key": (lambda: [record(unsigned())], ForgeryError, "expected 2 signatures, got 1"),
    "signed by another": (
        lambda: [record(Signed(rotation().value, rotation(by=COORDINATOR).signatures))], ForgeryError, "signature of 0x"
    ),
    "by the coordinator": (lambda: [record(rotation(by=COORDINATOR))], ObjectionError, "old key or the administrator"),
    "shown again": (
        lambda: [record(rotation()), record(rotation(), generation=2)], ObjectionError, "which signs here, got one of"
    ),
    "shown again after the next": (
        lambda: [record(rotation()), record(rotation(NEW, NEWER), generation=2), record(rotation(), generation=3)],
        ObjectionError, "which signs here",
    ),
    "back to a key that was replaced": (
        lambda: [record(rotation()), record(rotation(NEW, OLD), generation=2)], ObjectionError, "was never used"
    ),
    "to a key that was used in between": (
        lambda: [record(rotation()), record(rotation(NEW, NEWER), generation=2),
                 record(rotation(NEWER, NEW), generation=3)],
        ObjectionError, "a key that was never used",
    ),
    "to another member's key": (
        lambda: [record(rotation(new=f.key("financial")))], ObjectionError, "a key that was never used"
    ),
    "of a stranger": (
        lambda: [record(rotation(f.key("coding"), owner=f.address("coding")))], ObjectionError, "expected a member"
    ),
    "of another run": (lambda: [record(rotation(genesis=ELSEWHERE))], ForgeryError, "expected federation"),
    "two beside each other": (
        lambda: [record(rotation(), rotation(f.key("financial"), NEWER, owner=f.address("financial")))],
        ObjectionError, "one new key alone",
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_coordinator_cannot_replace_a_key(attack: str) -> None:
    made, error, reason = ATTACKS[attack]
    with pytest.raises(error, match=reason):
        GENESIS.amended(made())


def test_two_lanes_do_not_replace_one_key_by_two() -> None:
    genesis = replace(GENESIS, lanes=((OLD.address,), (OLD.address,)))
    first, second = rotation(genesis=genesis), rotation(new=NEWER, genesis=genesis)
    with pytest.raises(ObjectionError, match="expected one new key"):
        genesis.amended([record(first, genesis=genesis), record(second, genesis=genesis, lane=1)])


def test_without_an_administrator_a_lost_key_is_not_replaced() -> None:
    genesis = f.genesis(("medical", "financial"))
    lost = rotation(by=ADMINISTRATOR, genesis=genesis)
    with pytest.raises(ObjectionError, match="the old key or the administrator"):
        genesis.amended([record(lost, genesis=genesis)])


def test_a_newcomer_does_not_come_with_a_key_that_has_replaced_another() -> None:
    newcomer = replace(GENESIS.organisations[0], address=NEW.address, name="newcomer")
    proposal = Proposal(GENESIS.digest, 0, 2, f.other("head"), GENESIS.lanes[0], (newcomer,))
    joins = MembershipRecord(GENESIS.digest, proposal, (), (), SALT).sign(COORDINATOR, GENESIS.chain)
    with pytest.raises(ObjectionError, match="a key that was never used"):
        GENESIS.amended([record(rotation()), joins])


def test_a_rotation_is_read_back_byte_for_byte() -> None:
    plain = to_json(record(rotation()).to_dict())
    assert to_json(Signed.parse(MembershipRecord, from_json(plain)).to_dict()) == plain
