"""The store beside the artifacts that records name: sealed copies of documents, and everything that is left over.

Whoever has nothing but the store reads the same documents as the owner of the run folder. A file that no check has
asked for is a failure, with exceptions that a crash leaves or a run in progress adds.
"""

from contextlib import suppress
from dataclasses import dataclass

from chain.audit.files import Files, block_of, copied_document, generation_of, group_of, is_partial
from chain.audit.generations import GenerationAudit
from chain.audit.report import Findings, What
from core.errors import DestroyedError, IntegrityError
from core.storage.artifacts import KEYS, SEALED, Artifacts


@dataclass
class StoreAudit:
    """Checks the store once every record was audited."""

    artifacts: Artifacts
    files: Files
    findings: Findings
    generations: GenerationAudit
    readers_known: bool
    complete: bool
    """Whether every document must have its copy by now: a crash may leave the newest without one."""

    def check_copies(self) -> None:
        """The sealed copy of each document that was audited is the document, and its readers can read it."""
        for name in (document for document in self.files.documents() if document not in self.files.left):
            blob = name.removesuffix(".json")
            self.files.take_sealed(blob)
            keys = f"artifacts/{blob}{KEYS}"
            if keys not in self.files and not self.complete:
                self.findings.checked["pending copies"] += 1
                continue
            with self.findings.guard(What.WRAPS, keys, "a key that everyone who may read can open"):
                unlocked = self.artifacts.unlock(blob)
                with self.findings.guard(What.COPY, f"artifacts/{blob}{SEALED}", f"a sealed copy of {name}"):
                    if self.artifacts.open_document(name, unlocked) != (self.files.folder / name).read_bytes():
                        raise IntegrityError("another document")
                    self.findings.checked["sealed copies"] += 1
                if self.readers_known:
                    owner = generation_of(name)
                    self.artifacts.check_wraps(unlocked, self.generations.members(*owner) if owner else None)

    def check_leftovers(self) -> None:
        """No file is left that no check has asked for."""
        self.findings.checked["files"] = len(self.files.names)
        for name in self.files.left:
            document = copied_document(name)
            if is_partial(name):
                self.findings.checked["partial files"] += 1
            elif group := group_of(name):
                with self.findings.guard(What.WRAPS, name, "a key that each of a group's readers can open"):
                    if self.readers_known:
                        self.artifacts.check_group(group)
                        self.findings.checked["group keys"] += 1
            elif block := block_of(name):
                self._check_unnamed(name, block)
            elif document and document not in self.files and (self.files.folder / document).exists():
                # The document was written while the audit went on.
                self.findings.checked["pending copies"] += 1
            else:
                self.findings.fail(What.UNEXPECTED_FILE, name, "a file", "none: no record asks for it")

    def _check_unnamed(self, name: str, block: str) -> None:
        """A block that no record names: newer than the audit, or left by a crash."""
        if name.endswith(KEYS):
            if f"artifacts/{block}{SEALED}" not in self.files:
                self.findings.fail(What.ARTIFACT, name, "keys", "something that they open")
            return
        self.findings.checked["unreferenced artifacts"] += 1
        with (
            self.findings.guard(What.ARTIFACT, name, "the AdapterState that it is named for"),
            suppress(DestroyedError),
        ):
            self.artifacts.check_block(block)
