"""Lists of commitments on the members' private chain, and its head on the public one, both in this process."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chain.commitments import PrivateCommitment
from chain.contract import BoundContract
from chain.devnet.accounts import CHAIN_IDS
from chain.ledger import open_run
from chain.private import Kind, PrivateHead, PrivateLedger, PrivateRounds, anchor_head, anchored_head
from chain.queue import CommitQueue
from core.canonical import Digest, raw
from core.errors import LedgerConflictError, LedgerError
from core.keys import Domain, derive
from core.round_key import RoundKey
from tests.behaviours.ledger import MEMBERS, some_digest
from tests.chain.chains import bound, open_node
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.chain
COORDINATOR = derive(1, "coordinator")


@pytest.fixture(scope="module")
def contracts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BoundContract, BoundContract]]:
    """The private and the public contract."""
    folder = tmp_path_factory.mktemp("private")
    with open_node(folder / "chain", "private") as inside, open_node(folder / "chain", "public") as outside:
        yield bound(inside, folder, COORDINATOR, "PrivateLedger"), bound(outside, folder, COORDINATOR)


@pytest.fixture
def private(contracts: tuple[BoundContract, BoundContract]) -> PrivateLedger:
    return PrivateLedger(contracts[0])


@pytest.fixture
def public(contracts: tuple[BoundContract, BoundContract]) -> BoundContract:
    return contracts[1]


@pytest.fixture
def run(private: PrivateLedger, public: BoundContract) -> Digest:
    run = some_digest()
    private.open_run(run, MEMBERS)
    open_run(public, run, MEMBERS)
    return run


def digests(count: int) -> tuple[Digest, ...]:
    return tuple(some_digest() for _ in range(count))


def test_a_list_reads_back_with_the_place_where_it_stands(private: PrivateLedger, run: Digest) -> None:
    key, commitments = RoundKey(run, 2, 1, 7), digests(3)
    anchor = private.record(key, Kind.BIDS, commitments)
    assert private.read(key, Kind.BIDS) == (commitments, anchor)
    assert (anchor.chain_id, anchor.contract) == (CHAIN_IDS["private"], private.bound.address)
    assert private.record(key, Kind.BIDS, commitments) == anchor


def test_lists_of_other_rounds_and_kinds_are_apart(private: PrivateLedger, run: Digest) -> None:
    key = RoundKey(run, 0, 0, 1)
    lists = {}
    for place in (key, replace(key, lane=1), replace(key, generation=1), replace(key, round=2)):
        for kind in Kind:
            assert private.read(place, kind) is None
            lists[place, kind] = digests(2)
            private.record(place, kind, lists[place, kind])
    found = {place: private.read(*place) for place in lists}
    assert {place: commitments for place, (commitments, _) in found.items()} == lists  # type: ignore[misc]  # not None


def test_a_list_cannot_be_replaced(private: PrivateLedger, run: Digest) -> None:
    key, commitments = RoundKey(run, 0, 0, 1), digests(2)
    private.record(key, Kind.MANIFESTS, commitments)
    for other in (digests(2), commitments[::-1], commitments[:1]):
        with pytest.raises(LedgerConflictError, match=r"manifests.*round 1"):
            private.record(key, Kind.MANIFESTS, other)
    assert private.read(key, Kind.MANIFESTS)[0] == commitments  # type: ignore[index]  # it is there


def test_a_run_of_nobody_s_records_nothing(private: PrivateLedger) -> None:
    assert private.members(some_digest()) == frozenset()
    with pytest.raises(LedgerConflictError, match="NotCoordinator"):
        private.record(RoundKey(some_digest(), 0, 0, 1), Kind.BIDS, digests(1))


def test_the_head_is_the_newest_block(private: PrivateLedger, run: Digest) -> None:
    before = private.head()
    private.record(RoundKey(run, 0, 0, 1), Kind.BIDS, digests(1))
    head = private.head()
    assert (head.chain_id, head.number) == (CHAIN_IDS["private"], before.number + 1)
    assert private.holds(head)
    assert private.holds(before)
    for other in (replace(head, number=head.number + 1), replace(head, chain_id=1), replace(head, number=0)):
        assert not private.holds(other)


def test_only_a_newer_head_replaces_the_anchored_one(
    private: PrivateLedger, public: BoundContract, run: Digest
) -> None:
    chain = CHAIN_IDS["private"]
    older, newer = PrivateHead(chain, 3, some_digest()), PrivateHead(chain, 5, some_digest())
    assert anchored_head(public, run, chain) is None
    for head, anchored in ((older, older), (newer, newer), (older, newer), (newer, newer)):
        anchor_head(public, run, head)
        assert anchored_head(public, run, chain) == anchored
    with pytest.raises(LedgerConflictError, match=newer.block_hash):
        anchor_head(public, run, replace(newer, block_hash=some_digest()))
    assert anchored_head(public, run, 1) is None


def test_a_round_s_lists_are_one_commitment(private: PrivateLedger, public: BoundContract, run: Digest) -> None:
    rounds = PrivateRounds(private, public, anchor_every=2)
    assert rounds.domain == Domain(CHAIN_IDS["private"], private.bound.address)
    assert rounds.members(run) == MEMBERS
    for number in (1, 2):
        commitment = PrivateCommitment(RoundKey(run, 0, 0, number), digests(2), digests(2), digests(2))
        assert rounds.read(commitment.key) is None
        anchor = rounds.commit(commitment)
        assert rounds.commit(commitment) == anchor
        assert rounds.read(commitment.key) == (commitment, anchor)
        head = rounds.anchored(run)
        assert (head is not None) == (number == 2)
    assert head is not None
    assert rounds.holds(head)


def test_a_commit_that_was_interrupted_is_made_again(
    private: PrivateLedger, public: BoundContract, run: Digest
) -> None:
    commitment = PrivateCommitment(RoundKey(run, 0, 0, 1), digests(2), digests(2), digests(2))
    rounds = PrivateRounds(private, public)
    private.record(commitment.key, Kind.MANIFESTS, commitment.manifests)
    private.record(commitment.key, Kind.BIDS, commitment.bids)
    assert rounds.read(commitment.key) is None
    assert rounds.read(commitment.key) != rounds.commit(commitment)
    assert rounds.read(commitment.key) is not None


def test_a_list_whose_event_says_something_else_is_refused(
    private: PrivateLedger, run: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = RoundKey(run, 0, 0, 1)
    private.record(key, Kind.BIDS, digests(2))
    (event,) = private.bound.events("RoundRecorded", 0, "latest", {"run": raw(run)}, purpose="a test")
    other = {**event, "args": {**event["args"], "commitments": [bytes(32)]}}
    monkeypatch.setattr(private.bound, "events", lambda *_, **__: [other])
    with pytest.raises(LedgerError, match="bids of round 1 do not match their digest"):
        private.read(key, Kind.BIDS)
    monkeypatch.setattr(private.bound, "events", lambda *_, **__: [])
    with pytest.raises(LedgerError, match="event is not in block"):
        private.read(key, Kind.BIDS)


def test_commitments_go_through_a_queue_and_the_head_is_anchored_every_second_round(
    private: PrivateLedger, public: BoundContract, run: Digest, tmp_path: Path
) -> None:
    target = PrivateRounds(private, public, anchor_every=2)
    rounds = [PrivateCommitment(RoundKey(run, 0, 0, number), *(digests(4) for _ in Kind)) for number in (1, 2, 3)]
    queue = CommitQueue(tmp_path / "queue", target)
    for commitment in rounds:
        queue.put(commitment)
    assert queue.close(PATIENCE_SECONDS) == 0
    assert [target.read(item.key) for item in rounds] == [(item, queue.anchors()[item.key]) for item in rounds]
    assert CommitQueue(tmp_path / "queue", target).close(PATIENCE_SECONDS) == 0
    anchored = target.anchored(run)
    assert anchored is not None
    assert queue.anchors()[rounds[1].key].block <= anchored.number < queue.anchors()[rounds[2].key].block
