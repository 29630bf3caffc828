"""One real run on Flower's Ray backend, with everything that only a real run can show."""

from collections.abc import Callable

import psutil
import pytest

from console.backends import processes
from core.storage.state_folder import State
from tests.commands import ORGANISATIONS, World, ended, started

FIELDS = {"run", "status", "rounds", "base_loss", "final_loss", "organisations", "seconds"}
ROUND_FIELDS = {"round", "admitted", "rejected", "aggregate", "transaction", "loss"}

pytestmark = pytest.mark.chain


def test_a_run_on_ray_says_what_one_in_one_process_says_and_leaves_nothing(new_world: Callable[[], World]) -> None:
    on_ray, alone = new_world(), new_world()
    done = ended(started(*on_ray.run()))
    assert done.code == 0, done.err
    result, wanted = done.json, alone.inline().json

    assert set(result) >= FIELDS
    assert set(result["rounds"][0]) >= ROUND_FIELDS
    assert result["status"] == "completed"
    assert set(result["organisations"]) == set(result["final_loss"]) == set(ORGANISATIONS)
    assert result["rounds"][0]["rejected"] == []

    for same in ("organisations", "base_loss", "final_loss"):
        assert result[same] == wanted[same]
    assert result["rounds"][0]["aggregate"] == wanted["rounds"][0]["aggregate"]

    run = State(on_ray.state).existing(result["run"])
    assert processes.marked(run.folder) == []
    assert not [
        p
        for p in psutil.process_iter(["cmdline"])
        if str(on_ray.state) in " ".join(p.info["cmdline"] or []) and "chain.devnet.daemon" not in p.info["cmdline"]
    ]
    assert on_ray.command("verify").json["ok"]
