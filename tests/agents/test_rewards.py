"""Credits of rounds: measured once, kept in files, measured again where a file is missing, and paid out."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from agents.credit import CreditedRound, DomainCredit, RoundCredit
from agents.rewards import Rewards, credited, cumulative
from core.canonical import Address, from_json, to_json
from core.errors import UsageError
from tests.behaviours.runs import Federation, advance, build

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


def restored(federation: Federation, folder: Path, measure: Measured, pool: float = 8.0) -> Rewards:
    rewards = Rewards(folder, federation.run, pool, measure)
    rewards.restore(0, federation.rule.initial(federation.fresh))
    return rewards


def test_rounds_that_were_not_credited_are_measured_in_their_order(federation: Federation, tmp_path: Path) -> None:
    measure = Measured(federation)
    restored(federation, tmp_path / "credits", measure)
    first, second = measure.rounds
    initial = federation.rule.initial(federation.fresh)
    states = [federation.run.artifacts.open(signed.value.aggregate) for signed in federation.run.lineage(0)]
    assert (first.earlier, first.before, first.after) == (None, initial, states[0])
    assert (second.earlier, second.before, second.after) == (initial, states[0], states[1])
    assert [update.organisation for update in first.updates] == list(federation.genesis.lanes[0])


def test_what_was_measured_is_not_measured_again(federation: Federation, tmp_path: Path) -> None:
    before = restored(federation, tmp_path / "credits", Measured(federation))
    again = Measured(federation, {"coding": 100.0, "financial": 100.0})
    rewards = restored(federation, tmp_path / "credits", again)
    assert again.rounds == []
    assert rewards.cumulative() == before.cumulative()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"record":"another"}'])
def test_a_torn_or_foreign_file_is_measured_again(federation: Federation, tmp_path: Path, damage: bytes) -> None:
    restored(federation, tmp_path / "credits", Measured(federation))
    (tmp_path / "credits" / "L0000-G0000-R00002.json").write_bytes(damage)
    measure = Measured(federation)
    restored(federation, tmp_path / "credits", measure)
    assert [done.after for done in measure.rounds] == [federation.lanes[0].state]


def test_a_round_pays_its_pool_in_proportion_to_credit(federation: Federation, tmp_path: Path) -> None:
    rewards = restored(federation, tmp_path / "credits", Measured(federation))
    coding, financial = (address(federation, name) for name in ("coding", "financial"))
    assert rewards.of(0, 1) == {coding: 3.0, financial: 1.0}  # the mean of two domains
    assert rewards.paid(0, coding) == {1: pytest.approx(6.0), 2: pytest.approx(6.0)}
    assert rewards.cumulative() == {coding: pytest.approx(12.0), financial: pytest.approx(4.0)}


def test_without_a_pool_a_round_pays_one_for_each_member(federation: Federation, tmp_path: Path) -> None:
    rewards = restored(federation, tmp_path / "credits", Measured(federation), pool=0.0)
    assert sum(rewards.cumulative().values()) == pytest.approx(2 * 2)


def test_strangers_and_rounds_that_were_not_are_worth_nothing(federation: Federation, tmp_path: Path) -> None:
    rewards = restored(federation, tmp_path / "credits", Measured(federation))
    assert rewards.paid(0, address(federation, "coding")).keys() == {1, 2}
    assert rewards.paid(0, Address("0x" + "00" * 20)) == {1: 0.0, 2: 0.0}
    assert rewards.paid(1, address(federation, "coding")) == {}
    assert rewards.of(0, 3) == {}


def test_the_file_of_a_round_names_its_record(federation: Federation, tmp_path: Path) -> None:
    restored(federation, tmp_path / "credits", Measured(federation))
    data = (tmp_path / "credits" / "L0000-G0000-R00001.json").read_bytes()
    kept = from_json(data)
    assert kept["record"] == federation.run.lineage(0)[0].value.digest
    assert kept["domains"]["two"] | {"credits": {}} == {"change": 0.5, "credits": {}, "nobody": 0.5, "residual": 0.0}
    assert data == to_json(kept)


def test_payments_are_read_without_measuring(federation: Federation, tmp_path: Path) -> None:
    rewards = restored(federation, tmp_path / "credits", Measured(federation))
    assert cumulative(tmp_path / "credits", federation.run) == rewards.cumulative()
    assert [record.round for record, found in credited(tmp_path / "credits", federation.run) if found] == [1, 2]


def test_a_round_without_credits_is_named(federation: Federation, tmp_path: Path) -> None:
    restored(federation, tmp_path / "credits", Measured(federation))
    (tmp_path / "credits" / "L0000-G0000-R00001.json").unlink()
    with pytest.raises(UsageError, match="round 1 of lane 0"):
        cumulative(tmp_path / "credits", federation.run)


def test_a_calibration_is_not_paid(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=1)
    advance(federation, 2)  # one round behind the federation's last
    measure = Measured(federation)
    restored(federation, tmp_path / "credits", measure)
    assert [done.before for done in measure.rounds] == [federation.rule.initial(federation.fresh)]
    assert [record.round for record, _ in credited(tmp_path / "credits", federation.run)] == [1]
