"""The credits of a run's rounds, measured when a round closes, and the payments that follow from them.

They lie with the run's records, which name them by digest (core/credit.py).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from agents.credit import CreditedRound, incomes
from core.adapter import AdapterState
from core.aggregation import WeightedUpdate
from core.canonical import ZERO_DIGEST, Address
from core.credit import CreditRecord, RoundCredit, added
from core.errors import DestroyedError
from core.genesis import Genesis
from core.rounds import RoundRecord
from core.storage.run_folder import RunFolder

Measure = Callable[[CreditedRound], RoundCredit]


class Rewards:
    """The credits of one run's lineage, lane by lane."""

    def __init__(self, run: RunFolder, pool: float, measure: Measure) -> None:
        """`pool` is a round's payment to all; 0 is one for each member of its lane."""
        self.run, self.pool, self._measure = run, pool, measure
        self._rounds: dict[int, dict[int, CreditRecord]] = {}
        self._states: dict[int, list[AdapterState]] = {}

    def restore(self, lane: int, line: Sequence[RoundRecord], initial: AdapterState) -> None:
        """Read the credits of a lane's lineage; raises IntegrityError when one is not what its record names."""
        paying = _paying(self.run.genesis, line)
        self._rounds[lane] = {record.round: self.run.credit(record) for record in paying}
        self._states[lane] = self._last_two(paying, initial)

    def measure(
        self, lane: int, number: int, updates: Sequence[WeightedUpdate], after: AdapterState
    ) -> CreditRecord | None:
        """The credit of the round behind a lane's last, whose updates led to the state `after`.

        None for a round of a calibration, which is not paid.
        """
        if self.run.genesis.training.calibrates(number):
            return None
        *earlier, before = self._states[lane]
        credit = self._measure(CreditedRound(before, updates, after, earlier[0] if earlier else None))
        pool = self.pool or float(len(self.run.genesis.lanes[lane]))
        return CreditRecord(credit, incomes(credit.mean, pool))

    def keep(self, lane: int, number: int, credit: CreditRecord, after: AdapterState) -> None:
        """Go on from a round that was closed with this credit."""
        self._rounds[lane][number] = credit
        self._states[lane] = [*self._states[lane][-1:], after]

    def measure_again(self, lane: int, initial: AdapterState) -> None:
        """Measure every round of a lane's lineage anew, whatever is recorded, as an auditor does."""
        self._rounds[lane], self._states[lane] = {}, [initial]
        for record in _paying(self.run.genesis, _line(self.run, lane)):
            updates = record.counted(self.run.genesis, self.run.artifacts.open)
            after = self.run.artifacts.open(record.aggregate)
            if credit := self.measure(lane, record.round, updates, after):
                self.keep(lane, record.round, credit, after)

    def _last_two(self, lineage: Sequence[RoundRecord], initial: AdapterState) -> list[AdapterState]:
        """The states before and after the last of these rounds; only the latter where the other was erased."""
        if not lineage:
            return [initial]
        states = [self.run.artifacts.open(lineage[-1].aggregate)]
        with suppress(DestroyedError):  # without the state before it there is no public step to project off
            before = self.run.artifacts.open(lineage[-2].aggregate) if len(lineage) > 1 else initial
            states.insert(0, before)
        return states

    def paid(self, lane: int, organisation: Address) -> dict[int, float]:
        """An organisation's payments by round; 0 for rounds that it was not admitted to."""
        rounds = self._rounds.get(lane, {})
        return {number: credit.incomes.get(organisation, 0.0) for number, credit in rounds.items()}

    def of(self, lane: int, number: int) -> Mapping[Address, float]:
        """The mean credits of a round in nats."""
        credit = self._rounds.get(lane, {}).get(number)
        return credit.credit.mean if credit else {}

    def cumulative(self) -> dict[Address, float]:
        """Every organisation's payments of all rounds and lanes."""
        return added(credit.incomes for rounds in self._rounds.values() for credit in rounds.values())


def credited(run: RunFolder) -> Iterator[tuple[RoundRecord, CreditRecord | None]]:
    """The rounds of a run's lineage, lane by lane, each with its credit; None where none was measured.

    Raises IntegrityError when one is missing, or is not what its record names.
    """
    for lane in range(len(run.genesis.lanes)):
        for record in _paying(run.genesis, _line(run, lane)):
            yield record, None if record.credit == ZERO_DIGEST else run.credit(record)


def _line(run: RunFolder, lane: int) -> Iterator[RoundRecord]:
    return (signed.value for signed in run.lineage(lane))


def _paying(genesis: Genesis, line: Iterable[RoundRecord]) -> list[RoundRecord]:
    """The rounds of a lane's lineage that are paid: all but those of a calibration."""
    return [record for record in line if not genesis.training.calibrates(record.round)]


def cumulative(run: RunFolder) -> dict[Address, float]:
    """Every organisation's payments of all rounds and lanes, read and not measured; raises as `credited` does."""
    return added(credit.incomes for _, credit in credited(run) if credit)
