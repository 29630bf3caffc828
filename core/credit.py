"""The credit of a round as it is recorded, and the tree of what all rounds have paid.

A round's credit is what it was worth on the shared validation set, and whom it paid.

How credit is measured is for agents/credit.py; the audit needs no more than to read it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final, Self

from core import merkle
from core.canonical import Address, Digest, address, digest, raw, to_json
from core.errors import FormatError
from core.parsing import parsed

UNIT: Final = 10**18
"""A credit of 1, as the ledger counts it."""
_UNITS = re.compile(r"0|[1-9][0-9]{0,59}")


@dataclass(frozen=True)
class DomainCredit:
    """A domain's change of loss, divided, all in nats: change = Σ credits + nobody + residual; a fall is positive."""

    change: float
    credits: Mapping[Address, float]
    nobody: float
    residual: float


@dataclass(frozen=True)
class RoundCredit:
    """The credits of a round, domain by domain, all of the same organisations."""

    domains: Mapping[str, DomainCredit]

    @property
    def mean(self) -> dict[Address, float]:
        """Every organisation's credit: the mean over the domains."""
        parts = list(self.domains.values())
        return {a: sum(part.credits[a] for part in parts) / len(parts) for a in parts[0].credits}


@dataclass(frozen=True)
class CreditRecord:
    """The credits of a round, and the payments that follow from them."""

    credit: RoundCredit
    incomes: Mapping[Address, float]

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/credit/v1``: the round's record names it."""
        return digest("credit", to_json(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {
            "domains": {name: asdict(part) for name, part in self.credit.domains.items()},
            "incomes": dict(self.incomes),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError, also for domains that credit different organisations, or none."""
        if not isinstance(data, Mapping) or set(data) != {"domains", "incomes"} or not data["domains"]:
            raise FormatError("malformed credit: expected domains, one at least, and incomes")
        incomes = _amounts(data["incomes"])
        try:
            domains = {
                name: parsed(DomainCredit, part, {"credits": _amounts}) for name, part in data["domains"].items()
            }
        except AttributeError as error:
            raise FormatError(f"malformed credit: {error}") from error
        if odd := [name for name, part in domains.items() if set(part.credits) != set(incomes)]:
            raise FormatError(f"malformed credit: expected credits of those who have incomes, got others in {odd[0]!r}")
        return cls(RoundCredit(domains), incomes)


@dataclass(frozen=True)
class CreditTree:
    """The cumulative credit of a run's organisations, in units of 1e-18; its root is what the ledger is told.

    A leaf is the double keccak256 of run ‖ address (padded to 32 bytes) ‖ cumulative (uint256), as the contract's
    `abi.encode` lays them out; leaves stand in the order of their addresses.
    """

    run: Digest
    cumulative: Mapping[Address, int]

    @classmethod
    def of(cls, run: Digest, amounts: Mapping[Address, float]) -> Self:
        """The tree of amounts in whole credits."""
        return cls(run, {organisation: round(amount * UNIT) for organisation, amount in amounts.items()})

    @property
    def root(self) -> Digest:
        """The root that is posted."""
        return Digest("0x" + merkle.root(self._leaves()).hex())

    def proof(self, organisation: Address) -> tuple[bytes, ...]:
        """The siblings that prove an organisation's credit; raises KeyError when it is not in the tree."""
        if organisation not in self.cumulative:
            raise KeyError(organisation)
        return merkle.proof(self._leaves(), self._order().index(organisation))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON, which holds no integers as large: amounts are text."""
        return {"run": self.run, "cumulative": {who: str(amount) for who, amount in self.cumulative.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        return parsed(cls, data, {"cumulative": lambda v: {address(who): _units(amount) for who, amount in v.items()}})

    def _order(self) -> list[Address]:
        return sorted(self.cumulative, key=lambda address: int(address, 16))

    def _leaves(self) -> list[bytes]:
        return [credit_leaf(self.run, address, self.cumulative[address]) for address in self._order()]


def credit_leaf(run: Digest, organisation: Address, cumulative: int) -> bytes:
    """The leaf of one organisation's credit, 32 bytes."""
    address = bytes.fromhex(organisation[2:]).rjust(32, b"\0")
    return merkle.leaf(raw(run) + address + cumulative.to_bytes(32, "big"))


def added(rounds: Iterable[Mapping[Address, float]]) -> dict[Address, float]:
    """Every organisation's sum of its payments, added in the order of the rounds."""
    total: dict[Address, float] = {}
    for paid in rounds:
        for organisation, amount in paid.items():
            total[organisation] = total.get(organisation, 0.0) + amount
    return total


def _units(amount: Any) -> int:
    if not isinstance(amount, str) or not _UNITS.fullmatch(amount):
        raise FormatError(f"credit: expected a whole number of at most 60 digits as text, got {amount!r:.140}")
    return int(amount)


def _amounts(values: Mapping[str, Any]) -> dict[Address, float]:
    if not isinstance(values, Mapping) or any(type(value) not in (int, float) for value in values.values()):
        raise FormatError(f"malformed credit: expected numbers by address, got {str(values)[:140]!r}")
    return {address(name): float(value) for name, value in values.items()}
