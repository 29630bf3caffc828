"""Tables of the real runs that `benchmarks.agents.real` has kept, and the fall of the loss by rounds and by cost.

    python -m benchmarks.agents.tables [--scenario NAME]

Three tables: the policies, with the figures of `benchmarks.agents`; the credit and income of each kind of free-rider or
saboteur relative to an honest organisation, and what is left to the organisation that a copy is of (the first by
address); and how often the credit of an honest organisation is negative when everyone takes part, and on which domains
it is lost. A policy whose runs are not complete is left out.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from agents.credit import incomes
from agents.market import MarketRound, Scenario
from benchmarks import report
from benchmarks.agents.federation import DOMAINS
from benchmarks.agents.figures import PlayedRun, measured
from benchmarks.agents.market import traces_of
from benchmarks.agents.real import PLAIN, SCENARIOS, SEED, key, read_scenario
from benchmarks.in_process import address
from core.intervals import MeanInterval

MEMBERS = 2 * len(DOMAINS)
ADDRESSES = [address(index) for index in range(MEMBERS)]


def main() -> None:
    """Read, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", choices=SCENARIOS, default=SCENARIOS[0])
    name = parser.parse_args().scenario
    scenario = read_scenario(name)
    traces = traces_of(scenario, "traces", "test")
    runs = {
        policy: found for policy in scenario.settings["policies"]["names"] if (found := _complete(name, policy, traces))
    }
    if "all" not in runs:
        raise SystemExit(f"agents, {name}: expected every trace of the policy all, which is the measure, got fewer")
    played = {policy: [_played(scenario, run) for run in found] for policy, found in runs.items()}
    figures = {
        "real": measured(played),
        "free-riders and saboteurs": list(ridden(name, scenario)),
        "negative credit of the honest": list(negative(runs["all"])),
        "loss_by_round": list(losses_by_round(played)),
    }
    report.write(
        f"agents_{name}", figures, f"python -m benchmarks.agents.tables --scenario {name}", SEED, kept_as="agents"
    )
    print(json.dumps(figures, indent=1))


def _complete(scenario: str, name: str, traces: Sequence[int]) -> list[Mapping[str, Any]]:
    """The kept runs of all traces, or none."""
    # Policies are compared on equal terms: with a trace missing, organisations and prices would differ.
    runs = [report.known("agents", key(scenario, name, trace)) for trace in traces]
    return runs if all(runs) else []


def _played(scenario: Scenario, run: Mapping[str, Any]) -> PlayedRun:
    rounds = [MarketRound(**{name: np.array(entry[name]) for name in PLAIN}) for entry in run["rounds"]]
    return PlayedRun(np.array(run["kinds"]), scenario.settings["run"], run["start"], tuple(rounds))


def losses_by_round(played: Mapping[str, Sequence[PlayedRun]]) -> Iterator[dict[str, Any]]:
    """For each policy the mean loss before the first round and after each, and what the rounds cost up to there."""
    for policy, runs in played.items():
        losses = [np.mean([run.start for run in runs]), *np.mean([run.losses for run in runs], axis=0)]
        costs = [0.0, *np.cumsum(np.mean([run.costs for run in runs], axis=0))]
        for number, (loss, cost) in enumerate(zip(losses, costs, strict=True)):
            yield {
                "policy": policy,
                "round": number,
                "mean_loss": round(float(loss), 3),
                "cost_so_far": round(float(cost), 2),
            }


def ridden(name: str, scenario: Scenario) -> Iterator[dict[str, Any]]:
    """Each kind's credit and income over the mean of the honest, over all rounds of a run."""
    for kind in scenario.settings["rides"]["kinds"]:
        runs = _complete(name, f"ride {kind}", traces_of(scenario, "rides", "traces"))
        if runs:
            found = np.array([shares(run) for run in runs])
            names = (
                "credit_over_honest",
                "income_over_honest",
                "credit_of_first_over_honest",
                "income_of_first_over_honest",
            )
            yield {"kind": kind, "runs": len(runs)} | {
                n: str(MeanInterval.of(found[:, i])) for i, n in enumerate(names)
            }


def shares(run: Mapping[str, Any]) -> list[float]:
    """Credit and income of the free-rider, then of the first of the honest, over the mean of the other honest."""
    credit, income = dict.fromkeys(ADDRESSES, 0.0), dict.fromkeys(ADDRESSES, 0.0)
    for domains in run["rounds"]:
        mean = {a: float(np.mean([part["credits"][a] for part in domains.values()])) for a in ADDRESSES}
        paid = incomes(mean, float(MEMBERS))
        for organisation in ADDRESSES:
            credit[organisation] += mean[organisation]
            income[organisation] += paid[organisation]
    first = next(organisation for organisation in ADDRESSES if organisation != run["rider"])
    others = [organisation for organisation in ADDRESSES if organisation not in (first, run["rider"])]
    return [
        booked[organisation] / float(np.mean([booked[other] for other in others]))
        for organisation in (run["rider"], first)
        for booked in (credit, income)
    ]


def negative(runs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """By domain: how often an honest organisation's credit was negative, and where such rounds lost it (10⁻³ nats).

    None stands where no honest organisation took part; a domain without one in any round has no row.
    """
    for index, domain in enumerate(DOMAINS):
        cases = [case for run in runs for member in (2 * index, 2 * index + 1) for case in _cases(run, member, domain)]
        if not cases:
            continue
        below = [case for case in cases if case["credit"] < 0]
        early, late = [c for c in cases if c["round"] <= 5], [c for c in cases if c["round"] > 5]
        yield {
            "domain": domain,
            "rounds": len(cases),
            "negative_percent": _negative_percent(cases),
            "negative_percent_rounds_1_to_5": _negative_percent(early),
            "negative_percent_rounds_6_to_10": _negative_percent(late),
            "credit_from_own_domain": 1e3 * _mean(cases, "own"),
            "credit_from_other_domains": 1e3 * _mean(cases, "other"),
            "where_negative_from_own_domain": 1e3 * _mean(below, "own"),
            "where_negative_from_other_domains": 1e3 * _mean(below, "other"),
            "where_negative_fall_of_own_domain": 1e3 * _mean(below, "fall"),
        }


def _cases(run: Mapping[str, Any], member: int, domain: str) -> Iterator[dict[str, float]]:
    """Every round that an honest member took part in: its credit and the credit's parts, in nats."""
    if run["kinds"][member] != "honest":
        return
    for number, entry in enumerate(run["rounds"], 1):
        if entry["actions"][member]:
            parts = {n: part["credits"][ADDRESSES[member]] / len(DOMAINS) for n, part in entry["domains"].items()}
            own = parts.pop(domain)
            other = sum(parts.values())
            fall = entry["domains"][domain]["change"]
            yield {"own": own, "other": other, "credit": own + other, "fall": fall, "round": number}


def _negative_percent(cases: Sequence[Mapping[str, float]]) -> float | None:
    return 100 * sum(case["credit"] < 0 for case in cases) / len(cases) if cases else None


def _mean(cases: Sequence[Mapping[str, float]], name: str) -> float:
    return float(np.mean([case[name] for case in cases])) if cases else 0.0


if __name__ == "__main__":
    main()
