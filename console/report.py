"""A run as one JSON object, and as a table: read from its records, receipts and event log."""

from typing import Any

from rich.console import Console
from rich.table import Table

from chain.queue import read_anchors
from core.canonical import Address
from core.ledger import Anchor
from core.round_key import RoundKey
from core.rounds import RoundRecord
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State

Json = dict[str, Any]


def report(state: State, run: RunFolder) -> Json:
    """Everything that `foedus run` and `foedus status` say about a run; organisations by name."""
    events, _ = EventLog.read(state.events(run.name))
    evaluated = {event["round"]: event for event in events if event["event"] == "evaluated"}
    losses = {number: _by_name(run, event["losses"]) for number, event in sorted(evaluated.items())}
    last = losses[max(losses)] if losses else {}
    anchors = read_anchors(run.queue)
    return {
        "run": run.name,
        "status": _status(run, events),
        "genesis": run.genesis.digest,
        "organisations": {o.name: o.address for o in run.genesis.organisations},
        "rounds": [
            _round(run, records, anchors, evaluated.get(number, {}), losses.get(number, {}))
            for number, records in _by_round(run).items()
        ],
        "base_loss": {name: values["base"] for name, values in last.items()},
        "final_loss": {name: values["global"] for name, values in last.items()},
    }


def show(console: Console, state: State, run: RunFolder, result: Json) -> None:
    """Tables of losses and rounds, where the adapter lies, and what to try next."""
    console.print(_losses(result), _rounds(result))
    aggregate = result["rounds"][-1]["aggregate"] if result["rounds"] else None
    if aggregate:
        console.print(f"Adapter  {aggregate}, sealed in {run.blobs.where}", soft_wrap=True)
    following = " · ".join(f"foedus {command} {run.name}" for command in ("verify", "evaluate", "export --out DIR"))
    console.print(f"State    {state.folder}\n\nNext: {following}", soft_wrap=True)


def _status(run: RunFolder, events: list[Json]) -> str:
    if all(_complete(run, lane) for lane in range(len(run.genesis.lanes))):
        return "completed"
    return "failed" if events and events[-1]["event"] == "failed" else "incomplete"


def _complete(run: RunFolder, lane: int) -> bool:
    """Whether a lane has closed its last round; where nobody is left there is none to close."""
    line = run.lineage(lane)
    return not run.members(lane) or (bool(line) and line[-1].value.round >= run.last_round(lane))


def _by_round(run: RunFolder) -> dict[int, list[RoundRecord]]:
    """All records, attempts included, under their rounds."""
    rounds: dict[int, list[RoundRecord]] = {}
    for signed in run.records():
        rounds.setdefault(signed.value.round, []).append(signed.value)
    return dict(sorted(rounds.items()))


def _round(
    run: RunFolder, records: list[RoundRecord], anchors: dict[RoundKey, Anchor], event: Json, losses: dict[str, Json]
) -> Json:
    names = run.genesis.names
    transactions = [anchors[r.key].transaction for r in records if r.admitted and r.key in anchors]
    current = {name: values["global"] for name, values in losses.items()}
    return {
        "round": records[0].round,
        "admitted": list(dict.fromkeys(names[a.organisation] for r in records for a in r.admitted)),
        "rejected": [rejection for r in records for rejection in _rejected(r, names)],
        "flagged": [flag for r in records for flag in _flagged(r, names)],
        "aggregate": event.get("aggregate") or (records[-1].aggregate if len(run.genesis.lanes) == 1 else None),
        "transaction": transactions[0] if transactions else None,
        "transactions": transactions,
        "loss": sum(current.values()) / len(current) if current else None,
        "losses": current,
        "validation": event.get("validation", {}),
    }


def _rejected(record: RoundRecord, names: dict[Address, str]) -> list[Json]:
    return [
        {"organisation": names.get(r.organisation, r.organisation), "reason": r.reason, "detail": r.detail}
        for r in record.rejected
    ]


def _flagged(record: RoundRecord, names: dict[Address, str]) -> list[Json]:
    """Who trained although anchors were late (by so many rounds), or without a chain to check."""
    flags = [
        (
            a.organisation,
            {n: a.signed.value.metrics[n] for n in ("behind", "trusting") if n in a.signed.value.metrics},
        )
        for a in record.admitted
    ]
    return [{"organisation": names[address], **flag} for address, flag in flags if flag]


def _by_name(run: RunFolder, losses: dict[Address, Json]) -> dict[str, Json]:
    names = run.genesis.names
    return {names[address]: values for address, values in sorted(losses.items(), key=lambda item: names[item[0]])}


def _losses(result: Json) -> Table:
    table = Table(title=f"Run {result['run']}: {result['status']}", title_justify="left")
    for heading in ("organisation", "base loss", "final loss", "change"):
        table.add_column(heading, justify="left" if heading == "organisation" else "right")
    for name, base in result["base_loss"].items():
        final = result["final_loss"][name]
        table.add_row(name, f"{base:.3f}", f"{final:.3f}", f"{100 * (final / base - 1):+.1f} %")
    return table


def _rounds(result: Json) -> Table:
    table = Table(title="Rounds (loss in nats per answer token)", title_justify="left")
    for heading in ("round", "admitted", "rejected", "loss", "aggregate", "transaction"):
        table.add_column(heading)
    for entry in result["rounds"]:
        loss = "–" if entry["loss"] is None else f"{entry['loss']:.3f}"
        cells = (len(entry["admitted"]), len(entry["rejected"]), loss, _short(entry["aggregate"]))
        table.add_row(str(entry["round"]), *(str(cell) for cell in cells), _short(entry["transaction"]))
    return table


def _short(digest: str | None) -> str:
    return f"{digest[:10]}…{digest[-4:]}" if digest else "–"
