"""Lanes of one in whole federations: what is served, measured, traced and exported of them."""

from typing import Any

import pytest

from core.aggregation import RULES
from core.composition import Composition
from core.config import RunConfig
from core.errors import ConfigError, UsageError
from llm.data import read_data
from llm.evaluate import evaluate
from llm.served import serving, shared_adapter
from provenance.served import subject, trace
from tests.server_app.worlds import World

FAST = {"learning-rate": 0.05, "local-steps": 6, "batch-size": 4}


def founded(world: World, kind: str, **changes: Any) -> Any:
    return world.run(kind, **{"lane-size": 1, "composition": kind, "rounds": 1} | FAST | changes)


@pytest.mark.parametrize(("kind", "rule"), [("ensemble", "frozen-a"), ("ensemble", "fedavg"), ("routing", "frozen-a")])
def test_digest_and_losses_of_a_run_are_those_of_what_it_serves(world: World, kind: str, rule: str) -> None:
    run = founded(world, kind, aggregation=rule, wire="fp32")  # what is measured is what is served
    (evaluated,) = world.events(kind, "evaluated")
    found = serving(run)
    heads = [run.lineage(lane)[-1].value.aggregate for lane in range(3)]
    assert [state.digest for state in found.state.states] == heads
    assert evaluated["aggregate"] == found.state.digest
    assert not world.events(kind, "objected")
    fresh = shared_adapter(found.model, run.genesis.rank, run.genesis.seed)
    by_hand = Composition(kind, found.state.parts).map(lambda state: RULES[rule].adapter(state, fresh))
    for member in read_data(RunConfig.from_flat(world.settings)).organisations:
        losses = evaluated["losses"][run.genesis.named(member.name).address]
        assert losses["global"] == evaluate(found.model, by_hand, member.dev, 48, 2).loss < losses["base"]


def test_compositions_of_the_same_lanes_are_different_services(world: World) -> None:
    runs = {kind: founded(world, kind) for kind in ("sum", "ensemble", "routing")}
    lanes = [[s.value.aggregate for s in run.records()] for run in runs.values()]
    assert lanes[0] == lanes[1] == lanes[2]
    assert len({serving(run).state.digest for run in runs.values()}) == 3
    losses = [str(world.events(kind, "evaluated")[-1]["validation"]) for kind in runs]
    assert len(set(losses)) == 3


def test_one_lane_is_served_in_one_way_only(world: World) -> None:
    with pytest.raises(ConfigError, match="composition ensemble: expected lane-size 1 to 2, got 0"):
        world.run("together", composition="ensemble")
    with pytest.raises(ConfigError, match="composition: expected one of sum, ensemble, routing, got 'median'"):
        founded(world, "median")


def test_who_taught_what_an_ensemble_or_a_routed_lane_says(world: World) -> None:
    ensemble, routing = founded(world, "ensemble"), founded(world, "routing")
    everyone = {o.address for o in ensemble.genesis.organisations}
    mixed, routed = (trace(run, "coding 3?", "cod 9") for run in (ensemble, routing))
    assert set(mixed.organisations) == everyone
    assert mixed.aggregate == serving(ensemble).state.digest
    (one,) = routed.organisations
    assert routed.aggregate == serving(routing).state.digest
    assert set(subject(routing).organisations) == everyone
    other = next(iter(everyone - {one}))
    with pytest.raises(UsageError, match="or in another lane than the one that answers"):
        trace(routing, "coding 3?", "cod 9", organisation=other)
