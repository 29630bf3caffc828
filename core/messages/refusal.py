"""Refusal: the reply of an organisation that will not take part."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

from flwr.app import RecordDict

from core.errors import FormatError
from core.messages.codec import REFUSAL_BYTES, json_of, json_record


class Refused(StrEnum):
    """Why an organisation will not answer: the chain is late beyond what it allows, or what it was sent is wrong."""

    ABSTAINED = "abstained"
    OBJECTED = "objected"


@dataclass(frozen=True)
class Refusal:
    """What an organisation answers when it will not take part; `detail` is in its own words."""

    reason: Refused
    detail: str

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
            return cls(Refused(refusal["reason"]), str(refusal["detail"]))
        except (KeyError, ValueError) as error:
            raise FormatError(f"malformed refusal: {error}") from error
