"""What organisations answer when what is served is measured on their held-out records."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TypeVar

from flwr.app import Message, MetricRecord, RecordDict

from core.canonical import Address
from core.errors import FormatError
from core.messages import codec as wire

T = TypeVar("T")


def losses_in(reply: Message | None) -> dict[str, float]:
    """What an organisation measured; nothing when it did not answer, failed, or sent something else."""
    return _read(reply, wire.losses_of) or {}


def refusal_in(reply: Message | None) -> wire.Refusal | None:
    """What an organisation has against what it was sent, if it says so."""
    return _read(reply, wire.Refusal.from_content)


def means(losses: Sequence[Mapping[str, float]]) -> MetricRecord:
    """Of every kind of loss the mean over those who measured it."""
    names = sorted({name for values in losses for name in values})
    return MetricRecord({name: fmean(values[name] for values in losses if name in values) for name in names})


def curves(
    names: Mapping[Address, str], losses: Mapping[Address, Mapping[str, float]], validation: Mapping[str, float]
) -> dict[str, float]:
    """The numbers of a round under the names that trackers show."""
    own = {f"{kind}/{names[o]}": loss for o, values in losses.items() for kind, loss in values.items()}
    return own | {f"validation/{name}": loss for name, loss in validation.items()}


def _read(reply: Message | None, parse: Callable[[RecordDict], T]) -> T | None:
    if reply is None or reply.has_error():
        return None
    try:
        return parse(reply.content)
    except FormatError:
        return None
