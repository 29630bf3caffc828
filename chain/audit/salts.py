"""The salts of records: there for every round that was committed, unless an erasure destroyed them."""

from dataclasses import dataclass

from chain.audit.erasures import ErasureAudit
from chain.audit.files import Files, RecordFile
from chain.audit.report import Findings, What
from core.errors import IntegrityError
from core.rounds import RoundRecord, Salts
from core.storage.artifacts import KEYS


@dataclass
class SaltAudit:
    """Reads the salts that hide a round's digests on the ledger."""

    files: Files
    findings: Findings
    erasures: ErasureAudit

    def read(self, record: RoundRecord, file: RecordFile) -> Salts | None:
        """The salts of a record, one for everything that is committed; None when they are destroyed or damaged."""
        where = f"{file.where}, {file.salts}"
        if record.digest in self.erasures.salts_listed and self._are_destroyed(record, file):
            return None
        with self.findings.guard(What.SALTS, where, "a salt for the aggregate and for every update"):
            salts = self.files.read(file.salts, Salts.from_dict)
            if extra := sorted(set(salts.updates) - {admitted.organisation for admitted in record.admitted}):
                raise IntegrityError(f"a salt for {extra[0]}, which was not admitted")
            self.findings.checked["salts"] += 1
            return salts
        return None

    def check_unused(self, name: str) -> None:
        """Salts are written before their record: a crash between leaves those of the record that would come next."""
        if name in self.files:
            with self.findings.guard(What.SALTS, name, "salts"):
                self.files.read(name, Salts.from_dict)
                self.findings.checked["unused salts"] += 1

    def _are_destroyed(self, record: RoundRecord, file: RecordFile) -> bool:
        """Whether an erasure has destroyed a record's salts; one that is finished must have."""
        blob = file.salts.removesuffix(".json")
        self.files.take_sealed(blob)
        left = [name for name in (file.salts, f"artifacts/{blob}{KEYS}") if name in self.files]
        if left and record.digest in self.erasures.salts_destroyed:
            self.findings.fail(What.SALTS, f"{file.where}, {left[0]}", "salts", "none: an erasure destroyed them")
        destroyed = file.salts not in self.files
        self.findings.checked["destroyed salts"] += destroyed
        return destroyed
