"""The members' private chain: lists of salted commitments, and its head on the public chain."""

from dataclasses import replace
from pathlib import Path

import pytest

from chain.commitments import PrivateCommitment
from chain.contract import BoundContract
from chain.ledger import EthereumLedger
from chain.private import Kind, PrivateLedger, PrivateRounds, anchor_head, anchored_head
from chain.queue import CommitQueue
from core.canonical import Digest
from core.errors import LedgerConflictError, LedgerError
from core.round_key import RoundKey
from tests.behaviours.ledger import MEMBERS, some_digest

pytestmark = pytest.mark.chain


@pytest.fixture
def ledger(private: BoundContract) -> PrivateLedger:
    return PrivateLedger(private)


@pytest.fixture
def run(ledger: PrivateLedger) -> Digest:
    """A run that is open on the private chain."""
    run = some_digest()
    ledger.open_run(run, MEMBERS)
    return run


def test_private_and_public_ledger_are_bound_to_different_chains(public: BoundContract, ledger: PrivateLedger) -> None:
    assert ledger.bound.chain_id != public.chain_id


def test_a_run_is_opened_once_with_its_members(ledger: PrivateLedger, run: Digest) -> None:
    ledger.open_run(run, MEMBERS)
    assert ledger.members(run) == MEMBERS
    assert ledger.members(some_digest()) == frozenset()


def test_a_round_s_private_commitments_read_back(ledger: PrivateLedger, run: Digest) -> None:
    key, lists = RoundKey(run, 0, 0, 1), {kind: [some_digest() for _ in range(3)] for kind in Kind}
    assert ledger.read(key, Kind.BIDS) is None
    for kind, commitments in lists.items():
        anchor = ledger.record(key, kind, commitments)
        assert ledger.record(key, kind, commitments) == anchor
        assert ledger.read(key, kind) == (tuple(commitments), anchor)
    with pytest.raises(LedgerConflictError, match=r"other bids .*round 1 of lane 0"):
        ledger.record(key, Kind.BIDS, [some_digest()])


def test_lists_of_several_rounds_are_told_apart(ledger: PrivateLedger, run: Digest) -> None:
    """Generation and round are not indexed in the event."""
    rounds = {RoundKey(run, 0, 1, number): [some_digest()] for number in (1, 2)}
    for key, commitments in rounds.items():
        ledger.record(key, Kind.BIDS, commitments)
    found = {key: ledger.read(key, Kind.BIDS) for key in rounds}
    assert {key: list(entry[0]) for key, entry in found.items() if entry} == rounds


def test_a_list_whose_event_says_something_else_is_refused(
    ledger: PrivateLedger, run: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = RoundKey(run, 0, 0, 1)
    ledger.record(key, Kind.BIDS, [some_digest()])
    (event,) = ledger.bound.events("RoundRecorded", 0, "latest", {"run": bytes.fromhex(run[2:])}, purpose="a test")
    other = {**event, "args": {**event["args"], "commitments": [bytes(32)]}}
    monkeypatch.setattr(ledger.bound, "events", lambda *_, **__: [other])
    with pytest.raises(LedgerError, match="bids of round 1 do not match their digest"):
        ledger.read(key, Kind.BIDS)
    monkeypatch.setattr(ledger.bound, "events", lambda *_, **__: [])
    with pytest.raises(LedgerError, match="event is not in block"):
        ledger.read(key, Kind.BIDS)


def test_the_private_head_is_anchored_on_the_public_chain(
    public: BoundContract, ledger: PrivateLedger, run: Digest
) -> None:
    public_run(public, run)
    assert anchored_head(public, run, ledger.bound.chain_id) is None
    head = ledger.head()
    anchor_head(public, run, head)
    anchor_head(public, run, head)
    assert anchored_head(public, run, ledger.bound.chain_id) == head
    assert ledger.holds(head)


def test_an_older_head_changes_nothing(public: BoundContract, ledger: PrivateLedger, run: Digest) -> None:
    public_run(public, run)
    old = ledger.head()
    ledger.record(RoundKey(run, 0, 0, 1), Kind.BIDS, [])
    new = ledger.head()
    anchor_head(public, run, new)
    anchor_head(public, run, old)
    assert anchored_head(public, run, ledger.bound.chain_id) == new


def test_a_private_chain_that_was_rebuilt_does_not_hold_its_anchor(
    public: BoundContract, ledger: PrivateLedger, run: Digest
) -> None:
    public_run(public, run)
    head = ledger.head()
    assert not ledger.holds(replace(head, block_hash=some_digest()))
    assert not ledger.holds(replace(head, number=head.number + 1))
    assert not ledger.holds(replace(head, chain_id=1))
    anchor_head(public, run, head)
    with pytest.raises(LedgerConflictError, match=f"private block {head.number} .*{head.block_hash}, got 0x"):
        anchor_head(public, run, replace(head, block_hash=some_digest()))


def test_commitments_go_through_a_queue_and_the_head_is_anchored_every_second_round(
    public: BoundContract, ledger: PrivateLedger, run: Digest, tmp_path: Path
) -> None:
    public_run(public, run)
    target = PrivateRounds(ledger, public, anchor_every=2)
    rounds = [
        PrivateCommitment(RoundKey(run, 0, 0, number), *(tuple(some_digest() for _ in MEMBERS) for _ in Kind))
        for number in (1, 2, 3)
    ]
    queue = CommitQueue(tmp_path / "queue", target)
    for commitment in rounds:
        queue.put(commitment)
    assert queue.close(30) == 0
    assert [target.read(item.key) for item in rounds] == [(item, queue.anchors()[item.key]) for item in rounds]
    assert CommitQueue(tmp_path / "queue", target).close(30) == 0
    anchored = target.anchored(run)
    assert anchored is not None
    assert target.holds(anchored)
    assert queue.anchors()[rounds[1].key].block <= anchored.number < queue.anchors()[rounds[2].key].block


def test_a_round_of_which_a_list_is_missing_is_not_recorded(
    public: BoundContract, ledger: PrivateLedger, run: Digest
) -> None:
    key = RoundKey(run, 0, 0, 1)
    ledger.record(key, Kind.MANIFESTS, [some_digest()])
    rounds = PrivateRounds(ledger, public)
    assert rounds.read(key) is None
    assert rounds.members(run) == MEMBERS
    assert rounds.chain == (ledger.bound.chain_id, ledger.bound.address)


def public_run(public: BoundContract, run: Digest) -> None:
    """Open a run on the public chain too: only its coordinator anchors heads."""
    EthereumLedger(public).open_run(run, MEMBERS)
