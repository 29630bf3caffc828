"""Calibration: the weights of a verdict, fitted on records that organisations of a run have published.

It is of one federation, one served state and one method of attribution; a verdict on anything else keeps the constants.
It names its records, so that whoever has them can fit it again: a digest confirms a guess at a record, which costs
nothing where a record is published.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

from core.aggregation import by_address
from core.canonical import Address, Digest, address, digest, raw, to_json
from core.errors import FormatError, IntegrityError
from core.genesis import Genesis
from core.parsing import finite, parsed
from core.signed import CoordinatorStatement, Signed

MOST_RECORDS = 4096
"""The most records of one calibration."""
MOST_WEIGHT = 1e6
"""The largest weight."""
_LONGEST_METHOD = 32
_MOST = {"noise": MOST_WEIGHT, "score": MOST_WEIGHT, "familiarity": MOST_WEIGHT, "certainty": 1.0}


class CalibrationRecord(NamedTuple):
    """A published record: the organisation that trained on its like, and the record's digest."""

    organisation: Address
    record: Digest


@dataclass(frozen=True)
class Calibration(CoordinatorStatement):
    """The weights of verdicts by `method` on what is served as `aggregate`.

    `noise`, `score` and `familiarity` are β, α and γ of the verdict, from 0 to 10⁶; `certainty`, from 0 to 1, is that
    below which it abstains. `records` stand in order of address, then of digest, each once.
    """

    struct: ClassVar = "Calibration"
    struct_fields: ClassVar = (("genesis", "bytes32"), ("calibration", "bytes32"))

    genesis: Digest
    aggregate: Digest
    method: str
    noise: float
    score: float
    familiarity: float
    certainty: float
    records: tuple[CalibrationRecord, ...]

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/calibration/v1``."""
        return digest("calibration", to_json(self.to_dict()))

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        return {"genesis": raw(self.genesis), "calibration": raw(self.digest)}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return asdict(self) | {"records": [record._asdict() for record in self.records]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        found = parsed(cls, data, {"records": records_of})
        for name, most in _MOST.items():
            finite(f"calibration: {name}", getattr(found, name), 0.0, most)
        if not 1 <= len(found.method) <= _LONGEST_METHOD:
            expected = f"a method of 1 to {_LONGEST_METHOD} characters"
            raise FormatError(f"calibration: expected {expected}, got {found.method!r:.40}")
        return found


def verified_calibration(signed: Signed[Calibration], genesis: Genesis) -> Calibration:
    """The calibration that the coordinator of a genesis has signed.

    Raises ForgeryError for another's, or of another federation; IntegrityError for a record of no member.
    """
    calibration = signed.verified(genesis)
    if strange := [record.organisation for record in calibration.records if record.organisation not in genesis.names]:
        raise IntegrityError(f"calibration: expected records of members, got one of {strange[0]}")
    return calibration


def records_of(values: Any) -> tuple[CalibrationRecord, ...]:
    """The records of a calibration from plain data; raises FormatError."""
    if not isinstance(values, list) or not 1 <= len(values) <= MOST_RECORDS:
        got = len(values) if isinstance(values, list) else type(values).__name__
        raise FormatError(f"calibration: expected a list of 1 to {MOST_RECORDS} records, got {got}")
    if odd := [value for value in values if set(value) != {"organisation", "record"}]:
        raise FormatError(f"calibration: expected organisation and record, got {sorted(odd[0])}")
    records = tuple(CalibrationRecord(address(v["organisation"]), Digest(v["record"])) for v in values)
    for record in records:
        raw(record.record)
    if records != in_order(records):
        raise FormatError("calibration: expected records in order of address and digest, each once, got another order")
    return records


def in_order(records: Iterable[CalibrationRecord]) -> tuple[CalibrationRecord, ...]:
    """Records in the order in which a calibration names them, each once."""
    return tuple(sorted(set(records), key=lambda record: (by_address(record.organisation), record.record)))
