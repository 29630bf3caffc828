"""What an outsider unseals: the documents of a run, and nothing that a store's owner would like to be written."""

from pathlib import Path
from typing import Any

import pytest

import chain.audit.outside
from chain.audit.outside import verify_from_outside
from chain.audit.run import AuditReport, verify
from core import keys
from core.canonical import Address, to_json
from core.errors import UsageError
from core.storage.blobs import Folder
from core.storage.run_folder import RunFolder
from core.storage.sealing import Wraps, seal
from tests.behaviours.runs import SEED, Federation, build

AUDITOR = keys.derive(SEED, "auditor")
URL, CONTRACT = "http://127.0.0.1:1", Address("0x" + "11" * 20)


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Federation:
    made = build(tmp_path / "run", auditors=(AUDITOR,))

    def on_memory(run: RunFolder, url: str, state: Path, **choices: Any) -> AuditReport:
        assert (url, choices["contract"], state) == (URL, CONTRACT, run.folder.parent)
        return verify(run, made.ledger, strict=choices["strict"])

    monkeypatch.setattr(chain.audit.outside, "verify_on_chain", on_memory)
    return made


def outside(federation: Federation, key: keys.Key = AUDITOR) -> tuple[str, AuditReport]:
    return verify_from_outside(URL, CONTRACT, str(federation.run.folder / "artifacts"), key)


def test_a_store_alone_is_audited_as_the_run_is(federation: Federation) -> None:
    name, report = outside(federation)
    assert name == federation.genesis.run
    assert report.failures == ()
    assert report.recomputed == 2


def test_every_member_of_a_lane_of_all_can_do_it(federation: Federation) -> None:
    member = next(iter(federation.members.values()))
    assert outside(federation, member)[1].ok


def test_a_stranger_cannot(federation: Federation) -> None:
    with pytest.raises(UsageError, match="cannot be read with the key of"):
        outside(federation, keys.derive(SEED, "stranger"))


def test_a_document_whose_key_was_destroyed_without_an_erasure_is_missed(federation: Federation) -> None:
    federation.run.artifacts.destroy_document("salts/L0000-G0000-R00001-A01.json")
    first = outside(federation)[1].failures[0]
    assert first.what == "salts"
    assert "salts/L0000-G0000-R00001-A01.json" in first.where


def test_a_document_that_was_changed_is_named_first(federation: Federation) -> None:
    path = federation.run.folder / "artifacts" / "salts" / "L0000-G0000-R00001-A01.sealed"
    path.write_bytes(path.read_bytes()[:-1])
    first = outside(federation)[1].failures[0]
    assert first.what == "sealed copy"
    assert "salts/L0000-G0000-R00001-A01.json" in first.where


@pytest.mark.parametrize("name", ["../../evil", "records/../../evil", "/tmp/evil", "notes"])  # noqa: S108 - never written
def test_a_store_writes_nothing_but_documents(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """An object store may hold any name, and anybody can seal something for an auditor."""
    folder = Folder(federation.run.folder / "artifacts")
    key, label = bytes(32), b"foedus/sealed/v1\0" + name.encode()
    monkeypatch.setitem(EXTRA, f"{name}.sealed", b"".join(seal(key, label, [b"{}"])))
    monkeypatch.setitem(EXTRA, f"{name}.keys", to_json(Wraps.of(key, label, [AUDITOR.public]).to_dict()))
    monkeypatch.setattr(chain.audit.outside, "open_blobs", lambda store: Owned(folder.folder))
    monkeypatch.setattr(chain.audit.outside.Path, "write_bytes", checked(Path.write_bytes))
    assert outside(federation)[1].recomputed == 2


EXTRA: dict[str, bytes] = {}


class Owned(Folder):
    """A store whose owner has put more into it."""

    def names(self) -> list[str]:
        return sorted([*super().names(), *EXTRA])

    def read(self, name: str) -> bytes | memoryview:
        return EXTRA[name] if name in EXTRA else super().read(name)


def checked(write: Any) -> Any:
    def write_bytes(path: Path, data: bytes) -> int:
        assert path.suffix == ".json"
        assert path.stem in ("genesis", "readers") or path.parent.name in ("records", "salts"), path
        written: int = write(path, data)
        return written

    return write_bytes
