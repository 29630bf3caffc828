"""The losses that organisations measure on their held-out records, of the base and of the served adapters."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from flwr.app import MetricRecord

from core.canonical import Address


def means(losses: Sequence[Mapping[str, float]]) -> MetricRecord:
    """For every kind of loss the mean over the organisations that measured it."""
    names = sorted({name for values in losses for name in values})
    return MetricRecord({name: fmean(values[name] for values in losses if name in values) for name in names})


def curves(
    names: Mapping[Address, str], losses: Mapping[Address, Mapping[str, float]], validation: Mapping[str, float]
) -> dict[str, float]:
    """The losses of a round as trackers show them: ``KIND/ORGANISATION``, and ``validation/DOMAIN``."""
    own = {f"{kind}/{names[o]}": loss for o, values in losses.items() for kind, loss in values.items()}
    return own | {f"validation/{name}": loss for name, loss in validation.items()}
