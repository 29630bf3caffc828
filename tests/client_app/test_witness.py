from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client_app.witness import Standing, Witness
from core import keys
from core.canonical import Address, Digest
from core.errors import ForgeryError, IntegrityError, LedgerUnreachableError, LostMemoryError, ObjectionError
from core.keys import derive
from core.ledger import Anchor, Ledger, MemoryLedger, RoundCommitment
from core.round_key import RoundKey
from core.rounds import Admitted, Best, Rejection, RoundRecord, Salts, ShownRecord
from core.signed import Signed
from core.update import UpdateManifest
from tests.behaviours.ledger import some_digest
from tests.behaviours.runs import COORDINATOR, NAMES, Federation, Lies, advance, build, compared

OWN = NAMES[0]


def a_federation(folder: Path, lies: Lies | None = None, ledger: Ledger | None = None) -> Federation:
    return build(folder / "run", rounds=4, organisations=3, lies=lies, ledger=ledger)


def own_address(federation: Federation) -> Address:
    return federation.members[OWN].address


def witness(federation: Federation, folder: Path, ledger: Ledger | None) -> Witness:
    """A witness that has sent what the federation's records say that it sent."""
    found = Witness(folder / "witness.jsonl", federation.genesis, own_address(federation), ledger)
    for signed in federation.run.records():
        for admitted in signed.value.admitted:
            if admitted.organisation == own_address(federation):
                found.sent(admitted.signed)
    return found


def watch(by: Witness, federation: Federation, after: int = 1) -> Standing:
    """Everything that an organisation sees of a run; `after`: which round it is asked for when shown one."""
    standing = Standing(trusting=False)
    for signed in federation.run.records():
        by.check_record(signed, federation.run.salts(signed.value))
        standing = by.confirm(0, 0, signed.value.round + after)
    return standing


def test_an_honest_coordinator_passes(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    standing = watch(witness(federation, tmp_path, federation.ledger), federation)
    assert standing == Standing(trusting=False, behind=())


def worst_is_best(record: RoundRecord) -> RoundRecord:
    return replace(record, best=Best(record.round, record.aggregate, record.validation_loss or 0.0))


def nothing_compared(record: RoundRecord) -> RoundRecord:
    return replace(record, validation_loss=None, best=None)


@pytest.mark.parametrize("lie", [worst_is_best, nothing_compared])
def test_a_best_round_that_does_not_follow_is_caught_when_it_is_shown(
    tmp_path: Path, lie: Callable[[RoundRecord], RoundRecord]
) -> None:
    honest = compared(3.0, 2.0, 4.0, 1.0, serve="best")
    (tmp_path / "honest").mkdir()
    federation = a_federation(tmp_path / "honest", honest)
    watch(witness(federation, tmp_path / "honest", federation.ledger), federation)

    def record(federation: Federation, plain: RoundRecord) -> RoundRecord:
        said = honest.record(federation, plain)
        return lie(said) if said.round == 3 else said

    lying = a_federation(tmp_path, replace(honest, record=record))
    with pytest.raises(IntegrityError, match=r"round 3 of .*its best round does not follow from those shown"):
        watch(witness(lying, tmp_path, lying.ledger), lying)


def test_without_a_ledger_a_witness_says_that_it_trusts(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    assert watch(witness(federation, tmp_path, None), federation) == Standing(trusting=True)


def test_a_round_that_is_late_beyond_the_lag_is_reported_and_one_within_is_not(tmp_path: Path) -> None:
    federation, empty = a_federation(tmp_path), MemoryLedger()
    empty.open_run(federation.genesis.digest, [o.address for o in federation.genesis.organisations])
    by = witness(federation, tmp_path, empty)
    watch(by, federation)
    place = (federation.genesis.digest, 0, 0)
    assert by.confirm(0, 0, 2).behind == ()
    assert by.confirm(0, 0, 4).behind == (RoundKey(*place, 1), RoundKey(*place, 2))


def other_aggregate(commitment: RoundCommitment) -> RoundCommitment:
    return replace(commitment, aggregate=some_digest()) if commitment.key.round == 4 else commitment


def other_root(commitment: RoundCommitment) -> RoundCommitment:
    return replace(commitment, updates_root=some_digest()) if commitment.key.round == 2 else commitment


def other_count(commitment: RoundCommitment) -> RoundCommitment:
    return replace(commitment, count=2) if commitment.key.round == 3 else commitment


@pytest.mark.parametrize(
    ("lie", "finding"),
    [
        (other_aggregate, "round 4 of lane 0, generation 0: the ledger has aggregate"),
        (other_root, "round 2 of lane 0, generation 0: the ledger has updates_root"),
        (other_count, "round 3 of lane 0, generation 0: the ledger has count 2, shown before was 3"),
    ],
)
def test_a_coordinator_with_two_faces_is_caught_by_the_ledger(
    tmp_path: Path, lie: Callable[[RoundCommitment], RoundCommitment], finding: str
) -> None:
    federation = a_federation(tmp_path, Lies(commitment=lie))
    by = witness(federation, tmp_path, federation.ledger)
    with pytest.raises(IntegrityError, match=finding):
        watch(by, federation, after=2)


def leave_out(federation: Federation, record: RoundRecord) -> RoundRecord:
    kept = tuple(a for a in record.admitted if a.organisation != own_address(federation))
    return replace(record, admitted=_reweighed(federation, kept)) if record.round == 3 else record


def reweigh(federation: Federation, record: RoundRecord) -> RoundRecord:
    first, *others = record.admitted
    changed = (replace(first, weight=first.weight / 2), *others)
    return replace(record, admitted=changed) if record.round == 2 else record


def admit_a_stranger(federation: Federation, record: RoundRecord) -> RoundRecord:
    first, *others = record.admitted
    stranger = keys.derive(99, "stranger")
    manifest = replace(first.signed.value, organisation=stranger.address)
    changed = (Admitted(manifest.sign(stranger, federation.genesis.chain), first.weight), *others)
    return replace(record, admitted=changed) if record.round == 2 else record


def grow_elsewhere(federation: Federation, record: RoundRecord) -> RoundRecord:
    return replace(record, parent=some_digest()) if record.round == 3 else record


def _reweighed(federation: Federation, admitted: tuple[Admitted, ...]) -> tuple[Admitted, ...]:
    examples = {o.address: o.examples for o in federation.genesis.organisations}
    total = sum(examples[a.organisation] for a in admitted)
    return tuple(replace(a, weight=examples[a.organisation] / total) for a in admitted)


@pytest.mark.parametrize(
    ("lie", "finding"),
    [
        (leave_out, "round 3 of .* leaves out the update that 0x"),
        (reweigh, "round 2 of .* the weight of 0x.*: expected .* got"),
        (admit_a_stranger, "round 2 of .* which is no member"),
        (grow_elsewhere, "round 3 of .* expected parent 0x.* got 0x"),
    ],
)
def test_a_coordinator_that_tampers_with_a_round_is_caught_when_it_shows_it(
    tmp_path: Path, lie: Callable[[Federation, RoundRecord], RoundRecord], finding: str
) -> None:
    federation = a_federation(tmp_path)
    by = Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), None)
    with pytest.raises(IntegrityError, match=finding):
        watch_tampered(by, federation, lie)


def watch_tampered(by: Witness, federation: Federation, lie: Callable[[Federation, RoundRecord], RoundRecord]) -> None:
    """An honest run, of which the coordinator shows something else."""
    for signed in federation.run.records():
        for admitted in signed.value.admitted:
            if admitted.organisation == own_address(federation):
                by.sent(admitted.signed)
        record = lie(federation, signed.value)
        by.check_record(record.sign(COORDINATOR, federation.genesis.chain), Salts.draw(record))


def test_a_swapped_update_is_caught(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    by = Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), None)
    first = next(federation.run.records()).value.admitted
    shown = next(a.signed.value for a in first if a.organisation == own_address(federation))
    by.sent(replace(shown, nonce=some_digest()).sign(federation.members[OWN], federation.genesis.chain))
    with pytest.raises(IntegrityError, match=r"round 1 of .* that it did not send"):
        watch(by, federation)


def test_an_organisation_that_lost_its_memory_refuses_once_accuses_nobody_and_goes_on(tmp_path: Path) -> None:
    """Also where no round closes without it: what it refused once, it takes for its own when it is shown again."""
    federation = a_federation(tmp_path)
    first, second, *_ = federation.run.records()
    place, own = tmp_path / "witness.jsonl", own_address(federation)

    def show(*records: Signed[RoundRecord]) -> Witness:
        """Each message finds the memory as it was left."""
        by = Witness(place, federation.genesis, own, None)
        by.follow([ShownRecord(record, Salts.draw(record.value)) for record in records])
        return by

    with pytest.raises(LostMemoryError, match=r"round 1 .*has signed an update in it and remembers none"):
        show(first)
    assert first.value.key in Witness(place, federation.genesis, own, None).trained, "its signature says that it did"
    assert show(first).rounds == 1
    # It has refused to train round 2: the record says so, and has no update of it.
    kept = tuple(a for a in second.value.admitted if a.organisation != own)
    refused = Rejection(own, "objected", "it remembers none")
    without = replace(second.value, admitted=_reweighed(federation, kept), rejected=(refused,))
    assert show(without.sign(COORDINATOR, federation.genesis.chain)).rounds == 2


@pytest.mark.parametrize("kept", range(8))
def test_a_memory_of_yesterday_accuses_nobody_and_goes_on(tmp_path: Path, kept: int) -> None:
    """An older copy of its state was restored: what it has signed since is no invention of its coordinator."""
    federation, own = a_federation(tmp_path), NAMES[0]
    *earlier, last = federation.run.records()
    by = Witness(place := tmp_path / "witness.jsonl", federation.genesis, own_address(federation), None)
    for signed in earlier:
        by.sent(next(a.signed for a in signed.value.admitted if a.organisation == federation.members[own].address))
        by.follow([ShownRecord(signed, federation.run.salts(signed.value))])
    place.write_bytes(b"".join(place.read_bytes().splitlines(keepends=True)[:kept]))

    def show() -> Witness:
        """The coordinator has seen it sign for the last round, so it shows that one alone."""
        restored = Witness(place, federation.genesis, own_address(federation), None)
        restored.follow([ShownRecord(last, federation.run.salts(last.value))])
        return restored

    with pytest.raises(LostMemoryError):
        show()
    assert show().caught == ""


def test_an_own_update_of_another_round_is_caught(tmp_path: Path) -> None:
    """It was signed and sent, but for an earlier round."""
    federation = a_federation(tmp_path)
    by = witness(federation, tmp_path, None)
    first, second, _, _ = federation.run.records()
    by.check_record(first, federation.run.salts(first.value))
    own = own_address(federation)
    old = next(a.signed for a in first.value.admitted if a.organisation == own)
    repeated = tuple(replace(a, signed=old) if a.organisation == own else a for a in second.value.admitted)
    record = replace(second.value, admitted=repeated)
    with pytest.raises(IntegrityError, match=r"round 2 of .*: admits an update of 0x.* of round 1"):
        by.check_record(record.sign(COORDINATOR, federation.genesis.chain), Salts.draw(record))


def test_an_update_that_another_signed_is_no_lost_memory(tmp_path: Path) -> None:
    """An invented one is held against the coordinator, also by an organisation that remembers nothing."""
    federation = a_federation(tmp_path)
    record = next(federation.run.records()).value
    stolen = tuple(
        replace(a, signed=a.signed.value.sign(COORDINATOR, federation.genesis.chain))
        if a.organisation == own_address(federation)
        else a
        for a in record.admitted
    )
    invented = replace(record, admitted=stolen)
    by = Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), None)
    with pytest.raises(ForgeryError):
        by.check_record(invented.sign(COORDINATOR, federation.genesis.chain), Salts.draw(invented))
    assert by.caught


def test_a_rejection_with_a_reason_is_not_a_dropped_update(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    by = witness(federation, tmp_path, None)
    signed = next(federation.run.records())
    rejection = Rejection(own_address(federation), "no-reply", "too late")
    record = replace(leave_out(federation, replace(signed.value, round=3)), round=1, rejected=(rejection,))
    by.check_record(record.sign(COORDINATOR, federation.genesis.chain), Salts.draw(record))


def test_two_records_for_one_place_are_caught_whoever_remembers_them(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    watch(witness(federation, tmp_path, None), federation)
    signed = next(federation.run.records())
    other = replace(signed.value, residual=0.5).sign(COORDINATOR, federation.genesis.chain)
    again = Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), None)
    again.check_record(signed, federation.run.salts(signed.value))
    with pytest.raises(IntegrityError, match=r"round 1 of .* has shown two records"):
        again.check_record(other, federation.run.salts(signed.value))


def test_a_record_that_the_coordinator_did_not_sign_is_a_forgery(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    record = next(federation.run.records()).value
    forged: Signed[RoundRecord] = record.sign(federation.members[OWN], federation.genesis.chain)
    with pytest.raises(ForgeryError, match="round record: expected the signature of"):
        witness(federation, tmp_path, None).check_record(forged, federation.run.salts(record))


def test_a_confirmed_round_is_not_asked_for_again(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    watch(witness(federation, tmp_path, federation.ledger), federation)
    again = Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), federation.ledger)
    assert len(again._confirmed) == 3
    assert again.confirm(0, 0, 6).behind == ()
    assert len(again._confirmed) == 4


class Asked(MemoryLedger):
    """A ledger that knows what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[tuple[int, int]] = []

    def read(self, key: RoundKey) -> tuple[RoundCommitment, Anchor] | None:
        self.keys.append((key.generation, key.round))
        return super().read(key)


@pytest.mark.parametrize("parent_round", [4, 2])
def test_the_last_rounds_of_a_generation_are_confirmed_before_the_next_is_trained_in(
    tmp_path: Path, parent_round: int
) -> None:
    """Once each, also those that an erasure has taken back: they were on the ledger before it began."""
    federation = a_federation(tmp_path, ledger=(ledger := Asked()))
    by = witness(federation, tmp_path, ledger)
    ledger.keys.clear()
    watch(by, federation)
    assert ledger.keys == [(0, 1), (0, 2), (0, 3)]
    by.follow([], [federation.fork(0, parent_round, without=NAMES[1]).sign(COORDINATOR, federation.genesis.chain)])
    for _ in range(2):
        assert by.confirm(0, 1, parent_round + 1) == Standing(trusting=False)
    assert by.confirm(1, 0, 9) == Standing(trusting=False)
    assert ledger.keys == [(0, 1), (0, 2), (0, 3), (0, 4)]


def test_a_coordinator_that_opens_a_generation_before_a_round_is_due_is_caught_by_the_ledger(tmp_path: Path) -> None:
    """It shows one organisation a history of its own, by a new key every other round."""
    federation = a_federation(tmp_path, Lies(commitment=other_aggregate))
    by = witness(federation, tmp_path, federation.ledger)
    assert watch(by, federation) == Standing(trusting=False)
    by.follow([], [federation.fork(0, 4, without=NAMES[1]).sign(COORDINATOR, federation.genesis.chain)])
    with pytest.raises(IntegrityError, match="round 4 of lane 0, generation 0: the ledger has aggregate"):
        by.confirm(0, 1, 5)
    empty = MemoryLedger()
    empty.open_run(federation.genesis.digest, [o.address for o in federation.genesis.organisations])
    behind = Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), empty).confirm(0, 1, 5)
    assert behind.behind == (RoundKey(federation.genesis.digest, 0, 0, 4),)


class Elsewhere(MemoryLedger):
    domain = replace(MemoryLedger.domain, chain_id=1)


def test_a_ledger_that_does_not_answer_has_nothing_on_it_yet(tmp_path: Path) -> None:
    class Silent(MemoryLedger):
        def read(self, key: RoundKey) -> tuple[RoundCommitment, Anchor] | None:
            raise LedgerUnreachableError(f"nothing answers about round {key.round}")

    federation, silent = a_federation(tmp_path), Silent()
    silent.open_run(federation.genesis.digest, [o.address for o in federation.genesis.organisations])
    by = witness(federation, tmp_path, silent)
    standing = watch(by, federation)
    assert [key.round for key in standing.behind] == [1, 2, 3]
    assert str(standing).startswith("not on the ledger: round 1 of lane 0, generation 0; round 2")
    assert watch(witness(federation, tmp_path, federation.ledger), federation).behind == ()


def test_whose_ledger_it_is_is_asked_once(tmp_path: Path) -> None:
    class Counting(MemoryLedger):
        asked = 0

        def members(self, run: Digest) -> frozenset[Address]:
            self.asked += 1
            return super().members(run)

    ledger = Counting()
    federation = a_federation(tmp_path, ledger=ledger)
    for _ in range(2):
        watch(witness(federation, tmp_path, ledger), federation)
    assert ledger.asked == 1


def test_another_chain_is_not_the_federation_s(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    with pytest.raises(IntegrityError, match=r"ledger: expected contract \w+ on chain 0, got contract \w+ on chain 1"):
        witness(federation, tmp_path, Elsewhere()).confirm(0, 0, 1)


def test_a_ledger_that_knows_other_members_is_refused(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    with pytest.raises(IntegrityError, match="with other members"):
        witness(federation, tmp_path, MemoryLedger()).confirm(0, 0, 1)


def test_a_torn_memory_is_cut_and_a_damaged_one_refused(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    path = tmp_path / "witness.jsonl"
    watch(witness(federation, tmp_path, None), federation)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"sent"')
    again = Witness(path, federation.genesis, own_address(federation), None)
    again.sent(next(federation.run.records()).value.admitted[0].signed)
    *lines, last = path.read_bytes().splitlines(keepends=True)
    assert b"".join(lines) == whole
    assert last.startswith(b'{"manifest"')
    path.write_bytes(b"x" + whole)
    with pytest.raises(IntegrityError, match="line 1 of"):
        Witness(path, federation.genesis, own_address(federation), None)


def test_a_round_that_was_tried_again_is_one_record(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=2, organisations=3, failed={(0, 2): 1})
    by = Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), federation.ledger)
    for signed in federation.run.records():
        for admitted in signed.value.admitted:
            if admitted.organisation == own_address(federation):
                by.sent(admitted.signed)
        salts = federation.run.salts(signed.value) if signed.value.admitted else Salts("00" * 32)
        by.check_record(signed, salts)
    assert by.confirm(0, 0, 4) == Standing(trusting=False)


def test_who_was_caught_is_not_believed_again(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    by = witness(federation, tmp_path, None)
    first, second, *_ = federation.run.records()
    lie = reweigh(federation, replace(first.value, round=2))
    lie = replace(lie, round=1)
    with pytest.raises(IntegrityError, match=r"round 1 of .* the weight of"):
        by.check_record(lie.sign(COORDINATOR, federation.genesis.chain), Salts.draw(lie))
    again = Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), None)
    for signed in (first, second):
        with pytest.raises(IntegrityError, match=r"round 1 of .* the weight of"):
            again.check_record(signed, federation.run.salts(signed.value))


def test_a_round_whose_record_was_shown_is_not_trained_again(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    by = witness(federation, tmp_path, federation.ledger)
    watch(by, federation)
    shown = next(federation.run.records()).value.key
    with pytest.raises(ObjectionError, match="it is closed"):
        by.check_open(shown)
    by.check_open(replace(shown, round=99))


def test_a_generation_that_is_over_is_not_gone_on_with(tmp_path: Path) -> None:
    """Neither is it trained in, nor is more of it believed, as by whoever has a coordinator's key of then."""
    federation = a_federation(tmp_path)
    by = witness(federation, tmp_path, federation.ledger)
    watch(by, federation)
    last = [signed.value for signed in federation.run.records()][-1]
    by.check_open(replace(last.key, round=5))
    by.follow([], [federation.fork(0, 2, without=NAMES[1]).sign(COORDINATOR, federation.genesis.chain)])
    without = leave_out(federation, replace(last, round=3))
    more = replace(without, round=5, parent=last.digest).sign(COORDINATOR, federation.genesis.chain)
    for knowing in (by, Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), None)):
        for number in (3, 5):
            with pytest.raises(ObjectionError, match=r"it is closed|its generation is over, as generation 1 was shown"):
                knowing.check_open(replace(last.key, round=number))
        with pytest.raises(ObjectionError, match=r"round 5 .*expected a record that generation 1 grows from"):
            knowing.check_record(more, Salts.draw(more.value))
        assert not knowing.caught, "its coordinator may have another key by now"
        knowing.check_open(replace(last.key, generation=1, round=3))
        knowing.check_open(replace(last.key, lane=1, round=5))


def test_what_a_newer_generation_grows_from_is_still_believed(tmp_path: Path) -> None:
    """Of an organisation that was away: the last rounds of one generation come with the opening of the next."""
    federation = a_federation(tmp_path)
    by = witness(federation, tmp_path, federation.ledger)
    by.follow(shown_rounds(federation, 1))
    opening = federation.fork(0, 3, without=NAMES[1]).sign(COORDINATOR, federation.genesis.chain)
    by.follow(shown_rounds(federation, 1, 2, 3), [opening])
    with pytest.raises(ObjectionError, match=r"round 4 .*expected a record that generation 1 grows from"):
        by.follow(shown_rounds(federation, 4), [opening])
    advance(federation, 4)
    newest = list(federation.run.records())[-1]
    own = next(a.signed for a in newest.value.admitted if a.organisation == own_address(federation))
    by.sent(own)
    by.follow([ShownRecord(newest, federation.run.salts(newest.value))], [opening])
    assert by.rounds == 4


def test_a_memory_does_not_grow_without_end_by_one_round_that_is_asked_for_again(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    by = witness(federation, tmp_path, None)
    signed = next(federation.run.records()).value.admitted[0].signed
    for _ in range(100):
        by.sent(signed)
    with pytest.raises(ObjectionError, match="at most 100 attempts"):
        by.check_open(signed.value.key)


def test_the_last_rounds_are_confirmed_too(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    watch(witness(federation, tmp_path, federation.ledger), federation)
    by = Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), federation.ledger, lag=0)
    assert by.confirm_all() == Standing(trusting=False)
    assert by.rounds == len(list(federation.run.records()))


def test_rounds_that_stood_on_the_ledger_once_are_missing_when_they_have_gone(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    watch(witness(federation, tmp_path, federation.ledger), federation)
    rebuilt = MemoryLedger(federation.genesis.coordinator)
    rebuilt.open_run(federation.genesis.digest, [o.address for o in federation.genesis.organisations])
    by = Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), rebuilt)
    assert by.confirm_all().behind == tuple(signed.value.key for signed in federation.run.records())


def test_a_forked_last_record_is_found(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    forked = MemoryLedger()
    forked.open_run(federation.genesis.digest, [o.address for o in federation.genesis.organisations])
    records = [signed.value for signed in federation.run.records()]
    for record in records:
        honest = federation.run.commitment(record)
        forked.commit(replace(honest, count=9) if record == records[-1] else honest)
    watch(witness(federation, tmp_path, forked), federation)
    by = Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), forked, lag=0)
    with pytest.raises(IntegrityError, match="the ledger has count 9"):
        by.confirm_all()


def test_a_run_that_another_coordinator_opened_is_refused(tmp_path: Path) -> None:
    federation = a_federation(tmp_path, ledger=MemoryLedger(derive(9, "another").address))
    with pytest.raises(IntegrityError, match="coordinator on the ledger"):
        witness(federation, tmp_path, federation.ledger).confirm(0, 0, 1)


def test_a_record_shown_after_one_that_does_not_grow_from_it_is_caught(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    by = Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), None)
    _, second, third, _ = (signed.value for signed in federation.run.records())
    without = leave_out(federation, third)
    elsewhere = replace(without, parent=some_digest()).sign(COORDINATOR, federation.genesis.chain)
    by.check_record(elsewhere, Salts.draw(without))  # remembers nothing, so it begins here
    shown = replace(without, round=2, parent=second.parent).sign(COORDINATOR, federation.genesis.chain)
    with pytest.raises(ObjectionError, match=r"round 3 .*expected parent .*, as shown now"):
        by.check_record(shown, Salts.draw(without))


def shown_rounds(federation: Federation, *numbers: int) -> list[ShownRecord]:
    records = list(federation.run.records())
    return [ShownRecord(records[n - 1], federation.run.salts(records[n - 1].value)) for n in numbers]


def test_a_record_is_believed_only_with_those_that_lead_to_it_from_what_was_shown(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    by = witness(federation, tmp_path, None)
    by.follow(shown_rounds(federation, 1))
    for gap in (shown_rounds(federation, 3), shown_rounds(federation, 4), shown_rounds(federation, 3, 4)):
        with pytest.raises(ObjectionError, match=r"expected the record of every round since the last shown"):
            by.follow(gap)
    assert not by.caught, "a coordinator that shows too little may show the rest"
    by.follow(shown_rounds(federation, 1, 2, 3, 4))
    assert by.rounds == 4


def test_whoever_has_sent_an_update_is_shown_every_round_from_that_on(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    by = Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), None)
    for signed in federation.run.records():
        by.sent(next(a.signed for a in signed.value.admitted if a.organisation == own_address(federation)))
    with pytest.raises(ObjectionError, match="got a gap"):
        by.follow(shown_rounds(federation, 2))


def test_whoever_remembers_nothing_begins_with_the_newest_record(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    by = Witness(tmp_path / "witness.jsonl", federation.genesis, own_address(federation), None)
    second, third = shown_rounds(federation, 2, 3)
    without = leave_out(federation, third.record.value).sign(COORDINATOR, federation.genesis.chain)
    by.follow([second, replace(third, record=without)])
    assert by.rounds == 1


def test_a_generation_is_signed_for_only_once_it_was_shown_what_opened_it(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    by = witness(federation, tmp_path, None)
    watch(by, federation)
    manifest = own_manifest(federation)
    for number in (1, 2):
        forked = replace(manifest, generation=1, round=number)
        with pytest.raises(ObjectionError, match="the record that opened its generation was not shown"):
            by.check_parent(forked)
    opening = federation.fork(0, 1, without=NAMES[1])
    signed = opening.sign(COORDINATOR, federation.genesis.chain)
    by.follow([], [signed])
    first = next(federation.run.records()).value
    by.check_parent(replace(manifest, generation=1, round=2, parent=first.digest))
    for number, parent in ((1, federation.genesis.digest), (2, some_digest()), (3, first.digest)):
        with pytest.raises(ObjectionError, match="is no record that was shown before it"):
            by.check_parent(replace(manifest, generation=1, round=number, parent=parent))
    twice = replace(opening, parent_round=2).sign(COORDINATOR, federation.genesis.chain)
    with pytest.raises(ObjectionError, match="generation 1 of lane 0: the coordinator has opened it twice"):
        by.follow([], [twice])
    with pytest.raises(ForgeryError):
        by.follow([], [replace(opening, generation=2).sign(federation.members[OWN], federation.genesis.chain)])


def test_a_memory_has_room_for_so_many_generations(tmp_path: Path) -> None:
    federation = a_federation(tmp_path)
    by = witness(federation, tmp_path, None)
    beyond = replace(federation.fork(0, 1, without=NAMES[1]), generation=1001)
    with pytest.raises(ObjectionError, match="expected at most 1000, got 1001"):
        by.follow([], [beyond.sign(COORDINATOR, federation.genesis.chain)])


def own_manifest(federation: Federation) -> UpdateManifest:
    admitted = next(federation.run.records()).value.admitted
    return next(a.signed.value for a in admitted if a.organisation == own_address(federation))


@pytest.mark.parametrize("changes", [{"lane": 7}, {"round": 0}, {"round": 99, "parent": "the last"}])
def test_a_lane_or_a_round_that_the_organisation_has_not_is_not_signed_for(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    federation = a_federation(tmp_path)
    by = witness(federation, tmp_path, None)
    watch(by, federation)
    own = next(a for a in next(federation.run.records()).value.admitted if a.organisation == own_address(federation))
    by.check_parent(own.signed.value)
    with pytest.raises(ObjectionError, match="expected a round up to 4 of lane 0"):
        by.check_parent(replace(own.signed.value, **changes))


def test_a_round_counts_as_often_as_different_updates_were_sent_for_it(tmp_path: Path) -> None:
    """What a retry sends again is known already; another update tells something more of the records."""
    federation = a_federation(tmp_path)
    plain = federation.run.lineage(0)[0].value.admitted[0].signed.value
    memory = tmp_path / "memory.jsonl"
    by = Witness(memory, federation.genesis, plain.organisation, None)
    for update in (plain.update, plain.update, some_digest()):
        by.sent(Signed(replace(plain, nonce=some_digest(), update=update), ()))
    for knowing in (by, Witness(memory, federation.genesis, plain.organisation, None)):
        assert knowing.trained == {plain.key: 2}
