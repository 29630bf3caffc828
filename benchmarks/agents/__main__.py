"""Participation: the agents against every baseline, on the market of conf/agents/market.toml.

    python -m benchmarks.agents [--members 8 …] [--traces 20]

All policies see the same organisations, prices and availability, trace by trace (`agents.market`); a policy that asks
for a number of organisations gets half of those who are available. The agents
learn within the run: their figures include the cost of learning.

The target of a trace is nine tenths of the fall of the loss that `all` reaches in it; a run that does not reach it
counts with its whole cost, and the share that does is given. Welfare is the value of the fall of the mean loss to all
organisations less everybody's costs; the pool only moves money. The oracle knows the market's truth and takes the
actions of the highest welfare of each single round, found by coordinate ascent: a strong reference, not a bound.
Intervals are ±, 95 %, Student's t over the traces.
"""

import argparse
import json
import sys
from typing import Any

from benchmarks import arguments, report
from benchmarks.agents.figures import measured
from benchmarks.agents.market import compare, read_market, traces_of

SEED = 7


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    scenario = read_market()
    parser.add_argument("--members", type=arguments.count(), nargs="*", default=scenario.settings["members"]["counts"])
    parser.add_argument("--traces", type=int, choices=(5, 10, 20), default=20)
    options = parser.parse_args()
    traces = traces_of(scenario, "traces", "test")[: options.traces]
    figures: dict[str, Any] = {}
    for members in options.members:
        figures[f"{members} organisations"] = measured(compare(scenario, members, traces))
        sys.stderr.write(f"{members} organisations done\n")
    report.write("agents", figures, "python -m benchmarks.agents", SEED)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
