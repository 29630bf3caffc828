import json
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chain.audit.aggregates import svd_tolerance
from chain.audit.run import AuditReport, What, verify, verify_on_chain
from chain.ledger import open_ledger
from chain.nodes import embedded_service
from core import keys
from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate, by_address, weights
from core.canonical import ZERO_DIGEST, Digest, digest, to_json
from core.compression import Sparse
from core.errors import LedgerError, LedgerUnreachableError
from core.genesis import Genesis
from core.ledger import Anchor, Ledger, MemoryLedger, RoundCommitment
from core.lora import Layout
from core.round_key import RoundKey
from core.rounds import Admitted, Rejection, RoundRecord
from core.signed import Signed
from core.storage.run_folder import RunFolder
from core.update import Bid, UpdateManifest
from core.wire import Packed, numbers_of
from tests.behaviours.runs import COORDINATOR, LAYOUT, NAMES, SEED, Federation, Lies, advance, build, found

ORDER = sorted(NAMES[:3], key=lambda name: by_address(keys.derive(SEED, name).address))
FIRST, SECOND, THIRD = ORDER
OUTSIDER = keys.derive(SEED, "outsider")
ROUND_1, ROUND_2_FAILED, ROUND_2 = (f"records/L0000-G0000-R0000{place}.json" for place in ("1-A01", "2-A01", "2-A02"))
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


@pytest.mark.parametrize("wire", ["bf16", "int8", "nf4", "sparse"])
def test_an_honest_run_holds_in_every_form(tmp_path: Path, wire: str) -> None:
    federation = build(tmp_path / "run", organisations=3, lies=in_form(wire))
    report = verify(federation.run, federation.ledger)
    assert failures(report) == []
    assert report.recomputed == 2


def in_form(wire: str, other: Lies = Lies()) -> Lies:  # noqa: B008 - a frozen value
    """The same lies, or none, in a federation whose updates travel in a form."""
    return replace(other, genesis=lambda genesis: replace(genesis, wire=wire))


def test_a_changed_byte_of_a_compressed_update_is_found_and_named(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=1, organisations=3, lies=in_form("nf4"))
    artifacts, update = federation.run.artifacts, _first_update(federation)
    honest = bytes(artifacts.open_packed(update).data)
    for position in (0, 7, 9, 20, len(honest) // 2, -1):
        data = bytearray(honest)
        data[position] ^= 4
        artifacts.remove(update)
        # Whoever has the store's keys can seal other bytes under the same name.
        artifacts._put(artifacts.place(update), [data], None)
        report = verify(federation.run, federation.ledger)
        assert_first(report, What.UPDATE, artifacts.place(update))


@pytest.mark.parametrize("sent", ["fp32", "int8"])
def test_an_update_in_another_form_is_found_whatever_its_manifest_says(tmp_path: Path, sent: str) -> None:
    federation = build(tmp_path / "run", rounds=1, organisations=3, lies=in_form("nf4"))
    packed = Packed.of(federation.run.artifacts.open(_first_update(federation)), sent)
    other = build(tmp_path / "other", rounds=1, organisations=3, lies=in_form("nf4", manifest_of(update=packed.digest)))
    other.run.artifacts.put(packed)
    assert_first(verify(other.run, other.ledger), What.WIRE, "artifacts/")


@pytest.mark.parametrize(
    ("field", "value"), [("rounded", digest("other", b"")), ("rounded", ZERO_DIGEST), ("rounding", 0.5)]
)
@pytest.mark.parametrize("number", [1, 2])
def test_another_rounding_than_the_states_own_is_found(tmp_path: Path, field: str, value: Any, number: int) -> None:
    change = record(lambda _, r: replace(r, **{field: value}), number)
    federation = build(tmp_path / "run", lies=in_form("nf4", change))
    assert_first(verify(federation.run, federation.ledger), What.ROUNDED, f"round {number}")


def test_a_rounding_where_nothing_is_rounded_is_found(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", lies=record(lambda _, r: replace(r, rounded=r.aggregate)))
    assert_first(verify(federation.run, federation.ledger), What.ROUNDED, "round 2")


def test_a_manifest_of_another_form_is_found(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=1, organisations=3, lies=in_form("nf4", manifest_of(wire="int8")))
    assert_first(verify(federation.run, federation.ledger), What.WIRE, "round 1")


def test_an_update_of_few_bytes_that_say_they_are_many_numbers_is_never_decompressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = build(tmp_path / "honest", rounds=1, organisations=3, lies=in_form("sparse"))
    shapes = honest.run.artifacts.open(_first_update(honest)).shapes
    large = {name: np.zeros((500 * rows, rank), np.float32) for name, (rows, rank) in shapes.items()}
    packed = Packed.of(AdapterState(large), "sparse")
    lies = Lies(manifest=lambda name, m: replace(m, update=packed.digest) if name == THIRD else m)
    federation = build(tmp_path / "run", rounds=1, organisations=3, lies=in_form("sparse", lies))
    federation.run.artifacts.put(packed)
    decoded, real = list[int](), Sparse.decode
    monkeypatch.setattr(Sparse, "decode", lambda form, data, count: decoded.append(count) or real(form, data, count))
    report = verify(federation.run, federation.ledger)
    assert_first(report, What.UPDATE, "artifacts/")
    assert set(decoded) == {numbers_of(shapes)}


def manifest_of(**changes: object) -> Lies:
    """The first organisation signs something else."""
    return Lies(manifest=lambda name, m: replace(m, **changes) if name == FIRST else m)  # type: ignore[arg-type]


def _first_update(federation: Federation) -> Digest:
    """That of `FIRST`."""
    admitted = next(federation.run.records()).value.admitted
    address = federation.members[FIRST].address
    return next(a.signed.value.update for a in admitted if a.organisation == address)


def test_a_run_with_attempts_below_the_quorum_holds(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", failed={(0, 1): 2, (0, 2): 3})
    report = verify(federation.run, federation.ledger)
    assert failures(report) == []
    assert (report.checked["records"], report.recomputed) == (7, 2)


def test_a_run_that_draws_its_participants_holds(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", lies=Lies(genesis=lambda g: drawn(g, 1.0)))
    assert failures(verify(federation.run, federation.ledger)) == []


def unfinished(folder: Path) -> Federation:
    """Two rounds of three."""
    federation = found(folder / "run", rounds=3)
    advance(federation, 2)
    return federation


def test_a_resumed_run_holds(tmp_path: Path) -> None:
    federation = unfinished(tmp_path)
    advance(federation, 3)
    report = verify(federation.run, federation.ledger)
    assert failures(report) == []
    assert report.recomputed == 3


def test_a_round_that_closes_during_the_audit_is_no_failure(tmp_path: Path) -> None:
    federation = unfinished(tmp_path)

    class Growing(Lying):
        def read(self, key: RoundKey) -> tuple[RoundCommitment, Anchor] | None:
            if key.round == 3:
                advance(federation, 3)
            return federation.ledger.read(key)

    report = verify(federation.run, Growing(federation.ledger))
    assert failures(report) == []
    assert report.recomputed == 2


def test_a_run_that_is_not_finished_holds_with_its_newest_round_pending(tmp_path: Path) -> None:
    federation = unfinished(tmp_path)
    ledger = without_round(federation, 2)
    without_line(federation, "anchors.jsonl", 3)
    assert_first(verify(federation.run, ledger, strict=True), What.NOT_ON_LEDGER, "round 2, lane 0")
    report = verify(federation.run, ledger)
    assert failures(report) == []
    assert report.checked["pending"] == 1


def test_an_erasure_that_adds_no_round_does_not_leave_a_run_unfinished(tmp_path: Path) -> None:
    """Rounds before it are due on the ledger all the same, once it is certified."""
    federation = build(tmp_path / "run", rounds=2, organisations=3)
    federation.fork(0, 2, without=NAMES[0])
    attested = federation.run.erasures()[0].value
    content = {"value": {"done": True}, "signatures": []}
    federation.run.certify(attested, to_json(content))
    committed = attested.hide(digest("certificate", to_json(content["value"])))
    federation.ledger.certify(federation.genesis.digest, attested.erasure, committed)
    assert failures(verify(federation.run, federation.ledger)) == []
    ledger = without_round(federation, 2)
    without_line(federation, "anchors.jsonl", 3)
    assert_first(verify(federation.run, ledger), What.NOT_ON_LEDGER, "round 2, lane 0")


def test_a_run_that_only_began_holds(tmp_path: Path) -> None:
    federation = found(tmp_path / "run")
    report = verify(federation.run, federation.ledger)
    assert failures(report) == []
    assert report.recomputed == 0


def test_what_a_crash_leaves_is_counted_and_no_failure(tmp_path: Path) -> None:
    federation = unfinished(tmp_path)
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
    return replace(original, run=RunFolder(tmp_path / "run", key=COORDINATOR))


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
        record = Signed.parse(RoundRecord, json.loads((folder / name).read_bytes())).value
        signed = change(record).sign(COORDINATOR, federation.genesis.chain)
        (folder / (to or name)).write_bytes(to_json(signed.to_dict()))

    return tamper


def remove(name: str) -> Tampering:
    return lambda federation: (federation.run.folder / name).unlink()


def put(name: str, data: bytes = b"{}") -> Tampering:
    return lambda federation: (federation.run.folder / name).write_bytes(data)


def rename(name: str, to: str) -> Tampering:
    return lambda federation: (federation.run.folder / name).rename(federation.run.folder / to)


def sealed(federation: Federation, name: Digest, suffix: str = ".sealed") -> Path:
    """Where an artifact lies in the run folder."""
    return federation.run.folder / "artifacts" / f"{federation.run.artifacts.place(name)}{suffix}"


def update_path(federation: Federation, index: int, name: str = ROUND_1, suffix: str = ".sealed") -> Path:
    record = Signed.parse(RoundRecord, json.loads((federation.run.folder / name).read_bytes())).value
    return sealed(federation, record.admitted[index].signed.value.update, suffix)


def aggregate_path(federation: Federation, name: str = ROUND_1, suffix: str = ".sealed") -> Path:
    record = Signed.parse(RoundRecord, json.loads((federation.run.folder / name).read_bytes())).value
    return sealed(federation, record.aggregate, suffix)


def signed_by_someone_else(federation: Federation) -> None:
    path = federation.run.folder / ROUND_1
    record = Signed.parse(RoundRecord, json.loads(path.read_bytes())).value
    path.write_bytes(to_json(record.sign(OUTSIDER, federation.genesis.chain).to_dict()))


def count_attempts_anew(federation: Federation) -> None:
    """The coordinator forgets the attempt below the quorum, and signs the round as the first."""
    parent = Signed.parse(RoundRecord, json.loads((federation.run.folder / ROUND_1).read_bytes())).value.digest
    rewrite(ROUND_2, lambda r: replace(r, attempt=1, previous=parent), to=ROUND_2_FAILED)(federation)
    remove(ROUND_2)(federation)
    rename(SALTS_2, SALTS_2.replace("A02", "A01"))(federation)


def upper_twin(plain: Any) -> None:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    (text,) = plain["signatures"]
    s, v = int(text[66:130], 16), int(text[130:], 16)
    plain["signatures"] = [f"{text[:66]}{order - s:064x}{55 - v:02x}"]


def link_out(federation: Federation) -> None:
    path = aggregate_path(federation)
    outside = federation.run.folder.parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def under_another_name(federation: Federation) -> None:
    for suffix in (".sealed", ".keys"):
        path = update_path(federation, 0, suffix=suffix)
        shutil.copy(path, path.with_name("0" * 62 + suffix))


def tear(federation: Federation) -> None:
    with (federation.run.folder / "anchors.jsonl").open("ab") as file:
        file.write(b'{"key":')


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
        edit(ROUND_1, lambda r: r["value"]["admitted"][0].update(weight=0.9)),
        What.SIGNATURE,
        ROUND_1,
    ),
    Case(
        "an unsigned field in a record",
        edit(ROUND_1, lambda r: r["value"]["admitted"][0].update(note="")),
        What.RECORD,
        ROUND_1,
    ),
    Case("a record that is no JSON", put(ROUND_1, b"{"), What.RECORD, ROUND_1),
    Case(
        "a round that is text",
        edit(ROUND_1, lambda r: r["value"].update(round="1")),
        What.RECORD,
        ROUND_1,
    ),
    Case("a record under another name", rename(ROUND_2, ROUND_2.replace("A02", "A03")), What.FILE_NAME, "A03.json"),
    Case("a round left out", remove(ROUND_1), What.GAP, "round 2, lane 0"),
    Case("an attempt left out", remove(ROUND_2_FAILED), What.ATTEMPT, ROUND_2),
    Case("the last round left out", remove(ROUND_2), What.NOT_RECORDED, "round 2, lane 0"),
    Case(
        "grace where nobody was late",
        rewrite(ROUND_1, lambda r: replace(r, grace=1.0)),
        What.LATE,
        f"round 1, lane 0, {ROUND_1}",
    ),
    Case(
        "a generation that was not opened",
        rewrite(ROUND_2, lambda r: replace(r, generation=1), to=ROUND_2.replace("G0000", "G0001")),
        What.GENERATION,
        ROUND_2.replace("G0000", "G0001"),
    ),
    Case(
        "another reason in the newest round",
        rewrite(ROUND_2, lambda r: replace(r, rejected=(Rejection(r.admitted[0].organisation, "no-reply", ""),))),
        What.ASKED,
        f"round 2, lane 0, {ROUND_2}",
    ),
    Case(
        "somebody late in the newest round who was in time",
        rewrite(ROUND_2, lambda r: replace(r, late=(r.admitted[0].organisation,))),
        What.ASKED,
        f"round 2, lane 0, {ROUND_2}",
    ),
    Case(
        "another reason in an attempt",
        rewrite(ROUND_2_FAILED, lambda r: replace(r, rejected=tuple(replace(x, reason="late") for x in r.rejected))),
        What.PREVIOUS,
        f"round 2, lane 0, {ROUND_2}",
    ),
    Case(
        "attempts counted anew",
        count_attempts_anew,
        What.COMMITMENT,
        f"round 2, lane 0, {SALTS_2.replace('A02', 'A01')}",
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
        lambda f: sealed(f, f.genesis.shared_a).unlink(),
        What.SHARED_A,
        "genesis.json, artifacts/",
    ),
    Case("a file too many", put("notes.txt"), What.UNEXPECTED_FILE, "notes.txt"),
    Case("a hidden file", put("records/.hidden"), What.UNEXPECTED_FILE, "records/.hidden"),
    Case("an artifact under no digest", put("artifacts/x"), What.UNEXPECTED_FILE, "artifacts/x"),
    Case(
        "a record of a lane that is not there",
        put("records/L0009-G0000-R00001-A01.json"),
        What.UNEXPECTED_FILE,
        "records/L0009",
    ),
    Case(
        "an artifact under another's digest",
        under_another_name,
        What.ARTIFACT,
        "0" * 62,
    ),
    Case(
        "an anchor's transaction",
        edit_line(2, lambda e: e["anchor"].update(transaction="0x00")),
        What.ANCHOR,
        "round 1, lane 0, anchors.jsonl, line 2",
    ),
    Case(
        "an anchor's block", edit_line(2, lambda e: e["anchor"].update(block=9)), What.ANCHOR, "anchors.jsonl, line 2"
    ),
    Case("an anchor's chain", edit_line(2, lambda e: e["anchor"].update(chain_id=9)), What.CHAIN_ID, "line 2"),
    Case(
        "an anchor's contract",
        edit_line(2, lambda e: e["anchor"].update(contract=OUTSIDER.address)),
        What.CONTRACT,
        "anchors.jsonl, line 2",
    ),
    Case(
        "an anchor's contract, by no address",
        edit_line(2, lambda e: e["anchor"].update(contract="0x")),
        What.QUEUE,
        "anchors.jsonl, line 2",
    ),
    Case("an anchor's round", edit_line(2, lambda e: e["key"].update(round=7)), What.NOT_RECORDED, "line 2"),
    Case("a round that was sent", edit_line(1, lambda e: e["commitment"].update(count=9)), What.COUNT, "line 1"),
    Case("an unknown line of the queue", edit_line(1, lambda e: e.update(more=1)), What.QUEUE, "line 1"),
    Case("a torn line after the end", tear, What.QUEUE, "anchors.jsonl"),
]


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.name)
def test_tampering_with_a_file_is_found_and_named(honest: Federation, case: Case) -> None:
    case.tamper(honest)
    assert_first(verify(honest.run, honest.ledger), case.what, case.where)


def test_a_round_left_out_is_found_offline_by_the_commit_queue(honest: Federation) -> None:
    (honest.run.folder / ROUND_2).unlink()
    assert_first(verify(honest.run), What.NOT_RECORDED, "anchors.jsonl, line 3")


def test_one_bad_item_hides_no_other(honest: Federation) -> None:
    update_path(honest, 0).unlink()
    edit(SALTS_2, lambda s: s.update(aggregate="00" * 32))(honest)
    put("notes.txt")(honest)
    found = [failure.what for failure in verify(honest.run, honest.ledger).failures]
    assert found == [What.UPDATE, What.COMMITMENT, What.COPY, What.UNEXPECTED_FILE]


def test_without_the_shared_a_the_rounds_are_recomputed_all_the_same(honest: Federation) -> None:
    sealed(honest, honest.genesis.shared_a).unlink()
    report = verify(honest.run, honest.ledger)
    assert (len(report.failures), report.recomputed) == (1, 2)
    report = verify(honest.run, honest.ledger, layout=LAYOUT)
    assert [failure.what for failure in report.failures] == [What.SHARED_A]


def test_an_auditor_with_the_base_model_brings_its_layout(honest: Federation) -> None:
    assert verify(honest.run, honest.ledger, layout=LAYOUT).ok
    other = Layout.of({name: (inputs, outputs + 1) for name, inputs, outputs in LAYOUT.modules}, LAYOUT.rank)
    assert_first(verify(honest.run, honest.ledger, layout=other), What.SHAPE, "round 1, lane 0")


def test_a_round_after_an_unreadable_update_is_still_recomputed(honest: Federation) -> None:
    update_path(honest, 0).unlink()
    assert verify(honest.run, honest.ledger).recomputed == 1


@pytest.mark.parametrize("rule", ["frozen-a", "svd"])
def test_a_flipped_byte_of_any_file_is_found_and_the_file_named(tmp_path: Path, rule: str) -> None:
    federation = build(tmp_path / "run", rule=rule)
    for name, data in contents(federation.run.folder).items():
        path = federation.run.folder / name
        ends = {0, 9, len(data) // 3, len(data) - 3, len(data) - 1}
        for position in {len(data) // 2} | (ends if not name.startswith("artifacts/") else set()):
            flipped = bytearray(data)
            flipped[position] ^= 1 if position % 2 else 32
            path.write_bytes(flipped)
            report = verify(federation.run, federation.ledger)
            assert any(name in failure.where for failure in report.failures), (name, position, failures(report))
        path.write_bytes(data)
    assert verify(federation.run, federation.ledger).ok


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, [], {}, "", "x", -1, 0, 1e30, 1e308, True, [[]], {"a": 1}, "0x" + "00" * 32]
)


def paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in plain data."""
    yield before
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths(item, (*before, key))


def with_odd(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    copy = deepcopy(value)
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return copy


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_odd_value_in_any_file_stops_the_audit(original: Federation, data: st.DataObject) -> None:
    folder = original.run.folder
    name = data.draw(st.sampled_from(sorted(n for n in contents(folder) if n.endswith(".json"))))
    before = (folder / name).read_bytes()
    plain = json.loads(before)
    spoilt = with_odd(plain, data.draw(st.sampled_from(list(paths(plain)))), data.draw(ODD))
    assume(json.dumps(spoilt, sort_keys=True) != json.dumps(plain, sort_keys=True))
    signed = signed_again(spoilt, original.genesis) if name.startswith("records/") else None
    try:
        (folder / name).write_bytes(to_json(signed) if signed else json.dumps(spoilt).encode())
        report = verify(original.run, original.ledger)
    finally:
        (folder / name).write_bytes(before)
    assert signed or not report.ok


def signed_again(plain: Any, genesis: Genesis) -> Any:
    """What still is a record, signed by the coordinator itself, so that the audit gets past the signature."""
    try:
        return RoundRecord.from_dict(plain["value"]).sign(COORDINATOR, genesis.chain).to_dict()
    except Exception:  # noqa: BLE001 - whatever it is, it is no record
        return None


# ------------------------------------------------------------------------------- lies that are signed and committed


@dataclass(frozen=True)
class Lie:
    """What someone with a key does in round 2, and the first failure that it must lead to."""

    name: str
    lies: Lies
    what: What
    where: str


def manifest(**changes: object) -> Lies:
    """The first organisation signs something else in round 2."""

    def change(name: str, manifest: UpdateManifest) -> UpdateManifest:
        return replace(manifest, **changes) if (name, manifest.round) == (FIRST, 2) else manifest  # type: ignore[arg-type]

    return Lies(manifest=change)


def record(change: Callable[[Federation, RoundRecord], RoundRecord], number: int = 2) -> Lies:
    """The coordinator signs something else about a round that admitted someone."""
    return Lies(record=lambda federation, r: change(federation, r) if r.round == number and r.admitted else r)


def update(change: Callable[[AdapterState], AdapterState]) -> Lies:
    """The second organisation sends something else in round 2, and the coordinator admits it."""
    return Lies(update=lambda name, number, state: change(state) if (name, number) == (SECOND, 2) else state)


def commitment(**changes: object) -> Lies:
    """The coordinator commits something else about round 2."""
    return Lies(commitment=lambda c: replace(c, **changes) if c.key.round == 2 else c)  # type: ignore[arg-type]


def one_array(change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Lies:
    def changed(state: AdapterState) -> AdapterState:
        name = next(iter(state))
        return AdapterState({**state.arrays, name: change(state[name])})

    return update(changed)


def filled(value: float) -> Lies:
    return one_array(lambda array: np.full_like(array, value))


def dropped_from_the_sum(federation: Federation, r: RoundRecord) -> RoundRecord:
    """The first organisation is listed, and its update is not in the sum."""
    updates = [WeightedUpdate(a.organisation, a.weight, federation.update(0, n)) for a, n in named(r)[1:]]
    aggregate = federation.rule.aggregate(federation.lanes[0].state, updates).state
    return replace(r, aggregate=federation.run.artifacts.put(aggregate))


def passed_over(federation: Federation, r: RoundRecord) -> RoundRecord:
    """The third organisation's update is dropped in silence, and everything else is consistent."""
    kept = named(r)[:2]
    addresses = [a.organisation for a, _ in kept]
    p = weights(
        {o.address: o.examples for o in federation.genesis.organisations if o.address in addresses},
        federation.genesis.server_rate,
    )
    updates = [WeightedUpdate(a.organisation, p[a.organisation], federation.update(0, n)) for a, n in kept]
    aggregate = federation.rule.aggregate(federation.lanes[0].state, updates).state
    admitted = tuple(replace(a, weight=p[a.organisation]) for a, _ in kept)
    return replace(r, admitted=admitted, aggregate=federation.run.artifacts.put(aggregate))


def named(r: RoundRecord) -> list[tuple[Admitted, str]]:
    return list(zip(r.admitted, ORDER, strict=True))


def of_an_outsider(federation: Federation, r: RoundRecord) -> RoundRecord:
    signed = replace(r.admitted[2].signed.value, organisation=OUTSIDER.address).sign(OUTSIDER, federation.genesis.chain)
    admitted = sorted((*r.admitted[:2], Admitted(signed, 0.5)), key=lambda a: by_address(a.organisation))
    return replace(r, admitted=tuple(admitted))


def signed_for_another_chain(federation: Federation, r: RoundRecord) -> RoundRecord:
    first = r.admitted[0]
    chain = replace(federation.genesis.chain, chain_id=9)
    signed = first.signed.value.sign(federation.members[FIRST], chain)
    return replace(r, admitted=(replace(first, signed=signed), *r.admitted[1:]))


def weighed_anew(r: RoundRecord) -> RoundRecord:
    return replace(r, admitted=(replace(r.admitted[0], weight=0.9), *r.admitted[1:]))


def factored(r: RoundRecord) -> RoundRecord:
    return replace(r, admitted=(replace(r.admitted[0], factor=0.5), *r.admitted[1:]))


def drawn(genesis: Genesis, fraction: float) -> Genesis:
    return replace(genesis, participation=replace(genesis.participation, policy="random", fraction=fraction))


OTHER = digest("other", b"")
LIES = [
    Lie("a manifest of another federation", manifest(genesis=OTHER), What.MANIFEST_GENESIS, FIRST),
    Lie("a manifest of another round", manifest(round=1), What.MANIFEST_PLACE, FIRST),
    Lie("a manifest of another lane", manifest(lane=1), What.MANIFEST_PLACE, FIRST),
    Lie("a manifest of another generation", manifest(generation=1), What.MANIFEST_PLACE, FIRST),
    Lie("a manifest of another parent", manifest(parent=OTHER), What.MANIFEST_PARENT, FIRST),
    Lie("inflated examples", manifest(examples=10**6), What.EXAMPLES, FIRST),
    Lie("a bid beyond the genesis", manifest(bid=Bid(5, 3)), What.BID, FIRST),
    Lie("a nonce used before", manifest(nonce=digest("nonce", f"0 0 0 {SECOND}".encode())), What.NONCE, FIRST),
    Lie("an update that is not there", manifest(update=OTHER), What.UPDATE, FIRST),
    Lie("a signature for another chain", record(signed_for_another_chain), What.MANIFEST_SIGNATURE, FIRST),
    Lie("an outsider admitted", record(of_an_outsider), What.WEIGHT, "round 2, lane 0"),
    Lie("another order", record(lambda _, r: replace(r, admitted=r.admitted[::-1])), What.ORDER, "round 2, lane 0"),
    Lie(
        "an organisation twice",
        record(lambda _, r: replace(r, admitted=(r.admitted[0], *r.admitted))),
        What.ORDER,
        "round 2, lane 0",
    ),
    Lie("another weight", record(lambda _, r: weighed_anew(r)), What.WEIGHT, f"round 2, lane 0, {FIRST}"),
    Lie("a factor of no rule", record(lambda _, r: factored(r)), What.FACTOR, f"round 2, lane 0, {FIRST}"),
    Lie("an update left out of the sum", record(dropped_from_the_sum), What.AGGREGATE, "round 2, lane 0, artifacts/"),
    Lie(
        "the state before, unchanged",
        record(lambda f, r: replace(r, aggregate=f.lanes[0].state.digest)),
        What.AGGREGATE,
        "round 2, lane 0, artifacts/",
    ),
    Lie("an aggregate that is not there", record(lambda _, r: replace(r, aggregate=OTHER)), What.AGGREGATE, "round 2"),
    Lie(
        "an organisation passed over",
        record(passed_over),
        What.ASKED,
        f"round 2, lane 0, {ROUND_2}",
    ),
    Lie(
        "an organisation admitted and refused",
        record(lambda _, r: replace(r, rejected=(Rejection(r.admitted[0].organisation, "no-reply", ""),))),
        What.ASKED,
        f"round 2, lane 0, {ROUND_2}",
    ),
    Lie("everyone asked where a few are drawn", Lies(genesis=lambda g: drawn(g, 0.5)), What.ASKED, "round 1, lane 0"),
    Lie("another residual", record(lambda _, r: replace(r, residual=0.1)), What.RESIDUAL, "round 2, lane 0"),
    Lie("another rule", record(lambda _, r: replace(r, rule="fedavg")), What.RULE, "round 2, lane 0"),
    Lie("another parent", record(lambda _, r: replace(r, parent=OTHER)), What.PARENT, "round 2, lane 0"),
    Lie(
        "an outsider refused",
        record(lambda _, r: replace(r, rejected=(Rejection(OUTSIDER.address, "no-reply", ""),))),
        What.REJECTED,
        "round 2, lane 0",
    ),
    Lie(
        "an empty round that moves the aggregate",
        Lies(record=lambda f, r: r if r.admitted else replace(r, aggregate=f.genesis.shared_a)),
        What.AGGREGATE,
        f"round 2, lane 0, {ROUND_2_FAILED}",
    ),
    Lie("NaN in an update", filled(np.nan), What.FINITE, f"round 2, lane 0, {SECOND}"),
    Lie("infinity in an update", filled(np.inf), What.FINITE, f"round 2, lane 0, {SECOND}"),
    Lie("a norm above the bound", filled(5.0), What.NORM, f"round 2, lane 0, {SECOND}"),
    Lie("float64", one_array(lambda array: array.astype(np.float64)), What.DTYPE, f"round 2, lane 0, {SECOND}"),
    Lie("a shape that broadcasts", one_array(lambda array: array[:1]), What.SHAPE, f"round 2, lane 0, {SECOND}"),
    Lie(
        "a tensor too few",
        update(lambda s: AdapterState(dict(list(s.arrays.items())[1:]))),
        What.TENSORS,
        f"round 2, lane 0, {SECOND}",
    ),
    Lie(
        "a tensor too many",
        update(lambda s: AdapterState({**s.arrays, "x": np.zeros(1, np.float32)})),
        What.TENSORS,
        f"round 2, lane 0, {SECOND}",
    ),
    Lie("another root committed", commitment(updates_root=OTHER), What.UPDATES_ROOT, "round 2, lane 0"),
    Lie("another aggregate committed", commitment(aggregate=OTHER), What.COMMITMENT, "round 2, lane 0"),
    Lie("another count committed", commitment(count=4), What.COUNT, "round 2, lane 0"),
    Lie(
        "fewer than the quorum",
        Lies(
            genesis=lambda g: replace(g, participation=replace(g.participation, quorum=3)),
            record=lambda _, r: replace(r, admitted=r.admitted[:2]),
        ),
        What.QUORUM,
        "round 1, lane 0",
    ),
    Lie("another shared A", Lies(genesis=lambda g: replace(g, shared_a=OTHER)), What.SHARED_A, "genesis.json"),
    Lie("another seed", Lies(genesis=lambda g: replace(g, seed=8)), What.SHARED_A, "genesis.json"),
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name)
def test_a_lie_that_was_signed_and_committed_is_found(tmp_path: Path, lie: Lie) -> None:
    federation = build(tmp_path / "run", organisations=3, failed={(0, 2): 1}, lies=lie.lies)
    assert_first(verify(federation.run, federation.ledger), lie.what, lie.where)


def test_a_member_of_another_lane_is_found(tmp_path: Path) -> None:
    def moved(federation: Federation, r: RoundRecord) -> RoundRecord:
        if r.lane == 0 or r.round == 1:
            return r
        other = next(n for n, key in federation.members.items() if key.address == federation.genesis.lanes[0][0])
        manifest = replace(r.admitted[0].signed.value, organisation=federation.members[other].address)
        signed = manifest.sign(federation.members[other], federation.genesis.chain)
        return replace(r, admitted=(Admitted(signed, 1.0),))

    federation = build(tmp_path / "run", lanes=2, lies=Lies(record=moved))
    assert_first(verify(federation.run, federation.ledger), What.LANE, "round 2, lane 1")


def test_svd_factors_that_miss_the_product_are_found(tmp_path: Path) -> None:
    def off(federation: Federation, r: RoundRecord) -> RoundRecord:
        state = federation.run.artifacts.open(r.aggregate)
        scaled = AdapterState({n: a * np.float32(1.001) for n, a in state.arrays.items()})
        return replace(r, aggregate=federation.run.artifacts.put(scaled))

    federation = build(tmp_path / "run", rule="svd", lies=record(off))
    assert_first(verify(federation.run, federation.ledger), What.AGGREGATE, "round 2, lane 0")


def test_svd_factors_of_another_machine_hold(tmp_path: Path) -> None:
    def turned(federation: Federation, r: RoundRecord) -> RoundRecord:
        """The same product from factors of other signs, which is as good an answer."""
        state = federation.run.artifacts.open(r.aggregate)
        return replace(
            r, aggregate=federation.run.artifacts.put(AdapterState({n: -a for n, a in state.arrays.items()}))
        )

    federation = build(tmp_path / "run", rule="svd", lies=record(turned))
    report = verify(federation.run, federation.ledger)
    assert failures(report) == []
    assert report.recomputed == 2
    assert svd_tolerance(16) < 1e-6


# ------------------------------------------------------------------------------------------------------- the ledger


class Lying(MemoryLedger):
    """A ledger that answers something else."""

    def __init__(
        self,
        honest: Ledger,
        change: Callable[[RoundCommitment, Anchor], tuple[RoundCommitment, Anchor]] | None = None,
        error: LedgerError | None = None,
    ) -> None:
        self.__dict__.update(deepcopy(honest.__dict__))
        self.change, self.error, self.asked = change, error, 0

    def read(self, key: RoundKey) -> tuple[RoundCommitment, Anchor] | None:
        self.asked += 1
        if self.error:
            raise self.error
        found = super().read(key)
        return self.change(*found) if found and self.change else found


def without_round(federation: Federation, number: int) -> MemoryLedger:
    ledger = Lying(federation.ledger)
    del ledger._rounds[RoundKey(federation.genesis.digest, 0, 0, number)]
    return ledger


def test_a_ledger_of_another_chain_is_found(honest: Federation) -> None:
    ledger = Lying(honest.ledger)
    ledger.domain = replace(ledger.domain, chain_id=5)
    assert_first(verify(honest.run, ledger), What.CHAIN_ID, "genesis.json")


def test_a_ledger_of_another_contract_is_found(honest: Federation) -> None:
    ledger = Lying(honest.ledger)
    ledger.domain = replace(ledger.domain, contract=OUTSIDER.address)
    assert_first(verify(honest.run, ledger), What.CONTRACT, "genesis.json")


def test_a_ledger_with_other_members_is_found(honest: Federation) -> None:
    ledger = Lying(honest.ledger)
    ledger._members[honest.genesis.digest] = frozenset([OUTSIDER.address])
    assert_first(verify(honest.run, ledger), What.MEMBERS, "genesis.json")


def test_a_ledger_that_never_heard_of_the_run_is_found(honest: Federation) -> None:
    report = verify(honest.run, MemoryLedger())
    assert [failure.what for failure in report.failures] == [What.MEMBERS, What.NOT_ON_LEDGER, What.NOT_ON_LEDGER]


def test_a_round_that_the_ledger_forgot_is_found(honest: Federation) -> None:
    assert_first(
        verify(honest.run, without_round(honest, 2)), What.NOT_ON_LEDGER, "round 2, lane 0, anchors.jsonl, line 4"
    )


def test_a_finished_run_must_be_on_the_ledger(honest: Federation) -> None:
    without_line(honest, "anchors.jsonl", 3)
    assert_first(verify(honest.run, without_round(honest, 2)), What.NOT_ON_LEDGER, "round 2, lane 0")


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("count", 7, What.COUNT),
        ("updates_root", OTHER, What.UPDATES_ROOT),
        ("aggregate", OTHER, What.COMMITMENT),
        ("parent", OTHER, What.COMMITTED_PARENT),
    ],
)
def test_a_ledger_that_holds_something_else_is_found(honest: Federation, field: str, value: Any, what: What) -> None:
    ledger = Lying(honest.ledger, lambda c, anchor: (replace(c, **{field: value}), anchor))
    assert_first(verify(honest.run, ledger), what, f"round 1, lane 0, {SALTS_1}")


@pytest.mark.parametrize(("field", "value"), [("transaction", "0x01"), ("block", 77)])
def test_a_round_that_moved_on_the_chain_is_found(honest: Federation, field: str, value: Any) -> None:
    ledger = Lying(honest.ledger, lambda c, anchor: (c, replace(anchor, **{field: value})))
    assert_first(verify(honest.run, ledger), What.ANCHOR, "round 1, lane 0, anchors.jsonl, line 2")


def test_a_ledger_that_does_not_answer_is_one_failure_and_asked_once(honest: Federation) -> None:
    ledger = Lying(honest.ledger, error=LedgerUnreachableError("nothing answers at 127.0.0.1:1"))
    report = verify(honest.run, ledger)
    assert [failure.what for failure in report.failures] == [What.CHAIN_UNREACHABLE]
    assert (ledger.asked, report.recomputed) == (1, 2)


def test_a_ledger_that_contradicts_itself_is_found_in_every_round(honest: Federation) -> None:
    ledger = Lying(honest.ledger, error=LedgerError("event and storage of round 1 disagree"))
    report = verify(honest.run, ledger)
    assert {failure.what for failure in report.failures} == {What.LEDGER}
    assert "round 1, lane 0" in report.failures[0].where


# --------------------------------------------------------------------------------------------------------- the chain


def test_a_chain_that_cannot_be_reached_is_a_failure_and_the_files_are_audited(honest: Federation) -> None:
    report = verify_on_chain(honest.run, "http://127.0.0.1:9", honest.run.folder.parent)
    assert [failure.what for failure in report.failures] == [What.CHAIN_UNREACHABLE]
    assert report.recomputed == 2


def test_a_genesis_that_cannot_be_read_needs_no_chain(honest: Federation) -> None:
    put("genesis.json", b"{")(honest)
    report = verify_on_chain(honest.run, "http://127.0.0.1:9", honest.run.folder.parent)
    assert [failure.what for failure in report.failures] == [What.GENESIS]


@pytest.fixture(scope="module")
def on_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Federation, Path]]:
    """A run whose rounds are on the embedded chain of a state folder."""
    state = tmp_path_factory.mktemp("state")
    ledger = open_ledger("embedded", state, COORDINATOR)
    yield build(state / "runs" / "run", organisations=3, lanes=2, ledger=ledger), state
    embedded_service(state).stop()


@pytest.mark.chain
def test_an_honest_run_on_the_embedded_chain_holds(on_chain: tuple[Federation, Path]) -> None:
    federation, state = on_chain
    report = verify_on_chain(federation.run, "embedded", state)
    assert failures(report) == []
    assert (report.recomputed, report.checked["commitments"]) == (4, 4)


@pytest.mark.chain
@pytest.mark.parametrize("name", [SALTS_1, "anchors.jsonl", "genesis.json"])
def test_a_flipped_byte_is_found_from_the_embedded_chain(on_chain: tuple[Federation, Path], name: str) -> None:
    federation, state = on_chain
    path = federation.run.folder / name
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    try:
        report = verify_on_chain(type(federation.run)(federation.run.folder), "embedded", state)
    finally:
        path.write_bytes(data)
    assert any(name in failure.where for failure in report.failures), failures(report)


@pytest.mark.chain
def test_a_contract_that_is_not_there_is_a_failure(on_chain: tuple[Federation, Path]) -> None:
    federation, state = on_chain
    report = verify_on_chain(federation.run, "embedded", state, contract=OUTSIDER.address)
    assert [failure.what for failure in report.failures] == [What.CONTRACT]
