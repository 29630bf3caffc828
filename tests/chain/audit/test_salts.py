"""Salts: one for everything that is committed, unless an erasure destroyed them."""

from pathlib import Path

import pytest

from chain.audit.erasures import ErasureAudit
from chain.audit.files import Files, RecordFile
from chain.audit.report import Findings, What
from chain.audit.salts import SaltAudit
from core.canonical import Digest, to_json
from core.rounds import RoundRecord, Salts
from tests.behaviours.runs import COORDINATOR, Federation, build

FILE = RecordFile(0, 0, 1, 1, "records/L0000-G0000-R00001-A01.json")


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "run", rounds=1)


@pytest.fixture
def record(federation: Federation) -> RoundRecord:
    return next(federation.run.records()).value


def audit_of(federation: Federation, *, listed: bool = False, destroyed: bool = False) -> SaltAudit:
    files, findings = Files(federation.run), Findings()
    name = next(federation.run.records()).value.digest
    lists = (frozenset({name}) if yes else frozenset[Digest]() for yes in (listed, destroyed))
    erasures = ErasureAudit(federation.genesis, files, findings, [], frozenset(), frozenset(), *lists, frozenset())
    return SaltAudit(files, findings, erasures)


def kinds(audit: SaltAudit) -> list[str]:
    return [failure.what for failure in audit.findings.failures]


def test_salts_are_read_and_counted(federation: Federation, record: RoundRecord) -> None:
    audit = audit_of(federation)
    assert audit.read(record, FILE) == federation.run.salts(record)
    assert (kinds(audit), audit.findings.checked["salts"]) == ([], 1)


def test_salts_that_are_missing_or_of_an_outsider_are_named(federation: Federation, record: RoundRecord) -> None:
    path = federation.run.folder / FILE.salts
    salts = federation.run.salts(record)
    path.write_bytes(to_json(Salts(salts.aggregate, {**salts.updates, COORDINATOR.address: "00" * 32}).to_dict()))
    audit = audit_of(federation)
    assert audit.read(record, FILE) is None
    assert COORDINATOR.address in audit.findings.failures[0].got
    path.unlink()
    assert audit.read(record, FILE) is None
    assert kinds(audit) == [What.SALTS] * 2


def test_an_erasure_may_destroy_salts_and_must_when_it_is_done(federation: Federation, record: RoundRecord) -> None:
    begun = audit_of(federation, listed=True)
    assert begun.read(record, FILE) is not None
    assert kinds(begun) == []
    failed = audit_of(federation, listed=True, destroyed=True)
    failed.read(record, FILE)
    assert kinds(failed) == [What.SALTS]
    federation.run.destroy_salts(record)
    done = audit_of(federation, listed=True, destroyed=True)
    assert done.read(record, FILE) is None
    assert (kinds(done), done.findings.checked["destroyed salts"]) == ([], 1)
    assert not [name for name in done.files.left if "salts" in name]


def test_salts_of_the_next_record_are_what_a_crash_leaves(federation: Federation, record: RoundRecord) -> None:
    audit = audit_of(federation)
    audit.check_unused("salts/L0000-G0000-R00002-A01.json")
    assert (kinds(audit), audit.findings.checked["unused salts"]) == ([], 0)
    name = "salts/L0000-G0000-R00002-A01.json"
    (federation.run.folder / name).write_bytes(to_json(Salts.draw(record).to_dict()))
    audit = audit_of(federation)
    audit.check_unused(name)
    assert (kinds(audit), audit.findings.checked["unused salts"]) == ([], 1)
    assert name not in audit.files.left
    (federation.run.folder / name).write_bytes(b"[]")
    audit.check_unused(name)
    assert kinds(audit) == [What.SALTS]
