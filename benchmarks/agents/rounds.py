"""Real federated rounds with random participation, to fit the market's learning curves to.

    python -m benchmarks.agents.rounds --data FOLDER --base FOLDER

Six runs of ten rounds (`benchmarks.agents.federation`); in each round every organisation abstains with the run's
probability, or else takes part at low, medium or full effort, drawn evenly. Written are the steps of every organisation
and the loss on every domain of the shared validation set, after every round.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from agents.q_function import Action
from benchmarks import arguments, report
from benchmarks.agents.federation import RoundSettings, create_federation

SEED = 7
PATH = Path(__file__).with_suffix(".json")
"""Raw material, not a result: no results page has it."""
ABSTAIN = (0.0, 0.5, 0.25, 0.75, 0.5, 0.25)
"""The probability of abstaining, by run; in the first run everybody takes part in full."""


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=arguments.folder, required=True)
    parser.add_argument("--base", required=True)
    options = parser.parse_args()
    runs = [_run(options.data, options.base, run) for run in range(len(ABSTAIN))]
    report.write("agents_rounds", {"runs": runs}, "python -m benchmarks.agents.rounds", SEED).rename(PATH)


def _run(data: Path, base: str, run: int) -> dict[str, object]:
    settings = RoundSettings()
    federation = create_federation(data, base, settings, SEED + run)
    draws = np.random.default_rng([SEED, run])
    full = Action.FULL.bid(settings.steps, settings.rank)
    rounds = []
    for number in range(settings.rounds):
        actions = {m.address: _drawn(draws, run) for m in federation.members}
        bids = {a: bid for a, action in actions.items() if (bid := action.bid(settings.steps, settings.rank))}
        if not bids and full:  # a round of nobody would teach the curve nothing
            bids = {federation.members[number % len(federation.members)].address: full}
        federation.advance(bids, {})
        steps = [bids[m.address].steps if m.address in bids else 0 for m in federation.members]
        rounds.append({"steps": steps, "losses": federation.losses[-1]})
        sys.stderr.write(f"run {run}, round {number + 1}: {steps} {sum(federation.losses[-1].values()) / 4:.3f}\n")
    members = [{"domain": m.domain, "examples": len(m.records)} for m in federation.members]
    return {"members": members, "start": federation.losses[0], "rounds": rounds}


def _drawn(draws: np.random.Generator, run: int) -> Action:
    if run == 0:
        return Action.FULL
    if draws.random() < ABSTAIN[run]:
        return Action.ABSTAIN
    return Action(int(draws.integers(1, 4)))


if __name__ == "__main__":
    main()
