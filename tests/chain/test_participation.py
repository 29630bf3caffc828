from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from chain.ledger import EthereumLedger
from chain.participation import ParticipationProof
from core import merkle
from core.canonical import Digest, raw
from core.errors import ForgeryError, FormatError, IntegrityError
from core.keys import derive
from core.ledger import MemoryLedger
from tests.behaviours.ledger import MEMBERS, a_round, some_digest
from tests.behaviours.runs import COORDINATOR, Federation, build
from tests.chain.chains import bound, open_node


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "run", rounds=2, organisations=3)


@pytest.fixture
def proof(federation: Federation) -> ParticipationProof:
    return proof_of(federation, "coding")


def proof_of(federation: Federation, name: str) -> ParticipationProof:
    *_, signed = federation.run.records()
    salts = federation.run.salts(signed.value)
    return ParticipationProof.of(signed.value, salts, federation.members[name].address, federation.genesis.header)


@pytest.mark.parametrize("name", ["coding", "financial", "mathematical"])
def test_every_member_s_participation_is_proved_from_a_file(federation: Federation, name: str) -> None:
    proof = proof_of(federation, name)
    again = ParticipationProof.from_json(proof.to_json())
    assert again == proof
    assert federation.ledger.read(proof.key) is not None
    assert again.check(federation.ledger) == federation.ledger.read(proof.key)[1]  # type: ignore[index]  # just read


def test_who_joined_since_has_a_proof_by_the_genesis_that_knows_it(
    federation: Federation, proof: ParticipationProof
) -> None:
    """A ledger knows the founders; who joins stands in the memberships of the genesis, which evidence carries."""
    founders = deepcopy(federation.ledger)
    members = founders._members[federation.genesis.digest]
    founders._members[federation.genesis.digest] = members - {proof.signed.value.organisation}
    with pytest.raises(IntegrityError, match="expected a member"):
        proof.check(founders)
    assert proof.check(founders, federation.genesis) == proof.check(federation.ledger)


def test_who_did_not_take_part_has_no_proof(federation: Federation) -> None:
    (signed, *_) = federation.run.records()
    stranger = derive(1, "x").address
    with pytest.raises(IntegrityError, match=f"round 1 .*{stranger}"):
        ParticipationProof.of(signed.value, federation.run.salts(signed.value), stranger, federation.genesis.header)


def test_a_proof_with_another_salt_or_sibling_does_not_hold(federation: Federation, proof: ParticipationProof) -> None:
    others = [
        replace(proof, salt=bytes(32)),
        replace(proof, siblings=proof.siblings[:-1]),
        replace(proof, siblings=(some_digest(), *proof.siblings[1:])),
    ]
    root = federation.ledger.read(proof.key)[0].updates_root  # type: ignore[index]  # it was committed
    for other in others:
        with pytest.raises(IntegrityError, match=f"{root}, got 0x"):
            other.check(federation.ledger)


def test_a_manifest_that_was_changed_is_a_forgery(federation: Federation, proof: ParticipationProof) -> None:
    changed = replace(proof.signed, value=replace(proof.signed.value, tokens=1))
    with pytest.raises(ForgeryError):
        replace(proof, signed=changed).check(federation.ledger)


def test_a_manifest_of_another_round_does_not_hold(federation: Federation, proof: ParticipationProof) -> None:
    key = federation.members["coding"]
    for number, finding in ((1, "round 1 .*root 0x.*, got 0x"), (9, "round 9 .* got nothing")):
        moved = replace(proof.signed.value, round=number).sign(key, federation.genesis.chain)
        with pytest.raises(IntegrityError, match=finding):
            replace(proof, signed=moved, round=number).check(federation.ledger)


def test_a_stranger_proves_nothing(federation: Federation, proof: ParticipationProof) -> None:
    stranger = derive(9, "stranger")
    manifest = replace(proof.signed.value, organisation=stranger.address)
    with pytest.raises(IntegrityError, match=f"a member, got {stranger.address}"):
        replace(proof, signed=manifest.sign(stranger, federation.genesis.chain)).check(federation.ledger)


def test_a_proof_belongs_to_one_ledger(federation: Federation, proof: ParticipationProof) -> None:
    chain = federation.ledger.domain
    elsewhere = replace(proof, federation=replace(proof.federation, chain=replace(chain, chain_id=1)))
    with pytest.raises(IntegrityError, match=f"on chain 1, got contract {chain.contract} on chain 0"):
        elsewhere.check(federation.ledger)
    with pytest.raises(IntegrityError, match=f"a member, got {proof.signed.value.organisation}"):
        proof.check(MemoryLedger())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"salt":"', b'"salt":"zz'),
        (b'"siblings"', b'"siblinks"'),
        (b'"tokens"', b'"tokenz"'),
        (b'"chain":{', b'"chain":{"a":1,'),
    ],
)
def test_a_malformed_file_is_refused(proof: ParticipationProof, before: bytes, after: bytes) -> None:
    with pytest.raises(FormatError):
        ParticipationProof.from_json(proof.to_json().replace(before, after, 1))


# The contract


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EthereumLedger]:
    """The public ledger on a chain in this process."""
    folder = tmp_path_factory.mktemp("chain")
    with open_node(folder) as node:
        yield EthereumLedger(bound(node, folder, COORDINATOR))


@pytest.mark.chain
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_our_membership_proofs_verify_in_the_contract(contract: EthereumLedger, size: int) -> None:
    run, manifests = some_digest(), [some_digest() for _ in range(size)]
    contract.open_run(run, MEMBERS)
    leaves = [merkle.leaf(raw(item)) for item in manifests]
    commitment = replace(a_round(run), updates_root=Digest("0x" + merkle.root(leaves).hex()))
    contract.commit(commitment)
    for index, manifest in enumerate(manifests):
        assert contract.is_admitted(commitment.key, manifest, merkle.proof(leaves, index))
        assert not contract.is_admitted(commitment.key, some_digest(), merkle.proof(leaves, index))


@pytest.mark.chain
def test_a_proof_of_participation_holds_in_the_contract_too(
    contract: EthereumLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = build(tmp_path / some_digest(), rounds=1, organisations=3, ledger=contract)
    for name in federation.members:
        proof = proof_of(federation, name)
        assert proof.check_on_chain(contract) == proof.check(contract)
    monkeypatch.setattr(contract, "is_admitted", lambda *_: False)
    with pytest.raises(IntegrityError, match=r"round 1 .* refuses"):
        proof.check_on_chain(contract)


def test_whose_run_it_is_follows_from_its_digest(federation: Federation, proof: ParticipationProof) -> None:
    assert proof.federation.digest == federation.genesis.digest
    other = replace(proof, federation=replace(proof.federation, coordinator=derive(9, "another").address))
    with pytest.raises(ForgeryError, match="expected federation"):
        other.check(federation.ledger)
    taken = MemoryLedger(derive(9, "another").address)
    taken.open_run(federation.genesis.digest, [])
    with pytest.raises(IntegrityError, match="expected coordinator"):
        proof.check(taken)
