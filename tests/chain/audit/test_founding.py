"""Members with keys of their own agreed to the genesis; the audit finds where they did not."""

from dataclasses import replace
from pathlib import Path

import pytest

from chain.audit.report import AuditReport
from chain.audit.run import verify
from core.canonical import from_json, to_json
from core.founding import Consent, Founding, commitment_to
from core.genesis import Genesis
from core.signed import Signed
from core.storage.blobs import write
from core.storage.run_folder import FOUNDING
from core.update import Registration
from tests.behaviours.ledger import some_digest
from tests.behaviours.runs import SEED, Federation, Lies, build


def own_keys(genesis: Genesis) -> Genesis:
    nonces = tuple(some_digest() for _ in genesis.organisations)
    organisations = tuple(replace(member, derived=False) for member in genesis.organisations)
    return replace(genesis, organisations=organisations, nonces=nonces)


def agreed(federation: Federation) -> Founding:
    genesis, registrations, consents = federation.genesis, [], []
    for member, nonce in zip(genesis.organisations, genesis.nonces, strict=True):
        plain = Registration(member, genesis.coordinator, genesis.run, some_digest(), nonce=commitment_to(nonce))
        key = federation.members[member.name]
        registrations.append(plain.sign(key, genesis.chain))
        consents.append(Consent(genesis.digest, member.address).sign(key, genesis.chain))
    return Founding(tuple(registrations), tuple(consents))


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Federation:
    # The federation's fixed seed stands for the one that follows from the nonces.
    monkeypatch.setattr("core.genesis.from_nonces", lambda _nonces: SEED)
    federation = build(tmp_path / "run", rounds=1, lies=Lies(genesis=own_keys))
    keep(federation, agreed(federation))
    return federation


def keep(federation: Federation, founding: Founding) -> None:
    write(federation.run.folder / FOUNDING, to_json(founding.to_dict()))
    federation.run.artifacts.put_document(FOUNDING, to_json(founding.to_dict()))


def audit(federation: Federation) -> AuditReport:
    return verify(federation.run, federation.ledger)


def test_the_members_agreement_is_part_of_the_audit(federation: Federation) -> None:
    report = audit(federation)
    assert report.failures == ()
    assert report.checked["members who agreed"] == 2


def test_a_federation_without_its_members_agreement_is_found(federation: Federation) -> None:
    (federation.run.folder / FOUNDING).unlink()
    assert "agreement of the members" in {failure.what for failure in audit(federation).failures}


def test_an_agreement_to_another_genesis_is_found(federation: Federation) -> None:
    found = agreed(federation)
    other = Consent(some_digest(), found.consents[0].value.organisation)
    keep(federation, replace(found, consents=(Signed(other, found.consents[0].signatures), *found.consents[1:])))
    found_ = {(failure.what, failure.where) for failure in audit(federation).failures}
    assert ("agreement of the members", FOUNDING) in found_


def test_a_simulation_that_keeps_a_wrong_registration_is_found(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=1)
    keep(federation, Founding(()))
    assert [failure.what for failure in audit(federation).failures] == ["agreement of the members"]
    assert from_json((federation.run.folder / FOUNDING).read_bytes()) == {"consents": [], "registrations": []}
