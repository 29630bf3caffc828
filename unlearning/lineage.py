"""The lineage of a run: the graph of its base, updates and checkpoints, read from its signed records.

    node       its parents
    genesis    the base, and the shared validation set, by which agents are paid; it fixes every setting
    update     the genesis, or the record that it was trained on
    record     its parent record, and the updates that it admits

A node is named by its digest: a manifest's, a record's, that of the base's files. Every edge is signed: an update names
the record that it was trained on, a record its parent and its updates. So nobody can pass off a checkpoint that knew an
erased organisation as one that did not: the label of the served state is computed from all its ancestors.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import takewhile
from typing import Self

from core.canonical import Address, Digest
from core.erasures import Attestation
from core.errors import IntegrityError
from core.genesis import Genesis
from core.rounds import RoundRecord
from core.signed import Signed
from core.update import UpdateManifest


class Label(StrEnum):
    """The result of an erasure; computed, never chosen."""

    EXACT = "exact"
    """Nothing that is served descends from an erased update."""
    EXACT_IN_DISTRIBUTION = "exact-in-distribution"
    """As exact, and trained since with noise that its organisations keep secret: nobody else can train the same again,
    and the result is one that might have come out had the erased never taken part."""
    INTERIM = "interim"
    """The erased updates are out of the sum; others that are in it were trained on models that knew them."""
    APPROXIMATE = "approximate"
    """As interim, and trained further."""

    @classmethod
    def of_clean(cls, *, noised: bool) -> Self:
        """The label of what descends from no erased update; `noised` says whether secret noise was drawn since."""
        return cls(cls.EXACT_IN_DISTRIBUTION if noised else cls.EXACT)

    @property
    def clean(self) -> bool:
        """Whether nothing that is served descends from an erased update."""
        return self in {Label.EXACT, Label.EXACT_IN_DISTRIBUTION}


@dataclass(frozen=True)
class Lineage:
    """The parents of every node, and the manifest of every update."""

    parents: Mapping[Digest, frozenset[Digest]]
    manifests: Mapping[Digest, UpdateManifest]

    @classmethod
    def of(cls, genesis: Genesis, records: Iterable[Signed[RoundRecord]]) -> Self:
        """The lineage of every record that admitted something.

        Raises ForgeryError for a signature that is not the claimed signer's, IntegrityError for a parent that stands in
        no record.
        """
        given = genesis.base.digest, genesis.validation
        roots = dict.fromkeys(given, frozenset[Digest]()) | {genesis.digest: frozenset(given)}
        return cls(roots, {}).extended(genesis, records)

    def extended(self, genesis: Genesis, records: Iterable[Signed[RoundRecord]]) -> Self:
        """This lineage and those of the records that are not in it, whose signatures alone are verified.

        Raises as `of` does.
        """
        parents, manifests = dict(self.parents), dict(self.manifests)
        for signed in (signed for signed in records if signed.value.digest not in parents):
            record = signed.verified(genesis)
            if not record.admitted:
                continue
            for admitted in record.admitted:
                if admitted.signed.value.digest not in manifests:  # a re-aggregated round admits an update once more
                    manifest = admitted.signed.verified(genesis)
                    parents[manifest.digest] = frozenset({manifest.parent})
                    manifests[manifest.digest] = manifest
            parents[record.digest] = frozenset({record.parent, *(a.signed.value.digest for a in record.admitted)})
        if missing := sorted(set[Digest]().union(*parents.values()) - set(parents)):
            raise IntegrityError(f"{missing[0]} is the parent of a node and stands in no record")
        return type(self)(parents, manifests)

    def descendants(self, nodes: Set[Digest]) -> Set[Digest]:
        """These nodes and all that descends from them, in one walk for each set of nodes that is asked for."""
        wanted = frozenset(nodes)
        if wanted not in self._descendants:
            seen, waiting = set[Digest](), list(wanted)
            # A walk and not a recursion: a run of many rounds is deeper than Python's stack.
            while waiting:
                if (node := waiting.pop()) not in seen:
                    seen.add(node)
                    waiting.extend(self._children.get(node, ()))
            self._descendants[wanted] = seen
        return self._descendants[wanted]

    @cached_property
    def _children(self) -> Mapping[Digest, Sequence[Digest]]:
        found: dict[Digest, list[Digest]] = {}
        for node, parents in self.parents.items():
            for parent in parents:
                found.setdefault(parent, []).append(node)
        return found

    @cached_property
    def _descendants(self) -> dict[frozenset[Digest], Set[Digest]]:
        return {}

    def updates(self, organisations: Collection[Address]) -> frozenset[Digest]:
        """The updates of these organisations."""
        return frozenset(update for update, made in self.manifests.items() if made.organisation in organisations)

    def updates_in_lane(self, organisation: Address, lane: int, before: int | None = None) -> frozenset[Digest]:
        """The updates of an organisation in a lane before a generation: each may know any of its records."""
        own = ((u, m) for u, m in self.manifests.items() if (m.organisation, m.lane) == (organisation, lane))
        return frozenset(update for update, made in own if before is None or made.generation < before)

    def erased(self, attestation: Attestation) -> frozenset[Digest]:
        """The updates that must not be known after an erasure: of the erased, and of whoever erased records."""
        updates = self.updates(attestation.erased)
        if attestation.whole:
            return updates
        return updates | self.updates_in_lane(attestation.organisation, attestation.lane, attestation.generation)

    def knows(self, nodes: Iterable[Digest], updates: Set[Digest]) -> bool:
        """Whether one of these updates is among the nodes and their ancestors.

        Raises IntegrityError for a node that is not known.
        """
        asked = frozenset(nodes)
        if unknown := sorted(node for node in asked if node not in self.parents):
            raise IntegrityError(f"{unknown[0]} is in no record of this run: its ancestors are unknown")
        return not asked.isdisjoint(self.descendants(updates))

    def clean(self, line: Iterable[RoundRecord], updates: Set[Digest]) -> tuple[RoundRecord, ...]:
        """The first records of a lane's line that do not know these updates."""
        return tuple(takewhile(lambda record: not self.knows([record.digest], updates), line))

    def label(self, served: Iterable[Digest], updates: Set[Digest], *, trained: bool, private: bool = False) -> Label:
        """The label of what is served after these updates were erased.

        `served` are the heads of the composed lanes, `trained` says whether rounds were trained since,
        `private` whether that was with secret noise. Raises
        IntegrityError when one of the updates is itself in the sum: then nothing was erased.
        """
        served = frozenset(served)
        if not self.knows(served, updates):
            return Label.of_clean(noised=trained and private)
        waiting = list(served)
        # Along records only, never through an update to the record that it was trained on: that is the sum.
        while waiting:
            parents = self.parents[waiting.pop()]
            if summed := parents & updates:
                organisation = self.manifests[min(summed)].organisation
                raise IntegrityError(f"update {min(summed)} of {organisation} is in what is served")
            waiting.extend(parents - set(self.manifests))
        return Label.APPROXIMATE if trained else Label.INTERIM
