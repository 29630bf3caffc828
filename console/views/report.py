"""A run as one JSON object, and as tables: read from its records, receipts and event log."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from rich.console import RenderableType

from chain.queue import read_anchors
from console.options import command_for, resume_command
from console.views.tables import MOST_ROWS, short, table
from core.canonical import Address
from core.genesis import Genesis
from core.ledger import Anchor
from core.model_selection import stops
from core.names import listed
from core.privacy import claimed
from core.round_key import RoundKey
from core.rounds import RoundRecord
from core.storage.events import EventLog
from core.storage.lock import is_held
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from core.update import UpdateManifest

Json = dict[str, Any]

_LEAST = 10
"""Of many organisations, those whose loss fell least."""


def report(state: State, run: RunFolder) -> Json:
    """Everything that `foedus run` and `foedus status` say about a run; organisations by name."""
    events, _ = EventLog.read(state.events(run.name))
    names = run.genesis.names
    rounds: dict[int, list[RoundRecord]] = {}
    for record in _current(run):
        rounds.setdefault(record.round, []).append(record)
    # What was measured of a state that an erasure has left behind is told no more; of several lanes nothing tells.
    line = {record.aggregate for records in rounds.values() for record in records if len(run.genesis.lanes) == 1}
    measured = (event for event in events if event["event"] == "evaluated")
    evaluated = {event["round"]: event for event in measured if not line or event["aggregate"] in line}
    judged = _standings_by_round(events, names)
    losses = {
        number: dict(sorted((names[address], values) for address, values in event["losses"].items()))
        for number, event in sorted(evaluated.items())
    }
    last = losses[max(losses)] if losses else {}
    anchors = read_anchors(run.queue)
    told = [
        _round(run, records, anchors, evaluated.get(number, {}), losses.get(number, {}))
        for number, records in sorted(rounds.items())
    ]
    return {
        "run": run.name,
        "status": _status(run, events),
        "genesis": run.genesis.digest,
        **parties_of(run),
        "rounds": [
            # How each update stood among the others, which is no part of the record.
            entry | {"updates": {n: s for n, s in judged.get(entry["round"], {}).items() if n in entry["admitted"]}}
            for entry in told
        ],
        "served": [*served_rounds(run)] if run.genesis.compares_rounds else [],
        "base_loss": {name: values["base"] for name, values in last.items()},
        "final_loss": {name: values["global"] for name, values in last.items()},
        "privacy": _privacy(run),
        "unmeasured": [name for name in members_of(run) if name not in last],
    }


def _standings_by_round(events: list[Json], names: Mapping[Address, str]) -> dict[int, Json]:
    """How each update stood among the others of its round, by the organisation's name; the newest of several."""
    judged: dict[int, Json] = {}
    for event in (event for event in events if event["event"] == "judged"):
        standings = {names.get(address, address): standing for address, standing in event["updates"].items()}
        judged.setdefault(event["round"], {}).update(standings)
    return judged


def parties_of(run: RunFolder) -> Json:
    """Who takes part, with which software and keys, and the run that this one goes on from."""
    return {
        "organisations": {o.name: o.address for o in run.genesis.everyone},
        "members": members_of(run),
        "versions": versions_of(run),
        "rotations": rotations_of(run),
        "origin": origin_of(run),
    }


def versions_of(run: RunFolder) -> dict[str, str]:
    """The software that each founder registered with."""
    signed = run.founding.registrations if run.founding else ()
    return {each.value.organisation.name: each.value.product for each in signed}


def members_of(run: RunFolder) -> list[str]:
    """The names of the organisations that a run has now, those that were erased left out."""
    here = {member for lane in range(len(run.genesis.lanes)) for member in run.members(lane)}
    return sorted(name for address, name in run.genesis.names.items() if address in here)


def tables(state: State, run: RunFolder, result: Json) -> Iterator[RenderableType]:
    """A report for people: losses and rounds, where the adapter lies, and what to try next."""
    final = result["final_loss"]
    yield table(
        f"Run {result['run']}: {result['status']}",
        ("organisation", "base loss", "final loss", "change"),
        [
            # A base without any loss has no change in per cent.
            *loss_rows(result["base_loss"], final),
            *unmeasured_rows(result["unmeasured"], len(final)),
        ],
        numbers=("base loss", "final loss", "change"),
    )
    yield table(
        "Rounds (loss in nats per answer token)",
        ("round", "admitted", "rejected", "loss", "aggregate", "transaction"),
        (
            (
                entry["round"],
                len(entry["admitted"]),
                len(entry["rejected"]),
                _mean(entry, len(final) + len(result["unmeasured"])),
                short(entry["aggregate"]),
                short(entry["transaction"]),
            )
            for entry in result["rounds"]
        ),
        numbers=("round", "admitted", "rejected", "loss"),
    )
    if result["rounds"] and (updates := result["rounds"][-1]["updates"]):
        yield standings(f"Updates of round {result['rounds'][-1]['round']}", updates)
    yield from (*origin_lines(result["origin"]), *member_lines(run, result), *rotation_lines(result["rotations"]))
    if result["rounds"] and (aggregate := result["rounds"][-1]["aggregate"]):
        yield f"Adapter  {aggregate}, sealed in {run.blobs.where}"
    yield from rejection_lines(result["rounds"])
    yield from (*round_remarks(result["rounds"]), *served_lines(result["served"]), *spending(result["privacy"]))
    yield f"State    {state.folder}"
    yield f"\nNext: {' · '.join(next_commands(state, run.name, result['status']))}"


def loss_rows(base: Mapping[str, float], final: Mapping[str, float]) -> list[tuple[str, str, str, str | None]]:
    """Each organisation's losses and their change; of many the mean first, then those that gained least."""

    def row(name: str, before: float, after: float) -> tuple[str, str, str, str | None]:
        # A base without any loss has no change in per cent.
        return name, f"{before:.3f}", f"{after:.3f}", f"{100 * (after / before - 1):+.1f} %" if before else None

    if len(base) < MOST_ROWS:
        return [row(name, base[name], final[name]) for name in base]
    least = sorted(base, key=lambda name: base[name] - final[name])
    mean = row(f"mean of {len(base)}", fmean(base.values()), fmean(final[name] for name in base))
    return [mean, *(row(name, base[name], final[name]) for name in least[:_LEAST])]


def unmeasured_rows(names: Sequence[str], measured: int) -> list[tuple[str, None, None, str]]:
    """Those of whom there is no loss; where a sample of many measures, how many they are."""
    if measured < MOST_ROWS:
        return [(name, None, None, "missing: not measured") for name in names]
    return [(f"{len(names)} others", None, None, "not in the sample")] if names else []


def next_commands(state: State, run: str, status: str) -> Iterator[str]:
    """What to try with a run: to watch one that goes on, to resume one that does not and is unfinished."""
    if status != "completed":
        written = is_held(state.lock(run))
        yield command_for("status --watch", state, run) if written else resume_command(state, run)
    yield from (command_for(words, state, run) for words in ("verify", "evaluate", "export --out DIR"))


def records_of(manifest: UpdateManifest, genesis: Genesis) -> Json:
    """How many records an organisation registered, read and, where it tells, used for an update."""
    used = int(manifest.metrics["records"]) if "records" in manifest.metrics else None
    registered = genesis.examples[manifest.organisation]
    return {"registered": registered, "read": manifest.examples, "used": used}


def member_lines(run: RunFolder, result: Json) -> Iterator[str]:
    """How many records each organisation registered, and the fewest that it read and used in a round; who is left."""
    told: dict[str, list[Json]] = {}
    for entry in result["rounds"]:
        for name, records in entry["records"].items():
            told.setdefault(name, []).append(records)
    if len(told) > MOST_ROWS:
        read = [records["read"] for each in told.values() for records in each]
        yield f"Records  {len(told)} organisations trained; each read {min(read)} to {max(read)} records a round"
        return
    for name, each in sorted(told.items()):
        used = [records["used"] for records in each if records["used"] is not None]
        fewest = f"trained on {min(used)} or more" if used else "trained on an untold number"
        read = min(records["read"] for records in each)
        yield f"Records  {name}: {each[0]['registered']} registered; each round read {read} or more, {fewest}"
    if run.genesis.memberships:
        yield f"Members  now: {listed(result['members'])}"


def origin_of(run: RunFolder) -> Json | None:
    """The run that a run goes on from, and who was erased there since, where it is here; None for one from zero."""
    if (origin := run.genesis.origin) is None:
        return None
    former = run.former
    return {
        "run": origin.run,
        "genesis": origin.genesis,
        "aggregate": origin.state,
        "here": former is not None,
        "erased": former.erased_since(origin.record) if former else [],
    }


def origin_lines(origin: Json | None) -> Iterator[str]:
    """The same in words."""
    if origin:
        where = "" if origin["here"] else ", which is not here"
        yield f"From     run {origin['run']}, {short(origin['aggregate'])}{where}"
        if origin["erased"]:
            yield f"         erased there since: {', '.join(origin['erased'])}; what they taught is still in this run"


def rotations_of(run: RunFolder) -> list[Json]:
    """The keys that were replaced, in order: whose, from where on, and who signed in place of a lost one."""
    names = {run.genesis.coordinator: "coordinator"} | run.genesis.names
    return [
        {
            "owner": names[rotation.owner],
            "lane": lane,
            "generation": generation,
            "key": rotation.new,
            "administrator": None if rotation.by == rotation.old else rotation.by,
        }
        for (lane, generation), rotation in run.genesis.keys.rotations
    ]


def rotation_lines(rotations: list[Json]) -> Iterator[str]:
    """The same in words."""
    for each in rotations:
        by = f", signed by the administrator {each['administrator']}" if each["administrator"] else ""
        place = f"generation {each['generation']} of lane {each['lane']}"
        yield f"Key      of {each['owner']}: {each['key']} from {place} on{by}"


def rejection_lines(rounds: list[Json]) -> Iterator[str]:
    """Whose updates were rejected, in which rounds and why, the last time; of many the first."""
    found: dict[tuple[str, str], tuple[dict[str, None], str]] = {}
    for entry in rounds:
        for one in entry["rejected"]:
            numbers, _ = found.get(key := (one["organisation"], one["reason"]), ({}, ""))
            found[key] = (numbers | {str(entry["round"]): None}, one["detail"])
    for (name, reason), (numbers, detail) in list(found.items())[:MOST_ROWS]:
        yield f"Rejected {name} in round{'s' * (len(numbers) > 1)} {listed(numbers)}: {reason}: {detail}"
    if len(found) > MOST_ROWS:
        yield f"         and {len(found) - MOST_ROWS} others: --json has all"


def round_remarks(rounds: list[Json]) -> Iterator[str]:
    """Who was late in which round, and what states lost on their way down where they are rounded, in words."""
    for entry in rounds:
        if entry["late"]:
            when = f"{entry['grace']:.0f} s after its quorum"
            yield f"Late     in round {entry['round']}, {when}: {listed(entry['late'])}"
    if lost := max((entry["rounding"] for entry in rounds), default=0.0):
        yield f"Rounding organisations receive the adapter compressed, up to {100 * lost:.2g} % off; sums are not"


def served_lines(served: list[Json]) -> Iterator[str]:
    """What is served of each lane whose rounds are compared, in words."""
    for lane in served:
        where = f" of lane {lane['lane']}" if len(served) > 1 else ""
        end = ", training ended early" if lane["ended_early"] else ""
        yield f"Served   round {lane['round']}{where}, validation loss {lane['validation_loss']:.3f}{end}"


def _privacy(run: RunFolder) -> Json | None:
    """The privacy budget and what each organisation has spent of it, over all generations; None where none is set."""
    if run.genesis.privacy is None:
        return None
    names, spent = run.genesis.names, claimed(signed.value for signed in run.records())
    return asdict(run.genesis.privacy) | {"spent": {names[address]: epsilon for address, epsilon in spent.items()}}


def spending(privacy: Json | None) -> Iterator[str]:
    """The line about a privacy budget, where there is one."""
    if privacy:
        spent = listed(f"{name} {epsilon:.3g}" for name, epsilon in privacy["spent"].items()) or "nothing"
        yield f"Privacy  ε spent of {privacy['epsilon']:g} at δ {privacy['delta']:g}: {spent}"


def standings(title: str, updates: Json) -> RenderableType:
    """How each update of a round stood among the others, and how much of it counted; its effect where measured."""
    columns: dict[str, Callable[[Json], str]] = {
        "norm": lambda update: f"{update['norm']:.2f}",
        "cosine to the others": lambda update: f"{update['cosine']:+.2f}",
        "effect, nats": lambda update: "–" if update["effect"] is None else f"{update['effect']:+.3f}",
        "counted": lambda update: f"{100 * update['factor']:.0f} %",
    }
    if all(update["effect"] is None for update in updates.values()):
        del columns["effect, nats"]
    rows = ((name, *(show(update) for show in columns.values())) for name, update in sorted(updates.items()))
    return table(title, ("organisation", *columns), rows, numbers=columns)


def _current(run: RunFolder) -> Iterator[RoundRecord]:
    """The records that every lane has grown through, attempts included; an erasure leaves others behind."""
    records = [signed.value for signed in run.records()]  # read once, whatever the number of lanes
    for lane in range(len(run.genesis.lanes)):
        generation, line = len(run.generations(lane)), run.lineage(lane)
        closed = {signed.value.key for signed in line}
        last = max((key.round for key in closed), default=0)
        for record in records:
            open_now = (record.generation, record.round) == (generation, last + 1)
            if record.lane == lane and (record.key in closed or open_now):
                yield record


def served_rounds(run: RunFolder) -> Iterator[Json]:
    """The round of each lane that is served, where rounds are compared by their loss."""
    for lane in range(len(run.genesis.lanes)):
        line = [signed.value for signed in run.lineage(lane)]
        if line and run.members(lane):
            served, head = run.served_line(lane)[-1].value, line[-1]
            yield {
                "lane": lane,
                "round": served.round,
                "validation_loss": served.validation_loss,
                "ended_early": stops(run.genesis, head.round, head.best),
            }


def _mean(entry: Json, organisations: int) -> str | None:
    """The mean loss of a round, and of how many organisations it is where not all of them measured it."""
    if entry["loss"] is None:
        return None
    measured = len(entry["losses"])
    return f"{entry['loss']:.3f}" + (f" ({measured} of {organisations})" if measured < organisations else "")


def _status(run: RunFolder, events: list[Json]) -> str:
    """Completed when every lane has closed its last round; a lane without members has none to close."""
    lanes = [lane for lane in range(len(run.genesis.lanes)) if run.members(lane)]
    lines = {lane: run.lineage(lane) for lane in lanes}
    if all(line and line[-1].value.round >= run.last_round(lane, line) for lane, line in lines.items()):
        return "completed"
    return "failed" if events and events[-1]["event"] == "failed" else "incomplete"


def _round(
    run: RunFolder, records: list[RoundRecord], anchors: dict[RoundKey, Anchor], event: Json, losses: dict[str, Json]
) -> Json:
    names = run.genesis.names
    transactions = [anchors[r.key].transaction for r in records if r.admitted and r.key in anchors]
    current = {name: values["global"] for name, values in losses.items()}
    return {
        "round": records[0].round,
        "admitted": list(dict.fromkeys(names[a.organisation] for r in records for a in r.admitted)),
        "rejected": [
            {"organisation": names.get(r.organisation, r.organisation), "reason": r.reason, "detail": r.detail}
            for record in records
            for r in record.rejected
        ],
        # Not there when the round closed; an update of the round before that counts in this one is admitted, too.
        "late": [names[organisation] for record in records for organisation in record.late],
        "grace": max(record.grace for record in records),
        # Trained although anchors were late (by so many rounds), or without a chain to check.
        "flagged": [
            {"organisation": names[a.organisation], **flags}
            for record in records
            for a in record.admitted
            if (flags := {n: v for n, v in a.signed.value.metrics.items() if n in ("behind", "trusting")})
        ],
        "records": {
            names[a.organisation]: records_of(a.signed.value, run.genesis) for r in records for a in r.admitted
        },
        "aggregate": event.get("aggregate") or (records[-1].aggregate if len(run.genesis.lanes) == 1 else None),
        # What states lose on their way down, which is no part of what is summed.
        "rounding": max(record.rounding for record in records),
        "transaction": transactions[0] if transactions else None,
        "transactions": transactions,
        "loss": sum(current.values()) / len(current) if current else None,
        "losses": current,
        "validation": event.get("validation", {}),
    }
