"""The audit of an outsider: a public chain, a store of artifacts and an auditor's key, nothing else of the run.

The store holds a sealed copy of every document of the run folder (core/storage/artifacts.py). They are unsealed into a
temporary folder, which is audited as the run itself would be.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from chain.audit.files import is_document
from chain.audit.run import AuditReport, Failure, What, verify_on_chain
from core.canonical import Address
from core.errors import DestroyedError, FoedusError, UsageError
from core.keys import Key
from core.storage.artifacts import Artifacts
from core.storage.blobs import open_blobs
from core.storage.readers import NOBODY
from core.storage.run_folder import RunFolder


def verify_from_outside(
    url: str, contract: Address, store: str, key: Key, *, private: str = "none", strict: bool = True
) -> tuple[str, AuditReport]:
    """The run's id and the audit of the documents in `store`, against a contract on the chain at `url`.

    `store` is the folder or URL of one run's artifacts, `key` that of one of its auditors; `private` is the URL of the
    members' chain, for who may read it. Every round must be on the chain, unless `strict` is False. Raises UsageError
    when no run lies there, or the key opens none of it.
    """
    with unsealed(store, key) as (run, failures):
        report = verify_on_chain(run, url, run.folder.parent, private=private, contract=contract, strict=strict)
        return run.genesis.run, replace(report, failures=(*failures, *report.failures))


@contextmanager
def unsealed(store: str, key: Key) -> Iterator[tuple[RunFolder, list[Failure]]]:
    """A run in a store, with its documents unsealed into a folder for the block, and the failures among them.

    Raises UsageError when no run lies there, or the key opens none of it.
    """
    artifacts = Artifacts(open_blobs(store), "", NOBODY, key)
    # An object store may hold any name, and anybody can seal something for an auditor: a name that is none of ours
    # could lead out of the folder.
    names = [name for name in artifacts.documents() if is_document(name)]
    if "genesis.json" not in names:
        raise UsageError(f"store {store} holds no run: expected genesis.sealed, got {len(names)} other documents")
    try:
        artifacts.open_document("genesis.json")
    except FoedusError as error:
        raise UsageError(f"store {store} cannot be read with the key of {key.address}: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run", store, key)
        yield run, [failure for name in names if (failure := _unseal(artifacts, name, run.folder))]


def _unseal(artifacts: Artifacts, name: str, folder: Path) -> Failure | None:
    """Write a document to the folder; one that cannot be opened is a failure, unless its key is gone."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_bytes(artifacts.open_document(name))
    except DestroyedError:
        return None  # the audit asks for an erasure that lists it
    except FoedusError as error:
        return Failure(What.COPY.value, f"artifacts/{name}", str(error), f"a sealed copy of {name}")
    return None
