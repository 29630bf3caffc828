"""The certificate of an erasure: canonical JSON, signed by the coordinator.

It holds the organisation's signed request, the steps taken and the label; with the run's artifacts and the chain
anybody can check it (unlearning/check.py). It names no state of the erased that could be read any more, and nothing of
their data.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Self

from core.canonical import Address, Digest, address, digest, from_json, raw, to_json
from core.erasures import Attestation, Receipt
from core.errors import FormatError
from core.parsing import parsed
from core.signed import Federation, MemberStatement, Place, Signed
from unlearning.lineage import Label

LIMITS = (
    "What an organisation copied before the erasure is out of reach: only its receipt speaks for it.",
    "Records of rounds, without salts, and the ciphertext of what was destroyed stay: they can no longer be opened.",
    "An approximate or interim adapter was made from updates that were trained on models which knew the erased.",
    "Metrics are of the shared validation set; they show use, and prove nothing about what was forgotten.",
)
LIMITS_OF_RECORDS = (
    "That the organisation trained without the records, it says itself: nobody else has seen its data.",
    "A record is known by its content: one that says the same in other words stays, and so does another owner's copy.",
    "The organisation's weight in what is served is still that of the examples it registered, the erased included.",
)


@dataclass(frozen=True)
class Root:
    """The newest record of a lane and the state after it, by their digests. The genesis and zero at first."""

    lane: int
    generation: int
    round: int
    record: Digest
    aggregate: Digest


@dataclass(frozen=True)
class ErasureCertificate(MemberStatement):
    """The certificate of an erasure in one lane.

    `before` and `after` are the lane's roots, `heads` the digests of the records whose sum is served afterwards, in
    order of lane (the genesis's for a lane without rounds, nothing for one without members). `aggregate` is the plain
    digest of the served state, `seed` the federation's, `versions` the environment in which it ran, `metrics` losses on
    the shared validation set, in nats per token, before and after. `outstanding` are the holders without a receipt.
    `epsilon` is what each organisation of the lane has spent of its privacy budget so far, where that is counted.
    """

    struct: ClassVar = "ErasureCertificate"
    struct_fields: ClassVar = (("genesis", "bytes32"), ("erasure", "bytes32"), ("certificate", "bytes32"))

    attestation: Signed[Attestation]
    label: str
    before: Root
    after: Root
    heads: tuple[Digest, ...]
    aggregate: Digest
    seed: int
    versions: Mapping[str, str]
    metrics: Mapping[str, Mapping[str, float]]
    receipts: tuple[Signed[Receipt], ...]
    outstanding: tuple[Address, ...]
    limits: tuple[str, ...] = LIMITS
    epsilon: Mapping[Address, float] = field(default_factory=dict)

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/certificate/v1``."""
        return digest("certificate", to_json(self.to_dict()))

    @property
    def committed(self) -> Digest:
        """The digest as the chain has it: under the attestation's salt."""
        return self.attestation.value.hide(self.digest)

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        return {
            "genesis": raw(self.federation()),
            "erasure": raw(self.attestation.value.erasure),
            "certificate": raw(self.digest),
        }

    def federation(self) -> Digest:
        """The genesis digest."""
        return self.attestation.value.federation()

    @property
    def place(self) -> Place:
        """That of its attestation."""
        return self.attestation.value.place

    def signers(self, federation: Federation, place: Place | None) -> tuple[Address, ...]:
        """The coordinator."""
        return self.attestation.value.signers(federation, place)

    def parts(self) -> tuple[Signed[Attestation], ...]:
        """The attestation."""
        return (self.attestation,)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        flat = {f.name: getattr(self, f.name) for f in fields(self)}
        nested = {
            "attestation": self.attestation.to_dict(),
            "before": asdict(self.before),
            "after": asdict(self.after),
            "versions": dict(self.versions),
            "metrics": {name: dict(values) for name, values in self.metrics.items()},
            "epsilon": dict(self.epsilon),
            "receipts": [receipt.to_dict() for receipt in self.receipts],
        }
        return flat | nested | {name: list(flat[name]) for name in ("heads", "outstanding", "limits")}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        nested: dict[str, Callable[[Any], object]] = {
            "attestation": lambda v: Signed.parse(Attestation, v),
            "label": lambda v: Label(v).value,
            "before": lambda v: parsed(Root, v, {}),
            "after": lambda v: parsed(Root, v, {}),
            "heads": lambda v: tuple(map(_digest, v)),
            "versions": lambda v: {name: _text(version) for name, version in v.items()},
            "metrics": lambda v: {name: _numbers(values) for name, values in v.items()},
            "receipts": lambda v: tuple(Signed.parse(Receipt, receipt) for receipt in v),
            "epsilon": lambda v: {address(who): spent for who, spent in _numbers(v).items()},
            "outstanding": lambda v: tuple(map(address, v)),
            "limits": lambda v: tuple(map(_text, v)),
        }
        return parsed(cls, data, nested)


def read_certificate(data: bytes) -> Signed[ErasureCertificate]:
    """Parse a file that ``foedus forget`` wrote; raises FormatError unless it is exactly a certificate."""
    return Signed.parse(ErasureCertificate, from_json(data))


def _digest(value: Digest) -> Digest:
    """The value, once its form is known to be that of a digest."""
    raw(value)
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise FormatError(f"expected text, got {value!r}")
    return value


def _numbers(data: Mapping[str, Any]) -> dict[str, float]:
    # The exact type: True is an int, too.
    if odd := [value for value in data.values() if type(value) not in {int, float}]:
        raise FormatError(f"malformed metrics: expected a number, got {odd[0]!r}")
    return dict(data)
