"""The findings of an audit: failures in the order in which they were met, and how much was checked."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from core.errors import FoedusError


class What(StrEnum):
    """The kinds of failure."""

    GENESIS = "genesis"
    SHARED_A = "shared A"
    RECORD = "record"
    FILE_NAME = "file name"
    SIGNATURE = "coordinator's signature"
    GENERATION = "generation"
    GAP = "missing round"
    FORK = "second record of a round"
    ROUNDS = "last round"
    ATTEMPT = "attempt"
    PARENT = "parent"
    PREVIOUS = "record before"
    RULE = "rule"
    QUORUM = "quorum"
    ASKED = "organisations asked"
    CREDIT = "credit"
    MEASURED = "measured by the coordinator"
    REJECTED = "rejected organisation"
    MEMBER = "member"
    LANE = "lane"
    LATE = "late organisations"
    REVOKED = "revoked organisation"
    ORDER = "order of organisations"
    WEIGHT = "weight"
    FACTOR = "robust factor"
    LOSS = "validation loss"
    BEST = "best round"
    MANIFEST_SIGNATURE = "manifest's signature"
    MANIFEST_GENESIS = "manifest's genesis"
    MANIFEST_PLACE = "manifest's lane, generation and round"
    MANIFEST_PARENT = "manifest's parent"
    NONCE = "nonce"
    EXAMPLES = "examples"
    BID = "bid"
    EPSILON = "privacy loss"
    UPDATE = "update"
    WIRE = "wire form"
    TENSORS = "names of tensors"
    SHAPE = "shape"
    DTYPE = "dtype"
    FINITE = "finite numbers"
    NORM = "norm"
    AGGREGATE = "aggregate"
    RESIDUAL = "residual"
    ROUNDED = "state as it is sent"
    ARTIFACT = "artifact"
    DESTROYED = "destroyed artifact"
    MEMBERSHIP = "change of members"
    ORIGIN = "run that this one goes on from"
    ATTESTATION = "attestation of an erasure"
    CERTIFICATE = "certificate of an erasure"
    CALIBRATION = "calibration of verdicts"
    PRUNED = "pruned aggregates"
    REAGGREGATED = "re-aggregated updates"
    WRAPS = "wrapped keys"
    COPY = "sealed copy"
    FOUNDING = "agreement of the members"
    READERS = "readers"
    STORE = "store"
    SALTS = "salts"
    UPDATES_ROOT = "updates' Merkle root"
    COMMITMENT = "commitment of record and aggregate"
    COUNT = "count of updates"
    COMMITTED_PARENT = "parent on the ledger"
    NOT_ON_LEDGER = "not on the ledger"
    NOT_RECORDED = "on the ledger, not in the records"
    CHAIN_ID = "chain id"
    CONTRACT = "contract"
    COORDINATOR = "coordinator on the ledger"
    MEMBERS = "members on the ledger"
    LEDGER = "ledger"
    ANCHOR = "anchor"
    QUEUE = "commit queue"
    MANIFESTS = "private commitments to manifests"
    BIDS = "private commitments to bids"
    ALLOCATIONS = "private commitments to allocations"
    PRIVATE_HEAD = "anchor of the private chain"
    CHAIN_UNREACHABLE = "chain unreachable"
    UNEXPECTED_FILE = "unexpected file"


@dataclass(frozen=True)
class Failure:
    """A failed check; `where` goes from the large to the small and ends with the file."""

    what: str
    where: str
    got: str
    want: str

    def __str__(self) -> str:
        # An error that was caught says itself what it expected.
        said = self.got if "expected " in self.got else f"expected {self.want}, got {self.got}"
        return f"{self.what} at {self.where}: {said}"


@dataclass(frozen=True)
class AuditReport:
    """The result of an audit; `failures` has the first bad item first.

    `recomputed` counts the rounds whose aggregate, computed again from the updates, is the record's; `attested` those
    whose updates were erased, and for which an earlier, anchored audit vouches.
    """

    checked: Mapping[str, int]
    recomputed: int
    attested: int
    failures: tuple[Failure, ...]

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``foedus verify --json``."""
        return {
            "ok": self.ok,
            "checked": dict(self.checked),
            "recomputed": self.recomputed,
            "attested": self.attested,
            "failures": [asdict(failure) for failure in self.failures],
        }


@dataclass
class Findings:
    """The findings so far of an audit in progress."""

    checked: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    recomputed: int = 0
    attested: int = 0

    def fail(self, what: What, where: str, got: object, want: object) -> None:
        """Note a failure."""
        self.failures.append(Failure(what.value, where, str(got), str(want)))

    def expect(self, what: What, where: str, got: object, want: object) -> bool:
        """Whether `got` equals `want`; a difference is a failure."""
        if got != want:
            self.fail(what, where, got, want)
        return got == want

    @contextmanager
    def guard(self, what: What, where: str, want: str) -> Iterator[None]:
        """Turn an error of the block into a failure, so that one bad item hides no other."""
        try:
            yield
        except (FoedusError, OSError) as error:
            self.fail(what, where, error, want)

    def report(self) -> AuditReport:
        """The findings, for good."""
        return AuditReport(dict(self.checked), self.recomputed, self.attested, tuple(self.failures))
