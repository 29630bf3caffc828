"""The credit of a round as it is recorded: what the round was worth on the shared validation set, and whom it paid.

How credit is measured is for agents/credit.py; the audit needs no more than to read it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

from core.canonical import Address, Digest, address, digest, to_json
from core.errors import FormatError
from core.parsing import parsed


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


def _amounts(values: Mapping[str, Any]) -> dict[Address, float]:
    if not isinstance(values, Mapping) or any(type(value) not in (int, float) for value in values.values()):
        raise FormatError(f"malformed credit: expected numbers by address, got {str(values)[:140]!r}")
    return {address(name): float(value) for name, value in values.items()}
