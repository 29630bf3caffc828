"""What descends from what: base, updates and checkpoints of a run, read from its signed records.

    genesis    of the base and of the set that nobody owns, by which agents are paid; it fixes every setting
    update     of the genesis or of the record that it was trained on
    record     of its parent, and of the updates that it admits

A node is named by its digest: a manifest's, a record's, that of the base's files. Somebody signed every edge: an update
names the record that it was trained on, a record its parent and its updates. So nobody can pass off a checkpoint that
knew an erased organisation as one that did not: the label of what is served is computed from all its ancestors.
"""

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from core.canonical import Address, Digest
from core.erasures import Attestation
from core.errors import IntegrityError
from core.genesis import Genesis
from core.rounds import RoundRecord
from core.signed import Signed
from core.update import UpdateManifest


class Label(StrEnum):
    """What an erasure achieved; computed, never chosen."""

    EXACT = "exact"
    """Nothing that is served descends from an update of the erased, or from one that learnt from erased records."""
    INTERIM = "interim"
    """The updates of the erased are out of the sum; others that are in it were trained on models that knew them."""
    APPROXIMATE = "approximate"
    """As interim, and trained further."""


@dataclass(frozen=True)
class Lineage:
    """The graph: of each node what it was made of, and of each update who made it where."""

    parents: Mapping[Digest, frozenset[Digest]]
    manifests: Mapping[Digest, UpdateManifest]

    @classmethod
    def of(cls, genesis: Genesis, records: Iterable[Signed[RoundRecord]]) -> Self:
        """The lineage of every record that admitted something.

        Raises ForgeryError for a signature that is not the claimed signer's, IntegrityError for a parent that no record
        is.
        """
        given = genesis.base.digest, genesis.validation
        parents: dict[Digest, frozenset[Digest]] = {
            **dict.fromkeys(given, frozenset()),
            genesis.digest: frozenset(given),
        }
        manifests: dict[Digest, UpdateManifest] = {}
        for record in (signed.verified(genesis) for signed in records):
            if not record.admitted:
                continue
            for admitted in record.admitted:
                manifest = admitted.signed.verified(genesis)
                parents[manifest.digest] = frozenset({manifest.parent})
                manifests[manifest.digest] = manifest
            parents[record.digest] = frozenset({record.parent, *(a.signed.value.digest for a in record.admitted)})
        if missing := sorted(set[Digest]().union(*parents.values()) - set(parents)):
            raise IntegrityError(f"{missing[0]} is the parent of something and stands in no record")
        return cls(parents, manifests)

    def ancestors(self, nodes: Iterable[Digest]) -> frozenset[Digest]:
        """The nodes and everything that they were made of; raises IntegrityError for a node that is not known."""
        found: set[Digest] = set()
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            if node not in self.parents:
                raise IntegrityError(f"{node} is in no record of this run: nobody can tell what it was made of")
            if node not in found:
                found.add(node)
                waiting.extend(self.parents[node])
        return frozenset(found)

    def updates(self, organisations: Collection[Address]) -> frozenset[Digest]:
        """The updates of these organisations."""
        return frozenset(update for update, made in self.manifests.items() if made.organisation in organisations)

    def taught(self, organisation: Address, lane: int, generation: int) -> frozenset[Digest]:
        """The updates that an organisation made in a lane before a generation: each may know any of its records."""
        place = organisation, lane
        own = ((update, made) for update, made in self.manifests.items() if (made.organisation, made.lane) == place)
        return frozenset(update for update, made in own if made.generation < generation)

    def erased(self, attestation: Attestation) -> frozenset[Digest]:
        """The updates that an erasure is about: those of the erased, and those that learnt from erased records."""
        found = self.updates(attestation.erased)
        if attestation.whole:
            return found
        return found | self.taught(attestation.organisation, attestation.lane, attestation.generation)

    def knows(self, nodes: Iterable[Digest], updates: Set[Digest]) -> bool:
        """Whether one of these updates is among the ancestors of the nodes."""
        return not self.ancestors(nodes).isdisjoint(updates)

    def clean(self, line: Iterable[RoundRecord], updates: Set[Digest]) -> tuple[RoundRecord, ...]:
        """The first records of a lane's line that do not know these updates."""
        found: list[RoundRecord] = []
        for record in line:
            if self.knows([record.digest], updates):
                break
            found.append(record)
        return tuple(found)

    def label(self, served: Iterable[Digest], updates: Set[Digest], *, trained: bool) -> Label:
        """The label of what is served after these updates were erased.

        `served` are the heads of the lanes that it is composed of, `trained` says whether rounds were trained since.
        Raises IntegrityError when one of the updates is itself in the sum: then nothing was erased.
        """
        served = frozenset(served)
        if not self.knows(served, updates):
            return Label.EXACT
        if summed := self._summed(served) & updates:
            who = self.manifests[min(summed)].organisation
            raise IntegrityError(f"update {min(summed)} of {who} is in what is served")
        return Label.APPROXIMATE if trained else Label.INTERIM

    def _summed(self, heads: Iterable[Digest]) -> frozenset[Digest]:
        """The updates that the heads are the sums of: those of their own line of records."""
        found: set[Digest] = set()
        waiting = list(heads)
        while waiting:
            made_of = self.parents[waiting.pop()]
            found |= made_of & set(self.manifests)
            waiting.extend(made_of - set(self.manifests))
        return frozenset(found)
