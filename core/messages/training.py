"""Training and evaluation: the task, and the replies to it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from flwr.app import MetricRecord, RecordDict

from core.adapter import AdapterState
from core.canonical import Address
from core.composition import Composition, Part
from core.errors import FormatError
from core.generations import GenerationRecord
from core.genesis import Genesis
from core.messages.codec import (
    MANIFEST_BYTES,
    QUESTION_BYTES,
    array_names,
    bytes_of,
    json_of,
    json_record,
    pack,
    payments_of,
    payments_to_json,
)
from core.messages.federation import attached, genesis_of
from core.parsing import finite, typed
from core.rounds import RoundRecord, Salts, ShownRecord
from core.signed import Signed
from core.update import LARGEST_LOSS, UpdateManifest
from core.wire import DOWN, Packed, Travelling

TRAIN = "train"
EVALUATE = "evaluate"
_PLACE = ("organisation", "lane", "generation", "round")
_TASK = (*_PLACE, "genesis", "openings", "earlier", "parent", "salts", "paid", "composition", "shares", "measure")
"""The fields of a task's JSON."""
LOSSES = frozenset({"base", "global"})
"""What an organisation measures: the loss of the base, and that of the served adapters."""


@dataclass(frozen=True)
class Task:
    """The coordinator asks an organisation to train a lane's state in a round, or to evaluate the served adapters.

    `parent` is the coordinator-signed record that vouches for the state, None before round 1; `salts` are its salts, by
    which an organisation finds it on the chain. `earlier` are the records that lead to it from the last one that the
    organisation is known to have been shown. `openings` are what opened the lane's generations, in order. `served` is
    the state to train, or everything that is served; `measure` says that the state to train is all that is served, and
    is measured first. `paid` is what the organisation was paid for earlier rounds, by round, where credit is measured.
    """

    genesis: Genesis
    organisation: Address
    lane: int
    generation: int
    round: int
    openings: tuple[Signed[GenerationRecord], ...]
    parent: Signed[RoundRecord] | None
    salts: Salts | None
    served: Composition
    paid: Mapping[int, float] = field(default_factory=dict)
    earlier: tuple[ShownRecord, ...] = ()
    measure: bool = False

    @property
    def shown(self) -> tuple[ShownRecord, ...]:
        """The records that it shows, in order; the last vouches for the state."""
        return (*self.earlier, ShownRecord(self.parent, self.salts)) if self.parent and self.salts else ()

    @property
    def state(self) -> AdapterState:
        """The one state that there is to train; raises FormatError when there are several."""
        if len(self.served.parts) != 1:
            raise FormatError(f"malformed task: expected one state to train, got {len(self.served.parts)}")
        return self.served.states[0]

    def to_content(self, *, whole: bool = True) -> RecordDict:
        """As a message's content, with the whole genesis or, for a node that has it, without."""
        task = {
            "organisation": self.organisation,
            "lane": self.lane,
            "generation": self.generation,
            "round": self.round,
            "genesis": self.genesis.shown_digest,
            "openings": [opening.to_dict() for opening in self.openings],
            "earlier": [shown.to_dict() for shown in self.earlier],
            "parent": self.parent.to_dict() if self.parent else None,
            "salts": self.salts.to_dict() if self.salts else None,
            "paid": payments_to_json(self.paid),
            "composition": self.served.kind,
            "shares": [part.share for part in self.served.parts],
            "measure": self.measure,
        }
        state = pack(self.served, self.genesis.wire)
        return RecordDict({"task": json_record(task), "state": state, **attached(self.genesis, whole=whole)})

    @classmethod
    def from_content(cls, content: RecordDict, kept: Path | None = None) -> Self:
        """Parse a message's content; `kept`: where geneses are kept. Raises FormatError, UnknownGenesisError."""
        task = json_of(content, "task", QUESTION_BYTES, *_TASK)
        try:
            parent = Signed.parse(RoundRecord, task["parent"]) if task["parent"] else None
            openings = tuple(Signed.parse(GenerationRecord, opening) for opening in task["openings"])
            salts = Salts.from_dict(task["salts"]) if task["salts"] else None
            earlier = tuple(ShownRecord.from_dict(shown) for shown in task["earlier"])
            genesis = genesis_of(content, task["genesis"], kept)
            where = {name: task[name] for name in (*_PLACE, "measure")}
            paid = payments_of(task["paid"])
            served = Composition(task["composition"], tuple(_served(task["shares"], content, genesis.wire)))
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed task: {error}") from error
        if (parent is None) != (salts is None):
            raise FormatError("malformed task: a record comes with its salts")
        whole = cls(
            genesis=genesis, openings=openings, parent=parent, salts=salts, served=served, paid=paid, earlier=earlier,
            **where,
        )  # fmt: skip
        return typed(whole)


def _served(shares: list[Any], content: RecordDict, wire: str) -> Iterator[Part]:
    for name, share in zip(array_names(len(shares)), shares, strict=True):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise FormatError(f"malformed task: expected a share above 0 and at most 1, got {share!r}")
        packed = Packed(bytes_of(content, "state", name))
        if packed.form != DOWN[wire]:
            raise FormatError(f"malformed task: expected a state in {DOWN[wire]}, got {packed.form}")
        yield Part(share, packed.state)


@dataclass(frozen=True)
class Reply:
    """A trained update as it arrives: its signed manifest, and the bytes it claims to describe (not yet parsed)."""

    signed: Signed[UpdateManifest]
    update: memoryview

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a reply's content; raises FormatError."""
        manifest = json_of(content, "manifest", MANIFEST_BYTES)
        return cls(Signed.parse(UpdateManifest, manifest), bytes_of(content, "update"))


def reply(signed: Signed[UpdateManifest], update: Travelling) -> RecordDict:
    """The content of the reply to a task to train."""
    return RecordDict({"manifest": json_record(signed.to_dict()), "update": pack(update)})


def losses(values: Mapping[str, float]) -> RecordDict:
    """The content of an evaluation's reply, which goes beside an update too: losses in nats per answer token."""
    return RecordDict({"losses": MetricRecord(dict(values))})


def losses_of(content: RecordDict) -> dict[str, float]:
    """The losses in an evaluation's reply; raises FormatError for other names, and for what is no loss."""
    record = content.metric_records.get("losses")
    if record is None:
        raise FormatError("reply carries no losses")
    if set(record) != LOSSES:
        raise FormatError(f"losses: expected {' and '.join(sorted(LOSSES))}, got {len(record)} others")
    return {name: finite(name, record[name], 0.0, LARGEST_LOSS) for name in sorted(LOSSES)}
