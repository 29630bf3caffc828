"""Signed records of federations in which organisations take part when told to; no model, no store."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from core.canonical import Address, Digest, digest
from core.genesis import Privacy
from core.rounds import Admitted, RoundRecord
from core.signed import Signed
from tests import federation as f
from unlearning.lineage import Label, Lineage
from unlearning.plan import Lanes, Plan, plans

NAMES = ("coding", "financial", "mathematical", "medical")


class History:
    """Signed records of a federation in which everyone takes part when told to; no model, no store."""

    def __init__(self, lanes: int = 1, rounds: int = 4, privacy: Privacy | None = None) -> None:
        members = [m.address for m in f.members()]
        partition = tuple(tuple(members[lane::lanes]) for lane in range(lanes))
        training = replace(f.genesis().training, rounds=rounds)
        self.genesis = f.genesis(lanes=partition, training=training, privacy=privacy)
        self.lines: list[list[Signed[RoundRecord]]] = [[] for _ in range(lanes)]
        self.records: list[Signed[RoundRecord]] = []

    def train(
        self, *names: str, lane: int = 0, generation: int = 0, nonce: str = "", epsilon: float = 0.0
    ) -> RoundRecord:
        """A round that admits these; each says that it has spent so much ε."""
        number, parent = len(self.lines[lane]) + 1, self.head(lane)
        signed = [
            f.signed(
                self.genesis, name, lane=lane, generation=generation, round=number, parent=parent,
                update=digest("adapter", f"{name} {generation} {number}".encode()),
                nonce=digest("nonce", f"{name} {generation} {number} {nonce}".encode()),
                epsilon=epsilon,
            )
            for name in names
        ]  # fmt: skip
        return self.append(lane, generation, tuple(Admitted(s, 1 / len(names)) for s in signed))

    def append(self, lane: int, generation: int, admitted: tuple[Admitted, ...]) -> RoundRecord:
        """A round that admits these updates, whosever place they name."""
        number, parent = len(self.lines[lane]) + 1, self.head(lane)
        record = RoundRecord(
            self.genesis.digest, lane, generation, number, 1, parent, parent, "frozen-a", admitted, (),
            digest("adapter", f"{lane} {generation} {number}".encode()),
        )  # fmt: skip
        signed = record.sign(f.COORDINATOR, self.genesis.chain)
        self.lines[lane].append(signed)
        self.records.append(signed)
        return record

    def head(self, lane: int) -> Digest:
        return self.lines[lane][-1].value.digest if self.lines[lane] else self.genesis.digest

    def reaggregate(self, made: Plan) -> None:
        """What `made` does to the records: cut the line, and sum again without the erased."""
        del self.lines[made.lane][made.start :]
        for record in made.records:
            kept = tuple(a for a in record.admitted if a.organisation not in made.erased)
            self.append(made.lane, record.generation + 1, kept)

    def lanes(self, erased: Mapping[Address, Label] | None = None) -> Lanes:
        lines = [[signed.value for signed in line] for line in self.lines]
        lineage = Lineage.of(self.genesis, self.records)
        last = [max(self.genesis.training.rounds, len(line)) for line in lines]
        return Lanes(
            self.genesis, lineage, [s.value for s in self.records], lines, erased or {}, last, self.genesis.lanes
        )

    def plan(self, name: str, method: str, **erased: Label) -> Plan:
        (made,) = plans(self.lanes({f.address(n): label for n, label in erased.items()}), f.address(name), method)
        return made


def together(*rounds: Sequence[str], privacy: Privacy | None = None) -> History:
    history = History(rounds=len(rounds), privacy=privacy)
    for names in rounds:
        history.train(*names)
    return history


def names(addresses: frozenset[Address] | Sequence[Address]) -> set[str]:
    return {name for name in NAMES if f.address(name) in addresses}


EVERYONE = (NAMES, NAMES, NAMES, NAMES)
LATE = (NAMES[1:], NAMES[1:], NAMES, NAMES)
LAST = (NAMES[1:], NAMES[1:], NAMES[1:], NAMES)


class Sharded(History):
    """Each organisation alone in two lanes, one for each shard of its records; two rounds are done."""

    def __init__(self) -> None:
        super().__init__(rounds=2)
        members = [m.address for m in f.members()]
        self.genesis = replace(self.genesis, lanes=tuple((member,) for member in members for _ in range(2)))
        self.lines = [[] for _ in self.genesis.lanes]
        for lane, (member,) in enumerate(self.genesis.lanes * 2):
            name = next(name for name in NAMES if f.address(name) == member)
            self.train(name, lane=lane % len(self.lines), nonce=f"{lane}")

    def of(self, name: str) -> tuple[int, ...]:
        return self.genesis.lanes_of(f.address(name))
