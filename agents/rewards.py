"""The credits of a run's rounds, measured and kept, and the payments that follow from them.

    STATE/credits/RUN/L0000-G0000-R00001.json
    {"record": digest, "domains": {domain: {"change", "credits": {address: nats}, "nobody", "residual"}},
     "incomes": {address: amount}}

Every file can be measured again from the record that it names, and is, when it is missing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.credit import CreditedRound, RoundCredit, incomes
from core.adapter import AdapterState
from core.aggregation import WeightedUpdate
from core.canonical import Address, from_json, to_json
from core.errors import DestroyedError, FormatError, UsageError
from core.rounds import RoundRecord
from core.storage.blobs import write
from core.storage.run_folder import RunFolder

Measure = Callable[[CreditedRound], RoundCredit]


class Rewards:
    """The credits of one run's lineage, lane by lane."""

    def __init__(self, folder: Path, run: RunFolder, pool: float, measure: Measure) -> None:
        """`pool` is a round's payment to all; 0 is one for each member of its lane."""
        self.folder, self.run, self.pool, self.measure = folder, run, pool, measure
        self._paid: dict[int, dict[int, Mapping[Address, float]]] = {}
        self._credit: dict[int, dict[int, Mapping[Address, float]]] = {}
        self._states: dict[int, list[AdapterState]] = {}

    def restore(self, lane: int, initial: AdapterState) -> None:
        """Read the credits of a lane's lineage, and measure those that are missing."""
        self._paid[lane], self._credit[lane] = {}, {}
        lineage = _paying(self.run, lane)
        for index, record in enumerate(lineage):
            measured = _read(self.folder, record)
            if measured is None:
                self._states[lane] = self._last_two(lineage[:index], initial)
                measured = self._measure(record, self.run.artifacts.open(record.aggregate))
            self._keep(record, measured)
        self._states[lane] = self._last_two(lineage, initial)

    def credit(self, record: RoundRecord, after: AdapterState) -> dict[str, Any]:
        """Measure and keep the round behind the last; `after` is the state that it led to."""
        measured = self._measure(record, after)
        self._keep(record, measured)
        self._states[record.lane] = [*self._states[record.lane][-1:], after]
        return measured

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
        return {number: paid.get(organisation, 0.0) for number, paid in self._paid.get(lane, {}).items()}

    def of(self, lane: int, number: int) -> Mapping[Address, float]:
        """The mean credits of a round in nats."""
        return self._credit.get(lane, {}).get(number, {})

    def cumulative(self) -> dict[Address, float]:
        """Every organisation's payments of all rounds and lanes."""
        return _sums(paid for rounds in self._paid.values() for paid in rounds.values())

    def _measure(self, record: RoundRecord, after: AdapterState) -> dict[str, Any]:
        """Measure a round, and write its file."""
        updates = [
            WeightedUpdate(a.organisation, a.weight, self.run.artifacts.open(a.signed.value.update))
            for a in record.admitted
        ]
        *earlier, before = self._states[record.lane]
        credit = self.measure(CreditedRound(before, updates, after, earlier[0] if earlier else None))
        pool = self.pool or float(len(self.run.genesis.lanes[record.lane]))
        domains = {name: asdict(part) | {"credits": dict(part.credits)} for name, part in credit.domains.items()}
        measured = {"record": record.digest, "domains": domains, "incomes": incomes(credit.mean, pool)}
        write(_path(self.folder, record), to_json(measured))
        return measured

    def _keep(self, record: RoundRecord, measured: Mapping[str, Any]) -> None:
        domains = list(measured["domains"].values())
        mean = {a: sum(part["credits"][a] for part in domains) / len(domains) for a in measured["incomes"]}
        self._paid.setdefault(record.lane, {})[record.round] = measured["incomes"]
        self._credit.setdefault(record.lane, {})[record.round] = mean


def credited(folder: Path, run: RunFolder) -> Iterator[tuple[RoundRecord, dict[str, Any] | None]]:
    """The rounds of a run's lineage, lane by lane, each with its measured credit; None where that is missing."""
    for lane in range(len(run.genesis.lanes)):
        for record in _paying(run, lane):
            yield record, _read(folder, record)


def _paying(run: RunFolder, lane: int) -> list[RoundRecord]:
    """The rounds of a lane's lineage that are paid: all but those of a calibration."""
    records = (signed.value for signed in run.lineage(lane))
    return [record for record in records if not run.genesis.training.calibrates(record.round)]


def cumulative(folder: Path, run: RunFolder) -> dict[Address, float]:
    """Every organisation's payments of all rounds and lanes, read and not measured.

    Raises UsageError when a round was not credited.
    """
    rounds = list(credited(folder, run))
    if missing := [record for record, measured in rounds if measured is None]:
        which = f"round {missing[0].round} of lane {missing[0].lane}"
        raise UsageError(f"run {run.name}: expected credits of {which} in {folder}, got none: resume to measure them")
    return _sums(measured["incomes"] for _, measured in rounds if measured)


def _sums(rounds: Iterable[Mapping[Address, float]]) -> dict[Address, float]:
    total: dict[Address, float] = {}
    for paid in rounds:
        for organisation, amount in paid.items():
            total[organisation] = total.get(organisation, 0.0) + amount
    return total


def _read(folder: Path, record: RoundRecord) -> dict[str, Any] | None:
    """The measured credit of exactly this record; None when it is missing or of another."""
    path = _path(folder, record)
    if not path.exists():
        return None
    try:
        measured: dict[str, Any] = from_json(path.read_bytes())
    except FormatError:
        return None  # a torn file is measured again
    return measured if isinstance(measured, dict) and measured.get("record") == record.digest else None


def _path(folder: Path, record: RoundRecord) -> Path:
    return folder / f"L{record.lane:04}-G{record.generation:04}-R{record.round:05}.json"
