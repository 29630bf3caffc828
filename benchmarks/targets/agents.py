"""Targets of the agents."""

from collections.abc import Callable, Iterator, Mapping

from benchmarks.targets.target import Cases, Figures, Target
from core.intervals import MeanInterval


def _markets(figures: Figures) -> Iterator[tuple[str, Figures]]:
    """Every section with a table of policies."""
    return ((name, found) for name, found in figures.items() if isinstance(found, Mapping) and "policies" in found)


def _against(policy: str) -> Callable[[Figures], Cases]:
    """Cost to target of the agents, relative to a policy, in percent."""
    return lambda figures: {
        name: MeanInterval.parse_mean(row["cost_to_target_percent"])
        for name, market in _markets(figures)
        for row in market["against"]
        if (row["agents"], row["against"]) == ("q-learning", policy)
    }


def _against_ucb_among_eight(figures: Figures) -> Cases:
    name = "8 organisations"
    return {name: _against("ucb")(figures)[name]}


def _against_cheapest_among_32(figures: Figures) -> Cases:
    """Mean cost to target of the agents relative to the cheapest policy without knowledge of the market."""
    costs = _policies(figures["32 organisations"], "cost_to_target")
    rivals = [cost for name, cost in costs.items() if name not in ("q-learning", "oracle")]
    return {"32 organisations": 100 * (costs["q-learning"] / min(rivals) - 1)}


def _of_agents(name: str) -> Callable[[Figures], Cases]:
    """A figure of the agents."""
    return lambda figures: {case: _policies(market, name)["q-learning"] for case, market in _markets(figures)}


def _welfare_lead(figures: Figures) -> Cases:
    """Welfare of the agents over that of the best baseline without knowledge of the market, from 32 on."""
    found = {}
    for case, market in _markets(figures):
        welfare = _policies(market, "welfare")
        baselines = [v for name, v in welfare.items() if name not in ("q-learning", "oracle")]
        if case != "8 organisations":  # the target holds from 32 on
            found[case] = 100 * (welfare["q-learning"] / max(baselines) - 1)
    return found


def _policies(market: Figures, name: str) -> dict[str, float]:
    return {row["policy"]: MeanInterval.parse_mean(row[name]) for row in market["policies"]}


TARGETS = (
    Target(
        "agents", "Cost to target on the market among eight, relative to `ucb`", "agents",
        _against_ucb_among_eight, 5, " %",
    ),
    Target(
        "agents", "Cost to target on the market among 32, relative to the cheapest baseline", "agents",
        _against_cheapest_among_32, 0, " %",
    ),
    Target("agents", "Cost to target on the market, relative to `all`", "agents", _against("all"), -25, " %"),
    Target("agents", "Cost to target on the market, relative to Oort", "agents", _against("oort"), -10, " %"),
    Target(
        "agents", "Welfare on the market, relative to the best baseline, from 32 organisations on", "agents",
        _welfare_lead, 0, " %", at_least=True,
    ),
    Target(
        "agents", "Income of a free-rider on the market, relative to an honest organisation", "agents",
        _of_agents("free_rider_income_over_honest"), 0.1, "×",
    ),
    Target(
        "agents", "Share of honest organisations that lost more than their first round's cost, on the market", "agents",
        _of_agents("honest_lost_more_than_first_round_share"), 0.0,
    ),
    Target(
        "agents", "Share of honest organisations better off abstaining, on the market", "agents",
        _of_agents("honest_worse_than_abstaining_share"), 0.0,
    ),
    Target(
        "agents", "Cost to target in real rounds, relative to `all`", "agents_real",
        _against("all"), -25, " %",
    ),
    Target(
        "agents", "Cost to target in real rounds, relative to Oort", "agents_real",
        _against("oort"), -10, " %",
    ),
    Target(
        "agents", "Income of a free-rider in real rounds, relative to an honest organisation",
        "agents_real", _of_agents("free_rider_income_over_honest"), 0.1, "×",
    ),
    Target(
        "agents", "Share of honest organisations better off abstaining, in real rounds",
        "agents_real", _of_agents("honest_worse_than_abstaining_share"), 0.0,
    ),
    Target(
        "agents", "Cost to target in real rounds on a base that speaks (else of the whole run), relative to `ucb`",
        "agents_speaking", _against("ucb"), 5, " %",
    ),
    Target(
        "agents", "Share of federations whose agents reach the target, on a base that speaks", "agents_speaking",
        _of_agents("target_reached_share"), 1.0, at_least=True,
    ),
    Target(
        "agents", "Share of honest organisations that lost more than their first round's cost, on a base that speaks",
        "agents_speaking", _of_agents("honest_lost_more_than_first_round_share"), 0.0,
    ),
)  # fmt: skip
