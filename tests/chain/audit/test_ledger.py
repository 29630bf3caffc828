"""A run's rounds and erasures compared with a ledger, one question at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.audit.files import Files, RecordFile
from chain.audit.ledger import LedgerAudit
from chain.audit.queue import QueueAudit
from chain.audit.report import Findings, What
from core import keys
from core.canonical import ZERO_DIGEST
from core.errors import LedgerError, LedgerUnreachableError
from core.ledger import Anchor, LaneHead, Ledger, MemoryLedger, RoundCommitment
from core.round_key import RoundKey
from core.rounds import RoundRecord, Salts
from tests.behaviours.ledger import some_digest
from tests.behaviours.runs import SEED, Federation, build

FILE = RecordFile(0, 0, 1, 1, "records/L0000-G0000-R00001-A01.json")


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "run", rounds=2)


@pytest.fixture
def record(federation: Federation) -> RoundRecord:
    return next(federation.run.records()).value


@pytest.fixture
def salts(federation: Federation, record: RoundRecord) -> Salts:
    return federation.run.salts(record)


class Told:
    """A ledger of which some answers are replaced, or raised when they are errors."""

    def __init__(self, ledger: Ledger, **answers: Any) -> None:
        self._ledger, self._answers = ledger, answers

    def __getattr__(self, name: str) -> Any:
        if name not in self._answers:
            return getattr(self._ledger, name)
        answer = self._answers[name]

        def tell(*_: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return tell


def audit_of(federation: Federation, complete: bool = True, strict: bool = False, **answers: Any) -> LedgerAudit:
    findings = Findings()
    queue = QueueAudit.read(federation.run.queue, RoundCommitment, findings)
    ledger: Any = Told(federation.ledger, **answers)
    return LedgerAudit(ledger, federation.genesis, Files(federation.run), findings, queue, complete, strict)


def kinds(audit: LedgerAudit) -> list[str]:
    return [failure.what for failure in audit.findings.failures]


# The run


def test_a_run_that_is_the_ledger_s_holds(federation: Federation) -> None:
    audit = audit_of(federation)
    audit.check_run()
    assert (kinds(audit), audit.findings.checked["members"]) == ([], 2)


@pytest.mark.parametrize("odd", ["without", "with"])
def test_other_members_are_named(federation: Federation, odd: str) -> None:
    members = {organisation.address for organisation in federation.genesis.organisations}
    changed = members - {min(members)} if odd == "without" else members | {keys.derive(SEED, "outsider").address}
    audit = audit_of(federation, members=frozenset(changed))
    audit.check_run()
    (failure,) = audit.findings.failures
    (address,) = members ^ changed
    assert (failure.what, failure.got) == (What.MEMBERS, f"{len(changed)}, {odd} {address}")


def test_another_chain_or_contract_is_named(federation: Federation) -> None:
    genesis = replace(federation.genesis, chain=replace(federation.genesis.chain, chain_id=5))
    audit = audit_of(replace(federation, genesis=genesis), members=frozenset(federation.genesis.lanes[0]))
    audit.check_run()
    assert kinds(audit) == [What.CHAIN_ID]


# Rounds


def test_a_round_that_is_committed_leads_to_the_next(federation: Federation) -> None:
    audit, parent = audit_of(federation), ZERO_DIGEST
    for number, signed in enumerate(federation.run.records(), start=1):
        file = RecordFile(0, 0, number, 1, FILE.name.replace("R00001", f"R0000{number}"))
        salts = federation.run.salts(signed.value)
        committed = audit.check_round(signed.value, salts, file, parent)
        assert committed == salts.aggregate_commitment(signed.value)
        parent = committed
    audit.check_end(0, 0, 3)
    audit.queue.check_end(audit.files, complete=True)
    assert (kinds(audit), audit.findings.checked["commitments"]) == ([], 2)


def test_salts_that_are_gone_hide_the_commitment(federation: Federation, record: RoundRecord) -> None:
    audit = audit_of(federation)
    assert audit.check_round(record, None, FILE, ZERO_DIGEST) is None
    assert kinds(audit) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"count": 9}, What.COUNT),
        ({"updates_root": some_digest()}, What.UPDATES_ROOT),
        ({"aggregate": some_digest()}, What.COMMITMENT),
        ({"parent": some_digest()}, What.COMMITTED_PARENT),
    ],
)
def test_a_commitment_to_something_else_is_named(
    federation: Federation, record: RoundRecord, salts: Salts, changes: dict[str, Any], what: What
) -> None:
    commitment, anchor = federation.ledger.read(record.key) or pytest.fail("it was committed")
    audit = audit_of(federation, read=(replace(commitment, **changes), anchor))
    audit.check_round(record, salts, FILE, ZERO_DIGEST)
    # The queue's line is compared with the ledger's: it differs as well.
    assert kinds(audit) == [what] * (1 if what is What.COMMITTED_PARENT else 2)


def test_an_anchor_that_is_not_the_receipt_is_named(federation: Federation, record: RoundRecord, salts: Salts) -> None:
    commitment, anchor = federation.ledger.read(record.key) or pytest.fail("it was committed")
    audit = audit_of(federation, read=(commitment, replace(anchor, block=anchor.block + 1)))
    audit.check_round(record, salts, FILE, ZERO_DIGEST)
    assert kinds(audit) == [What.ANCHOR]


@pytest.mark.parametrize(("queued", "complete"), [(True, False), (False, True), (False, False)])
def test_a_round_that_is_not_on_the_ledger_is_pending_only_while_nothing_says_otherwise(
    federation: Federation, record: RoundRecord, salts: Salts, queued: bool, complete: bool
) -> None:
    audit = audit_of(federation, complete=complete, read=None)
    if not queued:
        audit.queue.anchors.clear()
    audit.check_round(record, salts, FILE, ZERO_DIGEST)
    assert kinds(audit) == [What.NOT_ON_LEDGER] * (queued or complete)
    assert audit.findings.checked["pending"] == (not queued and not complete)


def test_whoever_was_revoked_before_the_parent_is_not_admitted(federation: Federation) -> None:
    first, second = (signed.value for signed in federation.run.records())
    member = second.admitted[0].organisation
    for block, expected in ((0, [What.REVOKED]), (1, []), (2, [])):
        audit = audit_of(federation, revoked={member: block})
        audit.check_run()
        parent = audit.check_round(first, federation.run.salts(first), FILE, ZERO_DIGEST)
        file = RecordFile(0, 0, 2, 1, FILE.name.replace("R00001", "R00002"))
        audit.check_round(second, federation.run.salts(second), file, parent)
        assert kinds(audit) == expected, block


def test_a_round_on_the_ledger_alone_is_named_unless_its_record_came_since(federation: Federation) -> None:
    commitment = (
        replace(federation.ledger.read(RoundKey(federation.genesis.digest, 0, 0, 2))[0], count=2),  # type: ignore[index]  # committed
        Anchor(0, MemoryLedger.domain.contract, "0x", 9),
    )
    audit = audit_of(federation, read=commitment)
    audit.check_end(0, 0, 3)
    assert [(f.what, f.got) for f in audit.findings.failures] == [(What.NOT_RECORDED, "a round of 2 updates")]
    (federation.run.folder / "records/L0000-G0000-R00003-A01.json").touch()
    audit.findings.failures.clear()
    audit.check_end(0, 0, 3)
    assert kinds(audit) == []


# Erasures


def forked(federation: Federation) -> Any:
    federation.fork(0, 1, without="coding")
    (signed,) = federation.run.erasures()
    return signed.value


def test_an_erasure_is_known_to_the_ledger(federation: Federation) -> None:
    attestation = forked(federation)
    opening = federation.run.generations(0)[1].value.opening
    audit = audit_of(federation, strict=True)
    audit.check_generation(opening, "here")
    audit.check_erasure(attestation, None, "here")
    audit.check_head(0, 1)
    assert kinds(audit) == []
    certificate = some_digest()
    federation.ledger.certify(federation.genesis.digest, attestation.erasure, certificate)
    audit.check_erasure(attestation, certificate, "here")
    assert kinds(audit) == []
    audit.check_erasure(attestation, some_digest(), "here")
    audit.check_erasure(attestation, None, "here")
    assert kinds(audit) == [What.CERTIFICATE] * 2


@pytest.mark.parametrize("strict", [False, True])
def test_a_certificate_that_the_ledger_lacks_is_a_failure_of_a_strict_audit(
    federation: Federation, strict: bool
) -> None:
    attestation = forked(federation)
    audit = audit_of(federation, strict=strict)
    audit.check_erasure(attestation, some_digest(), "here")
    assert kinds(audit) == [What.CERTIFICATE] * strict
    assert audit.findings.checked["pending"] == (not strict)


def test_an_erasure_that_the_ledger_does_not_know_is_pending_until_it_has_a_certificate(
    federation: Federation,
) -> None:
    attestation = forked(federation)
    audit = audit_of(federation, erasure=None)
    audit.check_erasure(attestation, None, "here")
    assert (kinds(audit), audit.findings.checked["pending"]) == ([], 1)
    audit.check_erasure(attestation, some_digest(), "here")
    audit.check_generation(federation.run.generations(0)[1].value.opening, "here")
    assert kinds(audit) == [What.NOT_ON_LEDGER] * 2


def test_a_generation_on_the_ledger_alone_is_named(federation: Federation) -> None:
    audit = audit_of(federation, head=LaneHead(2, 0, ZERO_DIGEST))
    audit.check_head(0, 2)
    assert kinds(audit) == []
    audit.check_head(0, 1)
    assert [(f.what, f.got, f.want) for f in audit.findings.failures] == [
        (What.NOT_RECORDED, "generation 2", "generation 1")
    ]


# A ledger that does not answer


def test_a_ledger_that_stops_answering_is_one_failure(federation: Federation) -> None:
    audit = audit_of(federation, head=LedgerUnreachableError("gone"))
    for _ in range(3):
        audit.check_head(0, 0)
    audit.check_run()
    assert kinds(audit) == [What.CHAIN_UNREACHABLE]
    assert audit.ledger is None


def test_a_ledger_that_contradicts_itself_is_named_and_asked_on(federation: Federation) -> None:
    audit = audit_of(federation, head=LedgerError("event and storage disagree"))
    for _ in range(2):
        audit.check_head(0, 0)
    assert kinds(audit) == [What.LEDGER] * 2


def test_without_a_ledger_only_files_are_compared(federation: Federation, record: RoundRecord, salts: Salts) -> None:
    audit = audit_of(federation)
    audit.ledger = None
    audit.check_run()
    audit.check_round(record, salts, FILE, ZERO_DIGEST)
    audit.check_head(0, 0)
    assert kinds(audit) == []
    assert audit.findings.checked["commitments"] == 0


def test_whoever_was_revoked_before_the_run_opened_is_not_in_the_first_round(federation: Federation) -> None:
    first = next(federation.run.records()).value
    member = first.admitted[0].organisation
    for block, expected in ((1, [What.REVOKED]), (2, []), (3, [])):
        audit = audit_of(federation, revoked={member: block}, opened_at=2)
        audit.check_run()
        audit.check_round(first, federation.run.salts(first), FILE, ZERO_DIGEST)
        assert kinds(audit) == expected, block
