"""`foedus credits`: what agents earned is proved, measured again and claimed; and `foedus status --agents`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chain.control import stop
from core.canonical import to_json
from tests.commands import World, foedus


@pytest.fixture(scope="module")
def paid(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A run whose agents bid, and that pays them."""
    world = World(base, data, tmp_path_factory.mktemp("paid") / "state")
    done = world.inline("--participation", "q-learning", "--set", "budget=50.0", rounds=3)
    assert done.code == 0, done.err
    yield world
    stop("embedded", world.state)


def test_a_run_of_agents_verifies_and_shows_every_round(paid: World) -> None:
    report = paid.command("verify", "--strict").json
    assert (report["ok"], report["checked"]["credit epochs"]) == (True, 1)
    shown = paid.command("status", "--agents").json
    assert [entry["round"] for entry in shown["rounds"]] == [1, 2, 3]
    for entry in shown["rounds"]:
        assert set(entry["bids"]) == {"coding", "financial", "medical"}
        assert {bid["status"] for bid in entry["bids"].values()} <= {"accepted", "abstained"}
        assert set(entry["credits"]) == {"coding", "financial", "medical"}  # a domain of each
        assert sum(entry["paid"].values()) == pytest.approx(3.0) or not any(entry["paid"].values())
    for agent in shown["agents"].values():
        assert agent["left"] == 50.0 - agent["spent"] >= 0
    paying = {name for entry in shown["rounds"] for name, amount in entry["paid"].items() if amount}
    assert paying
    plain = foedus("status", "--agents", "--state", paid.state).out
    assert "Round 3, lane 0" in plain
    assert "paid" in plain
    table = foedus("credits", "--state", paid.state).out
    assert "Epoch 1" in table
    assert all(name in table for name in ("coding", "financial", "medical", "claimed", "holds"))


def test_credit_is_proved_and_claimed_on_the_chain(paid: World) -> None:
    shown = paid.command("status", "--agents").json
    found = paid.command("credits").json
    earned = {name: sum(entry["paid"].get(name, 0.0) for entry in shown["rounds"]) for name in found["credits"]}
    assert found["epoch"] == 1
    assert {name: entry["earned"] for name, entry in found["credits"].items()} == pytest.approx(earned)
    assert all(entry["proof_ok"] and entry["claimed"] == 0 for entry in found["credits"].values())
    best = max(earned, key=lambda name: earned[name])
    for _ in range(2):  # once more changes nothing
        claimed = paid.command("credits", "--organisation", best, "--claim").json["credits"]
        assert set(claimed) == {best}
        assert claimed[best]["claimed"] == pytest.approx(earned[best])
        assert claimed[best]["claimable"] == 0
    others = paid.command("credits").json["credits"]
    assert {name for name, entry in others.items() if entry["claimed"]} == {best}


def test_what_was_posted_can_be_claimed_when_more_was_earned_since(
    paid: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted = paid.command("credits").json
    monkeypatch.setattr("console.credits.cumulative", lambda run: dict.fromkeys(run.genesis.names, 99.0))
    assert paid.command("credits").json == posted
    claimed = paid.command("credits", "--organisation", "coding", "--claim").json["credits"]["coding"]
    assert claimed["claimed"] == claimed["earned"] == posted["credits"]["coding"]["earned"]


def test_an_auditor_measures_the_same_credit_again(paid: World) -> None:
    found = paid.command("credits", "--measure")
    assert found.code == 0, found.err
    for entry in found.json["credits"].values():
        assert entry["measured"] == pytest.approx(entry["earned"], rel=1e-9, abs=1e-12)
        assert entry["measured_ok"]


def test_credit_is_measured_on_the_set_of_the_genesis_alone(paid: World) -> None:
    file = paid.data / "validation.jsonl"
    before = file.read_bytes()
    try:
        file.write_bytes(b"".join(reversed(before.splitlines(keepends=True))))
        assert "validation set: expected 0x" in paid.command("credits", "--measure").error
        assert ", as in the genesis, got" in paid.resume(paid.command("status").json["run"]).error
    finally:
        file.write_bytes(before)


def test_amounts_that_were_changed_or_are_missing_are_no_credit(paid: World) -> None:
    (path,) = (paid.state / "runs").glob("*/credits/L0000-G0000-R00002.json")
    before = path.read_bytes()
    changed: dict[str, Any] = json.loads(before)
    changed["incomes"] = {address: amount + 1.0 for address, amount in changed["incomes"].items()}
    try:
        path.write_bytes(to_json(changed))
        done = paid.command("credits")
        assert done.code == 1
        assert "R00002.json: expected credit 0x" in done.err
        path.unlink()
        assert "R00002.json cannot be read" in paid.command("credits").err
    finally:
        path.write_bytes(before)


def test_a_credit_that_was_measured_wrongly_is_found(paid: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "server_app.measuring.credited_again", lambda run, _config: dict.fromkeys(run.genesis.names, 9.0)
    )
    again = paid.command("credits", "--measure", "--organisation", "coding")
    assert again.code == 1
    assert not again.json["credits"]["coding"]["measured_ok"]


@pytest.mark.parametrize(
    ("options", "facts"),
    [(("--claim",), ("--claim", "--organisation")), (("--organisation", "nobody"), ("'nobody'", "coding"))],
)
def test_wrong_usage_of_credits_is_told(paid: World, options: tuple[str, ...], facts: tuple[str, ...]) -> None:
    done = paid.command("credits", *options)
    assert done.code == 2
    assert all(fact in done.error for fact in facts), done.error


def test_a_run_that_pays_nobody_has_no_credits(finished: World) -> None:
    done = finished.command("credits")
    assert done.code == 2
    assert "got all" in done.error
