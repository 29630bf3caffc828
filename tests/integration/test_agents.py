"""Agents that decide when to take part, on the embedded base model and the sample organisations."""

import pytest

from tests.commands import World, foedus

pytestmark = [pytest.mark.slow, pytest.mark.chain]


def test_a_run_of_agents_on_the_samples_verifies(world: World) -> None:
    options = ("--participation", "q-learning", "--rounds", 3, "--set", "local-steps=5", "--set", "evaluate-limit=8")
    run = foedus("run", "--base", "foedus-tiny", *options, "--backend", "inline", "--state", world.state, "--json")
    assert run.code == 0, run.err
    report = world.command("verify", "--strict").json
    assert report["ok"], report["failures"]
    assert report["recomputed"] == 3
    names = set(run.json["organisations"])
    shown = world.command("status", "--agents").json
    assert [entry["round"] for entry in shown["rounds"]] == [1, 2, 3]
    for entry in shown["rounds"]:
        assert set(entry["bids"]) == names
        assert set(entry["credits"]) == names  # a shard of each domain
        assert sum(entry["paid"].values()) == pytest.approx(len(names))
    assert set(shown["agents"]) == names
    assert all(0 <= agent["left"] <= agent["budget"] for agent in shown["agents"].values())
    assert all(entry["proof_ok"] for entry in world.command("credits").json["credits"].values())
