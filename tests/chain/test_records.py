"""What the ledgers record besides rounds."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chain.commitments import PrivateCommitment
from chain.contract import BoundContract
from chain.credits import UNIT, Credits, CreditTree
from chain.devnet.accounts import CHAIN_IDS, administrator
from chain.ledger import EthereumLedger, open_ledger
from chain.nodes import embedded_service
from chain.participation import ParticipationProof
from chain.private import Kind, PrivateLedger, PrivateRounds, anchor_head, anchored_head, open_private_ledger
from chain.queue import CommitQueue
from chain.registry import Registry, request_membership
from core import merkle
from core.canonical import ZERO_DIGEST, Digest, raw
from core.errors import LedgerConflictError, UsageError
from core.keys import derive
from core.round_key import RoundKey
from tests.behaviours.ledger import MEMBERS, a_round, some_digest
from tests.behaviours.runs import COORDINATOR, build

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    state = tmp_path_factory.mktemp("records")
    yield state
    embedded_service(state).stop()


@pytest.fixture(scope="module")
def ledger(state: Path) -> EthereumLedger:
    return open_ledger("embedded", state, COORDINATOR)


@pytest.fixture(scope="module")
def private(state: Path) -> PrivateLedger:
    return open_private_ledger("embedded", state, COORDINATOR)


@pytest.fixture
def run(ledger: EthereumLedger) -> Digest:
    run = some_digest()
    ledger.open_run(run, MEMBERS)
    return run


@pytest.fixture
def private_run(private: PrivateLedger) -> Digest:
    run = some_digest()
    private.open_run(run, MEMBERS)
    return run


# Proofs


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_our_membership_proofs_verify_in_the_contract(ledger: EthereumLedger, run: Digest, size: int) -> None:
    manifests = [some_digest() for _ in range(size)]
    leaves = [merkle.leaf(raw(item)) for item in manifests]
    commitment = replace(a_round(run), updates_root=Digest("0x" + merkle.root(leaves).hex()))
    ledger.commit(commitment)
    for index, manifest in enumerate(manifests):
        assert ledger.is_admitted(commitment.key, manifest, merkle.proof(leaves, index))
        assert not ledger.is_admitted(commitment.key, some_digest(), merkle.proof(leaves, index))


def test_a_proof_of_participation_holds_in_the_contract_too(ledger: EthereumLedger, tmp_path: Path) -> None:
    federation = build(tmp_path / some_digest(), rounds=1, organisations=3, ledger=ledger)
    (signed,) = federation.run.records()
    for admitted in signed.value.admitted:
        salts = federation.run.salts(signed.value)
        proof = ParticipationProof.of(signed.value, salts, admitted.organisation, federation.genesis.chain)
        proof.check(ledger)
        assert ledger.is_admitted(proof.key, proof.manifest_commitment, proof.path)


# Credits


def test_credit_is_claimed_by_proof_as_it_grows(ledger: EthereumLedger, run: Digest) -> None:
    ledger_credits, organisation = Credits(ledger.bound), min(MEMBERS)
    for epoch, grown in enumerate((3, 5), start=1):
        tree = CreditTree(run, dict.fromkeys(MEMBERS, grown * UNIT))
        ledger_credits.post(epoch, tree)
        ledger_credits.post(epoch, tree)
        assert ledger_credits.newest(run) == (epoch, tree.root)
        ledger_credits.claim(tree, organisation)
        ledger_credits.claim(tree, organisation)
        assert ledger_credits.claimed(run, organisation) == grown * UNIT


def test_credit_that_was_not_posted_cannot_be_claimed(ledger: EthereumLedger, run: Digest) -> None:
    ledger_credits, organisation = Credits(ledger.bound), min(MEMBERS)
    ledger_credits.post(1, CreditTree(run, dict.fromkeys(MEMBERS, 1)))
    with pytest.raises(LedgerConflictError, match="ProofInvalid"):
        ledger_credits.claim(CreditTree(run, dict.fromkeys(MEMBERS, 2)), organisation)
    with pytest.raises(LedgerConflictError, match=f"epoch 1: .*{ledger_credits.newest(run)[1]}, got 0x"):
        ledger_credits.post(1, CreditTree(run, dict.fromkeys(MEMBERS, 2)))
    with pytest.raises(LedgerConflictError, match=r"EpochNotNext\(got=3, expected=2\)"):
        ledger_credits.post(3, CreditTree(run, dict.fromkeys(MEMBERS, 2)))


def test_an_outsider_has_no_proof() -> None:
    with pytest.raises(KeyError):
        CreditTree(some_digest(), {}).proof(COORDINATOR.address)


# Identity


@pytest.fixture
def registry(ledger: EthereumLedger) -> Registry:
    return Registry(ledger.bound)


def deadline() -> int:
    return int(time.time()) + 3600


def test_an_organisation_registers_by_its_own_signature(registry: Registry) -> None:
    key, node_key = derive(1, some_digest()), some_digest()
    request = request_membership(key, registry.domain, node_key, registry.nonce(key.address), deadline())
    first = registry.register(request)
    assert registry.register(request) == first == registry.read(key.address)
    assert first.node_key == node_key
    assert registry.nonce(key.address) == 1


def test_a_request_for_another_contract_is_worthless(registry: Registry) -> None:
    key = derive(1, some_digest())
    elsewhere = replace(registry.domain, chain_id=CHAIN_IDS["private"])
    request = request_membership(key, elsewhere, ZERO_DIGEST, 0, deadline())
    with pytest.raises(UsageError, match=f"{CHAIN_IDS['public']}.*, got one for .*{CHAIN_IDS['private']}"):
        registry.register(request)
    with pytest.raises(LedgerConflictError, match="SignerNotOrganisation"):
        registry.register(replace(request, domain=registry.domain))
    assert registry.read(key.address) is None


def test_revocation_is_the_administrator_s_and_final(ledger: EthereumLedger, registry: Registry) -> None:
    key = derive(1, some_digest())
    registry.register(request_membership(key, registry.domain, ZERO_DIGEST, 0, deadline()))
    with pytest.raises(LedgerConflictError, match="AccessControlUnauthorizedAccount"):
        registry.revoke(key.address)
    owned = Registry(BoundContract(ledger.bound.node, "PublicLedger", ledger.contract, administrator()))
    revoked = owned.revoke(key.address)
    assert revoked.revoked_at > revoked.registered_at
    assert ledger.revoked([key.address, COORDINATOR.address]) == {key.address: revoked.revoked_at}
    with pytest.raises(LedgerConflictError, match="OrganisationAlreadyRevoked"):
        registry.register(request_membership(key, registry.domain, ZERO_DIGEST, 1, deadline()))


# The private chain


def test_private_and_public_ledger_are_bound_to_different_chains(
    ledger: EthereumLedger, private: PrivateLedger
) -> None:
    assert private.bound.chain_id != ledger.chain_id


def test_a_round_s_private_commitments_read_back(private: PrivateLedger, private_run: Digest) -> None:
    key, lists = RoundKey(private_run, 0, 0, 1), {kind: [some_digest() for _ in range(3)] for kind in Kind}
    assert private.read(key, Kind.BIDS) is None
    for kind, commitments in lists.items():
        anchor = private.record(key, kind, commitments)
        assert private.record(key, kind, commitments) == anchor
        assert private.read(key, kind) == (tuple(commitments), anchor)
    with pytest.raises(LedgerConflictError, match=r"other bids .*round 1 of lane 0"):
        private.record(key, Kind.BIDS, [some_digest()])


def test_the_private_head_is_anchored_on_the_public_chain(
    ledger: EthereumLedger, run: Digest, private: PrivateLedger
) -> None:
    assert anchored_head(ledger.bound, run, private.bound.chain_id) is None
    head = private.head()
    anchor_head(ledger.bound, run, head)
    anchor_head(ledger.bound, run, head)
    assert anchored_head(ledger.bound, run, private.bound.chain_id) == head
    assert private.holds(head)


def test_a_private_chain_that_was_rebuilt_does_not_hold_its_anchor(
    ledger: EthereumLedger, run: Digest, private: PrivateLedger
) -> None:
    head = private.head()
    assert not private.holds(replace(head, block_hash=some_digest()))
    assert not private.holds(replace(head, number=head.number + 1))
    assert not private.holds(replace(head, chain_id=1))
    anchor_head(ledger.bound, run, head)
    with pytest.raises(LedgerConflictError, match=f"private block {head.number} .*{head.block_hash}, got 0x"):
        anchor_head(ledger.bound, run, replace(head, block_hash=some_digest()))


def test_an_auditor_reads_everything_and_writes_nothing(ledger: EthereumLedger, run: Digest, state: Path) -> None:
    auditor = open_ledger("embedded", state, None)
    assert auditor.head(run, 0).round == 0
    with pytest.raises(UsageError, match="posting credit epoch 1, got none"):
        Credits(auditor.bound).post(1, CreditTree(run, {}))


def test_private_commitments_go_through_a_queue_and_the_head_is_anchored_every_second_round(
    ledger: EthereumLedger, private: PrivateLedger, run: Digest, tmp_path: Path
) -> None:
    private.open_run(run, MEMBERS)
    target = PrivateRounds(private, ledger.bound, anchor_every=2)
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
    anchored = anchored_head(ledger.bound, run, private.bound.chain_id)
    assert anchored is not None
    assert queue.anchors()[rounds[1].key].block <= anchored.number < queue.anchors()[rounds[2].key].block


def test_a_round_of_which_a_list_is_missing_is_not_recorded(
    ledger: EthereumLedger, private: PrivateLedger, private_run: Digest
) -> None:
    key = RoundKey(private_run, 0, 0, 1)
    private.record(key, Kind.MANIFESTS, [some_digest()])
    assert PrivateRounds(private, ledger.bound).read(key) is None
