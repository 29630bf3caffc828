"""What the console's pages list: runs, the speakers of the playground, and erasures, as plain values."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from console.views import report
from console.views.watch import current
from core.errors import FoedusError
from core.escape import redacted
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from provenance.colours import colours
from unlearning.certificate import read_certificate

Json = dict[str, Any]

STATES = {"running": "running", "stalled": "stalled", "dead": "stalled", "failed": "failed", "completed": "done"}
"""What a run's condition is called, and coloured by."""
_NEWEST = 3
"""Rounds whose answers to a question are shown, beside the base's."""


def line_of(state: State, name: str) -> Json:
    """A run's line in the list; one that cannot be read says why."""
    try:
        run = state.existing(name)
        told, (events, condition) = report.report(state, run), current(state, run)
        return {
            "name": name, "condition": STATES[condition], "problem": "", "base": run.genesis.base.name,
            "round": max((entry["round"] for entry in told["rounds"]), default=0),
            "rounds": run.genesis.training.rounds, "members": report.members_of(run), "erased": len(run.erasures()),
            "before": mean_of(told["base_loss"]), "after": mean_of(told["final_loss"]), "began": run.started_at,
            "last": time.time() - events[-1]["time"] if events else None,
        }  # fmt: skip
    except (FoedusError, OSError) as error:
        return {"name": name, "condition": "failed", "problem": redacted(str(error))}


def speaker(state: State, name: str) -> Json:
    """A run of the playground, with its organisations' colours."""
    try:
        names = state.existing(name).genesis.names
    except FoedusError as error:
        return {"name": name, "problem": redacted(str(error)), "organisations": []}
    shades = colours(names, names)
    listed = [{"name": names[address], "colour": shades[address]} for address in sorted(names, key=names.__getitem__)]
    return {"name": name, "problem": "", "organisations": listed}


def erasable(run: RunFolder) -> list[str]:
    """The organisations that can be erased: all but those that are erased as exactly as can be."""
    gone = {e["organisation"] for e in erasures_of(run) if e["label"].startswith("exact") and not e["records"]}
    return sorted(name for name in run.genesis.names.values() if name not in gone)


def erasures_of(run: RunFolder) -> list[Json]:
    """The erasures of a run with their certificates, the newest first."""
    names, found = run.genesis.names, []
    for signed in run.erasures():
        attestation = signed.value
        path = run.certificate(attestation)
        certificate = read_certificate(path.read_bytes()).value if path else None
        asker = attestation.request.value.organisation
        found.append({
            "organisation": names.get(asker, asker), "method": attestation.request.value.method,
            "lane": attestation.lane, "generation": attestation.generation, "file": path.name if path else None,
            "records": attestation.request.value.count, "date": attestation.date,
            "label": certificate.label if certificate else "unfinished",
        })  # fmt: skip
    return found[::-1]


def answers_of(events: Sequence[Json]) -> list[Json]:
    """The sample questions of a run's events, each with its answers by round: the base's, round 0, and the newest."""
    asked: dict[str, Json] = {}
    for event in (event for event in events if event["event"] == "answered"):
        for told in event["answers"]:
            known = asked.setdefault(told["question"], {name: told[name] for name in ("of", "question", "expected")})
            known.setdefault("answers", {})[event["round"]] = told["answer"]
    for known in asked.values():
        newest = sorted(known["answers"].items(), reverse=True)
        known["answers"] = [*newest[:_NEWEST], *newest[_NEWEST:][-1:]]
    return list(asked.values())


def mean_of(losses: Mapping[str, float]) -> float | None:
    """The mean of some losses; None of none."""
    return sum(losses.values()) / len(losses) if losses else None


def ago(seconds: float | None) -> str:
    """How long ago, in words."""
    if seconds is None:
        return "never"
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def day(seconds: float) -> str:
    """The minute of a time since the epoch, UTC."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
