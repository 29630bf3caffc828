"""Credits of rounds: measured when a round closes, recorded, and paid out."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from agents.credit import CreditedRound
from agents.rewards import Rewards, credited, cumulative
from core.aggregation import WeightedUpdate
from core.canonical import Address, to_json
from core.credit import DomainCredit, RoundCredit
from core.errors import IntegrityError
from core.rounds import RoundRecord
from core.storage.blobs import write
from core.storage.run_folder import credit_name
from tests.behaviours.runs import Federation, Lies, advance, build

CREDITS = {"coding": 3.0, "financial": 1.0}


class Measured:
    """A measure that gives every organisation its credit in two domains, and remembers what it was asked."""

    def __init__(self, federation: Federation, credits: Mapping[str, float] = CREDITS) -> None:
        self.rounds: list[CreditedRound] = []
        self.credits = {federation.members[name].address: credit for name, credit in credits.items()}

    def __call__(self, done: CreditedRound) -> RoundCredit:
        self.rounds.append(done)
        twice = {address: 2 * credit for address, credit in self.credits.items()}
        return RoundCredit(
            {"one": DomainCredit(4.0, twice, 0.0, 0.0), "two": DomainCredit(0.5, self._none(), 0.5, 0.0)}
        )

    def _none(self) -> dict[Address, float]:
        return dict.fromkeys(self.credits, 0.0)


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """Two rounds of two organisations."""
    return build(tmp_path / "run", rounds=2)


def address(federation: Federation, name: str) -> Address:
    return federation.members[name].address


def measured(federation: Federation, measure: Measured, pool: float = 8.0) -> Rewards:
    rewards = Rewards(federation.run, pool, measure)
    rewards.measure_again(0, federation.rule.initial(federation.fresh))
    return rewards


def recorded(folder: Path, pool: float = 8.0) -> Federation:
    """Two rounds of two organisations, whose records name their credit."""
    states: list[Rewards] = []

    def record(federation: Federation, plain: RoundRecord) -> RoundRecord:
        rewards = states[0] if states else Rewards(federation.run, pool, Measured(federation))
        if not states:
            rewards.restore(0, [], federation.rule.initial(federation.fresh))
            states.append(rewards)
        after = federation.run.artifacts.open(plain.aggregate)
        sources = [(a, partial(federation.run.artifacts.open, a.signed.value.update)) for a in plain.admitted]
        updates = [WeightedUpdate(a.organisation, a.weight, source) for a, source in sources]
        credit = rewards.measure(0, plain.round, updates, after)
        assert credit is not None
        rewards.keep(0, plain.round, credit, after)
        write(federation.run.folder / credit_name(plain.key), to_json(credit.to_dict()))
        return replace(plain, credit=credit.digest)

    return build(folder, rounds=2, lies=Lies(record=record))


def test_rounds_are_measured_in_their_order(federation: Federation) -> None:
    measure = Measured(federation)
    measured(federation, measure)
    first, second = measure.rounds
    initial = federation.rule.initial(federation.fresh)
    states = [federation.run.artifacts.open(signed.value.aggregate) for signed in federation.run.lineage(0)]
    assert (first.earlier, first.before, first.after) == (None, initial, states[0])
    assert (second.earlier, second.before, second.after) == (initial, states[0], states[1])
    assert [update.organisation for update in first.updates] == list(federation.genesis.lanes[0])


def test_what_is_recorded_is_not_measured_again(tmp_path: Path) -> None:
    federation = recorded(tmp_path / "run")
    again = Measured(federation, {"coding": 100.0, "financial": 100.0})
    rewards = Rewards(federation.run, 8.0, again)
    line = [signed.value for signed in federation.run.lineage(0)]
    rewards.restore(0, line, federation.rule.initial(federation.fresh))
    assert again.rounds == []
    assert rewards.cumulative() == measured(federation, Measured(federation)).cumulative() == cumulative(federation.run)
    assert [record.round for record, found in credited(federation.run) if found] == [1, 2]


@pytest.mark.parametrize("damage", [None, b"", b"[]", b'{"domains":{},"incomes":{}}'])
def test_a_credit_that_is_not_what_its_record_names_is_refused(tmp_path: Path, damage: bytes | None) -> None:
    federation = recorded(tmp_path / "run")
    path = federation.run.folder / credit_name(federation.run.lineage(0)[1].value.key)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    with pytest.raises(IntegrityError, match="R00002"):
        cumulative(federation.run)


def test_a_round_pays_its_pool_in_proportion_to_credit(federation: Federation) -> None:
    rewards = measured(federation, Measured(federation))
    coding, financial = (address(federation, name) for name in ("coding", "financial"))
    assert rewards.of(0, 1) == {coding: 3.0, financial: 1.0}  # the mean of two domains
    assert rewards.paid(0, coding) == {1: pytest.approx(6.0), 2: pytest.approx(6.0)}
    assert rewards.cumulative() == {coding: pytest.approx(12.0), financial: pytest.approx(4.0)}


def test_without_a_pool_a_round_pays_one_for_each_member(federation: Federation) -> None:
    rewards = measured(federation, Measured(federation), pool=0.0)
    assert sum(rewards.cumulative().values()) == pytest.approx(2 * 2)


def test_strangers_and_rounds_that_were_not_are_worth_nothing(federation: Federation) -> None:
    rewards = measured(federation, Measured(federation))
    assert rewards.paid(0, address(federation, "coding")).keys() == {1, 2}
    assert rewards.paid(0, Address("0x" + "00" * 20)) == {1: 0.0, 2: 0.0}
    assert rewards.paid(1, address(federation, "coding")) == {}
    assert rewards.of(0, 3) == {}


def test_a_calibration_is_not_paid(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=1)
    advance(federation, 2)  # one round behind the federation's last
    measure = Measured(federation)
    measured(federation, measure)
    assert [done.before for done in measure.rounds] == [federation.rule.initial(federation.fresh)]
    assert [record.round for record, _ in credited(federation.run)] == [1]
