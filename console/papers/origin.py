"""Where a served adapter comes from, as every paper about it tells: who taught it, by which rounds, anchored where."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from chain.queue import read_anchors
from console.views.report import report
from core.canonical import ZERO_DIGEST, Address, Digest
from core.errors import IntegrityError
from core.ledger import Anchor
from core.rounds import RoundRecord, Salts
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from core.update import Organisation


class Teacher(NamedTuple):
    """An organisation, and how many of its updates are in what is served."""

    called: str
    organisation: Organisation
    updates: int


class ServedHead(NamedTuple):
    """A lane's served round, its salts, and where it was committed; None for what was destroyed or is still missing."""

    record: RoundRecord
    salts: Salts | None
    anchor: Anchor | None


@dataclass(frozen=True)
class Origin:
    """What is known here of a run, and of its served adapter with digest `aggregate` (zero: none was loaded).

    Organisations go by name where they are `named`, else by address, under which they sign and stand on the chain.
    """

    state: State
    run: RunFolder
    aggregate: Digest = ZERO_DIGEST
    named: bool = False
    licence: str = ""
    base_signature: str = ""
    """What is known of the signature of its base, in words."""

    @cached_property
    def lines(self) -> list[list[RoundRecord]]:
        """The rounds that are in what is served, of each lane that has any."""
        lanes = range(len(self.run.genesis.lanes))
        lines = [[signed.value for signed in self.run.served_line(lane)] for lane in lanes if self.run.members(lane)]
        return [line for line in lines if line]

    @cached_property
    def heads(self) -> list[ServedHead]:
        """The served round of each lane."""
        anchors, found = read_anchors(self.run.queue), []
        for line in self.lines:
            try:
                salts = self.run.salts(line[-1])
            except IntegrityError:  # an erasure has destroyed them
                salts = None
            found.append(ServedHead(line[-1], salts, anchors.get(line[-1].key)))
        return found

    @cached_property
    def teachers(self) -> list[Teacher]:
        """The organisations with an update in what is served, in order of address."""
        counts = Counter(
            admitted.organisation for line in self.lines for record in line for admitted in record.admitted
        )
        everyone = sorted(self.run.genesis.everyone, key=lambda member: member.address)
        return [Teacher(self.called(m.address), m, counts[m.address]) for m in everyone if counts[m.address]]

    @cached_property
    def report(self) -> dict[str, Any]:
        """What `foedus status` says of the run."""
        return report(self.state, self.run)

    @property
    def losses(self) -> list[tuple[str, float, float]]:
        """Of each organisation that measured: how it is called, its loss by the base and by what is served, in nats."""
        told, addresses = self.report, self.report["organisations"]
        final = told["final_loss"]
        return sorted(
            (self.called(addresses[n]), base, final[n]) for n, base in told["base_loss"].items() if n in final
        )

    def called(self, address: Address) -> str:
        """An organisation's name where names are shown, else its address."""
        return self.run.genesis.names.get(address, address) if self.named else address
