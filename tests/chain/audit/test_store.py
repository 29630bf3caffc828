"""The store: every document has its copy, and no file is left that nothing asked for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from chain.audit.files import Files
from chain.audit.generations import GenerationAudit
from chain.audit.report import Findings, What
from chain.audit.store import StoreAudit
from tests.behaviours.runs import Federation, build

RECORD = "records/L0000-G0000-R00001-A01"
BLOCK = "blocks/ab/" + "cd" * 31


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "run", rounds=1)


def audited(federation: Federation, *, complete: bool = True, readers_known: bool = True) -> StoreAudit:
    """The store after every document and block was asked for by another check."""
    files, findings = Files(federation.run), Findings()
    generations = GenerationAudit.read(federation.genesis, files, findings)
    audit = StoreAudit(federation.run.artifacts, files, findings, generations, readers_known, complete)
    for name in files.names:
        if not name.startswith("artifacts/"):
            files.take(name)
        elif "/blocks/" in name:
            files.take_sealed(name.removeprefix("artifacts/").rpartition(".")[0])
    return audit


def kinds(audit: StoreAudit) -> list[tuple[str, str]]:
    return [(failure.what, failure.where) for failure in audit.findings.failures]


def test_every_document_has_its_copy_and_nothing_is_left(federation: Federation) -> None:
    audit = audited(federation)
    audit.check_copies()
    audit.check_leftovers()
    assert kinds(audit) == []
    assert audit.findings.checked["sealed copies"] == 4  # genesis, readers, a record and its salts
    assert audit.findings.checked["files"] == len(audit.files.names)


def test_a_copy_of_another_document_is_named(federation: Federation) -> None:
    (federation.run.folder / f"{RECORD}.json").write_bytes(b"{}")
    audit = audited(federation)
    audit.check_copies()
    assert kinds(audit) == [(What.COPY, f"artifacts/{RECORD}.sealed")]


def test_a_copy_that_not_everybody_can_open_is_named(federation: Federation) -> None:
    folder = federation.run.folder / "artifacts"
    (folder / f"{RECORD}.keys").write_bytes((folder / "genesis.keys").read_bytes())
    audit = audited(federation)
    audit.check_copies()
    assert (What.WRAPS, f"artifacts/{RECORD}.keys") in kinds(audit)


@pytest.mark.parametrize("complete", [False, True])
def test_a_copy_that_is_missing_is_pending_while_the_run_goes_on(federation: Federation, complete: bool) -> None:
    for suffix in (".sealed", ".keys"):
        (federation.run.folder / "artifacts" / f"{RECORD}{suffix}").unlink()
    audit = audited(federation, complete=complete)
    audit.check_copies()
    assert bool(kinds(audit)) == complete
    assert audit.findings.checked["pending copies"] == (not complete)


def touch(name: str) -> Callable[[Federation], None]:
    def make(federation: Federation) -> None:
        path = federation.run.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    return make


def copy_of_a_block(federation: Federation) -> None:
    """Somebody's block under a name that is not its own."""
    store = federation.run.folder / "artifacts"
    block = next(store.glob("blocks/*/*.sealed"))
    for suffix in (".sealed", ".keys"):
        target = store / f"{BLOCK}{suffix}"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(block.with_suffix(suffix).read_bytes())


@pytest.mark.parametrize(
    ("spoil", "what", "where"),
    [
        (touch("notes.txt"), What.UNEXPECTED_FILE, "notes.txt"),
        (touch("artifacts/records/L0000-G0000-R00009-A01.sealed"), What.UNEXPECTED_FILE, "R00009"),
        (touch(f"artifacts/{BLOCK}.keys"), What.ARTIFACT, BLOCK),
        (copy_of_a_block, What.ARTIFACT, BLOCK),
    ],
)
def test_a_file_that_nothing_asks_for_is_named(
    federation: Federation, spoil: Callable[[Federation], None], what: What, where: str
) -> None:
    spoilt = audited(federation)
    spoil(federation)
    spoilt.files = Files(federation.run)
    for name in audited(federation).files.names:
        if where not in name:
            spoilt.files._left.pop(name)
    spoilt.check_leftovers()
    (failure,) = kinds(spoilt)
    assert failure[0] == what
    assert where in failure[1]


def test_what_a_crash_or_a_run_in_progress_leaves_is_counted(federation: Federation) -> None:
    touch("records/.L0000-G0000-R00002-A01.json.17.partial")(federation)
    audit = audited(federation)
    audit.files._left["records/.L0000-G0000-R00002-A01.json.17.partial"] = None
    audit.files._left["artifacts/records/L0000-G0000-R00002-A01.sealed"] = None
    touch("records/L0000-G0000-R00002-A01.json")(federation)  # since the files were listed
    audit.check_copies()
    audit.check_leftovers()
    assert kinds(audit) == []
    assert (audit.findings.checked["partial files"], audit.findings.checked["pending copies"]) == (1, 1)
