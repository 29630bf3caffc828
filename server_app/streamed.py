"""What `flwr run --stream` shows of a run: its rounds, whom they reject, and what was measured, from its events."""

from collections.abc import Mapping
from functools import cached_property
from logging import INFO
from pathlib import Path
from statistics import fmean
from typing import Any

from flwr.common.logger import log

from core.canonical import Address
from core.escape import visible
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder


class StreamedEvents(EventLog):
    """An event log of which Flower's log has a line for what a round comes to."""

    def __init__(self, path: Path, run: RunFolder) -> None:
        """`run` tells the organisations' names: it reads the genesis when a round begins, and not again."""
        super().__init__(path)
        self._run = run

    def write(self, event: str, **values: Any) -> None:
        """See `EventLog.write`."""
        super().write(event, **values)
        if event in ("round-started", "admitted", "rejected", "late", "evaluated"):
            log(INFO, "%s", visible(line(event, values, self._names)))

    @cached_property
    def _names(self) -> Mapping[Address, str]:
        return self._run.genesis.names


def line(event: str, values: Mapping[str, Any], names: Mapping[Address, str]) -> str:
    """An event of a round in words. Of a rejection the reason alone: a detail may quote an error, and is none."""
    name = names.get(values.get("organisation", ""), values.get("organisation", ""))
    match event:
        case "round-started":
            return f"Round {values['round']} of {values['rounds']}: {len(values['asked'])} organisations asked"
        case "admitted":
            return f"{name} trained" + ("" if values["loss"] is None else f", loss {values['loss']:.3f}")
        case "rejected":
            return f"{name} rejected: {values['reason']}"
        case "late":
            return f"{name} late: {values['detail']}"
    served = [losses["global"] for losses in values["losses"].values()]
    return f"Round {values['round']} evaluated" + (f", mean loss {fmean(served):.3f}" if served else "")
