"""The members' chain compared with the records, and its head with the public anchor."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.audit.files import Files, RecordFile
from chain.audit.private import PrivateAudit
from chain.audit.queue import QueueAudit
from chain.audit.report import Findings, What
from chain.commitments import PrivateCommitment
from chain.private import PrivateHead
from core.errors import LedgerError, LedgerUnreachableError
from core.keys import Domain
from core.rounds import RoundRecord, Salts
from tests.behaviours.ledger import some_digest
from tests.behaviours.runs import Federation, MemoryPrivate, build

FILE = RecordFile(0, 0, 1, 1, "records/L0000-G0000-R00001-A01.json")


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "run", rounds=2, private=MemoryPrivate())


@pytest.fixture
def record(federation: Federation) -> RoundRecord:
    return next(federation.run.records()).value


@pytest.fixture
def salts(federation: Federation, record: RoundRecord) -> Salts:
    return federation.run.salts(record)


def source_of(federation: Federation) -> MemoryPrivate:
    assert federation.private is not None
    return federation.private


def audit_of(federation: Federation, complete: bool = True) -> PrivateAudit:
    findings = Findings()
    queue = QueueAudit.read(federation.run.private_queue, PrivateCommitment, findings)
    return PrivateAudit(federation.private, federation.genesis, findings, queue, complete)


def check_rounds(federation: Federation, audit: PrivateAudit) -> None:
    for signed in federation.run.records():
        audit.check_round(signed.value, federation.run.salts(signed.value), FILE)


def kinds(audit: PrivateAudit) -> list[str]:
    return [failure.what for failure in audit.findings.failures]


def test_an_honest_chain_holds(federation: Federation) -> None:
    audit = audit_of(federation)
    audit.check_run()
    check_rounds(federation, audit)
    audit.check_end(Files(federation.run))
    assert kinds(audit) == []
    assert (audit.findings.checked["private commitments"], audit.findings.checked["private heads"]) == (2, 1)


def test_a_run_without_a_private_chain_asks_nothing(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=1)
    audit = audit_of(federation)
    audit.check_run()
    check_rounds(federation, audit)
    assert kinds(audit) == []


def test_another_chain_contract_or_membership_is_named(federation: Federation) -> None:
    source = source_of(federation)
    source.domain = Domain(2, federation.genesis.coordinator)
    source.organisations = frozenset()
    audit = audit_of(federation)
    audit.check_run()
    assert kinds(audit) == [What.CHAIN_ID, What.CONTRACT, What.MEMBERS]


@pytest.mark.parametrize(
    ("name", "what"),
    [("manifests", What.MANIFESTS), ("bids", What.BIDS), ("allocations", What.ALLOCATIONS)],
)
def test_a_list_of_something_else_is_named(
    federation: Federation, record: RoundRecord, salts: Salts, name: str, what: What
) -> None:
    changes: dict[str, Any] = {name: (some_digest(), some_digest())}
    commitment, anchor = source_of(federation).rounds[record.key]
    source_of(federation).rounds[record.key] = replace(commitment, **changes), anchor
    audit = audit_of(federation)
    audit.check_round(record, salts, FILE)
    assert kinds(audit) == [what]


def test_a_line_of_the_queue_that_says_something_else_is_named(
    federation: Federation, record: RoundRecord, salts: Salts
) -> None:
    audit = audit_of(federation)
    where, commitment = audit.queue.commitments[record.key]
    audit.queue.commitments[record.key] = where, replace(commitment, bids=())
    audit.check_round(record, salts, FILE)
    assert [(f.what, f.where) for f in audit.findings.failures] == [(What.BIDS, f"round 1, lane 0, {where}")]


@pytest.mark.parametrize(("anchored", "complete"), [(True, False), (False, True), (False, False)])
def test_a_round_that_is_not_there_is_pending_only_while_nothing_says_otherwise(
    federation: Federation, record: RoundRecord, salts: Salts, anchored: bool, complete: bool
) -> None:
    del source_of(federation).rounds[record.key]
    audit = audit_of(federation, complete)
    if not anchored:
        audit.queue.anchors.clear()
    audit.check_round(record, salts, FILE)
    assert kinds(audit) == [What.NOT_ON_LEDGER] * (anchored or complete)
    assert audit.findings.checked["pending"] == (not anchored and not complete)


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_a_head_that_is_missing_or_old_is_pending_while_the_run_goes_on(
    federation: Federation, complete: bool, old: bool
) -> None:
    source = source_of(federation)
    source.head = PrivateHead(source.domain.chain_id, 1, source.block_hash(1)) if old else None
    audit = audit_of(federation, complete)
    check_rounds(federation, audit)
    audit.check_end(Files(federation.run))
    assert kinds(audit) == [What.PRIVATE_HEAD] * complete
    assert audit.findings.checked["pending"] == (not complete)


def test_a_head_that_the_chain_does_not_hold_is_named(federation: Federation) -> None:
    source = source_of(federation)
    source.head = PrivateHead(source.domain.chain_id, 2, some_digest())
    audit = audit_of(federation)
    check_rounds(federation, audit)
    audit.check_end(Files(federation.run))
    assert [(f.what, f.got) for f in audit.findings.failures] == [
        (What.PRIVATE_HEAD, f"block 2, {source.head.block_hash}")
    ]


def test_a_head_is_called_for_by_every_second_round_only(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=1, private=MemoryPrivate(anchor_every=2))
    audit = audit_of(federation)
    check_rounds(federation, audit)
    audit.check_end(Files(federation.run))
    assert (kinds(audit), audit.newest) == ([], None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (LedgerUnreachableError("gone"), [What.CHAIN_UNREACHABLE]),
        (LedgerError("event and storage disagree"), [What.LEDGER] * 2),
    ],
)
def test_a_chain_that_does_not_answer_is_one_failure_and_one_that_contradicts_itself_more(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, error: LedgerError, expected: list[str]
) -> None:
    def refuse(_key: object) -> None:
        raise error

    monkeypatch.setattr(federation.private, "read", refuse)
    audit = audit_of(federation)
    check_rounds(federation, audit)
    assert kinds(audit) == expected
