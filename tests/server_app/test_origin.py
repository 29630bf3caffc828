"""A run begins with what another serves: real apps, a small model, a ledger in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chain.audit.run import verify
from console.views.report import origin_lines, report
from core.aggregation import RULES
from core.errors import ConfigError
from core.storage.run_folder import RunFolder
from llm.model import Model
from llm.served import serving, shared_adapter
from provenance.method import Subject
from tests.server_app.worlds import World


@pytest.fixture
def former(world: World) -> RunFolder:
    return world.run("one")


def subject_of(run: RunFolder, model: Model) -> Subject:
    served = serving(run, model)
    return Subject.of(run, model, served.state.digest, served.one_adapter("test"))


def test_a_run_begins_with_what_another_serves_and_its_sums_stay_exact(world: World, former: RunFolder) -> None:
    run, before = world.run("two", **{"from-run": "one", "wire": "fp32"}), serving(former).state
    origin = run.genesis.origin
    assert origin is not None
    assert (origin.run, origin.genesis, origin.state) == ("one", former.genesis.digest, before.digest)
    assert origin.record == former.lineage(0)[-1].value.digest
    assert run.genesis.shared_a == former.genesis.shared_a
    found = verify(run, world.ledger, strict=True)
    assert found.failures == ()
    assert (found.recomputed, found.checked["former runs"]) == (2, 1)
    model = serving(run).model
    subject = subject_of(run, model)
    names = [run.genesis.contributors[organisation] for organisation in subject.organisations]
    assert sorted(names) == ["coding", "financial", "medical", "run:one"]
    # The former run's term is its served state, and all terms together are the served adapter.
    fresh = shared_adapter(model, run.genesis.rank, run.genesis.shared_seed)
    total = {name: np.zeros(array.shape) for name, array in RULES["frozen-a"].initial(fresh).arrays.items()}
    for organisation in subject.organisations:
        own = subject.contributions.total(organisation, list(total))
        total = {name: array + own[name] for name, array in total.items()}
        if organisation == origin.address:
            assert all(np.array_equal(own[name], array) for name, array in before.states[0].arrays.items())
    served = serving(run).state.states[0]
    assert all(np.allclose(total[name], array, atol=1e-6) for name, array in served.arrays.items())


def test_a_descendant_says_who_was_erased_from_the_run_that_it_goes_on_from(world: World, former: RunFolder) -> None:
    run = world.run("two", **{"from-run": "one", "wire": "fp32"})
    told = report(world.state, run)["origin"]
    assert (told["run"], told["here"], told["erased"]) == ("one", True, [])
    world.run("one", mode="unlearn", organisation="medical", method="remove")
    told = report(world.state, world.state.run("two"))["origin"]
    assert told["erased"] == ["medical"]
    assert "erased there since: medical" in "\n".join(origin_lines(told))
    assert verify(world.state.run("two"), world.ledger, strict=True).failures == ()
    # One that begins after the erasure goes on without it.
    assert report(world.state, world.run("three", **{"from-run": "one", "wire": "fp32"}))["origin"]["erased"] == []


def test_erasing_from_a_descendant_leaves_what_it_began_with(world: World, former: RunFolder) -> None:
    run = world.run("two", **{"from-run": "one", "wire": "fp32"})
    run = world.run(
        "two", mode="unlearn", organisation="medical", method="replay", **{"from-run": "one", "wire": "fp32"}
    )
    assert verify(run, world.ledger, strict=True).failures == ()
    assert run.genesis.origin is not None
    assert run.artifacts.open(run.genesis.origin.state)
    again = world.run("three", **{"from-run": "two", "wire": "fp32"})
    assert again.genesis.shared_seed == former.genesis.seed
    assert verify(again, world.ledger, strict=True).failures == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rank": 3}, "rank: expected 2, as in run one, got 3"),
        ({"alpha": 5.0}, "alpha: expected 4, as in run one"),
        ({"target-blocks": "all"}, "target-blocks: expected"),
        ({"aggregation": "fedavg"}, "expected frozen-a in one lane"),
        ({"lane-size": 1}, "expected frozen-a in one lane"),
    ],
)
def test_another_adapter_does_not_go_on(world: World, former: RunFolder, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        world.run("two", **{"from-run": "one", "wire": "fp32"}, **changes)
    assert not world.state.run("two").started


def test_what_has_no_sum_is_nothing_to_go_on_from(world: World, tmp_path: Path) -> None:
    world.run("apart", **{"lane-size": 1})
    with pytest.raises(ConfigError, match="expected frozen-a in one lane, got frozen-a in 3 lanes"):
        world.run("two", **{"from-run": "apart", "wire": "fp32"})


def test_a_run_is_resumed_as_it_began(world: World, former: RunFolder) -> None:
    world.run("two", **{"from-run": "one", "wire": "fp32"})
    with pytest.raises(ConfigError, match="from-run: expected one, as in the genesis, got none"):
        world.run("two", resume=True)
    run = world.run("two", resume=True, **{"from-run": "one", "wire": "fp32"})
    assert verify(run, world.ledger, strict=True).failures == ()
