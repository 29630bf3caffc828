"""The audit of what is sealed and of what is private: every kind of tampering is found and named."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from chain.audit.run import AuditReport, What, verify
from chain.commitments import PrivateCommitment
from core import keys
from core.adapter import AdapterState
from core.aggregation import by_address
from core.canonical import digest, to_json
from core.errors import LedgerError, LedgerUnreachableError
from core.ledger import Anchor
from core.round_key import RoundKey
from core.storage.artifacts import Artifacts
from core.storage.run_folder import RunFolder
from core.storage.sealing import Wraps
from tests.behaviours.runs import COORDINATOR, NAMES, SEED, Federation, Lies, MemoryPrivate, advance, build, found

FIRST, SECOND, THIRD = sorted(NAMES[:3], key=lambda name: by_address(keys.derive(SEED, name).address))
AUDITOR, OUTSIDER = keys.derive(SEED, "auditor"), keys.derive(SEED, "outsider")
RECORD_1, RECORD_2 = (f"records/L0000-G0000-R0000{number}-A01.json" for number in (1, 2))
OTHER = digest("other", b"")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Three organisations, an auditor, two rounds, a private chain that is anchored after every round."""
    folder = tmp_path_factory.mktemp("original") / "run"
    return build(folder, organisations=3, auditors=(AUDITOR,), private=MemoryPrivate())


@pytest.fixture
def honest(original: Federation, tmp_path: Path) -> Federation:
    """A copy that a test may spoil."""
    shutil.copytree(original.run.folder, tmp_path / "run")
    private = MemoryPrivate()
    private.__dict__.update(original.private.__dict__ | {"rounds": dict(original.private.rounds)})
    return replace(original, run=RunFolder(tmp_path / "run", key=AUDITOR), private=private)


def audited(federation: Federation, *, strict: bool = False) -> AuditReport:
    return verify(federation.run, federation.ledger, private=federation.private, strict=strict)


def assert_first(report: AuditReport, what: What, where: str) -> None:
    shown = [str(failure) for failure in report.failures]
    assert not report.ok
    assert report.failures[0].what == what, shown
    assert where in report.failures[0].where, shown


# --- honest runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [COORDINATOR, AUDITOR, keys.derive(SEED, FIRST)])
def test_every_reader_of_a_lane_of_all_audits_the_run(honest: Federation, key: keys.Key) -> None:
    report = audited(replace(honest, run=honest.run.read_with(key)))
    assert report.failures == ()
    assert (report.recomputed, report.attested) == (2, 0)
    assert report.checked["private commitments"] == 2
    assert report.checked["private heads"] == 1
    assert report.checked["readers"] == 5
    assert report.checked["sealed copies"] == 6


def test_a_member_of_one_lane_cannot_audit_another(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", lanes=2)
    name = federation.names(0)[0]
    run = federation.run.read_with(federation.members[name])
    found = {
        failure.where.split(", ")[1] for failure in verify(run, federation.ledger).failures if "," in failure.where
    }
    assert found == {"lane 1"}
    assert verify(federation.run, federation.ledger).ok


def test_without_the_private_chain_the_rest_is_audited(honest: Federation) -> None:
    report = verify(honest.run, honest.ledger)
    assert report.failures == ()
    assert "private commitments" not in report.checked


def test_a_run_without_a_private_chain_has_nothing_private(tmp_path: Path) -> None:
    federation = build(tmp_path / "run")
    report = verify(federation.run, federation.ledger, private=MemoryPrivate())
    assert report.failures == ()
    assert "private commitments" not in report.checked


def test_rounds_between_two_anchors_need_none(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=3, private=MemoryPrivate(anchor_every=2))
    report = audited(federation)
    assert report.failures == ()
    assert report.checked["private heads"] == 1


def test_a_run_that_goes_on_may_be_behind_on_its_private_chain(tmp_path: Path) -> None:
    federation = found(tmp_path / "run", rounds=3, private=MemoryPrivate())
    advance(federation, 2)
    forget(federation, 2)
    edit_lines("private.jsonl", lambda lines: lines[:-1])(federation)
    report = audited(federation)
    assert report.failures == ()
    assert report.checked["pending"] == 1
    assert_first(audited(federation, strict=True), What.NOT_ON_LEDGER, "round 2, lane 0")


def test_a_copy_that_a_crash_left_out_is_made_up_for(tmp_path: Path) -> None:
    federation = found(tmp_path / "run", rounds=3)
    advance(federation, 2)
    remove(copy_of(RECORD_2, ".keys"))(federation)
    report = audited(federation)
    assert report.failures == ()
    assert report.checked["pending copies"] == 1
    federation.run.complete_copies()
    assert "pending copies" not in audited(federation).checked


def test_a_run_without_a_key_is_one_finding_first(honest: Federation) -> None:
    run = RunFolder(honest.run.folder)
    assert audited(replace(honest, run=run)).ok  # the coordinator's key is derived
    edit("genesis.json", lambda g: g.update(seed=8))(honest)
    assert_first(audited(replace(honest, run=RunFolder(run.folder))), What.READERS, "genesis.json")


def test_a_store_behind_a_url_is_audited_alike(tmp_path: Path) -> None:
    federation = found(tmp_path / "run")
    store = f"memory://{tmp_path.name}"
    (tmp_path / "run").rename(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "run", ignore=shutil.ignore_patterns("artifacts"))
    run = RunFolder(tmp_path / "run", store, COORDINATOR)
    for path in (tmp_path / "old" / "artifacts").rglob("*.*"):
        run.blobs.write(path.relative_to(tmp_path / "old" / "artifacts").as_posix(), [path.read_bytes()])
    federation.run = run
    advance(federation, 2)
    assert audited(federation).failures == ()
    run.blobs.write("notes.txt", [b"x"])
    assert_first(audited(federation), What.UNEXPECTED_FILE, "artifacts/notes.txt")


# --- tampering -----------------------------------------------------------------------------------------------------

Tampering = Callable[[Federation], object]


def edit(name: str, change: Callable[[Any], object]) -> Tampering:
    """Change a JSON file of the run folder and write it canonically."""

    def tamper(federation: Federation) -> None:
        path = federation.run.folder / name
        plain = json.loads(path.read_bytes())
        change(plain)
        path.write_bytes(to_json(plain))

    return tamper


def edit_lines(name: str, change: Callable[[list[bytes]], list[bytes]]) -> Tampering:
    def tamper(federation: Federation) -> None:
        path = federation.run.folder / name
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))

    return tamper


def edit_line(number: int, change: Callable[[Any], object]) -> Tampering:
    """Change a line of the private commit queue."""

    def changed(lines: list[bytes]) -> list[bytes]:
        plain = json.loads(lines[number - 1])
        change(plain)
        lines[number - 1] = to_json(plain) + b"\n"
        return lines

    return edit_lines("private.jsonl", changed)


def remove(name: str) -> Tampering:
    return lambda federation: (federation.run.folder / name).unlink()


def copy_of(document: str, suffix: str) -> str:
    return f"artifacts/{document.removesuffix('.json')}{suffix}"


def flip(name: Callable[[Federation], str]) -> Tampering:
    def tamper(federation: Federation) -> None:
        path = federation.run.folder / name(federation)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return tamper


def place(federation: Federation, name: str, number: int = 1) -> str:
    """Where an organisation's update lies in the run folder, without its suffix."""
    path = federation.run.folder / f"records/L0000-G0000-R0000{number}-A01.json"
    (update,) = (
        entry["signed"]["value"]["update"]
        for entry in json.loads(path.read_bytes())["value"]["admitted"]
        if entry["signed"]["value"]["organisation"] == federation.members[name].address
    )
    return f"artifacts/{federation.run.artifacts.place(update)}"


def swap(suffix: str) -> Tampering:
    """Two organisations' files change places."""

    def tamper(federation: Federation) -> None:
        one, two = (federation.run.folder / f"{place(federation, name)}{suffix}" for name in (FIRST, SECOND))
        data = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(data)

    return tamper


def spoil_wraps(change: Callable[[dict[str, str], Federation], object]) -> Tampering:
    """Change the wraps of the second organisation's update of round 1."""

    def tamper(federation: Federation) -> None:
        edit(f"{place(federation, SECOND)}.keys", lambda plain: change(plain["wraps"], federation))(federation)

    return tamper


def sealed_anew(federation: Federation) -> None:
    """The coordinator seals another state under an update's name, for everyone."""
    state = AdapterState({name: array * 2 for name, array in federation.update(0, FIRST).arrays.items()})
    where = place(federation, FIRST)
    for suffix in (".sealed", ".keys"):
        (federation.run.folder / f"{where}{suffix}").unlink()
    federation.run.artifacts._put(where.removeprefix("artifacts/"), state.parts(), None)


def leave_out(federation: Federation) -> None:
    """The coordinator seals a copy of a record for itself alone."""
    store = federation.run.artifacts
    name = RECORD_1.removesuffix(".json")
    key = store.unlock(name).key
    store._write_wraps(name, Wraps.of(key, b"foedus/sealed/v1\0" + name.encode(), [AUDITOR.public]))


def with_a_stranger(federation: Federation) -> None:
    """The coordinator seals an update for somebody whom the genesis does not name."""
    store, where = federation.run.artifacts, place(federation, FIRST).removeprefix("artifacts/")
    readers = [*store.readers.of(), OUTSIDER.public]
    store._write_wraps(where, Wraps.of(store.unlock(where).key, b"foedus/sealed/v1\0" + where.encode(), readers))


def another_document(federation: Federation) -> None:
    """A sealed copy says something else than the document."""
    store: Artifacts = federation.run.artifacts
    store.destroy_document(RECORD_1)
    store.put_document(RECORD_1, (federation.run.folder / RECORD_2).read_bytes())


def destroyed(federation: Federation) -> None:
    (federation.run.folder / f"{place(federation, THIRD, 2)}.keys").unlink()


def private(federation: Federation) -> MemoryPrivate:
    assert federation.private
    return federation.private


def forget(federation: Federation, number: int) -> None:
    del private(federation).rounds[RoundKey(federation.genesis.digest, 0, 0, number)]
    private(federation).head = private(federation).head and replace(
        private(federation).head, number=1, block_hash=private(federation).block_hash(1)
    )


def recorded(**changes: Any) -> Tampering:
    """The private chain says something else of round 2."""

    def tamper(federation: Federation) -> None:
        key = RoundKey(federation.genesis.digest, 0, 0, 2)
        commitment, anchor = private(federation).rounds[key]
        private(federation).rounds[key] = replace(commitment, **changes), anchor

    return tamper


def moved(federation: Federation) -> None:
    key = RoundKey(federation.genesis.digest, 0, 0, 2)
    commitment, anchor = private(federation).rounds[key]
    private(federation).rounds[key] = commitment, replace(anchor, transaction="0x01")


def head(**changes: Any) -> Tampering:
    def tamper(federation: Federation) -> None:
        private(federation).head = replace(private(federation).head, **changes)

    return tamper


def unanchored(federation: Federation) -> None:
    private(federation).head = None


def keys_of_nothing(federation: Federation) -> None:
    path = federation.run.folder / f"{place(federation, FIRST)}.keys"
    shutil.copy(path, path.with_name("0" * 62 + ".keys"))


def other_chain(federation: Federation, **changes: Any) -> None:
    private(federation).domain = replace(private(federation).domain, **changes)


@dataclass(frozen=True)
class Case:
    """A kind of tampering and the first failure that it must lead to."""

    name: str
    tamper: Tampering
    what: What
    where: str


CASES = [
    Case("a byte of an update's ciphertext", flip(lambda f: f"{place(f, FIRST)}.sealed"), What.UPDATE, FIRST),
    Case("two updates' ciphertexts swapped", swap(".sealed"), What.UPDATE, f"round 1, lane 0, {FIRST}"),
    Case("two updates' keys swapped", swap(".keys"), What.UPDATE, f"round 1, lane 0, {FIRST}, artifacts/blocks/"),
    Case("two updates swapped, keys and all", lambda f: (swap(".sealed")(f), swap(".keys")(f)), What.UPDATE, FIRST),
    Case("an update's key destroyed", destroyed, What.DESTROYED, f"round 2, lane 0, {THIRD}"),
    Case("another update sealed by the coordinator", sealed_anew, What.UPDATE, f"round 1, lane 0, {FIRST}"),
    Case(
        "a wrap that its reader cannot open",
        spoil_wraps(lambda wraps, f: wraps.update({f.members[FIRST].address: "00" * 48})),
        What.WRAPS,
        f"round 1, lane 0, {SECOND}",
    ),
    Case(
        "two readers' wraps swapped",
        spoil_wraps(
            lambda wraps, f: wraps.update(
                {
                    f.members[FIRST].address: wraps[f.members[THIRD].address],
                    f.members[THIRD].address: wraps[f.members[FIRST].address],
                }
            )
        ),
        What.WRAPS,
        SECOND,
    ),
    Case(
        "a reader left out",
        spoil_wraps(lambda wraps, f: wraps.pop(f.members[SECOND].address)),
        What.WRAPS,
        f"round 1, lane 0, {SECOND}",
    ),
    Case("the auditor left out", spoil_wraps(lambda wraps, _: wraps.pop(AUDITOR.address)), What.UPDATE, SECOND),
    Case("a stranger let in", with_a_stranger, What.WRAPS, f"round 1, lane 0, {FIRST}"),
    Case(
        "the ephemeral key of a wrap",
        lambda f: edit(f"{place(f, FIRST)}.keys", lambda k: k.update(ephemeral=OUTSIDER.public))(f),
        What.UPDATE,
        ".keys",
    ),
    Case(
        "a field too many among the keys",
        lambda f: edit(f"{place(f, FIRST)}.keys", lambda k: k.update(more=1))(f),
        What.UPDATE,
        ".keys",
    ),
    Case("a byte of a copy", flip(lambda _: copy_of(RECORD_1, ".sealed")), What.COPY, copy_of(RECORD_1, ".sealed")),
    Case("a copy of another document", another_document, What.COPY, copy_of(RECORD_1, ".sealed")),
    Case("a copy left out", remove(copy_of("genesis.json", ".sealed")), What.COPY, "artifacts/genesis.sealed"),
    Case("a copy's key destroyed", remove(copy_of(RECORD_2, ".keys")), What.WRAPS, copy_of(RECORD_2, ".keys")),
    Case("a copy that members cannot read", leave_out, What.WRAPS, copy_of(RECORD_1, ".keys")),
    Case(
        "a copy of nothing",
        lambda f: f.run.artifacts.put_document("records/L0000-G0000-R00009-A01.json", b"{}"),
        What.UNEXPECTED_FILE,
        "R00009",
    ),
    Case("keys of nothing", keys_of_nothing, What.ARTIFACT, "0" * 62),
    Case("no readers", remove("readers.json"), What.READERS, "readers.json"),
    Case(
        "a reader who is a stranger",
        edit("readers.json", lambda r: r["auditors"].append(OUTSIDER.public)),
        What.READERS,
        "readers.json",
    ),
    Case("a reader less", edit("readers.json", lambda r: r["organisations"].pop()), What.READERS, "readers.json"),
    Case(
        "another's public key",
        edit("readers.json", lambda r: r.update(coordinator=OUTSIDER.public)),
        What.READERS,
        "readers.json",
    ),
    Case("the genesis's auditors", edit("genesis.json", lambda g: g.update(auditors=[])), What.READERS, "readers.json"),
    Case("the genesis's salt", edit("genesis.json", lambda g: g.update(salt="00" * 32)), What.GENESIS, "genesis.json"),
    Case("other manifests", recorded(manifests=(OTHER,) * 3), What.MANIFESTS, "round 2, lane 0"),
    Case("other bids", recorded(bids=(OTHER,) * 3), What.BIDS, "round 2, lane 0"),
    Case("other allocations", recorded(allocations=(OTHER,) * 2), What.ALLOCATIONS, "round 2, lane 0"),
    Case("a private round that moved", moved, What.ANCHOR, "round 2, lane 0, private.jsonl, line 4"),
    Case("a private round forgotten", lambda f: forget(f, 1), What.NOT_ON_LEDGER, "round 1, lane 0"),
    Case("a private chain without an anchor", unanchored, What.PRIVATE_HEAD, "round 2, lane 0"),
    Case("an anchor older than its round", head(number=1), What.PRIVATE_HEAD, "round 2, lane 0"),
    Case("a private chain built anew", head(block_hash=OTHER), What.PRIVATE_HEAD, "round 2, lane 0"),
    Case("another private chain", lambda f: other_chain(f, chain_id=2), What.CHAIN_ID, "private"),
    Case("another private contract", lambda f: other_chain(f, contract=OUTSIDER.address), What.CONTRACT, "private"),
    Case("other members", lambda f: setattr(private(f), "organisations", frozenset()), What.MEMBERS, "private"),
    Case(
        "a private commitment that was sent",
        edit_line(1, lambda e: e["private"].update(bids=[OTHER])),
        What.BIDS,
        "private.jsonl, line 1",
    ),
    Case(
        "a private anchor's chain",
        edit_line(2, lambda e: e["anchor"].update(chain_id=9)),
        What.CHAIN_ID,
        "private.jsonl, line 2",
    ),
    Case("a private anchor's block", edit_line(2, lambda e: e["anchor"].update(block=9)), What.ANCHOR, "private.jsonl"),
    Case(
        "a private round that nobody recorded",
        edit_line(1, lambda e: e["private"]["key"].update(round=7)),
        What.NOT_RECORDED,
        "private.jsonl, line 1",
    ),
    Case(
        "a public line in the private queue",
        lambda f: shutil.copy(f.run.folder / "anchors.jsonl", f.run.folder / "private.jsonl"),
        What.QUEUE,
        "private.jsonl, line 1",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tampering_is_found_and_named(honest: Federation, case: Case) -> None:
    case.tamper(honest)
    assert_first(audited(honest), case.what, case.where)


@pytest.mark.parametrize(
    ("lie", "what"),
    [
        (lambda c: replace(c, manifests=c.manifests[::-1]), What.MANIFESTS),
        (lambda c: replace(c, bids=(OTHER, *c.bids[1:])), What.BIDS),
        (lambda c: replace(c, allocations=(OTHER, *c.allocations[1:])), What.ALLOCATIONS),
    ],
)
def test_a_lie_that_the_coordinator_records_privately_is_found(
    tmp_path: Path, lie: Callable[[PrivateCommitment], PrivateCommitment], what: What
) -> None:
    lies = Lies(private=lambda commitment: lie(commitment) if commitment.key.round == 2 else commitment)
    assert_first(audited(build(tmp_path / "run", private=MemoryPrivate(), lies=lies)), what, "round 2, lane 0")


@pytest.mark.parametrize(
    ("error", "what"), [(LedgerUnreachableError, What.CHAIN_UNREACHABLE), (LedgerError, What.LEDGER)]
)
def test_a_private_chain_that_does_not_answer_well_is_a_finding(
    honest: Federation, error: type[LedgerError], what: What
) -> None:
    class Broken(MemoryPrivate):
        def read(self, key: RoundKey) -> tuple[PrivateCommitment, Anchor] | None:
            raise error("no")

    broken = Broken()
    broken.__dict__.update(private(honest).__dict__)
    report = verify(honest.run, honest.ledger, private=broken)
    assert_first(report, what, "round 1, lane 0, private")
    assert len(report.failures) == (1 if error is LedgerUnreachableError else 2)


def test_a_store_that_cannot_be_listed_is_a_finding(honest: Federation) -> None:
    class Down:
        where = "nowhere"

        def names(self) -> list[str]:
            raise OSError("the bucket is gone")

    honest.run.__dict__["blobs"] = Down()
    assert_first(audited(honest), What.STORE, "artifacts")


def test_each_sealed_byte_counts(honest: Federation, tmp_path: Path) -> None:
    """A changed byte of any file of the store is found, and the file named."""
    for name in honest.run.blobs.names():
        path = honest.run.folder / "artifacts" / name
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        report = audited(honest)
        assert any(name in failure.where for failure in report.failures), name
        path.write_bytes(data)
    assert audited(honest).ok
