"""What the real runs of benchmarks/agents_real.py show: tables, and how the loss falls by rounds and by cost.

    python -m benchmarks.agents_real_tables

Three tables: the policies, with the figures of `benchmarks.agents`; what each kind of free-rider or saboteur earns of
an honest one's credit and income, and what is left to the organisation that a copy is of (the first by address);
and how often the credit of an honest organisation is negative when everyone takes part, and on which domains
it is lost.
A policy whose runs are not complete is left out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.credit import incomes
from agents.market import Outcome, Scenario
from benchmarks import agents, agents_fit, report
from benchmarks.agents import Played, interval
from benchmarks.agents_real import NAMES, PLAIN, SCENARIO, SEED, path_of, traces_of
from benchmarks.agents_world import DOMAINS
from benchmarks.plot import Curve, Panel, plot
from core.canonical import Address

PICTURE = Path(__file__).parent.parent / "docs" / "results" / "agents-real.svg"
MEMBERS = 2 * len(DOMAINS)


def main() -> None:
    """Read, print, write and draw."""
    scenario = Scenario.read(SCENARIO, agents_fit.read())
    runs = {name: found for name in NAMES if (found := _complete(scenario, name))}
    played = {name: [_played(scenario, run) for run in found] for name, found in runs.items()}
    training = agents.pre_trained(agents.read_market(), 32)[1]
    charge = training * MEMBERS / 32 / len(traces_of(scenario, "traces", "test"))
    figures = {
        "real": agents.measured(played, charge),
        "free-riders and saboteurs": list(ridden(scenario)),
        "negative credit of the honest": list(negative(runs["all"])),
    }
    report.write("agents_real", figures, "python -m benchmarks.agents_real", SEED)
    PICTURE.write_text(drawn(played), encoding="utf-8")
    print(json.dumps(figures, indent=1))


def drawn(played: Mapping[str, Sequence[Played]]) -> str:
    """The mean loss by rounds and by what they have cost, each point a mean over the traces."""
    losses = {
        name: [np.mean([run.start for run in runs]), *np.mean([r.losses for r in runs], axis=0)]
        for name, runs in played.items()
    }
    costs = {name: [0.0, *np.cumsum(np.mean([r.costs for r in runs], axis=0))] for name, runs in played.items()}
    rounds = Panel(
        "rounds", "mean loss, nats", tuple(Curve(n, tuple(enumerate(map(float, v)))) for n, v in losses.items())
    )
    paid = tuple(Curve(n, tuple(zip(map(float, costs[n]), map(float, v), strict=True))) for n, v in losses.items())
    return plot(
        [rounds, Panel("cost so far, equal shares of a round's pool", "mean loss, nats", paid)], logarithmic=False
    )


def _complete(scenario: Scenario, name: str) -> list[Mapping[str, Any]]:
    paths = [path_of(name, trace) for trace in traces_of(scenario, "traces", "test")]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths] if all(p.exists() for p in paths) else []


def _played(scenario: Scenario, run: Mapping[str, Any]) -> Played:
    rounds = [Outcome(**{name: np.array(entry[name]) for name in PLAIN}) for entry in run["rounds"]]
    return Played(np.array(run["kinds"]), scenario.settings["run"], run["start"], tuple(rounds))


def ridden(scenario: Scenario) -> Iterator[dict[str, Any]]:
    """Each kind's credit and income over the mean of the honest, over all rounds of a run."""
    for kind in scenario.settings["rides"]["kinds"]:
        paths = [path_of(f"ride {kind}", trace) for trace in traces_of(scenario, "rides", "traces")]
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
        if len(runs) < len(paths):
            continue
        found = np.array([shares(run) for run in runs])
        names = (
            "credit_over_honest",
            "income_over_honest",
            "credit_of_first_over_honest",
            "income_of_first_over_honest",
        )
        yield {"kind": kind, "runs": len(runs)} | {n: interval(found[:, i]) for i, n in enumerate(names)}


def shares(run: Mapping[str, Any]) -> list[float]:
    """Credit and income of the rider, then of the first of the honest, over the mean of the other honest."""
    credit, income = dict.fromkeys(_addresses(), 0.0), dict.fromkeys(_addresses(), 0.0)
    for domains in run["rounds"]:
        mean = {a: float(np.mean([part["credits"][a] for part in domains.values()])) for a in credit}
        paid = incomes(mean, float(MEMBERS))
        for address in credit:
            credit[address] += mean[address]
            income[address] += paid[address]
    first = next(address for address in credit if address != run["rider"])
    others = [address for address in credit if address not in (first, run["rider"])]
    return [
        booked[who] / float(np.mean([booked[a] for a in others]))
        for who in (run["rider"], first)
        for booked in (credit, income)
    ]


def negative(runs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """By domain: how often an honest organisation's credit was negative, and what such rounds did where (10⁻³ nats)."""
    for place, domain in enumerate(DOMAINS):
        cases = [case for run in runs for member in (2 * place, 2 * place + 1) for case in _cases(run, member, domain)]
        below = [case for case in cases if case["own"] + case["other"] < 0]
        early = [case for case in cases if case["early"]]
        yield {
            "domain": domain,
            "rounds": len(cases),
            "negative_percent": 100 * len(below) / len(cases),
            "negative_percent_rounds_1_to_5": 100 * sum(c["own"] + c["other"] < 0 for c in early) / len(early),
            "negative_percent_rounds_6_to_10": 100
            * sum(c["own"] + c["other"] < 0 for c in cases if not c["early"])
            / (len(cases) - len(early)),
            "credit_from_own_slice": 1e3 * _mean(cases, "own"),
            "credit_from_other_slices": 1e3 * _mean(cases, "other"),
            "where_negative_from_own_slice": 1e3 * _mean(below, "own"),
            "where_negative_from_other_slices": 1e3 * _mean(below, "other"),
            "where_negative_fall_of_own_slice": 1e3 * _mean(below, "fall"),
        }


def _cases(run: Mapping[str, Any], member: int, domain: str) -> Iterator[dict[str, float]]:
    """Every round that an honest member took part in: its credit's parts (own + other = its credit), in nats."""
    if run["kinds"][member] != "honest":
        return
    for number, entry in enumerate(run["rounds"], 1):
        if entry["actions"][member]:
            parts = {n: part["credits"][_addresses()[member]] / len(DOMAINS) for n, part in entry["domains"].items()}
            own = parts.pop(domain)
            yield {
                "own": own,
                "other": sum(parts.values()),
                "fall": entry["domains"][domain]["change"],
                "early": number <= 5,
            }


def _mean(cases: Sequence[Mapping[str, float]], name: str) -> float:
    return float(np.mean([case[name] for case in cases])) if cases else 0.0


def _addresses() -> list[Address]:
    return [Address(f"0x{member + 1:040x}") for member in range(MEMBERS)]


if __name__ == "__main__":
    main()
