"""Rewards: credits are measured once, kept, measured again where they are missing, and paid from the pool."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agents.credit import CreditedRound, DomainCredit, RoundCredit
from agents.rewards import Rewards, credited, cumulative
from core.adapter import AdapterState
from core.aggregation import RULES
from core.errors import UsageError
from tests import federation as f
from tests.server_app.clients import Federation, name_of


@dataclass
class Measured:
    """Credits by examples, and the rounds that were measured."""

    rounds: list[CreditedRound] = field(default_factory=list)

    def __call__(self, done: CreditedRound) -> RoundCredit:
        self.rounds.append(done)
        credits = {u.organisation: float(f.EXAMPLES[name_of(u.organisation)]) for u in done.updates}
        return RoundCredit({"all": DomainCredit(sum(credits.values()), credits, 0.0, 0.0)})


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """A finished run of two rounds."""
    made = Federation.found(tmp_path)
    made.start()
    return made


def initial() -> AdapterState:
    return RULES["frozen-a"].initial(f.fresh())


def restored(federation: Federation, measure: Measured, pool: float = 0.0) -> Rewards:
    rewards = Rewards(federation.folder / "credits", federation.run, pool, measure)
    rewards.restore(0, initial())
    return rewards


def test_missing_credits_are_measured_and_kept_ones_are_read(federation: Federation) -> None:
    measure = Measured()
    first = restored(federation, measure)
    assert [done.earlier is None for done in measure.rounds] == [True, False]
    assert measure.rounds[0].before == initial()
    assert measure.rounds[1].before == measure.rounds[0].after
    again = restored(federation, measure)
    assert len(measure.rounds) == 2
    assert again.cumulative() == first.cumulative()
    (folder,) = (federation.folder / "credits").parent.glob("credits")
    assert sorted(path.name for path in folder.iterdir()) == ["L0000-G0000-R00001.json", "L0000-G0000-R00002.json"]


@pytest.mark.parametrize("damage", ["torn", "of another record"])
def test_a_damaged_file_is_measured_again(federation: Federation, damage: str) -> None:
    restored(federation, Measured())
    first, second = sorted((federation.folder / "credits").iterdir())
    first.write_bytes(first.read_bytes()[:-9] if damage == "torn" else second.read_bytes())
    measure = Measured()
    restored(federation, measure)
    assert len(measure.rounds) == 1


def test_a_round_pays_its_pool_in_proportion_to_credit(federation: Federation) -> None:
    total = sum(f.EXAMPLES.values())
    for pool, paid in ((0.0, float(len(f.EXAMPLES))), (10.0, 10.0)):
        rewards = Rewards(federation.folder / f"credits-{pool}", federation.run, pool, Measured())
        rewards.restore(0, initial())
        for name, examples in f.EXAMPLES.items():
            assert rewards.paid(0, f.address(name)) == pytest.approx(dict.fromkeys((1, 2), paid * examples / total))
            assert rewards.of(0, 2)[f.address(name)] == examples
        assert sum(rewards.cumulative().values()) == pytest.approx(2 * paid)


def test_whoever_was_not_admitted_was_paid_nothing(federation: Federation) -> None:
    rewards = restored(federation, Measured())
    assert rewards.paid(0, f.COORDINATOR.address) == {1: 0.0, 2: 0.0}
    assert rewards.paid(7, f.address("coding")) == {}


def test_readers_measure_nothing_and_say_which_round_is_missing(federation: Federation) -> None:
    folder = federation.folder / "credits"
    assert [measured for _, measured in credited(folder, federation.run)] == [None, None]
    rewards = restored(federation, Measured())
    assert cumulative(folder, federation.run) == rewards.cumulative()
    sorted(folder.iterdir())[1].unlink()
    with pytest.raises(UsageError, match="round 2 of lane 0"):
        cumulative(folder, federation.run)
