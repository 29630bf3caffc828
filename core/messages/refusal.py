"""Refusal: the reply of an organisation that will not take part, or cannot.

It says why by a code. The words of an error stay at home, since they may name the organisation's files, addresses and
data; only an objection to what the coordinator itself sent travels with its text.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

from flwr.app import RecordDict

from core.errors import (
    ConfigError,
    DataError,
    ForgeryError,
    FormatError,
    HeldError,
    IntegrityError,
    LedgerError,
    LedgerUnreachableError,
    ModelError,
    NotNowError,
    ObjectionError,
    PolicyError,
    PrivacyError,
    UnknownGenesisError,
    UsageError,
)
from core.messages.codec import REFUSAL_BYTES, json_of, json_record


class Refused(StrEnum):
    """Why an organisation does not answer: it will not, what it was sent is wrong, or something of its own failed."""

    ABSTAINED = "abstained"
    OBJECTED = "objected"
    FAILED = "client-error"


class Cause(StrEnum):
    """What is behind a refusal, for people; decided by it is only whether to ask again."""

    CHAIN_LATE = "chain-late"
    PRICE = "price"
    AGENT = "agent"
    MESSAGE = "message"
    PRIVACY = "privacy-budget"
    POLICY = "site-policy"
    HELD = "held"
    GENESIS = "genesis"
    LEDGER_UNREACHABLE = "ledger-unreachable"
    LEDGER = "ledger"
    SETTINGS = "settings"
    DATA = "data"
    MODEL = "model"
    USAGE = "usage"
    FORMAT = "format"
    INTEGRITY = "integrity"
    MEMORY = "memory"
    SYSTEM = "system"
    INTERNAL = "internal"

    @classmethod
    def of(cls, error: Exception) -> Self:
        """The cause that an exception is told as."""
        return cls(next((cause for kind, cause in _CAUSES.items() if isinstance(error, kind)), Cause.INTERNAL))


# In order: the more special class stands before the one that it is derived from.
_CAUSES: dict[type[Exception], Cause] = {
    PolicyError: Cause.POLICY,
    ObjectionError: Cause.MESSAGE,
    HeldError: Cause.HELD,
    UnknownGenesisError: Cause.GENESIS,
    NotNowError: Cause.POLICY,
    ForgeryError: Cause.MESSAGE,
    LedgerUnreachableError: Cause.LEDGER_UNREACHABLE,
    LedgerError: Cause.LEDGER,
    ConfigError: Cause.SETTINGS,
    DataError: Cause.DATA,
    ModelError: Cause.MODEL,
    PrivacyError: Cause.PRIVACY,
    UsageError: Cause.USAGE,
    FormatError: Cause.FORMAT,
    IntegrityError: Cause.INTEGRITY,
    MemoryError: Cause.MEMORY,
    OSError: Cause.SYSTEM,
}


@dataclass(frozen=True)
class Refusal:
    """What an organisation answers instead; `detail` is empty, or says what is wrong with what it was sent."""

    reason: Refused
    cause: Cause
    detail: str = ""

    @property
    def lasting(self) -> bool:
        """Whether the same question gets the same answer: an objection to it, unless by a ledger that may change."""
        return self.reason == Refused.OBJECTED and self.cause not in (Cause.LEDGER, Cause.LEDGER_UNREACHABLE)

    def to_content(self) -> RecordDict:
        """As a reply's content."""
        return RecordDict({"refusal": json_record(asdict(self))})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self | None:
        """The refusal in a reply's content, None when there is none; raises FormatError."""
        if "refusal" not in content.config_records:
            return None
        refusal = json_of(content, "refusal", REFUSAL_BYTES)
        try:
            return cls(Refused(refusal["reason"]), Cause(refusal["cause"]), str(refusal["detail"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"malformed refusal: {error}") from error
