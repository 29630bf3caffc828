"""RoundRecord, and the salted commitment to it that goes on the chain.

A federation's history is a genesis and, per lane and generation, a chain of RoundRecords that are only ever
appended. A record names its parent, so that whoever holds the last digest holds them all. The plain digests stay
off the chain: what goes there is salted, and the salts can be destroyed without breaking the rest of the audit.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, partial
from typing import Any, ClassVar, Self

from core import merkle
from core.adapter import AdapterState
from core.aggregation import WeightedUpdate
from core.canonical import ZERO_DIGEST, Address, Digest, address, commitment, digest, raw, salt_bytes, to_json
from core.errors import FormatError
from core.genesis import Genesis
from core.ledger import RoundCommitment
from core.parsing import finite, parsed
from core.robust import counted
from core.round_key import FIELDS, RoundKey
from core.signed import CoordinatorStatement, Place, Signed
from core.update import LARGEST_LOSS, LONGEST_SECONDS, Offer, UpdateManifest

LARGEST_NORM = 1e9
"""The largest norm bound that a genesis may set."""


@dataclass(frozen=True)
class Admitted:
    """A signed manifest, its weight w_k in the round's aggregate, and the robust rule's factor f_k.

    `seconds` passed from task to reply, by the coordinator's clock; 0 where no policy reads them. `norm` is the
    update's L2 norm; 0 where the rule does not clip.
    """

    signed: Signed[UpdateManifest]
    weight: float
    factor: float = 1.0
    seconds: float = 0.0
    norm: float = 0.0

    @property
    def organisation(self) -> Address:
        """Whose update it is."""
        return self.signed.value.organisation

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {
            "signed": self.signed.to_dict(),
            "weight": self.weight,
            "factor": self.factor,
            "seconds": self.seconds,
            "norm": self.norm,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        admitted = parsed(cls, data, {"signed": lambda v: Signed.parse(UpdateManifest, v)})
        if not 0 <= admitted.factor <= 1:
            raise FormatError(f"admitted update: expected a factor from 0 to 1, got {admitted.factor}")
        # A policy divides by it: an auditor must not trip over what a coordinator wrote.
        finite("admitted update: seconds", admitted.seconds, 0.0, LONGEST_SECONDS)
        finite("admitted update: norm", admitted.norm, 0.0, LARGEST_NORM)
        return admitted


def weighted(
    admitted: Iterable[Admitted], open_update: Callable[[Digest], AdapterState], share: float = 1.0
) -> list[WeightedUpdate]:
    """The updates of a round with their weights w_k, before its robust rule."""
    # Read when they are used, one by one: a round's updates may not fit into memory together.
    return [
        WeightedUpdate(a.organisation, a.weight * share, partial(open_update, a.signed.value.update)) for a in admitted
    ]


@dataclass(frozen=True)
class Rejection:
    """A reply that was not admitted: the organisation that was asked, a reason from `Reason`, and what was got."""

    organisation: Address
    reason: str
    detail: str


@dataclass(frozen=True)
class Best:
    """The round of a line with the lowest loss on the shared validation set so far, the first of equals.

    `aggregate` is the digest of the state after it, `loss` that state's, in nats per answer token. `rounded` is as in a
    RoundRecord.
    """

    round: int
    aggregate: Digest
    loss: float
    rounded: Digest = ZERO_DIGEST

    @property
    def sent(self) -> Digest:
        """The digest of that state as it is sent out."""
        return self.aggregate if self.rounded == ZERO_DIGEST else self.rounded

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        best = parsed(cls, data, {})
        finite("best round: loss", best.loss, 0.0, LARGEST_LOSS)
        if not best.round:
            raise FormatError("best round: expected one from 1 on, got 0")
        return best


@dataclass(frozen=True)
class RoundRecord(CoordinatorStatement):
    """One round of one lane.

    `parent` is the digest of the record that it grows from (the genesis digest before round 1), `previous` that of the
    record written before it, which may have admitted nothing. `admitted` stands in order of address, `aggregate` is the
    digest of the lane's state after the round, `residual` what the rule could not represent (0 for exact rules). A
    round below its quorum is recorded with nothing admitted, keeps its parent's aggregate, and is tried again under the
    next `attempt`. A round that is re-aggregated after an erasure admits manifests of an earlier generation, as they
    were signed.

    `bids` are the offers that organisations made when asked apart, in order of address, `credit` the digest of the
    round's measured credit (zero where none is measured). `late` are the organisations that were asked and had not
    answered when the round closed, in order of address, and `grace` is how long it waited beyond its quorum, in seconds
    (0 where nobody is late). Where the genesis allows it, their update may be admitted in the next round, as it was
    signed for this one. `rounded` is the digest of the state as it is sent out, where it is rounded for that (zero
    elsewhere): it is trained from, while the state itself stays as it is; `rounding` is what is lost by that, as a part
    of the state's norm. `loss_bound` is the highest loss
    of any domain of the shared validation set before the round, in nats: what an organisation says of its own loss
    counts no more; 0 where no policy reads losses. `validation_loss` is the loss of the lane's state after the round,
    the mean over the domains of that set, and `best` the best round up to this one: both are None where the settings
    do not compare rounds (core/model_selection.py), and in a round that admitted nothing.
    """

    struct: ClassVar = "Round"
    struct_fields: ClassVar = (*FIELDS, ("record", "bytes32"))

    genesis: Digest
    lane: int
    generation: int
    round: int
    attempt: int
    parent: Digest
    previous: Digest
    rule: str
    admitted: tuple[Admitted, ...]
    rejected: tuple[Rejection, ...]
    aggregate: Digest
    residual: float = 0.0
    bids: tuple[Signed[Offer], ...] = ()
    credit: Digest = ZERO_DIGEST
    late: tuple[Address, ...] = ()
    grace: float = 0.0
    loss_bound: float = 0.0
    validation_loss: float | None = None
    best: Best | None = None
    rounded: Digest = ZERO_DIGEST
    rounding: float = 0.0

    @property
    def sent(self) -> Digest:
        """The digest of the lane's state after the round as it is sent out."""
        return self.aggregate if self.rounded == ZERO_DIGEST else self.rounded

    @property
    def asked(self) -> frozenset[Address]:
        """The organisations that the round asked, whatever came of it."""
        return frozenset(self.heard)

    @property
    def heard(self) -> list[Address]:
        """Every organisation that the round asked as often as it stands in the record: once, where that holds."""
        delays = self.delays
        in_time = (a.organisation for a in self.admitted if not delays[a.organisation])
        return [*in_time, *(r.organisation for r in self.rejected), *self.late]

    @property
    def delays(self) -> dict[Address, int]:
        """By how many rounds each admitted update is late."""
        return {a.organisation: self.round - a.signed.value.round for a in self.admitted}

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/round/v1``."""
        return digest("round", to_json(self.to_dict()))

    @property
    def outcome(self) -> Digest:
        """What the round is committed by: record and aggregate, so that either can be shown without the other."""
        return digest("outcome", raw(self.digest), raw(self.aggregate))

    @property
    def key(self) -> RoundKey:
        """Where the round stands on a ledger."""
        return RoundKey(self.genesis, self.lane, self.generation, self.round)

    @property
    def place(self) -> Place:
        """The lane and the generation of that round."""
        return self.lane, self.generation

    @property
    def reaggregated(self) -> bool:
        """Whether the round was not trained but aggregated again, from updates of an earlier generation."""
        return any(admitted.signed.value.generation < self.generation for admitted in self.admitted)

    def counted(
        self, genesis: Genesis, open_update: Callable[[Digest], AdapterState], share: float = 1.0
    ) -> list[WeightedUpdate]:
        """The weighted updates that the aggregate is the sum of, in a share of what is served."""
        most = genesis.membership.most_weight * share
        return counted(genesis.robust, weighted(self.admitted, open_update, share), self.factors, most)

    @property
    def factors(self) -> dict[Address, float]:
        """The robust rule's factor of each admitted update."""
        return {admitted.organisation: admitted.factor for admitted in self.admitted}

    @property
    def states(self) -> frozenset[Digest]:
        """The states that the round is made of: its updates, and its aggregate."""
        return frozenset({self.aggregate, *(admitted.signed.value.update for admitted in self.admitted)})

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        return self.key.message() | {"record": raw(self.digest)}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        flat = {f.name: getattr(self, f.name) for f in fields(self)}
        lists = {
            "admitted": [a.to_dict() for a in self.admitted],
            "rejected": [asdict(r) for r in self.rejected],
            "bids": [bid.to_dict() for bid in self.bids],
            "late": list(self.late),
            "best": asdict(self.best) if self.best else None,
        }
        return flat | lists

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        nested = {
            "admitted": lambda v: tuple(map(Admitted.from_dict, v)),
            "rejected": lambda v: tuple(parsed(Rejection, r, {}) for r in v),
            "bids": lambda v: tuple(Signed.parse(Offer, bid) for bid in v),
            "late": lambda v: tuple(map(address, v)),
            "validation_loss": lambda v: None if v is None else finite("validation loss", v, 0.0, LARGEST_LOSS),
            "best": lambda v: None if v is None else Best.from_dict(v),
        }
        record = parsed(cls, data, nested)
        finite("grace", record.grace, 0.0, LONGEST_SECONDS)
        finite("rounding", record.rounding, 0.0, 1.0)
        if (ahead := min(record.delays.values(), default=0)) < 0:
            raise FormatError(f"round {record.round}: expected updates of rounds up to it, got one {-ahead} ahead")
        return record


@dataclass(frozen=True)
class Salts:
    """The 32-byte salts (hex) that hide a round's digests on the chain."""

    aggregate: str
    updates: Mapping[Address, str] = field(default_factory=dict)

    @classmethod
    def draw(cls, record: RoundRecord) -> Self:
        """Fresh random salts for a record."""
        return cls(secrets.token_hex(32), {a.organisation: secrets.token_hex(32) for a in record.admitted})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {"aggregate": self.aggregate, "updates": dict(self.updates)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        return parsed(cls, data, {"updates": dict})

    def leaves(self, record: RoundRecord) -> list[bytes]:
        """The Merkle leaves of the admitted manifests, in order; raises FormatError when a salt is missing."""
        if missing := [a.organisation for a in record.admitted if a.organisation not in self.updates]:
            raise FormatError(f"round {record.round}: no salt for the update of {missing[0]}")
        salts = [salt_bytes(self.updates[a.organisation]) for a in record.admitted]
        # The digest of the manifest, not of the signature: a signature has twins.
        pairs = zip(salts, record.admitted, strict=True)
        return [merkle.leaf(raw(commitment(salt, a.signed.value.digest))) for salt, a in pairs]

    def aggregate_commitment(self, record: RoundRecord) -> Digest:
        """The salted digest of the round's outcome: its record and its aggregate."""
        return commitment(salt_bytes(self.aggregate), record.outcome)


@dataclass(frozen=True)
class ShownRecord:
    """A round's signed record with the salts behind its commitment, as those entitled to both are shown it."""

    record: Signed[RoundRecord]
    salts: Salts

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {"record": self.record.to_dict(), "salts": self.salts.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        return parsed(cls, data, {"record": lambda v: Signed.parse(RoundRecord, v), "salts": Salts.from_dict})


def commit_to(record: RoundRecord, salts: Salts, parent: Digest = ZERO_DIGEST) -> RoundCommitment:
    """What the chain is told of a record; `parent` is the lane's previous aggregate commitment."""
    updates_root = Digest("0x" + merkle.root(salts.leaves(record)).hex())
    return RoundCommitment(record.key, parent, updates_root, salts.aggregate_commitment(record), len(record.admitted))
