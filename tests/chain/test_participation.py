from dataclasses import replace
from pathlib import Path

import pytest

from chain.participation import ParticipationProof
from core.errors import ForgeryError, FormatError, IntegrityError
from core.keys import Domain, derive
from core.ledger import MemoryLedger
from tests.behaviours.ledger import some_digest
from tests.behaviours.runs import Federation, build


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "run", rounds=2, organisations=3)


@pytest.fixture
def proof(federation: Federation) -> ParticipationProof:
    return proof_of(federation, "coding")


def proof_of(federation: Federation, name: str) -> ParticipationProof:
    *_, signed = federation.run.records()
    salts = federation.run.salts(signed.value)
    return ParticipationProof.of(signed.value, salts, federation.members[name].address, federation.genesis.chain)


@pytest.mark.parametrize("name", ["coding", "financial", "mathematical"])
def test_every_member_s_participation_is_proved_from_a_file(federation: Federation, name: str) -> None:
    proof = proof_of(federation, name)
    again = ParticipationProof.from_json(proof.to_json())
    assert again == proof
    assert federation.ledger.read(proof.key) is not None
    assert again.check(federation.ledger) == federation.ledger.read(proof.key)[1]  # type: ignore[index]  # just read


def test_who_did_not_take_part_has_no_proof(federation: Federation) -> None:
    (signed, *_) = federation.run.records()
    stranger = derive(1, "x").address
    with pytest.raises(IntegrityError, match=f"round 1 .*{stranger}"):
        ParticipationProof.of(signed.value, federation.run.salts(signed.value), stranger, federation.genesis.chain)


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
            replace(proof, signed=moved).check(federation.ledger)


def test_a_stranger_proves_nothing(federation: Federation, proof: ParticipationProof) -> None:
    stranger = derive(9, "stranger")
    manifest = replace(proof.signed.value, organisation=stranger.address)
    with pytest.raises(IntegrityError, match=f"a member, got {stranger.address}"):
        replace(proof, signed=manifest.sign(stranger, federation.genesis.chain)).check(federation.ledger)


def test_a_proof_belongs_to_one_ledger(federation: Federation, proof: ParticipationProof) -> None:
    elsewhere = replace(proof, chain=Domain(1, federation.ledger.contract))
    with pytest.raises(IntegrityError, match=rf"chain_id=1\b.*, got {federation.ledger.contract} on 0"):
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
