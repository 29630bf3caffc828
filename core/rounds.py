"""Genesis, RoundRecord and what is committed of them.

A federation's history is a genesis and, per lane and generation, a chain of RoundRecords that are only ever
appended. A record names its parent, so that whoever holds the last digest holds them all. The plain digests stay
off the chain: what goes there is salted, and the salts can be destroyed without breaking the rest of the audit.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from core import merkle
from core.canonical import ZERO_DIGEST, Address, Digest, address, commitment, digest, raw, to_json
from core.errors import ForgeryError, FormatError, UsageError
from core.keys import Domain, Fields, Key, Signature, signer
from core.ledger import RoundCommitment, RoundKey
from core.parsing import parsed, typed
from core.update import Organisation, SignedManifest

CALIBRATION_ROUNDS, CALIBRATION_STEPS = 2, 8
"""A calibration has so many rounds for each of the federation's, each with one step for so many: a quarter in all."""
_SALT = re.compile(r"[0-9a-f]{64}")
_RECORD: Fields = (
    ("genesis", "bytes32"),
    ("lane", "uint32"),
    ("generation", "uint32"),
    ("round", "uint32"),
    ("record", "bytes32"),
)


@dataclass(frozen=True)
class Base:
    """The frozen base model: how it was asked for, the digest of its files, how it is quantised."""

    name: str
    digest: Digest
    quantisation: str


@dataclass(frozen=True)
class Stage:
    """The optimiser steps of a whole round, those before it on the learning rate's schedule, and all of that."""

    steps: int
    first_step: int
    total_steps: int


@dataclass(frozen=True)
class Training:
    """Everything about local training that every organisation must do alike. Lengths are in tokens.

    Rounds behind the last are a calibration: short ones, over which the learning rate goes through its schedule again.
    """

    rounds: int
    local_steps: int
    local_epochs: float
    batch_size: int
    accumulation: int
    max_length: int
    learning_rate: float
    gradient_checkpointing: bool
    evaluate_limit: int

    @property
    def calibration_rounds(self) -> int:
        """The rounds of one calibration."""
        return self.rounds * CALIBRATION_ROUNDS

    def most(self, generation: int) -> int:
        """The last round that a lane's generation may have: each opens with one calibration at most."""
        return self.rounds + generation * self.calibration_rounds

    def calibrates(self, number: int) -> bool:
        """Whether a round, from 1, lies behind the federation's last."""
        return number > self.rounds

    def stage(self, number: int, steps: int) -> Stage:
        """Where round `number` stands for an organisation that does `steps` in a whole round of the federation."""
        if not self.calibrates(number):
            return Stage(steps, (number - 1) * steps, self.rounds * steps)
        short = max(1, steps // CALIBRATION_STEPS)
        place = (number - self.rounds - 1) % self.calibration_rounds
        return Stage(short, place * short, self.calibration_rounds * short)


@dataclass(frozen=True)
class Participation:
    """Who is asked in a round, how many admitted updates a round needs, how often a round is tried."""

    policy: str
    fraction: float
    quorum: int
    retries: int


@dataclass(frozen=True)
class PrivateChain:
    """The members' own chain, and every how many rounds of a lane its head is anchored on the public one."""

    chain_id: int
    contract: Address
    anchor_every: int


@dataclass(frozen=True)
class Genesis:
    """Everything fixed when a federation starts.

    `salt` (64 hex digits, random) hides the genesis behind its digest, which is public, and names its stored artifacts.
    `lanes` partition the organisations: each lane learns together; `composition` says how they are served
    (core/composition.py). `validation` is the digest of the set that nobody owns, on which rounds are credited.
    `auditors` may read every artifact, besides the coordinator and the organisations of a lane. `norm_bound` is the
    largest L2 norm an update may have. `environment` names the software, instruction set and threads in which training
    is promised to be bit-equal.
    """

    run: str
    salt: str
    coordinator: Address
    chain: Domain
    private: PrivateChain | None
    base: Base
    rank: int
    alpha: float
    shared_a: Digest
    rule: str
    lanes: tuple[tuple[Address, ...], ...]
    composition: str
    organisations: tuple[Organisation, ...]
    validation: Digest
    auditors: tuple[Address, ...]
    seed: int
    training: Training
    participation: Participation
    norm_bound: float
    environment: Mapping[str, str]

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/genesis/v1``: the run's name on the chain."""
        return digest("genesis", to_json(self.to_dict()))

    def policy(self, number: int) -> str:
        """Who is asked in a round: to a calibration everyone, without bids and unpaid."""
        return "all" if self.training.calibrates(number) else self.participation.policy

    def organisation(self, address: Address) -> Organisation | None:
        """The member with this address."""
        return next((o for o in self.organisations if o.address == address), None)

    @property
    def names(self) -> dict[Address, str]:
        """What the members are called."""
        return {member.address: member.name for member in self.organisations}

    @property
    def examples(self) -> dict[Address, int]:
        """How many examples every member registered: n_k."""
        return {member.address: member.examples for member in self.organisations}

    def named(self, name: str) -> Organisation:
        """The member of this name or address; raises UsageError."""
        for member in self.organisations:
            if name in (member.name, member.address):
                return member
        names = ", ".join(member.name for member in self.organisations)
        raise UsageError(f"organisation {name!r} is not a member, one of {names} wanted")

    def lanes_of(self, address: Address) -> tuple[int, ...]:
        """The indices of the lanes that an organisation learns in, one for each of its shards; none for a stranger."""
        return tuple(i for i, lane in enumerate(self.lanes) if address in lane)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return asdict(self) | {"environment": dict(self.environment)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        nested = {
            "salt": lambda v: _salt(v).hex(),
            "chain": lambda v: parsed(Domain, v, {}),
            "private": lambda v: None if v is None else parsed(PrivateChain, v, {}),
            "base": lambda v: parsed(Base, v, {}),
            "training": lambda v: parsed(Training, v, {}),
            "participation": lambda v: parsed(Participation, v, {}),
            "lanes": lambda v: tuple(tuple(address(member) for member in lane) for lane in v),
            "organisations": lambda v: tuple(parsed(Organisation, o, {}) for o in v),
            "auditors": lambda v: tuple(address(auditor) for auditor in v),
            "environment": dict,
        }
        return parsed(cls, data, nested)


@dataclass(frozen=True)
class Admitted:
    """A signed manifest and its weight p_k in the round's aggregate."""

    signed: SignedManifest
    weight: float

    @property
    def organisation(self) -> Address:
        """Whose update it is."""
        return self.signed.manifest.organisation

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return self.signed.to_dict() | {"weight": self.weight}


@dataclass(frozen=True)
class Rejection:
    """A reply that was not admitted: the organisation that was asked, a reason from `Reason`, and what was got."""

    organisation: Address
    reason: str
    detail: str


@dataclass(frozen=True)
class RoundRecord:
    """One round of one lane.

    `parent` is the digest of the record that it grows from (the genesis digest before round 1), `previous` that of the
    record written before it, which may have admitted nothing. `admitted` stands in order of address, `aggregate` is the
    digest of the lane's state after the round, `residual` what the rule could not represent (0 for exact rules). A
    round below its quorum is recorded with nothing admitted, keeps its parent's aggregate, and is tried again under the
    next `attempt`. A round that is summed again after an erasure admits manifests of an earlier generation, as they
    were signed.
    """

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

    @property
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
    def carried(self) -> bool:
        """Whether the round was not trained but summed again, from updates of an earlier generation."""
        return any(admitted.signed.manifest.generation < self.generation for admitted in self.admitted)

    @property
    def states(self) -> frozenset[Digest]:
        """The states that the round is made of: its updates, and its aggregate."""
        return frozenset({self.aggregate, *(admitted.signed.manifest.update for admitted in self.admitted)})

    def sign(self, key: Key, domain: Domain) -> "SignedRecord":
        """Sign as coordinator."""
        return SignedRecord(self, key.sign(domain, "Round", _RECORD, self._message()))

    def _message(self) -> dict[str, Any]:
        place = {"lane": self.lane, "generation": self.generation, "round": self.round}
        return place | {"genesis": raw(self.genesis), "record": raw(self.digest)}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        flat = {f.name: getattr(self, f.name) for f in fields(self)}
        lists = {
            "admitted": [a.to_dict() for a in self.admitted],
            "rejected": [asdict(r) for r in self.rejected],
        }
        return flat | lists

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        nested = {
            "admitted": lambda v: tuple(typed(Admitted(SignedManifest.from_dict(a), a["weight"])) for a in v),
            "rejected": lambda v: tuple(parsed(Rejection, r, {}) for r in v),
        }
        return parsed(cls, data, nested)


@dataclass(frozen=True)
class SignedRecord:
    """A RoundRecord and the coordinator's signature."""

    record: RoundRecord
    signature: Signature

    def verified(self, genesis: Genesis) -> RoundRecord:
        """The record; raises ForgeryError when it is not this federation's coordinator who signed it."""
        record = self.record
        if record.genesis != genesis.digest:
            raise ForgeryError(f"record belongs to federation {record.genesis}, {genesis.digest} wanted")
        by = signer(self.signature, genesis.chain, "Round", _RECORD, record._message())
        if by != genesis.coordinator:
            raise ForgeryError(f"record of round {record.round} is signed by {by}, not by the coordinator")
        return record

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {"record": self.record.to_dict(), "signature": self.signature}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        return parsed(cls, data, {"record": RoundRecord.from_dict})


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
        salts = [_salt(self.updates[a.organisation]) for a in record.admitted]
        pairs = zip(salts, record.admitted, strict=True)
        return [merkle.leaf(raw(commitment(salt, a.signed.digest))) for salt, a in pairs]

    def aggregate_commitment(self, record: RoundRecord) -> Digest:
        """The salted digest of the round's outcome: its record and its aggregate."""
        return commitment(_salt(self.aggregate), record.outcome)


def commit_to(record: RoundRecord, salts: Salts, parent: Digest = ZERO_DIGEST) -> RoundCommitment:
    """What the chain is told of a record; `parent` is the lane's previous aggregate commitment."""
    updates_root = Digest("0x" + merkle.root(salts.leaves(record)).hex())
    return RoundCommitment(record.key, parent, updates_root, salts.aggregate_commitment(record), len(record.admitted))


def _salt(text: object) -> bytes:
    if not isinstance(text, str) or not _SALT.fullmatch(text):
        raise FormatError(f"a salt is 64 lower-case hex digits, got {text!r}")
    return bytes.fromhex(text)
