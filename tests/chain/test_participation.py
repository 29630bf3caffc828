import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chain.ethereum import open_ledger
from chain.nodes import embedded_service
from chain.participation import ParticipationProof
from core import keys
from core.canonical import Address, digest, to_json
from core.errors import ForgeryError, FormatError, IntegrityError, UsageError
from core.ledger import MemoryLedger
from tests.behaviours.runs import COORDINATOR, SEED, Federation, build

CODING = keys.derive(SEED, "coding").address
OUTSIDER = keys.derive(SEED, "outsider")
Change = Callable[[ParticipationProof], ParticipationProof]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return build(tmp_path_factory.mktemp("proofs") / "run", organisations=3)


@pytest.fixture
def proof(federation: Federation) -> ParticipationProof:
    return ParticipationProof.of(federation.run, CODING, 2)


def test_everyones_proof_holds_in_every_round(federation: Federation) -> None:
    for number in (1, 2):
        for key in federation.members.values():
            proof = ParticipationProof.of(federation.run, key.address, number)
            manifest = proof.verified(federation.ledger)
            assert (manifest.organisation, manifest.round) == (key.address, number)


def test_a_proof_survives_export(federation: Federation, proof: ParticipationProof) -> None:
    exported = json.loads(to_json(proof.to_dict()))
    assert ParticipationProof.from_dict(exported) == proof


def test_a_proof_names_no_other_organisation(federation: Federation, proof: ParticipationProof) -> None:
    exported = to_json(proof.to_dict()).decode()
    others = [key.address for key in federation.members.values() if key.address != CODING]
    assert not any(address in exported for address in others)


@pytest.mark.parametrize(
    "change",
    [
        lambda proof: replace(proof, salt=bytes(32)),
        lambda proof: replace(proof, siblings=proof.siblings[1:]),
        lambda proof: replace(proof, siblings=(bytes(32), *proof.siblings[1:])),
    ],
    ids=["salt", "fewer siblings", "another sibling"],
)
def test_a_changed_proof_leads_to_another_root(
    federation: Federation, proof: ParticipationProof, change: Change
) -> None:
    with pytest.raises(IntegrityError, match="leads to root"):
        change(proof).verified(federation.ledger)


def test_a_manifest_signed_by_another_is_a_forgery(federation: Federation, proof: ParticipationProof) -> None:
    signed = replace(proof.signed, manifest=replace(proof.signed.manifest, tokens=1))
    with pytest.raises(ForgeryError):
        replace(proof, signed=signed).verified(federation.ledger)


def test_a_proof_is_worthless_on_another_chain(proof: ParticipationProof) -> None:
    ledger = MemoryLedger()
    ledger.chain_id = 9
    with pytest.raises(ForgeryError):
        proof.verified(ledger)


def test_an_outsider_is_no_member(federation: Federation, proof: ParticipationProof) -> None:
    manifest = replace(proof.signed.manifest, organisation=OUTSIDER.address)
    signed = manifest.sign(OUTSIDER, federation.genesis.chain)
    with pytest.raises(IntegrityError, match="no member"):
        replace(proof, signed=signed).verified(federation.ledger)


def test_a_round_that_is_not_on_the_ledger_proves_nothing(federation: Federation, proof: ParticipationProof) -> None:
    manifest = replace(proof.signed.manifest, round=3)
    signed = manifest.sign(federation.members["coding"], federation.genesis.chain)
    with pytest.raises(IntegrityError, match="round 3 of lane 0 is not on the ledger"):
        replace(proof, signed=signed).verified(federation.ledger)


@pytest.mark.parametrize(("organisation", "number"), [(CODING, 3), (OUTSIDER.address, 1)])
def test_what_was_not_admitted_has_no_proof(federation: Federation, organisation: Address, number: int) -> None:
    with pytest.raises(UsageError, match="no admitted update"):
        ParticipationProof.of(federation.run, organisation, number)


@pytest.mark.parametrize("field", ["salt", "siblings", "manifest", "signature"])
def test_a_proof_without_a_field_is_malformed(proof: ParticipationProof, field: str) -> None:
    plain = proof.to_dict()
    del plain[field]
    with pytest.raises(FormatError):
        ParticipationProof.from_dict(plain)


@pytest.mark.chain
def test_the_contract_agrees(tmp_path: Path) -> None:
    try:
        ledger = open_ledger("embedded", tmp_path, COORDINATOR)
        federation = build(tmp_path / "runs" / "run", organisations=3, ledger=ledger)
        proof = ParticipationProof.of(federation.run, CODING, 2)
        assert proof.verified(ledger).organisation == CODING
        assert ledger.is_admitted(proof.key, proof.commitment, proof.siblings)
        assert not ledger.is_admitted(proof.key, digest("other", b""), proof.siblings)
    finally:
        embedded_service(tmp_path).stop()
