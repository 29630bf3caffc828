"""The check of a certificate, and everything that it must not let pass."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from core import keys
from core.canonical import ZERO_DIGEST, to_json
from core.erasures import Attestation, Receipt
from core.ledger import MemoryLedger
from core.signed import Signed
from core.storage.run_folder import RunFolder
from llm.data import read_folder
from tests import federation as f
from tests.behaviours.runs import COORDINATOR
from tests.erasures import signed_receipt
from tests.server_app.worlds import make_world
from unlearning.certificate import ErasureCertificate, read_certificate
from unlearning.check import check

CODING, MEDICAL = (keys.derive(7, name) for name in ("coding", "medical"))


@dataclass
class Case:
    """A certificate, the run that it is of, and the ledger; all of it may be tampered with."""

    signed: Signed[ErasureCertificate]
    run: RunFolder
    ledger: MemoryLedger

    def certify(self, **changes: Any) -> None:
        """Change the certificate, sign it again, and tell everybody."""
        certificate = replace(self.signed.value, **changes)
        attestation = certificate.attestation.value
        self.chain(attestation=attestation.hide(attestation.digest), certificate=certificate.committed)
        self.signed = certificate.sign(COORDINATOR, self.run.genesis.chain)
        self.rewrite("certificates/L0000-G0001.json", to_json(self.signed.to_dict()))

    def attest(self, **changes: Any) -> None:
        """Change the attestation, sign everything again, and tell everybody."""
        signed = replace(self.attestation, **changes).sign(COORDINATOR, self.run.genesis.chain)
        self.rewrite("erasures/L0000-G0001.json", to_json(signed.to_dict()))
        self.certify(attestation=signed)

    def rewrite(self, name: str, data: bytes) -> None:
        """A document, and its sealed copy."""
        (self.run.folder / name).write_bytes(data)
        self.run.artifacts.destroy_document(name)
        self.run.artifacts.put_document(name, data)

    @property
    def attestation(self) -> Attestation:
        return self.signed.value.attestation.value

    def chain(self, **changes: Any) -> None:
        """Change what the chain knows of the erasure."""
        key = self.run.genesis.digest, self.attestation.erasure
        self.ledger._erasures[key] = replace(self.ledger._erasures[key], **changes)

    def found(self) -> list[str]:
        return [str(failure) for failure in check(self.signed, self.run, self.ledger)]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> Iterator[Case]:
    """A replay of two rounds."""
    with pytest.MonkeyPatch.context() as patch:
        world = make_world(tmp_path_factory.mktemp("state"), base, data, patch)
        world.run("checked")
        run = world.run("checked", mode="unlearn", organisation="coding", method="replay")
        (path,) = (run.folder / "certificates").iterdir()
        yield Case(read_certificate(path.read_bytes()), run, world.ledger)


@pytest.fixture(scope="module")
def of_records(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> Iterator[Case]:
    """A replay without three records."""
    with pytest.MonkeyPatch.context() as patch:
        world = make_world(tmp_path_factory.mktemp("state"), base, data, patch)
        world.run("records")
        records = tmp_path_factory.mktemp("records") / "erased.jsonl"
        train = read_folder(data).organisations[0].train[:3]
        lines = (json.dumps({"question": r.prompt[0].content, "answer": r.answer}) + "\n" for r in train)
        records.write_text("".join(lines), encoding="utf-8")
        erase = {"mode": "unlearn", "organisation": "coding", "method": "replay", "records": str(records)}
        run = world.run("records", **erase)
        (path,) = (run.folder / "certificates").iterdir()
        yield Case(read_certificate(path.read_bytes()), run, world.ledger)


@pytest.fixture
def record_case(of_records: Case, tmp_path: Path) -> Case:
    """A copy to tamper with."""
    shutil.copytree(of_records.run.folder, folder := tmp_path / of_records.run.name)
    return Case(of_records.signed, RunFolder(folder), copy.deepcopy(of_records.ledger))


@pytest.fixture
def case(original: Case, tmp_path: Path) -> Case:
    """A copy to tamper with."""
    shutil.copytree(original.run.folder, folder := tmp_path / original.run.name)
    return Case(original.signed, RunFolder(folder), copy.deepcopy(original.ledger))


Tamper = Callable[[Case], None]


def _forge(case: Case) -> None:
    case.signed = case.signed.value.sign(MEDICAL, case.run.genesis.chain)


def _requester(case: Case) -> None:
    """Another has signed the request."""
    case.attest(request=case.attestation.request.value.sign(MEDICAL, case.run.genesis.chain))


def _edit(case: Case) -> None:
    case.signed = replace(case.signed, value=replace(case.signed.value, label="interim"))


def _undestroyed(case: Case) -> None:
    """A copy of a key that should be gone comes back."""
    name = case.attestation.destroyed[0]
    place = case.run.artifacts.place(name)
    other = next(case.run.folder.glob("artifacts/blocks/*/*.keys"))
    shutil.copy(other, case.run.folder / "artifacts" / f"{place}.keys")


def _unlisted(case: Case) -> None:
    case.attest(destroyed=case.attestation.destroyed[1:])


def _too_many(case: Case) -> None:
    """A state that reveals nothing of the erased is listed as destroyed, too: it could vanish unseen."""
    case.attest(destroyed=tuple(sorted((*case.attestation.destroyed, f.other("state")))))


def _served_lost(case: Case) -> None:
    case.run.artifacts.destroy(case.signed.value.aggregate)


def _served_listed(case: Case) -> None:
    case.run.artifacts.destroy(case.signed.value.aggregate)
    case.attest(destroyed=tuple(sorted((*case.attestation.destroyed, case.signed.value.aggregate))))


def _receipts(case: Case) -> tuple[Signed[Receipt], ...]:
    return case.signed.value.receipts


def _other_erasure(case: Case) -> None:
    """One of the receipts was given for another erasure."""
    own = next(r for r in _receipts(case) if r.value.organisation == MEDICAL.address)
    other = signed_receipt(case.run.genesis, f.other("erasure"), MEDICAL)
    case.certify(receipts=tuple(other if r == own else r for r in _receipts(case)))


def _other_signer(case: Case) -> None:
    """One of the receipts is another's, under its name."""
    first, second, *others = _receipts(case)
    case.certify(receipts=(replace(first, signatures=second.signatures), second, *others))


def _stranger(case: Case) -> None:
    stranger = keys.derive(7, "stranger")
    case.certify(receipts=(*_receipts(case), signed_receipt(case.run.genesis, case.attestation.erasure, stranger)))


def _holders(case: Case) -> None:
    """The attestation forgets a holder, and the certificate too."""
    left = case.attestation.holders[1:]
    kept = tuple(r for r in _receipts(case) if r.value.organisation in left)
    signed = replace(case.attestation, holders=left).sign(COORDINATOR, case.run.genesis.chain)
    case.rewrite("erasures/L0000-G0001.json", to_json(signed.to_dict()))
    case.certify(attestation=signed, receipts=kept)


def _another_lane(case: Case) -> None:
    """The request is about two lanes, of which one was never touched."""
    request = replace(case.attestation.request.value, lanes=(0, 1))
    case.attest(request=request.sign(CODING, case.run.genesis.chain))


def _record(case: Case) -> None:
    (case.run.folder / "records" / "L0000-G0001-R00002-A01.json").unlink()


def _salts_back(case: Case) -> None:
    salts = case.run.folder / "salts"
    shutil.copy(salts / "L0000-G0001-R00001-A01.json", salts / "L0000-G0000-R00001-A01.json")


TAMPERING: dict[str, tuple[Tamper, str]] = {
    "another coordinator": (_forge, "signature"),
    "another requester": (_requester, "signature"),
    "an edited certificate": (_edit, "signature"),
    "a better label": (lambda c: c.certify(label="interim"), "label"),
    "another aggregate": (lambda c: c.certify(aggregate=f.other("served")), "aggregate"),
    "a stale composition": (lambda c: c.certify(heads=(c.signed.value.before.record,)), "is in what is served"),
    "an unknown head": (lambda c: c.certify(heads=(f.other("head"),)), "in no record of this run"),
    "no heads": (lambda c: c.certify(heads=()), "heads"),
    "another root before": (lambda c: c.certify(before=c.signed.value.after), "before"),
    "another root after": (lambda c: c.certify(after=c.signed.value.before), "after"),
    "another seed": (lambda c: c.certify(seed=8), "seed"),
    "other versions": (lambda c: c.certify(versions={"torch": "1"}), "versions"),
    "a receipt for another erasure": (_other_erasure, "receipts"),
    "a receipt that another signed": (_other_signer, "receipts"),
    "a receipt of a stranger": (_stranger, "holders of what was erased only"),
    "a receipt twice": (lambda c: c.certify(receipts=(*_receipts(c), _receipts(c)[0])), "listed 2 times"),
    "a receipt, and outstanding": (
        lambda c: c.certify(outstanding=(_receipts(c)[0].value.organisation,)), "listed 2 times",
    ),
    "a receipt left out": (lambda c: c.certify(receipts=_receipts(c)[1:]), "not listed"),
    "a holder who is not attested": (_holders, "holders"),
    "another method": (lambda c: c.attest(reaggregated=1), "method"),
    "more rounds than the method has": (lambda c: c.attest(rounds=3), "method"),
    "somebody else erased too": (
        lambda c: c.attest(erased=tuple(sorted((CODING.address, MEDICAL.address)))), "members",
    ),
    "a lane that was not touched": (_another_lane, "lanes"),
    "a state that was not listed": (_unlisted, "scope"),
    "a state that reveals nothing": (_too_many, "scope"),
    "salts that reveal nothing": (
        lambda c: c.attest(salts_destroyed=tuple(sorted((*c.attestation.salts_destroyed, f.other("record"))))), "scope",
    ),
    "salts that were not listed": (lambda c: c.attest(salts_destroyed=()), "scope"),
    "a key that came back": (_undestroyed, "cannot be read"),
    "salts that came back": (_salts_back, "salts"),
    "what is served, lost": (_served_lost, "destroyed artifact"),
    "what is served, listed as destroyed": (_served_listed, "destroyed artifact"),
    "a record lost": (_record, "after"),
    "another attestation on the chain": (lambda c: c.chain(attestation=f.other("attestation")), "chain, attestation"),
    "another certificate on the chain": (lambda c: c.chain(certificate=f.other("certificate")), "chain, certificate"),
    "no certificate on the chain": (lambda c: c.chain(certificate=ZERO_DIGEST), "chain, certificate"),
    "another lane on the chain": (lambda c: c.chain(lane=1), "chain, lane"),
    "another generation on the chain": (lambda c: c.chain(generation=2), "chain, generation"),
    "an erasure that the chain does not know": (lambda c: c.ledger._erasures.clear(), "on the chain"),
}  # fmt: skip


def test_a_certificate_holds(case: Case) -> None:
    assert case.found() == []


def test_signing_again_is_no_tampering(case: Case) -> None:
    case.attest()
    assert case.found() == []


@pytest.mark.parametrize("kind", TAMPERING)
def test_no_tampering_passes(case: Case, kind: str) -> None:
    tamper, wanted = TAMPERING[kind]
    tamper(case)
    found = case.found()
    assert any(wanted in failure for failure in found), found


def _request(case: Case, key: keys.Key = CODING, **changes: Any) -> None:
    """Another request, signed by this key, with everything else signed again."""
    plain = replace(case.attestation.request.value, **changes)
    case.attest(request=plain.sign(key, case.run.genesis.chain))


def _unsigned(case: Case, **changes: Any) -> None:
    signed = case.attestation.request
    case.attest(request=replace(signed, value=replace(signed.value, **changes)))


def _left(case: Case) -> None:
    """Who erased records only has no part in the generation any more."""
    signed = case.run.generations(0)[1]
    members = tuple(member for member in signed.value.members if member != CODING.address)
    changed = replace(signed.value, members=members).sign(COORDINATOR, case.run.genesis.chain)
    case.rewrite("generations/L0000-G0001.json", to_json(changed.to_dict()))


TAMPERING_WITH_RECORDS: dict[str, tuple[Tamper, str]] = {
    "fewer records than were signed": (lambda c: _unsigned(c, count=2), "signature"),
    "other records than were signed": (lambda c: _unsigned(c, records=f.other("records")), "signature"),
    "records of another's request": (lambda c: _request(c, key=MEDICAL, count=2), "signature"),
    "fewer records, signed again": (lambda c: _request(c, count=2), "on the chain"),
    "other records, signed again": (lambda c: _request(c, records=f.other("records")), "on the chain"),
    "shards where several learn together": (lambda c: _request(c, method="shards"), "method, shards"),
    "the whole organisation instead": (lambda c: _request(c, records=ZERO_DIGEST, count=0), "leaves out who asked"),
    "the organisation erased too": (lambda c: c.attest(erased=(CODING.address,)), "for records only"),
    "the organisation gone": (_left, "members"),
    "a round that was carried over": (lambda c: c.attest(reaggregated=1), "method"),
    "an update that knew them, not listed": (_unlisted, "scope"),
    "salts of what knew them, not listed": (lambda c: c.attest(salts_destroyed=()), "scope"),
    "another label": (lambda c: c.certify(label="approximate"), "label"),
    "what knew them, served": (lambda c: c.certify(heads=(c.signed.value.before.record,)), "in what is served"),
}  # fmt: skip


def test_a_certificate_of_records_holds(record_case: Case) -> None:
    assert record_case.found() == []
    record_case.attest()
    assert record_case.found() == []


@pytest.mark.parametrize("kind", TAMPERING_WITH_RECORDS)
def test_no_tampering_with_records_passes(record_case: Case, kind: str) -> None:
    tamper, wanted = TAMPERING_WITH_RECORDS[kind]
    tamper(record_case)
    found = record_case.found()
    assert any(wanted in failure for failure in found), found
