"""An organisation shows its nonce for one set of members, and trains only under a genesis that it agreed to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.devnet.accounts import CHAIN_IDS
from client_app.agreement import Agreement, Pins, kept
from core.canonical import Digest
from core.errors import FormatError, ObjectionError
from core.founding import commitment_to
from core.genesis import Genesis
from core.keys import Key, derive
from core.membership import MembershipRecord, Proposal
from core.messages.queries import ConsentQuery
from core.rotations import Rotation
from core.seeds import from_nonces
from core.signed import Signed
from core.storage import jsonl
from core.storage.state_folder import State
from core.update import Asked, Organisation
from tests import federation as f
from tests.server_app.agreeing import own_key, registered

KEYS = tuple(sorted((Key(bytes([i]) * 32) for i in (1, 2, 3)), key=lambda key: int(key.address, 16)))
MEMBERS = tuple(Organisation(key.address, f"member-{i}", 100, False) for i, key in enumerate(KEYS))
ASKED = Asked(f.COORDINATOR.address, f.RUN, f.other("challenge"))
REGISTERED = tuple(registered(key, member, ASKED, f.CHAIN) for key, member in zip(KEYS, MEMBERS, strict=True))


def agreement(folder: Path, index: int = 0) -> Agreement:
    return Agreement(folder / f"{index}.jsonl", KEYS[index])


def drawn(folder: Path, **changes: Any) -> Genesis:
    nonces: tuple[Digest, ...] = tuple(agreement(folder, i).reveal(REGISTERED, f.CHAIN) for i in range(3))
    values: dict[str, Any] = {"organisations": MEMBERS, "lanes": (tuple(m.address for m in MEMBERS),)}
    return replace(f.genesis(), **values | {"nonces": nonces, "seed": from_nonces(nonces)} | changes)


def test_a_nonce_is_what_was_committed_to_and_shown_again_for_the_same_members(tmp_path: Path) -> None:
    nonce = agreement(tmp_path).reveal(REGISTERED, f.CHAIN)
    assert commitment_to(nonce) == REGISTERED[0].value.nonce
    assert agreement(tmp_path).reveal(REGISTERED, f.CHAIN) == nonce


def test_a_nonce_is_not_shown_for_a_second_set_of_members(tmp_path: Path) -> None:
    # A coordinator that knew all nonces but its own member's could choose that one, and so the seed.
    agreement(tmp_path).reveal(REGISTERED[:2], f.CHAIN)
    with pytest.raises(ObjectionError, match="it was shown for other members"):
        agreement(tmp_path).reveal(REGISTERED, f.CHAIN)


def test_one_set_of_members_draws_one_seed_for_a_run(tmp_path: Path) -> None:
    # With a challenge after another, a coordinator would draw until somebody's tickets please it.
    agreement(tmp_path).reveal(REGISTERED, f.CHAIN)
    again, elsewhere = (replace(ASKED, challenge=f.other("later"), run=run) for run in (ASKED.run, "another"))
    grown = (*MEMBERS[:2], replace(MEMBERS[2], examples=101))  # one that helps the coordinator
    for members in (MEMBERS, grown):
        anew = [registered(key, m, again, f.CHAIN) for key, m in zip(KEYS, members, strict=True)]
        with pytest.raises(ObjectionError, match="its members drew a seed before"):
            agreement(tmp_path).reveal(anew, f.CHAIN)
    anew = [registered(key, m, elsewhere, f.CHAIN) for key, m in zip(KEYS, MEMBERS, strict=True)]
    assert agreement(tmp_path).reveal(anew, f.CHAIN)


def draw(memory: Agreement, run: str, coordinator: str = f.COORDINATOR.address) -> Digest:
    """Another seed of the same members, for another run."""
    asked = replace(ASKED, run=run, coordinator=coordinator)
    return memory.reveal([registered(key, m, asked, f.CHAIN) for key, m in zip(KEYS, MEMBERS, strict=True)], f.CHAIN)


def test_a_coordinator_does_not_draw_until_it_likes_the_seed(tmp_path: Path) -> None:
    """Another name, or other members, is another seed: of those that it did not like nothing came."""
    memory = Agreement(tmp_path / "memory.jsonl", KEYS[0], most_draws=3)
    for run in ("one", "two", "three"):
        draw(memory, run)
    with pytest.raises(ObjectionError, match="no training came: expected fewer than 3, got 3: ask it why"):
        draw(memory, "four")
    fewer = [registered(KEYS[i], MEMBERS[i], replace(ASKED, run="five"), f.CHAIN) for i in (0, 1)]
    with pytest.raises(ObjectionError, match="expected fewer than 3, got 3"):
        memory.reveal(fewer, f.CHAIN)
    assert draw(memory, "three") == draw(memory, "three"), "what was shown may be shown again"
    draw(memory, "four", f.address("coding"))
    draw(Agreement(tmp_path / "memory.jsonl", KEYS[0], most_draws=4), "four")


def test_another_spelling_of_its_address_gives_a_coordinator_no_further_seeds(tmp_path: Path) -> None:
    memory = Agreement(tmp_path / "memory.jsonl", KEYS[0], most_draws=1)
    draw(memory, "one")
    with pytest.raises(ObjectionError, match="expected fewer than 1, got 1"):
        draw(memory, "two", f.COORDINATOR.address.lower())


@pytest.mark.parametrize("changes", [{"run": "another"}, {"coordinator": f.address("coding")}], ids=str)
def test_a_seed_that_was_drawn_for_one_run_and_coordinator_founds_no_other(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    genesis = drawn(tmp_path, **changes)
    with pytest.raises(ObjectionError, match="expected a seed from the nonce that was shown"):
        agreement(tmp_path).consent(genesis)


def test_a_federation_that_trains_is_no_draw_for_nothing(tmp_path: Path) -> None:
    state = State.at(tmp_path)
    memory = Agreement.of(state, KEYS[0], most_draws=1)
    for run in ("one", "two"):
        asked = replace(ASKED, run=run)
        shown = [registered(key, m, asked, f.CHAIN) for key, m in zip(KEYS, MEMBERS, strict=True)]
        others = [Agreement(tmp_path / f"{i}.jsonl", KEYS[i]) for i in (1, 2)]
        nonces = tuple(each.reveal(shown, f.CHAIN) for each in (memory, *others))
        values = {"organisations": MEMBERS, "lanes": (tuple(m.address for m in MEMBERS),), "nonces": nonces}
        genesis = replace(f.genesis(), **values, seed=from_nonces(nonces), run=run)
        memory.consent(genesis)
        with pytest.raises(ObjectionError, match="expected fewer than 1, got"):
            draw(memory, "another")
        # A record that a coordinator shows costs it nothing; an update of its own is training.
        jsonl.append(state.witness(genesis.digest, KEYS[0].address), {"ledger": {}})
        with pytest.raises(ObjectionError, match="expected fewer than 1, got"):
            draw(memory, "another")
        jsonl.append(state.witness(genesis.digest, KEYS[0].address), {"sent": {}, "manifest": f.other("sent")})


def test_a_nonce_is_shown_only_with_the_own_registration_and_commitments_of_all(tmp_path: Path) -> None:
    uncommitted = f.registration(MEMBERS[1], ASKED.challenge, KEYS[1])
    other = replace(REGISTERED[0].value, nonce=f.other("nonce")).sign(KEYS[0], f.CHAIN)
    forged = Signed(REGISTERED[1].value, REGISTERED[0].signatures)
    for registrations in (REGISTERED[1:], (REGISTERED[0], uncommitted), (other,), (REGISTERED[0], forged)):
        with pytest.raises(Exception, match="expected"):
            agreement(tmp_path).reveal(registrations, f.CHAIN)
    assert not (tmp_path / "0.jsonl").exists()


def test_it_trains_under_the_genesis_that_it_agreed_to_alone(tmp_path: Path) -> None:
    genesis = drawn(tmp_path)
    with pytest.raises(ObjectionError, match="agreed to found"):
        agreement(tmp_path).check(genesis)
    assert agreement(tmp_path).consent(genesis).value.organisation == KEYS[0].address
    agreement(tmp_path).check(genesis)
    with pytest.raises(ObjectionError, match="agreed to found"):
        agreement(tmp_path).check(replace(genesis, salt="11" * 32))


def test_a_memory_has_room_for_so_many_foundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genesis = drawn(tmp_path)
    monkeypatch.setattr("client_app.agreement._MOST_ENTRIES", 2)
    agreement(tmp_path).consent(genesis)
    agreement(tmp_path).consent(genesis)
    with pytest.raises(ObjectionError, match="expected at most 2 entries, got one more"):
        agreement(tmp_path).consent(replace(genesis, salt="11" * 32))


def test_whoever_has_a_derived_key_need_not_agree(tmp_path: Path) -> None:
    key = derive(7, "medical")
    member = Organisation(key.address, "medical", 100, True)
    Agreement(tmp_path / "memory.jsonl", key).check(f.genesis())
    assert registered(key, member, ASKED, f.CHAIN).value.nonce == "0x" + "00" * 32


def test_it_is_never_asked_to_agree_to_lanes_that_leave_members_out_or_to_a_member_that_counts_twice(
    tmp_path: Path,
) -> None:
    genesis = drawn(tmp_path)
    lanes = ((MEMBERS[0].address,),)
    twice, nonces = (*MEMBERS, MEMBERS[1]), (*genesis.nonces, genesis.nonces[1])
    counted = replace(genesis, organisations=twice, nonces=nonces, seed=from_nonces(nonces))
    for impossible in (replace(genesis, lanes=lanes), counted):
        content = ConsentQuery(KEYS[0].address, impossible).to_content()
        with pytest.raises(FormatError, match="genesis: expected"):
            ConsentQuery.from_content(content)


def test_it_agrees_to_nothing_else_than_what_follows_from_what_it_was_shown(tmp_path: Path) -> None:
    genesis = drawn(tmp_path)
    swapped = (genesis.nonces[1], genesis.nonces[0], genesis.nonces[2])
    for other in (
        replace(genesis, nonces=()),
        replace(genesis, nonces=swapped, seed=from_nonces(swapped)),
        replace(genesis, organisations=(replace(MEMBERS[0], examples=1), *MEMBERS[1:])),
        replace(genesis, organisations=(MEMBERS[0], replace(MEMBERS[1], examples=10**6), MEMBERS[2])),
    ):
        with pytest.raises(ObjectionError, match="genesis: expected"):
            agreement(tmp_path).consent(other)


@pytest.mark.parametrize(
    ("pins", "what"),
    [
        ({"pin-coordinator": f.address("coding")}, "coordinator"),
        ({"pin-contract": f.address("coding")}, "contract"),
        ({"pin-members": f"{MEMBERS[0].address}, {MEMBERS[1].address}"}, "members"),
    ],
)
def test_a_genesis_that_the_settings_do_not_want_is_not_agreed_to(
    tmp_path: Path, pins: dict[str, Any], what: str
) -> None:
    genesis = drawn(tmp_path)
    with pytest.raises(ObjectionError, match=f"{what}: expected"):
        Pins.of(pins).check(genesis)
    wanted = {
        "pin-coordinator": genesis.coordinator.lower(),
        "pin-contract": genesis.chain.contract,
        "pin-members": ",".join(member.address for member in reversed(MEMBERS)),
    }
    Pins.of(wanted).check(genesis)


@pytest.mark.parametrize(
    ("own", "refused"),
    [
        ({"superlink": "coordinator.example:443"}, True),
        ({"superlink": "10.0.0.1:443"}, True),
        ({"superlink": "10.0.0.1:443", "chain-url": "http://10.0.0.1:8545"}, False),  # it asks for the contract there
        ({"superlink": "127.0.0.1:8000"}, False),
        ({"superlink": "localhost:8000"}, False),
        ({}, False),
    ],
)
def test_a_chain_that_lives_on_the_coordinator_s_machine_is_no_chain_for_another_machine(
    own: dict[str, Any], refused: bool
) -> None:
    pins = Pins.of(own)
    pins.check_asked(ASKED, f.CHAIN)
    embedded = replace(f.CHAIN, chain_id=CHAIN_IDS["public"])
    if not refused:
        pins.check_asked(ASKED, embedded)
        return
    with pytest.raises(ObjectionError, match=r"chain: expected one that this machine reaches, .* set chain to the RPC"):
        pins.check_asked(ASKED, embedded)


def test_a_newcomer_agrees_by_joining_and_a_member_only_in_its_own_federation(tmp_path: Path) -> None:
    genesis, newcomer = drawn(tmp_path), own_key(77)
    joins = (Organisation(newcomer.address, "newcomer", 10, derived=False),)
    proposal = Proposal(genesis.digest, 0, 1, genesis.digest, genesis.lanes[0], joins)
    own = Agreement(tmp_path / "newcomer" / "agreed.jsonl", newcomer)
    with pytest.raises(ObjectionError, match="agreed to found"):
        own.check(genesis)
    with pytest.raises(ObjectionError, match="agreed to found"):
        own.admit(genesis, replace(proposal, joins=()))
    assert own.admit(genesis, proposal).verified(genesis).proposal == proposal.digest
    own.check(genesis)
    assert own.agreed(genesis.digest) == genesis
    with pytest.raises(ObjectionError, match="agreed to found"):
        own.check(replace(genesis, run="another"))


def rotated(genesis: Genesis, old: Key, new: Key) -> Genesis:
    """A genesis behind whose first generation a key was replaced."""
    rotation = Rotation(genesis.digest, old.address, old.address, new.address, old.address)
    proposal = Proposal(genesis.digest, 0, 1, genesis.digest, genesis.lanes[0], ())
    record = MembershipRecord(genesis.digest, proposal, (), (), "11" * 32, (rotation.sign(old, genesis.chain, new),))
    return genesis.amended([record.sign(f.COORDINATOR, genesis.chain)])


def test_a_history_of_members_without_what_was_shown_before_is_refused(tmp_path: Path) -> None:
    """A coordinator that brings back a key that was replaced; also one that asks again what it asked before that."""
    genesis, new = drawn(tmp_path), own_key(77)
    old, own = KEYS[0], agreement(tmp_path)
    changed = rotated(genesis, old, new)
    own.consent(genesis)
    own.consent(genesis)
    own.check(genesis)
    own.check(changed)
    for ask in (own.check, own.consent):
        assert kept(genesis.digest, tmp_path).signing(old.address) == new.address
        with pytest.raises(ObjectionError, match="memberships: expected those that were shown before"):
            ask(genesis)
    own.check(changed)


def test_a_newcomer_that_is_asked_again_to_join_forgets_no_change_that_it_was_shown(tmp_path: Path) -> None:
    genesis, newcomer, new = drawn(tmp_path), own_key(77), own_key(78)
    joins = (Organisation(newcomer.address, "newcomer", 10, derived=False),)
    proposal = Proposal(genesis.digest, 0, 1, genesis.digest, genesis.lanes[0], joins)
    own = Agreement(tmp_path / "newcomer" / "agreed.jsonl", newcomer)
    own.admit(genesis, proposal)
    own.admit(genesis, proposal)  # as when too few others agreed
    changed = rotated(genesis, KEYS[0], new)
    own.admit(changed, proposal)  # or when a key was replaced meanwhile
    with pytest.raises(ObjectionError, match="memberships: expected those that were shown before"):
        own.admit(genesis, proposal)
    assert kept(genesis.digest, tmp_path / "newcomer").signing(KEYS[0].address) == new.address


def test_a_key_that_is_to_replace_another_has_agreed_to_what_that_did(tmp_path: Path) -> None:
    genesis, new = drawn(tmp_path), Agreement(tmp_path / "new.jsonl", own_key(77))
    agreement(tmp_path).consent(genesis)
    with pytest.raises(ObjectionError, match="agreed to found"):
        new.check(genesis)
    new.succeed(genesis)
    new.check(genesis)
