"""Refusals: what an organisation tells its coordinator of an error, and what it keeps to itself.

The error is logged at home, in full. A code travels; the text goes with it where it speaks of nothing but what the
coordinator sent and what the site's policy allows, or where organisation and coordinator are one machine, in a
simulation.
"""

from logging import ERROR
from typing import Final

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.logger import log

from core.errors import (
    ForgeryError,
    FormatError,
    IntegrityError,
    LedgerError,
    NotNowError,
    ObjectionError,
    PrivacyError,
)
from core.escape import one_line
from core.messages.refusal import Cause, Refusal, Refused

_OBJECTIONABLE: Final = (IntegrityError, FormatError, LedgerError)
"""Faults of the coordinator, or of its messages; every other error is a failure of the organisation's own."""
_LONGEST_DETAIL: Final = 700
"""Bytes: a refusal has 1 kB."""


def refused(message: Message, context: Context, reason: Refused, error: Exception) -> Message:
    """The refusal that answers `message` after an error."""
    return abstained(message, Cause.of(error), told(context, error), reason)


def told(context: Context, error: Exception) -> str:
    """What the coordinator is told of an error in words, "" for what stays at home; the log has it in full."""
    log(ERROR, "%s: %s", type(error).__name__, error)
    shared = isinstance(error, ObjectionError | ForgeryError | NotNowError) or "partition-id" in context.node_config
    return shortened(str(error)) if shared else ""


def abstained(message: Message, cause: Cause, detail: str = "", reason: Refused = Refused.ABSTAINED) -> Message:
    """The refusal that answers `message` where an organisation will not take part."""
    return Message(Refusal(reason, cause, shortened(detail)).to_content(), reply_to=message)


def shortened(text: str) -> str:
    """A text as one line that fits into a refusal."""
    return one_line(text).encode()[:_LONGEST_DETAIL].decode(errors="ignore")


def errors_stay_home(message: Message, context: Context, handle: ClientAppCallable) -> Message:
    """A mod of the ClientApp: whatever a handler raises is answered by a refusal, where Flower would send its text."""
    try:
        return handle(message, context)
    # The boundary: an error of any kind is this organisation's, and the process goes on to its next message.
    except Exception as error:  # noqa: BLE001
        own = Refused.ABSTAINED if isinstance(error, NotNowError | PrivacyError) else Refused.FAILED
        return refused(message, context, Refused.OBJECTED if isinstance(error, _OBJECTIONABLE) else own, error)
