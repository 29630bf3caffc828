"""The calibration of a simulation: when its training is done, and again when an erasure is."""

from typing import Any

import pytest

import server_app.calibrating
from chain.audit.run import verify
from core.calibration import verified_calibration
from core.config import RunConfig
from core.errors import UsageError
from llm.data import read_data
from provenance.served import trace
from tests.server_app.worlds import World

pytestmark = pytest.mark.chain


def calibrated(world: World, name: str, **changes: Any) -> Any:
    run = world.run(name, **{"calibration": 2} | changes)
    assert verify(run, world.ledger).failures == ()
    return run


def test_a_run_ends_with_a_calibration_of_what_it_serves(world: World) -> None:
    run = calibrated(world, "spring")
    found = verified_calibration(run.calibration, run.genesis)
    data = read_data(RunConfig.from_flat(world.settings))
    held_out = {record.digest for organisation in data.organisations for record in organisation.dev[:2]}
    assert {named.record for named in found.records} == held_out
    (event,), steps = world.events("spring", "calibrated"), world.events("spring", "step")
    assert event["records"] == len(found.records)
    assert f"calibrating verdicts on {len(found.records)} records" in [step["doing"] for step in steps]
    (trained,) = world.events("spring", "trained")
    assert event["aggregate"] == found.aggregate == trained["aggregate"]
    asked = trace(run, "coding 3?", "cod 9").response
    assert asked.calibrated
    (run.folder / "calibration.json").unlink()
    assert not trace(run, "coding 3?", "cod 9").response.calibrated


def test_no_records_are_no_calibration(world: World) -> None:
    run = calibrated(world, "autumn", calibration=0)
    assert run.calibration is None
    assert not world.events("autumn", "calibrated")
    assert not trace(run, "coding 3?", "cod 9").response.calibrated


def test_what_cannot_be_attributed_is_trained_all_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise UsageError("no contributions")

    monkeypatch.setattr(server_app.calibrating, "calibrate", refuse)
    run = calibrated(world, "winter")
    assert run.calibration is None
    assert [event["detail"] for event in world.events("winter", "uncalibrated")] == ["no contributions"]
    assert world.events("winter", "finished")


def test_an_erasure_calibrates_what_is_left(world: World) -> None:
    lanes = {"lane-size": 1}
    before = calibrated(world, "summer", **lanes).calibration.value
    run = calibrated(world, "summer", mode="unlearn", organisation="coding", method="remove", **lanes)
    after = verified_calibration(run.calibration, run.genesis)
    gone = run.genesis.named("coding").address
    assert gone in {named.organisation for named in before.records}
    assert gone not in {named.organisation for named in after.records}
    assert after.aggregate != before.aggregate
