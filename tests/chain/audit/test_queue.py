"""A commit queue's file as evidence: what was sent, and where it came to stand."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from chain.audit.files import Files
from chain.audit.queue import QueueAudit
from chain.audit.report import Findings, What
from chain.commitments import PrivateCommitment, tag
from core.canonical import Address, to_json
from core.keys import Domain
from core.ledger import Anchor, RoundCommitment
from core.round_key import RoundKey
from core.storage.run_folder import RunFolder
from tests.behaviours.ledger import a_round, some_digest

CHAIN = Domain(31337, Address("0x" + "11" * 20))
ANCHOR = Anchor(CHAIN.chain_id, CHAIN.contract, "0x" + "ab" * 32, 7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "anchors.jsonl"


@pytest.fixture
def findings() -> Findings:
    return Findings()


def write(path: Path, *entries: Any, torn: bytes = b"") -> None:
    path.write_bytes(b"".join(to_json(entry) + b"\n" for entry in entries) + torn)


def sent(commitment: RoundCommitment | PrivateCommitment) -> dict[str, Any]:
    return {tag(commitment): asdict(commitment)}


def anchored(key: RoundKey, anchor: Anchor = ANCHOR) -> dict[str, Any]:
    return {"key": asdict(key), "anchor": asdict(anchor)}


def read(path: Path, findings: Findings) -> QueueAudit[RoundCommitment]:
    return QueueAudit.read(path, RoundCommitment, findings)


def kinds(findings: Findings) -> list[tuple[str, str]]:
    return [(failure.what, failure.where) for failure in findings.failures]


def test_a_missing_file_is_an_empty_queue(path: Path, findings: Findings) -> None:
    queue = read(path, findings)
    assert (queue.commitments, queue.anchors, queue.torn, findings.failures) == ({}, {}, False, [])


def test_commitments_and_anchors_come_with_their_lines(path: Path, findings: Findings) -> None:
    first, second = a_round(some_digest()), a_round(some_digest())
    write(path, sent(first), sent(second), anchored(first.key))
    queue = read(path, findings)
    assert queue.commitments == {
        first.key: ("anchors.jsonl, line 1", first),
        second.key: ("anchors.jsonl, line 2", second),
    }
    assert queue.anchors == {first.key: ("anchors.jsonl, line 3", ANCHOR)}
    assert findings.failures == []


def test_a_later_anchor_replaces_an_earlier_one(path: Path, findings: Findings) -> None:
    commitment, later = a_round(some_digest()), Anchor(31337, CHAIN.contract, "0x" + "cd" * 32, 9)
    write(path, sent(commitment), anchored(commitment.key), anchored(commitment.key, later))
    assert read(path, findings).anchors[commitment.key][1] == later
    assert findings.failures == []


OTHER_QUEUE = PrivateCommitment(RoundKey(some_digest(), 0, 0, 1), (), (), ())


@pytest.mark.parametrize(
    "entry",
    [
        {},
        [],
        {"commitment": {}},
        {"commitment": {"key": {}}},
        {"key": {"genesis": "0x", "lane": [0], "generation": 0, "round": 1}, "anchor": asdict(ANCHOR)},
        {"unknown": 1},
        sent(OTHER_QUEUE),
    ],
)
def test_a_line_that_is_neither_is_named_and_hides_no_other(path: Path, findings: Findings, entry: Any) -> None:
    commitment = a_round(some_digest())
    write(path, entry, sent(commitment))
    assert list(read(path, findings).commitments) == [commitment.key]
    assert kinds(findings) == [("commit queue", "anchors.jsonl, line 1")]


def test_a_round_that_was_sent_twice_is_named(path: Path, findings: Findings) -> None:
    commitment = a_round(some_digest())
    write(path, sent(commitment), sent(commitment))
    read(path, findings)
    assert kinds(findings) == [("commit queue", "anchors.jsonl, line 2")]
    assert "round 1 of lane 0" in findings.failures[0].got


def test_an_anchor_is_taken_once_and_compared_with_the_genesis(path: Path, findings: Findings) -> None:
    commitment = a_round(some_digest())
    write(path, sent(commitment), anchored(commitment.key))
    queue = read(path, findings)
    taken = queue.take_anchor(commitment.key, CHAIN, "round 1, lane 0")
    assert taken == ("round 1, lane 0, anchors.jsonl, line 2", ANCHOR)
    assert queue.take_anchor(commitment.key, CHAIN, "round 1, lane 0") is None
    assert findings.failures == []
    queue.anchors[commitment.key] = ("line 2", ANCHOR)
    queue.take_anchor(commitment.key, Domain(1, Address("0x" + "22" * 20)), "round 1, lane 0")
    assert [what for what, _ in kinds(findings)] == ["chain id", "contract"]


def test_an_anchor_that_is_not_the_chain_s_receipt_is_named(path: Path, findings: Findings) -> None:
    queue = read(path, findings)
    queue.check_receipt(None, ANCHOR)
    queue.check_receipt(("here", ANCHOR), ANCHOR)
    assert findings.failures == []
    queue.check_receipt(("here", ANCHOR), Anchor(1, CHAIN.contract, ANCHOR.transaction, 8))
    (failure,) = findings.failures
    assert (failure.what, failure.where) == (What.ANCHOR, "here")
    assert (failure.got, failure.want) == (f"{ANCHOR.transaction} in block 7", f"{ANCHOR.transaction} in block 8")


@pytest.mark.parametrize("complete", [False, True])
def test_a_torn_line_is_a_failure_of_a_finished_run_only(path: Path, findings: Findings, complete: bool) -> None:
    write(path, torn=b'{"key"')
    queue = read(path, findings)
    queue.check_end(Files(RunFolder(path.parent)), complete=complete)
    assert kinds(findings) == [("commit queue", "anchors.jsonl")] * complete
    assert findings.checked["torn lines"] == (not complete)


def test_what_no_record_speaks_of_is_named_at_the_end(path: Path, findings: Findings) -> None:
    commitment = a_round(some_digest())
    write(path, sent(commitment), anchored(commitment.key))
    queue, files = read(path, findings), Files(RunFolder(path.parent))
    queue.check_end(files, complete=True)
    assert [where for _, where in kinds(findings)] == ["anchors.jsonl, line 1", "anchors.jsonl, line 2"]
    assert "anchors.jsonl" not in files.left
