import json
import shutil
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chain.anvil import binary
from chain.audit import AuditReport, What, verify, verify_on_chain
from chain.audit_states import svd_tolerance
from chain.ethereum import open_ledger
from chain.nodes import embedded_service
from core import keys
from core.adapter import AdapterState
from core.aggregation import RULES, by_address
from core.canonical import Address, Digest, digest, to_json
from core.errors import LedgerError, LedgerUnreachableError
from core.ledger import Anchor, MemoryLedger, RoundCommitment, RoundKey
from core.rounds import Admitted, Genesis, Rejection, RoundRecord, Salts, SignedRecord
from core.update import UpdateManifest
from tests.behaviours.runs import COORDINATOR, NAMES, SEED, Federation, Lies, build, found

ORDER = sorted(NAMES[:3], key=lambda name: by_address(keys.derive(SEED, name).address))
FIRST, SECOND, THIRD = ORDER
OUTSIDER = keys.derive(SEED, "outsider")
ROUND_1, ROUND_2_FAILED, ROUND_2 = (
    f"records/L0000-G0000-R0000{place}.json" for place in ("1-A01", "2-A01", "2-A02")
)
SALTS_1, SALTS_2 = (name.replace("records", "salts") for name in (ROUND_1, ROUND_2))


def failures(report: AuditReport) -> list[str]:
    return [str(failure) for failure in report.failures]


def assert_first(report: AuditReport, what: What, where: str) -> None:
    assert not report.ok
    assert report.failures[0].what == what, failures(report)
    assert where in report.failures[0].where, failures(report)


# ------------------------------------------------------------------------------------------------ honest runs


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("rule", RULES)
def test_an_honest_run_holds_under_every_rule(tmp_path: Path, rule: str, lanes: int) -> None:
    federation = build(tmp_path / "run", rule=rule, organisations=3, lanes=lanes)
    report = verify(federation.run, federation.ledger)
    assert failures(report) == []
    assert (report.recomputed, report.attested) == (2 * lanes, 0)
    assert report.checked["manifests"] == 6
    assert report.checked["commitments"] == 2 * lanes


def test_a_run_with_attempts_below_the_quorum_holds(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", failed={(0, 1): 2, (0, 2): 3})
    report = verify(federation.run, federation.ledger)
    assert failures(report) == []
    assert (report.checked["records"], report.recomputed) == (7, 2)


def test_a_run_that_is_not_finished_holds_with_its_newest_round_pending(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=3, until=2)
    ledger = without_round(federation, 2)
    without_line(federation, "anchors.jsonl", 3)
    assert_first(verify(federation.run, ledger, strict=True), What.NOT_ON_LEDGER, "round 2, lane 0")
    report = verify(federation.run, ledger)
    assert failures(report) == []
    assert report.checked["pending"] == 1


def test_a_run_that_only_began_holds(tmp_path: Path) -> None:
    federation = found(tmp_path / "run")
    assert federation.queue.close(10) == 0
    report = verify(federation.run, federation.ledger)
    assert failures(report) == []
    assert report.recomputed == 0


def test_what_a_crash_leaves_is_counted_and_no_failure(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=3, until=2)
    folder = federation.run.folder
    (folder / "records" / ".L0000-G0000-R00003-A01.json.77.partial").write_bytes(b"{")
    shutil.copy(folder / SALTS_1, folder / "salts" / "L0000-G0000-R00003-A01.json")
    federation.run.artifacts.put(AdapterState({"x": np.zeros(3, np.float32)}))
    with (folder / "anchors.jsonl").open("ab") as file:
        file.write(b'{"commitment":')
    report = verify(federation.run, federation.ledger)
    assert failures(report) == []
    noted = ("partial files", "unused salts", "unreferenced artifacts", "torn lines")
    assert [report.checked[name] for name in noted] == [1, 1, 1, 1]


def test_a_run_without_its_commit_queue_holds_since_the_ledger_knows(honest: Federation) -> None:
    (honest.run.folder / "anchors.jsonl").unlink()
    assert failures(verify(honest.run, honest.ledger)) == []


def test_an_offline_audit_needs_no_ledger(honest: Federation) -> None:
    report = verify(honest.run)
    assert failures(report) == []
    assert "commitments" not in report.checked


def test_the_report_has_the_fields_that_scripts_rely_on(honest: Federation) -> None:
    (honest.run.folder / SALTS_1).unlink()
    plain = json.loads(json.dumps(verify(honest.run, honest.ledger).to_dict()))
    assert set(plain) == {"ok", "checked", "recomputed", "attested", "failures"}
    assert set(plain["failures"][0]) == {"what", "where", "got", "want"}
    assert plain["recomputed"] == 2


def test_auditing_changes_nothing(honest: Federation) -> None:
    before = contents(honest.run.folder)
    verify(honest.run, honest.ledger)
    assert contents(honest.run.folder) == before


# ------------------------------------------------------------------------------------------ tampering with files


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Three organisations, two rounds, the second at its second attempt."""
    return build(tmp_path_factory.mktemp("original") / "run", organisations=3, failed={(0, 2): 1})


@pytest.fixture
def honest(original: Federation, tmp_path: Path) -> Federation:
    """A copy that a test may spoil."""
    shutil.copytree(original.run.folder, tmp_path / "run")
    return replace(original, run=type(original.run)(tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


Tampering = Callable[[Federation], object]


@dataclass(frozen=True)
class Case:
    """A kind of tampering and the first failure that it must lead to."""

    name: str
    tamper: Tampering
    what: What
    where: str


def edit(name: str, change: Callable[[Any], object]) -> Tampering:
    """Change a JSON file and write it canonically."""

    def tamper(federation: Federation) -> None:
        path = federation.run.folder / name
        plain = json.loads(path.read_bytes())
        change(plain)
        path.write_bytes(to_json(plain))

    return tamper


def edit_line(number: int, change: Callable[[Any], object]) -> Tampering:
    """Change a line of the commit queue."""

    def tamper(federation: Federation) -> None:
        path = federation.run.folder / "anchors.jsonl"
        lines = path.read_bytes().splitlines()
        plain = json.loads(lines[number - 1])
        change(plain)
        lines[number - 1] = to_json(plain)
        path.write_bytes(b"\n".join(lines) + b"\n")

    return tamper


def without_line(federation: Federation, name: str, number: int) -> None:
    path = federation.run.folder / name
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[number]
    path.write_bytes(b"".join(lines))


def rewrite(name: str, change: Callable[[RoundRecord], RoundRecord], to: str = "") -> Tampering:
    """The coordinator itself signs another record, under the same name or another."""

    def tamper(federation: Federation) -> None:
        folder = federation.run.folder
        record = SignedRecord.from_dict(json.loads((folder / name).read_bytes())).record
        signed = change(record).sign(COORDINATOR, federation.genesis.chain)
        (folder / (to or name)).write_bytes(to_json(signed.to_dict()))

    return tamper


def remove(name: str) -> Tampering:
    return lambda federation: (federation.run.folder / name).unlink()


def put(name: str, data: bytes = b"{}") -> Tampering:
    return lambda federation: (federation.run.folder / name).write_bytes(data)


def rename(name: str, to: str) -> Tampering:
    return lambda federation: (federation.run.folder / name).rename(federation.run.folder / to)


def update_path(federation: Federation, index: int, name: str = ROUND_1) -> Path:
    record = SignedRecord.from_dict(json.loads((federation.run.folder / name).read_bytes())).record
    return federation.run.artifacts.path(record.admitted[index].signed.manifest.update)


def aggregate_path(federation: Federation, name: str = ROUND_1) -> Path:
    record = SignedRecord.from_dict(json.loads((federation.run.folder / name).read_bytes())).record
    return federation.run.artifacts.path(record.aggregate)


def signed_by_someone_else(federation: Federation) -> None:
    path = federation.run.folder / ROUND_1
    record = SignedRecord.from_dict(json.loads(path.read_bytes())).record
    path.write_bytes(to_json(record.sign(OUTSIDER, federation.genesis.chain).to_dict()))


def upper_twin(plain: Any) -> None:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    text = plain["signature"]
    s, v = int(text[66:130], 16), int(text[130:], 16)
    plain["signature"] = f"{text[:66]}{order - s:064x}{55 - v:02x}"


def link_out(federation: Federation) -> None:
    path = aggregate_path(federation)
    outside = federation.run.folder.parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)


FILES = [
    Case("a changed genesis", edit("genesis.json", lambda g: g.update(norm_bound=11.0)), What.GENESIS, "genesis.json"),
    Case("a genesis with more", edit("genesis.json", lambda g: g.update(more=1)), What.GENESIS, "genesis.json"),
    Case("a genesis with less", edit("genesis.json", lambda g: g.pop("seed")), What.GENESIS, "genesis.json"),
    Case("a number as text", edit("genesis.json", lambda g: g.update(rank="2")), What.GENESIS, "genesis.json"),
    Case("an unknown rule", edit("genesis.json", lambda g: g.update(rule="sum")), What.GENESIS, "genesis.json"),
    Case("a lane left out", edit("genesis.json", lambda g: g["lanes"][0].pop()), What.GENESIS, "genesis.json"),
    Case("no genesis", remove("genesis.json"), What.GENESIS, "genesis.json"),
    Case("a list as genesis", put("genesis.json", b"[]"), What.GENESIS, "genesis.json"),
    Case("another's signature", signed_by_someone_else, What.SIGNATURE, f"round 1, lane 0, {ROUND_1}"),
    Case("the upper twin of a signature", edit(ROUND_1, upper_twin), What.SIGNATURE, ROUND_1),
    Case(
        "a record changed behind its signature",
        edit(ROUND_1, lambda r: r["record"]["admitted"][0].update(weight=0.9)),
        What.SIGNATURE,
        ROUND_1,
    ),
    Case(
        "an unsigned field in a record",
        edit(ROUND_1, lambda r: r["record"]["admitted"][0].update(note="")),
        What.RECORD,
        ROUND_1,
    ),
    Case("a record that is no JSON", put(ROUND_1, b"{"), What.RECORD, ROUND_1),
    Case(
        "a round that is text",
        edit(ROUND_1, lambda r: r["record"].update(round="1")),
        What.RECORD,
        ROUND_1,
    ),
    Case("a record under another name", rename(ROUND_2, ROUND_2.replace("A02", "A03")), What.FILE_NAME, "A03.json"),
    Case("a round left out", remove(ROUND_1), What.GAP, "round 2, lane 0"),
    Case("an attempt left out", remove(ROUND_2_FAILED), What.ATTEMPT, ROUND_2),
    Case("the last round left out", remove(ROUND_2), What.NOT_RECORDED, "round 2, lane 0"),
    Case(
        "a round written anew by the coordinator",
        rewrite(ROUND_1, lambda r: replace(r, rejected=(Rejection(r.admitted[0].organisation, "no-reply", ""),))),
        What.PARENT,
        f"round 2, lane 0, {ROUND_2_FAILED}",
    ),
    Case(
        "a fork",
        rewrite(ROUND_2, lambda r: replace(r, attempt=3), ROUND_2.replace("A02", "A03")),
        What.FORK,
        "A03.json",
    ),
    Case(
        "a record of another federation",
        rewrite(ROUND_1, lambda r: replace(r, genesis=digest("other", b""))),
        What.SIGNATURE,
        ROUND_1,
    ),
    Case("the aggregate's salt", edit(SALTS_1, lambda s: s.update(aggregate="00" * 32)), What.COMMITMENT, SALTS_1),
    Case(
        "an update's salt",
        edit(SALTS_2, lambda s: s["updates"].update(dict.fromkeys(s["updates"], "11" * 32))),
        What.UPDATES_ROOT,
        f"round 2, lane 0, {SALTS_2}",
    ),
    Case("salts left out", remove(SALTS_1), What.SALTS, SALTS_1),
    Case("a salt left out", edit(SALTS_1, lambda s: s["updates"].popitem()), What.SALTS, SALTS_1),
    Case("a salt too many", edit(SALTS_1, lambda s: s["updates"].update(x="11" * 32)), What.SALTS, SALTS_1),
    Case("a short salt", edit(SALTS_1, lambda s: s.update(aggregate="00")), What.SALTS, SALTS_1),
    Case("salts of an empty round", put(ROUND_2_FAILED.replace("records", "salts")), What.UNEXPECTED_FILE, "A01.json"),
    Case(
        "an update left out",
        lambda f: update_path(f, 1).unlink(),
        What.UPDATE,
        f"round 1, lane 0, {SECOND}, artifacts/",
    ),
    Case(
        "an update in another's place",
        lambda f: shutil.copy(update_path(f, 0, ROUND_2), update_path(f, 2, ROUND_2)),
        What.UPDATE,
        f"round 2, lane 0, {THIRD}, artifacts/",
    ),
    Case("an empty update", lambda f: update_path(f, 0).write_bytes(b""), What.UPDATE, f"round 1, lane 0, {FIRST}"),
    Case("an aggregate left out", lambda f: aggregate_path(f).unlink(), What.AGGREGATE, "round 1, lane 0, artifacts/"),
    Case("a link instead of a file", link_out, What.AGGREGATE, "round 1, lane 0, artifacts/"),
    Case(
        "the shared A left out",
        lambda f: f.run.artifacts.path(f.genesis.shared_a).unlink(),
        What.SHARED_A,
        "genesis.json, artifacts/",
    ),
    Case("a file too many", put("notes.txt"), What.UNEXPECTED_FILE, "notes.txt"),
    Case("a hidden file", put("records/.hidden"), What.UNEXPECTED_FILE, "records/.hidden"),
    Case("an artifact under no digest", put("artifacts/x.safetensors"), What.UNEXPECTED_FILE, "artifacts/x.safetensors"),
    Case(
        "a record of a lane that is not there",
        put("records/L0009-G0000-R00001-A01.json"),
        What.UNEXPECTED_FILE,
        "records/L0009",
    ),
    Case(
        "an artifact under another's digest",
        lambda f: update_path(f, 0).with_name(f"{'0' * 62}.safetensors").write_bytes(update_path(f, 0).read_bytes()),
        What.ARTIFACT,
        "0" * 62,
    ),
    Case(
        "an anchor's transaction",
        edit_line(2, lambda e: e["anchor"].update(transaction="0x00")),
        What.ANCHOR,
        "round 1, lane 0, anchors.jsonl, line 2",
    ),
    Case("an anchor's block", edit_line(2, lambda e: e["anchor"].update(block=9)), What.ANCHOR, "anchors.jsonl, line 2"),
    Case("an anchor's chain", edit_line(2, lambda e: e["anchor"].update(chain_id=9)), What.CHAIN_ID, "line 2"),
    Case("an anchor's contract", edit_line(2, lambda e: e["anchor"].update(contract="0x")), What.CONTRACT, "line 2"),
    Case("an anchor's round", edit_line(2, lambda e: e["key"].update(round=7)), What.NOT_RECORDED, "line 2"),
    Case("a round that was sent", edit_line(1, lambda e: e["commitment"].update(count=9)), What.COUNT, "line 1"),
    Case("an unknown line of the queue", edit_line(1, lambda e: e.update(more=1)), What.QUEUE, "line 1"),
    Case("a torn line after the end", edit_line(1, lambda e: None), What.QUEUE, "anchors.jsonl"),
]


def _tear(federation: Federation) -> None:
    with (federation.run.folder / "anchors.jsonl").open("ab") as file:
        file.write(b'{"key":')


FILES[-1] = replace(FILES[-1], tamper=_tear)
