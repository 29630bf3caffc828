"""Rounds in which a robust rule decides what counts: recorded, recomputed by the audit, and still sums."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chain.audit.run import verify
from core.adapter import AdapterState
from core.aggregation import WeightedUpdate
from core.canonical import Address
from core.composition import Composition
from core.config import RunConfig
from core.messages.training import Reply
from core.robust import BOUNDS, Robust
from core.rounds import RoundRecord
from provenance.history import stored_rounds
from server_app.measuring import measuring_again
from server_app.rounds import Recipient, Rounds
from tests import federation as f
from tests.server_app.clients import Federation, Measured, answer, honest_update, large
from tests.server_app.worlds import World

NAMES = ("medical", "coding", "financial")
RULES = [rule for rule in BOUNDS if rule != "none"]


def closed(federation: Federation, times: float) -> RoundRecord:
    """Round 1, to which medical sends its update so many times as large."""
    close(federation.rounds(), 1, times)
    (signed,) = federation.run.records()
    return signed.value


def close(rounds: Rounds, number: int, times: float = 1.0, seconds: float = 0.0) -> None:
    """Close a round, of replies that took so many seconds."""
    (lane,) = rounds.begin(number)
    for name in NAMES:
        to = Recipient(0, f.address(name))
        task = rounds.task(to, Composition.of(lane.state))
        sent = honest_update(task)
        if name == "medical":
            sent = AdapterState({key: (times * array).astype(np.float32) for key, array in sent.arrays.items()})
        rounds.admit(to, Reply.from_content(answer(task, sent)), seconds)
    rounds.close(number)


@pytest.mark.parametrize("rule", ["clip", "multi-krum", "validation"])
def test_a_factor_is_recorded_and_weighs_in_the_sum(tmp_path: Path, rule: str) -> None:
    federation = Federation.create(tmp_path, NAMES, robust=Robust(rule, BOUNDS[rule]), norm_bound=1e6)
    federation.measures = Measured({f.address("medical"): 0.4})
    before = federation.rounds().lanes[0].state
    record = closed(federation, 40.0)
    factors = {a.organisation: a.factor for a in record.admitted}
    assert factors.pop(f.address("medical")) < 0.2
    assert set(factors.values()) == {1.0}
    sums = {name: array.astype(np.float64) for name, array in before.arrays.items()}
    for admitted in record.admitted:
        update = federation.run.artifacts.open(admitted.signed.value.update)
        for name, array in update.arrays.items():
            sums[name] = sums[name] + (admitted.weight * admitted.factor) * array.astype(np.float64)
    state = AdapterState({name: array.astype(np.float32) for name, array in sums.items()})
    assert state.digest == record.aggregate


@pytest.mark.parametrize("rule", ["none", "validation"])
def test_how_each_update_stood_and_its_effect_are_told(tmp_path: Path, rule: str) -> None:
    federation = Federation.create(tmp_path, NAMES, robust=Robust(rule, 0.5 if rule == "validation" else 0.0))
    federation.measures = Measured({f.address("medical"): 0.4})
    closed(federation, 3.0)
    (event,) = [e for e in federation.events.read(federation.events.path)[0] if e["event"] == "judged"]
    told = event["updates"]
    assert set(told) == {f.address(name) for name in NAMES}
    assert told[f.address("medical")]["norm"] > 2 * told[f.address("coding")]["norm"]
    assert (told[f.address("medical")]["effect"], told[f.address("coding")]["effect"]) == (0.4, -0.1)
    assert (told[f.address("medical")]["factor"] < 1.0) == (rule == "validation")  # it is clipped
    assert {told[f.address(name)]["factor"] for name in NAMES if name != "medical"} == {1.0}
    assert all(-1 <= update["cosine"] <= 1 for update in told.values())


class FirstOnly(Measured):
    """Measures the effect of one update, whatever there is time for."""

    def effects(self, before: AdapterState, updates: Sequence[WeightedUpdate], seconds: float) -> dict[Address, float]:
        return super().effects(before, updates[:1], seconds)


def test_where_time_is_short_the_effect_of_the_update_least_like_the_others_is_told(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, NAMES)
    federation.measures = FirstOnly({})
    closed(federation, 3.0)
    (event,) = [e for e in federation.events.read(federation.events.path)[0] if e["event"] == "judged"]
    cosines = {organisation: told["cosine"] for organisation, told in event["updates"].items()}
    measured = [organisation for organisation, told in event["updates"].items() if told["effect"] is not None]
    assert measured == [min(cosines, key=lambda organisation: cosines[organisation])]


def test_the_time_of_effects_beyond_a_tenth_of_a_round_is_owed_by_the_rounds_that_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("server_app.rounds.time.monotonic", lambda: now[0])

    class Slow(FirstOnly):
        def effects(
            self, before: AdapterState, updates: Sequence[WeightedUpdate], seconds: float
        ) -> dict[Address, float]:
            now[0] += 2.5
            return super().effects(before, updates, seconds)

    federation = Federation.create(tmp_path, NAMES, rounds=5)
    federation.measures = Slow({})
    rounds = federation.rounds()
    for number in range(1, 6):
        close(rounds, number, seconds=10.0)
    judged = [e["updates"] for e in federation.events.read(federation.events.path)[0] if e["event"] == "judged"]
    told = [any(update["effect"] is not None for update in updates.values()) for updates in judged]
    # A second a round: after the first, 1.5 are owed.
    assert told == [True, False, True, False, True]


@pytest.mark.parametrize("rule", RULES)
def test_a_robust_federation_is_recomputed_and_what_counts_adds_up(world: World, rule: str) -> None:
    run = world.run(rule, robust=rule, rounds=2, quorum=3)
    measuring = measuring_again(run, RunConfig.from_flat(world.settings))
    report = verify(run, world.ledger, measures=measuring)
    assert report.failures == ()
    assert report.recomputed == 2
    assert "effects on the validation loss, not measured again" not in report.checked
    for done in stored_rounds(run, 0, 1.0, measuring.fresh):
        for name, array in done.after().arrays.items():
            parts = [u.weight * u.state[name].astype(np.float64) for u in done.updates]
            np.testing.assert_allclose(array, done.before()[name] + sum(parts), rtol=2.0**-23, atol=2.0**-30)


def test_a_round_of_two_is_clipped_by_what_all_members_sent_before(tmp_path: Path) -> None:
    names = (*NAMES, "mathematical")
    federation = Federation.create(
        tmp_path, names, nodes=4, rounds=4, policy="round-robin", fraction=0.5, robust=Robust("clip", 1.5),
        norm_bound=1e6,
    )  # fmt: skip

    federation.clients.behave = {"medical": large(40.0)}
    federation.start()
    factors = [(a.organisation, a.factor) for s in federation.run.records() for a in s.value.admitted]
    attacked = [factor for organisation, factor in factors if organisation == f.address("medical")]
    assert len(attacked) == 2
    assert max(attacked) < 0.1
    assert min(factor for organisation, factor in factors if organisation != f.address("medical")) > 0.9


@pytest.mark.parametrize("rule", ["clip", "none"])
def test_an_audit_finds_a_norm_that_is_not_the_update_s(
    world: World, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a small one an update would count whole, by a large one the others would."""

    def lying(self: RoundRecord, *arguments: object) -> object:
        first, *others = self.admitted
        return sign(replace(self, admitted=(replace(first, norm=first.norm * 0.5 + 0.5), *others)), *arguments)

    sign = RoundRecord.sign
    monkeypatch.setattr(RoundRecord, "sign", lying)
    run = world.run("norms", robust=rule, rounds=1)
    monkeypatch.undo()
    assert "norm" in {failure.what for failure in verify(run, world.ledger).failures}


def test_an_audit_without_the_base_says_what_it_did_not_measure(world: World) -> None:
    report = verify(world.run("validation", robust="validation", rounds=1), world.ledger)
    assert report.failures == ()
    assert report.checked["effects on the validation loss, not measured again"] == 3


@pytest.mark.parametrize("rule", RULES)
def test_an_audit_finds_a_changed_factor(world: World, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lying(self: RoundRecord, *arguments: object) -> object:
        first, *others = self.admitted
        changed = replace(first, factor=1.0 - first.factor)
        return sign(replace(self, admitted=(changed, *others)), *arguments)

    sign = RoundRecord.sign
    monkeypatch.setattr(RoundRecord, "sign", lying)
    run = world.run("lying", robust=rule, rounds=1, quorum=3)
    monkeypatch.undo()
    failures = verify(run, world.ledger, measures=measuring_again(run, RunConfig.from_flat(world.settings))).failures
    assert "robust factor" in {failure.what for failure in failures}
