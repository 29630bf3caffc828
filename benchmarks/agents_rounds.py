"""Real federated rounds with random participation, for the market's learning curves to be fitted to.

    python -m benchmarks.agents_rounds --data FOLDER --base FOLDER

Six runs of ten rounds (`benchmarks.agents_world`); in each round every organisation abstains with the run's
probability, else takes part at low, medium or full effort, drawn evenly. Written are who took part with how many steps
and the loss on every domain of the set that nobody owns, after every round.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from agents.table import Action
from benchmarks import report
from benchmarks.agents_world import Setting, found

SEED = 7
PATH = Path(__file__).with_suffix(".json")
"""Raw material, not a result: it is not on the results page."""
ABSTAIN = (0.0, 0.5, 0.25, 0.75, 0.5, 0.25)
"""The probability of abstaining, by run; in the first run everybody takes part in full."""


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    options = parser.parse_args()
    runs = [_run(options.data, options.base, seed) for seed in range(len(ABSTAIN))]
    report.write("agents_rounds", {"runs": runs}, "python -m benchmarks.agents_rounds", SEED).rename(PATH)


def _run(data: Path, base: Path, run: int) -> dict[str, object]:
    setting = Setting()
    world, draws = found(data, base, setting, SEED + run), np.random.default_rng([SEED, run])
    rounds = []
    for number in range(setting.rounds):
        actions = {m.address: _drawn(draws, run) for m in world.members}
        bids = {a: bid for a, action in actions.items() if (bid := action.bid(setting.steps, setting.rank))}
        bids = bids or {
            world.members[number % len(world.members)].address: Action.FULL.bid(setting.steps, setting.rank)
        }
        world.advance(bids, {})
        took = [bids[m.address].steps if m.address in bids else 0 for m in world.members]
        rounds.append({"steps": took, "losses": world.losses[-1]})
        sys.stderr.write(f"run {run}, round {number + 1}: {took} {sum(world.losses[-1].values()) / 4:.3f}\n")
    members = [{"domain": m.domain, "examples": len(m.records)} for m in world.members]
    return {"members": members, "start": world.losses[0], "rounds": rounds}


def _drawn(draws: np.random.Generator, run: int) -> Action:
    if run == 0:
        return Action.FULL
    if draws.random() < ABSTAIN[run]:
        return Action.ABSTAIN
    return Action(int(draws.integers(1, 4)))


if __name__ == "__main__":
    main()
