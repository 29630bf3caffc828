"""Whom a policy was to ask follows from the record, for every policy: passing over somebody is found."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agents.rewards import Rewards
from chain.audit.report import AuditReport
from chain.audit.run import verify
from core import lora
from core.canonical import Address, from_json, to_json
from core.config import CREDITED
from core.policies import POLICIES
from core.rounds import Admitted
from core.storage.blobs import write
from core.storage.run_folder import credit_name
from core.update import ABSTAIN
from server_app.rounds import OpenRound, Recipient, Rounds
from tests import federation as f
from tests.server_app.clients import Federation, TestGrid, answer, fail, sequence
from tests.server_app.test_participation import FULL, bidding, credited, offering

NAMES = ("medical", "coding", "financial")


class Favouring(Rounds):
    """Asks others than its policy, from round 3 on."""

    def select(self, lane: Any) -> list[Recipient]:
        honest = super().select(lane)
        others = [Recipient(lane.index, m) for m in lane.members if Recipient(lane.index, m) not in honest]
        if lane.round < 2:
            return honest
        return [*others, *honest][: len(honest)] if others else honest[:-1]


class Stubborn(Rounds):
    """Asks the same organisations in every attempt at a round."""

    def select(self, lane: Any) -> list[Recipient]:
        return super().select(replace(lane, failed=()))


class Deaf(Rounds):
    """Records no offer of one organisation, and an offer of another twice."""

    def begin(self, number: int, offers: Mapping[int, Any] = {}) -> Any:
        lanes = super().begin(number, offers)
        for open_round in self.open.values():
            open_round.offers = [*open_round.offers[1:], *open_round.offers[1:]]
        return lanes


class Timed(Rounds):
    """Says of one organisation that it was slow, where nobody asked."""

    def weigh(self, open_round: OpenRound) -> tuple[Admitted, ...]:
        return tuple(replace(admitted, seconds=1e6) for admitted in super().weigh(open_round))


def run(folder: Path, policy: str, kind: type[Rounds] = Rounds, **behave: Any) -> Federation:
    """Four rounds of three organisations, of which a policy asks two."""
    world = Federation.create(folder, NAMES, rounds=4, policy=policy, fraction=0.6, quorum=1, local_steps=2)
    world.clients.behave = {name: bidding(FULL) for name in NAMES} | behave
    world.clients.offers = {name: offering(FULL if name != "financial" else ABSTAIN) for name in NAMES}
    world.run.artifacts.put(lora.factor(f.fresh(), "A"))
    world.run.artifacts.put(lora.factor(f.fresh(), "A"))
    rewards = Rewards(world.run, 0.0, credited) if policy in CREDITED else None
    world.start(TestGrid(world.clients), rewards=rewards, kind=kind)
    return world


def audit(world: Federation) -> AuditReport:
    return verify(world.run.read_with(f.COORDINATOR), world.ledger)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_honest_selection_is_computed_again(tmp_path: Path, policy: str) -> None:
    report = audit(run(tmp_path, policy))
    assert report.failures == ()
    assert report.checked.get("credits, not measured again", 0) == (4 if policy in CREDITED else 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_who_was_passed_over_is_named(tmp_path: Path, policy: str) -> None:
    failures = audit(run(tmp_path, policy, Favouring)).failures
    assert failures[0].what == "organisations asked"
    assert failures[0].where.startswith("round 3, lane 0")


def failing_once(folder: Path, policy: str, kind: type[Rounds] = Rounds) -> AuditReport:
    """The audit of four rounds of which the first that asks coding, and needs two, fails until it is left out."""
    world = Federation.create(folder, NAMES, rounds=4, policy=policy, fraction=0.6, quorum=2, retries=9)
    numbers = count()
    fresh = dict.fromkeys(NAMES, lambda task: answer(task, nonce=f.other(f"try {next(numbers)}")))
    world.clients.behave = fresh | {"coding": sequence(fail, fail, fresh["coding"])}
    world.run.artifacts.put(lora.factor(f.fresh(), "A"))
    world.start(TestGrid(world.clients), kind=kind)
    assert any(not signed.value.admitted for signed in world.run.records())
    return audit(world)


@pytest.mark.parametrize("policy", ["round-robin", "greedy", "oort"])
def test_who_is_asked_in_a_further_attempt_is_computed_again(tmp_path: Path, policy: str) -> None:
    assert failing_once(tmp_path / "honest", policy).failures == ()
    failures = failing_once(tmp_path / "stubborn", policy, Stubborn).failures
    assert {failure.what for failure in failures} == {"organisations asked"}


def test_offers_that_are_left_out_or_repeated_are_found(tmp_path: Path) -> None:
    failures = audit(run(tmp_path, "q-learning", Deaf)).failures
    assert "bid" in {failure.what for failure in failures}


def test_seconds_that_no_policy_reads_are_found(tmp_path: Path) -> None:
    failures = audit(run(tmp_path, "random", Timed)).failures
    assert {failure.what for failure in failures} == {"measured by the coordinator"}


def test_a_credit_that_was_changed_or_is_missing_is_found(tmp_path: Path) -> None:
    world = run(tmp_path, "ucb")
    first, second, *_ = (signed.value for signed in world.run.records())
    path = world.run.folder / credit_name(first.key)
    plain = from_json(path.read_bytes())
    plain["incomes"] = dict.fromkeys(plain["incomes"], 7.0)
    write(path, to_json(plain))
    (world.run.folder / credit_name(second.key)).unlink()
    found = {(failure.what, failure.where) for failure in audit(world).failures}
    assert {("credit", credit_name(first.key)), ("credit", credit_name(second.key))} <= found


def test_an_organisation_cannot_report_its_way_into_a_round(tmp_path: Path) -> None:
    def asked(loss: float) -> list[list[Address]]:
        world = Federation.create(tmp_path / str(loss), NAMES, rounds=4, policy="power-of-choice", fraction=0.3)
        world.clients.behave = {n: lambda task: answer(task, metrics={"loss": 4.0}) for n in NAMES}
        world.clients.behave |= {"medical": lambda task: answer(task, metrics={"loss": loss})}
        world.start(TestGrid(world.clients))
        return [[a.organisation for a in signed.value.admitted] for signed in world.run.records()]

    # The states' loss was measured as 4 nats: who reports more is asked no more often than who reports that.
    assert asked(1e6) == asked(4.0)
