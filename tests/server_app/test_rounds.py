"""The state of the lanes by itself: no grid, no strategy."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_app.witness import Witness
from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate, by_address, weights
from core.canonical import Digest
from core.composition import Composition
from core.credit import CreditRecord, RoundCredit
from core.errors import QuorumError
from core.generations import GenerationRecord
from core.messages.training import Reply, Task
from core.rejections import Reason
from core.rounds import RoundRecord, ShownRecord
from core.storage.blobs import read
from core.update import ABSTAIN, Bid, Offer
from core.wire import Packed, to_send
from server_app.admission import RejectedError
from server_app.rounds import OpenRound, Recipient, Rounds
from tests import federation as f
from tests.server_app.clients import Federation, answer, honest_update, name_of

NAMES = ("medical", "coding", "financial")


def recipient(name: str, lane: int = 0) -> Recipient:
    return Recipient(lane, f.address(name))


def admit(rounds: Rounds, name: str, lane: int = 0, **changes: Any) -> None:
    """Have an organisation's honest reply admitted, but for `changes` to its manifest."""
    to = recipient(name, lane)
    task = rounds.task(to, Composition.of(rounds.lanes[lane].state))
    rounds.admit(to, Reply.from_content(answer(task, **changes)))


def close(rounds: Rounds, number: int, *names: str) -> None:
    """A round that admits these, who may be asked again after a round below its quorum."""
    lanes = rounds.begin(number)
    for name in names:
        for lane in (lane for lane in lanes if f.address(name) in lane.members):
            admit(rounds, name, lane.index, nonce=f.other(f"{name} {lane.index} {number} {lane.attempts}"))
    rounds.close(number)


def records(federation: Federation) -> list[RoundRecord]:
    return [signed.verified(federation.genesis) for signed in federation.run.records()]


@pytest.mark.parametrize("wire", ["bf16", "int8", "nf4", "sparse"])
def test_what_is_stored_and_summed_is_what_travelled(tmp_path: Path, wire: str) -> None:
    federation = Federation.create(tmp_path, NAMES, wire=wire)
    rounds = federation.rounds()
    before = rounds.lanes[0].state
    task = rounds.task(recipient("medical"), Composition.of(before))
    close(rounds, 1, "medical")
    (admitted,) = records(federation)[0].admitted
    packed = federation.run.artifacts.open_packed(admitted.signed.value.update)
    assert packed.data == Packed.of(honest_update(task), wire).data
    summed = rounds.rule.aggregate(before, [WeightedUpdate(f.address("medical"), admitted.weight, packed.state)])
    assert rounds.lanes[0].state == summed.state


@pytest.mark.parametrize("wire", ["bf16", "int8", "nf4", "sparse"])
def test_a_state_is_summed_unrounded_and_sent_and_recorded_as_it_is_trained_from(tmp_path: Path, wire: str) -> None:
    federation = Federation.create(tmp_path, NAMES, wire=wire, rounds=3)
    rounds = federation.rounds()
    close(rounds, 1, "medical", "coding")
    close(rounds, 2, "medical")
    first, second = records(federation)
    state = federation.run.artifacts.open(first.aggregate)
    sent = Task.from_content(rounds.task(recipient("coding"), Composition.of(state)).to_content()).state
    assert first.rounded == sent.digest == to_send(state, wire).state.digest != state.digest
    assert first.rounding == pytest.approx(np.linalg.norm(flat(sent) - flat(state)) / np.linalg.norm(flat(state)))
    (admitted,) = second.admitted
    update = federation.run.artifacts.open(admitted.signed.value.update)
    summed = rounds.rule.aggregate(state, [WeightedUpdate(admitted.organisation, admitted.weight, update)])
    assert rounds.lanes[0].state == summed.state


def flat(state: AdapterState) -> np.ndarray[Any, Any]:
    return np.concatenate([array.reshape(-1).astype(np.float64) for array in state.arrays.values()])


def test_the_error_of_a_quorum_that_was_missed_names_the_commonest_reason() -> None:
    open_round = OpenRound()
    assert open_round.commonest_reason == "nobody was asked"
    open_round.reject(f.address("medical"), Reason.CLIENT_ERROR, "out of memory")
    open_round.reject(f.address("coding"), Reason.ABSTAINED, "its agent will not pay")
    open_round.reject(f.address("financial"), Reason.CLIENT_ERROR, "out of memory")
    open_round.reject(f.address("mathematical"), Reason.BELOW_QUORUM, "update 0x")
    assert open_round.commonest_reason == "client-error: out of memory (2 of 3 rejected)"


def test_a_round_is_the_weighted_sum_of_what_was_admitted_in_order_of_address(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, NAMES)
    rounds = federation.rounds()
    before = rounds.lanes[0].state
    close(rounds, 1, "financial", "medical")
    (record,) = records(federation)
    shares = weights({f.address(name): f.EXAMPLES[name] for name in ("medical", "financial")}, 1.0)
    assert {admitted.organisation: admitted.weight for admitted in record.admitted} == shares
    order = [admitted.organisation for admitted in record.admitted]
    assert order == sorted(order, key=by_address)
    sent = {a.organisation: federation.run.artifacts.open(a.signed.value.update) for a in record.admitted}
    updates = [WeightedUpdate(organisation, shares[organisation], update) for organisation, update in sent.items()]
    assert rounds.lanes[0].state == RULES[record.rule].aggregate(before, updates).state
    assert rounds.lanes[0].state.digest == record.aggregate


def test_every_record_names_its_parent_and_the_record_before_it(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, NAMES, rounds=2, quorum=2)
    rounds = federation.rounds()
    close(rounds, 1, "medical", "coding")
    close(rounds, 2, "medical")  # below its quorum
    close(rounds, 2, "medical", "coding")
    first, empty, second = records(federation)
    genesis = federation.genesis.digest
    assert [(r.parent, r.previous) for r in (first, empty, second)] == [
        (genesis, genesis),
        (first.digest, first.digest),
        (first.digest, empty.digest),
    ]
    assert [(r.round, r.attempt, r.aggregate == first.aggregate) for r in (empty, second)] == [
        (2, 1, True),
        (2, 2, False),
    ]
    assert [(r.organisation, r.reason) for r in empty.rejected] == [(f.address("medical"), Reason.BELOW_QUORUM)]


def test_a_task_shows_the_records_since_the_last_that_its_organisation_signed_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation.create(tmp_path, NAMES, rounds=5)
    rounds = federation.rounds()
    for number, names in enumerate((NAMES, ("medical", "coding"), ("medical",), ("medical",)), start=1):
        close(rounds, number, *names)

    def shown(rounds: Rounds, name: str) -> list[int]:
        task = rounds.task(recipient(name), Composition.of(rounds.lanes[0].state))
        witness = Witness(tmp_path / f"{name}.jsonl", federation.genesis, f.address(name), None)
        known: list[ShownRecord] = []
        for signed in federation.run.records():
            if own := [a.signed for a in signed.value.admitted if a.organisation == f.address(name)]:
                witness.follow(known)
                witness.sent(own[0])
            known.append(ShownRecord(signed, federation.run.salts(signed.value)))
        witness.follow(Task.from_content(task.to_content()).shown)
        return [each.record.value.round for each in task.shown]

    for restored in (rounds, federation.rounds()):
        assert {name: shown(restored, name) for name in NAMES} == {
            "medical": [4], "coding": [2, 3, 4], "financial": [1, 2, 3, 4]
        }  # fmt: skip
    monkeypatch.setattr("server_app.rounds.EARLIER_BYTES", 1)
    assert shown(rounds, "financial") == [4]


def test_only_what_admitted_something_is_committed_and_observed(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, NAMES, rounds=2, quorum=2)
    committed: list[int] = []
    rounds = federation.rounds(commit=lambda record: committed.append(record.attempt))
    close(rounds, 1, "medical")
    close(rounds, 1, "medical", "coding")
    assert committed == [2]
    assert [set(observed) for observed in rounds.history[0]] == [{f.address("medical"), f.address("coding")}]


def test_too_many_attempts_end_the_run(tmp_path: Path) -> None:
    rounds = Federation.create(tmp_path, NAMES, quorum=2, retries=1).rounds()
    close(rounds, 1, "medical")
    with pytest.raises(QuorumError, match="lane 0, round 1: expected a quorum of 2, got fewer updates in 2 attempts"):
        close(rounds, 1, "medical")


def test_a_rejection_quotes_a_client_without_what_a_terminal_obeys(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, NAMES, retries=9)
    rounds = federation.rounds()
    rounds.begin(1)
    rounds.reject(recipient("coding"), Reason.CLIENT_ERROR, "\x1b[31m" + "x" * 1000)
    rounds.close(1)
    (record,) = records(federation)
    assert [(name_of(r.organisation), r.reason, len(r.detail)) for r in record.rejected] == [
        ("coding", "client-error", 303)
    ]
    assert record.rejected[0].detail.startswith("\\x1b[31m")


def test_a_nonce_counts_once_in_a_round_and_after_it_is_restored(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, NAMES, rounds=2)
    rounds, nonce = federation.rounds(), f.other("nonce")
    rounds.begin(1)
    admit(rounds, "medical", nonce=nonce)
    with pytest.raises(RejectedError, match="replayed-nonce"):
        admit(rounds, "coding", nonce=nonce)
    rounds.close(1)
    again = federation.rounds()
    again.begin(2)
    with pytest.raises(RejectedError, match="replayed-nonce"):
        admit(again, "medical", nonce=nonce)


def test_a_rejected_update_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, NAMES)
    rounds = federation.rounds()
    rounds.begin(1)
    before = sorted(federation.run.folder.rglob("*.sealed"))
    with pytest.raises(RejectedError, match="wrong-parent"):
        admit(rounds, "medical", parent=f.other("parent"))
    assert sorted(federation.run.folder.rglob("*.sealed")) == before


def test_a_round_begins_in_the_lanes_that_lack_it(tmp_path: Path) -> None:
    lanes = tuple((member.address,) for member in f.members(NAMES))
    rounds = Federation.create(tmp_path, NAMES, lanes=lanes, rounds=2).rounds()
    (ahead, _, _) = rounds.begin(1)
    assert [lane.index for lane in rounds.begin(1)] == [0, 1, 2]
    rounds.open = {ahead.index: rounds.open[ahead.index]}  # the others are tried again
    admit(rounds, name_of(ahead.members[0]), ahead.index)
    rounds.close(1)
    assert [lane.index for lane in rounds.begin(1)] == [1, 2]
    assert (rounds.round, rounds.last) == (0, 2)


def test_a_restored_run_stands_where_its_records_end(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, NAMES, rounds=3)
    rounds = federation.rounds()
    close(rounds, 1, *NAMES)
    close(rounds, 2, "medical", "coding")
    again = federation.rounds()
    assert again.lanes == rounds.lanes
    assert again.history == rounds.history
    assert again.nonces == rounds.nonces
    assert again.round == 2


def test_the_policy_is_told_who_is_left_and_who_bids(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, NAMES, policy="q-learning", local_steps=2)
    rounds = federation.rounds()
    bids = {"medical": Bid(2, 2), "coding": ABSTAIN, "financial": Bid(1, 1)}
    offers = [
        Offer(rounds.genesis.digest, f.address(name), 0, 0, 1, bid).sign(f.key(name), rounds.genesis.chain)
        for name, bid in bids.items()
    ]
    (lane,) = rounds.begin(1, {0: offers})
    asked = rounds.select(lane)
    assert {to.organisation for to in asked} == {f.address("medical"), f.address("financial")}
    assert {to.lane for to in asked} == {0}


def test_an_organisation_is_asked_for_the_round_after_the_head(tmp_path: Path) -> None:
    rounds = Federation.create(tmp_path, NAMES, rounds=2).rounds()
    close(rounds, 1, *NAMES)
    lane = rounds.lanes[0]
    task = rounds.task(recipient("coding"), Composition.of(lane.state))
    query, context = rounds.offer_query(recipient("coding")), rounds.admission(recipient("coding"))
    assert (task.round, query.round, context.key.round) == (2, 2, 2)
    assert task.parent == lane.head
    assert lane.head is not None
    assert context.parent == lane.head.value.digest


# --- generations ---------------------------------------------------------------------------------------------------


def fork(federation: Federation, parent_round: int, gone: str) -> GenerationRecord:
    """Open generation 1 of lane 0 without an organisation; what an erasure writes besides is not needed here."""
    line = {record.round: record for record in records(federation)}
    parent, run = line.get(parent_round), federation.run
    record = GenerationRecord(
        genesis=run.genesis.digest,
        lane=0,
        generation=1,
        parent_generation=0,
        parent_round=parent_round,
        parent=parent.digest if parent else run.genesis.digest,
        previous=line[max(line)].digest,
        rounds=run.genesis.training.rounds,
        erasure=f.other("erasure"),
        members=tuple(member for member in run.members(0) if member != f.address(gone)),
    )
    run.open_generation(record.sign(f.COORDINATOR, run.genesis.chain))
    return record


@pytest.mark.parametrize("parent_round", [0, 1])
def test_a_lane_of_a_new_generation_is_restored_to_the_round_it_grows_from(tmp_path: Path, parent_round: int) -> None:
    federation = Federation.create(tmp_path, NAMES, rounds=3)
    rounds = federation.rounds()
    initial = rounds.lanes[0].state
    for number in (1, 2, 3):
        close(rounds, number, *NAMES)
    opening = fork(federation, parent_round, "coding")
    rounds.restore(0)
    lane = rounds.lanes[0]
    assert (lane.round, lane.generation, lane.members, lane.previous) == (
        parent_round,
        1,
        opening.members,
        opening.digest,
    )
    assert lane.state.digest == (records(federation)[0].aggregate if parent_round else initial.digest)
    assert len(rounds.history[0]) == parent_round


def test_a_lane_is_restored_without_a_look_at_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its line is read once for its state, its credits and its history, and its records once for its attempts."""
    federation = Federation.create(tmp_path, NAMES, lanes=tuple((f.address(name),) for name in NAMES), rounds=2)
    rounds = federation.rounds()
    for number in (1, 2):
        close(rounds, number, *NAMES)
    own = [path.name for path in (federation.run.folder / "records").glob("L0001-*")]
    names: list[str] = []

    def noted(path: Path) -> bytes:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr("core.storage.run_folder.read", noted)
    rounds.restore(1)
    assert len(own) == 2
    assert Counter(name for name in names if "-R" in name and "-A" in name) == {
        name: 2 + (name == max(own)) for name in own  # the salts of the newest, too
    }  # fmt: skip


def test_earlier_rounds_are_reaggregated_from_the_updates_of_those_who_are_left(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, NAMES, rounds=3)
    rounds = federation.rounds(commit=lambda record: None)
    for number in (1, 2, 3):
        close(rounds, number, *NAMES)
    before = records(federation)
    fork(federation, 1, "coding")
    rounds.restore(0)
    for _ in range(2):  # once more changes nothing: a killed erasure asks for all of them again
        rounds.reaggregate(0, before, {f.address("coding")})
    after = [record for record in records(federation) if record.generation == 1]
    assert [record.round for record in after] == [2, 3]
    for old, new in zip(before[1:], after, strict=True):
        kept = [a.signed for a in old.admitted if a.organisation != f.address("coding")]
        assert [admitted.signed for admitted in new.admitted] == kept
        assert sum(admitted.weight for admitted in new.admitted) == pytest.approx(1.0)
        assert new.reaggregated
    assert rounds.lanes[0].state.digest == after[-1].aggregate


def test_credits_are_measured_for_the_rounds_of_the_federation_alone(tmp_path: Path) -> None:
    """A calibration behind the last round is unpaid."""
    federation = Federation.create(tmp_path, NAMES, rounds=1)

    credited: list[int] = []

    class Counting:
        def restore(self, lane: int, line: object, initial: object) -> None: ...

        def paid(self, lane: int, organisation: object) -> dict[int, float]:
            return {}

        def of(self, lane: int, number: int) -> dict[Any, float]:
            return {}

        def measure(self, lane: int, number: int, updates: object, after: object) -> CreditRecord | None:
            if number > 1:
                return None
            return CreditRecord(RoundCredit({}), {})

        def keep(self, lane: int, number: int, credit: CreditRecord, after: object) -> None:
            credited.append(number)

    rounds = federation.rounds(rewards=Counting())  # type: ignore[arg-type] # what Rounds asks of it
    close(rounds, 1, *NAMES)
    rounds.lanes[0] = replace(rounds.lanes[0], rounds=2)
    close(rounds, 2, *NAMES)
    assert credited == [1]


def test_a_weight_is_of_the_genesis_and_never_of_the_reply() -> None:
    genesis = f.genesis(NAMES)
    signed = [f.signed(genesis, name, examples=1) for name in ("medical", "coding")]
    rounds = Rounds.__new__(Rounds)
    rounds.genesis = genesis
    admitted = rounds.weigh(OpenRound(list(signed)))
    assert {a.organisation: a.weight for a in admitted} == weights(
        {f.address(name): f.EXAMPLES[name] for name in ("medical", "coding")}, genesis.server_rate
    )


def test_the_update_that_is_stored_is_the_one_that_was_signed(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, NAMES)
    rounds = federation.rounds()
    rounds.begin(1)
    to = recipient("medical")
    expected = honest_update(rounds.task(to, Composition.of(rounds.lanes[0].state)))
    admit(rounds, "medical")
    rounds.close(1)
    (record,) = records(federation)
    digests: list[Digest] = [admitted.signed.value.update for admitted in record.admitted]
    assert [federation.run.artifacts.open(name) for name in digests] == [expected]
