"""Composition: how independently trained lanes are served.

    sum        one adapter: B = Σ_l w_l B_l
    ensemble   a mixture: p(token) = Σ_l w_l p_l(token), the lanes' next-token probabilities, each under its own adapter
    routing    one lane for each prompt: the one whose adapter is most familiar with it (llm/familiarity.py)

w_l is a lane's share: its members' examples among those of all remaining members. Evaluation, generation and
attribution get a Composition, and never see lanes. For a single lane all three are that lane's state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from core.adapter import AdapterState
from core.aggregation import RULES
from core.canonical import Address, Digest, digest, to_json
from core.errors import FormatError
from core.genesis import Genesis
from core.ranges import COMPOSITIONS


class Part(NamedTuple):
    """A state and its share of what is served; shares add up to 1."""

    share: float
    state: AdapterState


@dataclass(frozen=True)
class Composition:
    """What is served: one part for a sum, else one for each lane that still learns, in order of the lanes."""

    kind: str
    parts: tuple[Part, ...]
    summed: tuple[tuple[float, Digest], ...] = ()
    """Of a sum of several lanes the share and the state's digest of each, in order."""

    def __post_init__(self) -> None:
        """Refuse what is no composition; raises FormatError."""
        if self.kind not in COMPOSITIONS or not self.parts or (self.kind == "sum" and len(self.parts) > 1):
            raise FormatError(
                f"expected composition {', '.join(COMPOSITIONS)}, got {self.kind!r} of {len(self.parts)} parts"
            )

    @classmethod
    def of(cls, state: AdapterState) -> Self:
        """One state, served as it is."""
        return cls("sum", (Part(1.0, state),))

    @property
    def digest(self) -> Digest:
        """`composition_digest` of what is served."""
        return composition_digest(self.kind, self.summed or [(part.share, part.state.digest) for part in self.parts])

    @property
    def states(self) -> tuple[AdapterState, ...]:
        """The parts' states, in order."""
        return tuple(part.state for part in self.parts)

    def map(self, change: Callable[[AdapterState], AdapterState]) -> "Composition":
        """The same composition of changed states."""
        return Composition(self.kind, tuple(Part(part.share, change(part.state)) for part in self.parts))


def composition_digest(kind: str, lanes: Sequence[tuple[float, Digest]]) -> Digest:
    """Of one lane the digest of its state, else SHA-256 under ``foedus/composition/v1`` of kind, shares and states.

    `lanes` are share and state of each. A sum is named by its terms, too: whoever holds the lanes' records, and none of
    their states, knows what they serve.
    """
    if len(lanes) == 1:
        return lanes[0][1]
    parts = [{"share": share, "state": state} for share, state in lanes]
    return digest("composition", to_json({"kind": kind, "parts": parts}))


def compose(genesis: Genesis, lanes: Sequence[tuple[Sequence[Address], AdapterState]]) -> Composition:
    """What a federation serves of its lanes, given as members and state; those without members are not served.

    Raises ConfigError for a rule whose lanes cannot be summed.
    """
    learning = [(members, state) for members, state in lanes if members]
    # One lane is served as it is under every composition, so its digest is that of its state.
    if len(learning) == 1:
        return Composition.of(learning[0][1])
    weighed = shares(genesis, [members for members, _ in learning])
    parts = tuple(Part(share, state) for share, (_, state) in zip(weighed, learning, strict=True))
    if genesis.composition == "sum":
        summed = tuple((part.share, part.state.digest) for part in parts)
        return Composition("sum", (Part(1.0, RULES[genesis.rule].compose(parts)),), summed)
    return Composition(genesis.composition, parts)


def shares(genesis: Genesis, lanes: Sequence[Sequence[Address]]) -> tuple[float, ...]:
    """The part of each lane, given by its members, in what is served."""
    learned = [sum(genesis.examples[member] for member in members) for members in lanes]
    return tuple(count / sum(learned) for count in learned)
