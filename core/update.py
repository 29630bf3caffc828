"""What an organisation signs: its registration with a federation, and the manifest of every update.

Both are EIP-712 structs, so that wallets and contracts can check them; their domain binds chain and contract.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Self

from core.canonical import ZERO_DIGEST, Address, Digest, digest, raw, to_json
from core.errors import ForgeryError, FormatError
from core.keys import Domain
from core.names import Name
from core.parsing import finite, parsed
from core.ranges import fault, number
from core.round_key import FIELDS, RoundKey
from core.signed import OrganisationStatement, Place, Signed, Statement

FORMATS = 1
"""The version of the formats: of every domain tag, and of what an organisation says that it speaks."""
LARGEST_LOSS = 1e6
"""In nats per token, what a loss may be at most: far above that of any model, and far below where sums overflow."""
LONGEST_SECONDS = 1e9
"""What a training may take at most."""
MOST_EPSILON = 1000.0
"""What a privacy loss ε may be at most: far above that of any budget."""
METRICS: Mapping[str, tuple[float, float]] = {
    "loss": (0.0, LARGEST_LOSS),
    "seconds": (0.0, LONGEST_SECONDS),
    "trusting": (0, 1),
    "behind": (0, 99_999),
    "next-steps": (0, 10**6),
    "next-rank": (0, 4096),
    "records": (0, 10**9),
}
"""What a manifest may report: the loss and time of its training, whether the organisation reads no chain, by how many
rounds the chain is late, the bid for the next round, and how many of its records the training used."""


@dataclass(frozen=True, order=True)
class Organisation:
    """A member as the genesis fixes it.

    `examples` is its registered count n_k; `derived` says that its key is a simulation's, which anybody can compute.
    """

    address: Address
    name: Name
    examples: int
    derived: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Registration(Statement):
    """An organisation's answer to the coordinator's challenge: its identity and its example count.

    It holds for one coordinator, run and challenge. `node_key` is the digest of its SuperNode's public key, "" for
    none, `nonce` the commitment to its part of the seed (zero where the seed is set), `product` and `formats` the
    software and the version of these formats that it speaks.
    """

    organisation: Organisation
    coordinator: Address
    run: str
    challenge: Digest
    node_key: str = ""
    nonce: Digest = ZERO_DIGEST
    product: str = ""
    formats: int = FORMATS

    struct: ClassVar = "Registration"
    struct_fields: ClassVar = (
        ("name", "string"),
        ("organisation", "address"),
        ("examples", "uint64"),
        ("derived", "bool"),
        ("coordinator", "address"),
        ("run", "string"),
        ("challenge", "bytes32"),
        ("nodeKey", "string"),
        ("nonce", "bytes32"),
        ("product", "string"),
        ("formats", "uint32"),
    )

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        member = self.organisation
        return {
            "name": member.name,
            "organisation": member.address,
            "examples": member.examples,
            "derived": member.derived,
            "coordinator": self.coordinator,
            "run": self.run,
            "challenge": raw(self.challenge),
            "nodeKey": self.node_key,
            "nonce": raw(self.nonce),
            "product": self.product,
            "formats": self.formats,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError when a field is missing, unknown, or out of its type's range.

        First of all for another version of the formats: then the other fields may be others, too.
        """
        if isinstance(data, Mapping) and type(got := data.get("formats")) is int and got != FORMATS:
            advice = "run one version on both sides"
            raise FormatError(f"formats: expected version {FORMATS}, as here, got {number(got)}: {advice}")
        registration = parsed(cls, data, {"organisation": lambda v: parsed(Organisation, v, {})})
        organisation = registration.organisation
        _check_count("examples", organisation.examples, 64)
        if organisation.examples == 0:
            raise FormatError(f"malformed registration: {organisation.name!r} has no examples")
        return registration


def verified_registration(signed: Signed[Registration], domain: Domain, asked: "Asked") -> Organisation:
    """The organisation; raises ForgeryError for an answer to another question, or another's signature."""
    registration = signed.value
    got = Asked(registration.coordinator, registration.run, registration.challenge)
    if got != asked:
        raise ForgeryError(f"registration: expected an answer to {asked}, got one to {got}")
    return signed.signed_by(domain, registration.organisation.address).organisation


@dataclass(frozen=True)
class Asked:
    """The question that a registration answers: which coordinator asks, for which run, with which challenge."""

    coordinator: Address
    run: str
    challenge: Digest


@dataclass(frozen=True)
class Bid:
    """What an organisation offers for a round: local steps, and how many of the adapter's columns it trains."""

    steps: int
    rank: int

    def within(self, full: "Bid") -> bool:
        """Whether it offers something, and no more than the federation's own steps and rank."""
        return 1 <= self.steps <= full.steps and 1 <= self.rank <= full.rank


ABSTAIN = Bid(0, 0)
"""What an organisation bids that will not take part."""


@dataclass(frozen=True)
class Offer(OrganisationStatement):
    """What an organisation bids for a round to come when it is asked apart; `ABSTAIN` for none."""

    struct: ClassVar = "Offer"
    struct_fields: ClassVar = (*FIELDS, ("organisation", "address"), ("steps", "uint32"), ("rank", "uint32"))

    genesis: Digest
    organisation: Address
    lane: int
    generation: int
    round: int
    bid: Bid

    @property
    def key(self) -> RoundKey:
        """The round it is for."""
        return RoundKey(self.genesis, self.lane, self.generation, self.round)

    @property
    def place(self) -> Place:
        """The lane and the generation of that round."""
        return self.lane, self.generation

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        return self.key.message() | asdict(self.bid) | {"organisation": self.organisation}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        offer = parsed(cls, data, {"bid": lambda v: parsed(Bid, v, {})})
        for name in ("lane", "generation", "round"):
            _check_count(name, getattr(offer, name), 32)
        for name in ("steps", "rank"):
            _check_count(name, getattr(offer.bid, name), 32)
        return offer


@dataclass(frozen=True)
class UpdateManifest(OrganisationStatement):
    """One organisation's update of one round, as it vouches for it.

    `parent` is the digest of the RoundRecord it trained from (the genesis digest before round 1), `update` the
    digest of the bytes it sends in the form `wire`, `examples` the records it drew from, `tokens` the answer tokens it
    trained on, `nonce` 32 random bytes that make every manifest unique. `epsilon` is the privacy loss ε that the
    organisation has spent on its records so far, this update included; 0 where none is counted.
    """

    struct: ClassVar = "Update"
    struct_fields: ClassVar = (
        *FIELDS,
        ("organisation", "address"),
        ("parent", "bytes32"),
        ("update", "bytes32"),
        ("wire", "string"),
        ("examples", "uint64"),
        ("tokens", "uint64"),
        ("steps", "uint32"),
        ("rank", "uint32"),
        ("epsilon", "string"),
        ("metrics", "string"),
        ("nonce", "bytes32"),
    )

    genesis: Digest
    organisation: Address
    lane: int
    generation: int
    round: int
    parent: Digest
    update: Digest
    examples: int
    tokens: int
    bid: Bid
    nonce: Digest
    metrics: Mapping[str, float] = field(default_factory=dict)
    wire: str = "fp32"
    epsilon: float = 0.0

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/manifest/v1``."""
        return digest("manifest", to_json(self.to_dict()))

    @property
    def key(self) -> RoundKey:
        """The round it was trained in."""
        return RoundKey(self.genesis, self.lane, self.generation, self.round)

    @property
    def place(self) -> Place:
        """The lane and the generation of that round."""
        return self.lane, self.generation

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct; it has no floats, so ε and the metrics are canonical JSON."""
        return self.key.message() | {
            "organisation": self.organisation,
            "parent": raw(self.parent),
            "update": raw(self.update),
            "wire": self.wire,
            "examples": self.examples,
            "tokens": self.tokens,
            "steps": self.bid.steps,
            "rank": self.bid.rank,
            "epsilon": to_json(self.epsilon).decode(),
            "metrics": to_json(dict(self.metrics)).decode(),
            "nonce": raw(self.nonce),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        # Not asdict, which copies every value: a record of many manifests is mostly these.
        flat = {item.name: getattr(self, item.name) for item in fields(self)}
        return flat | {"bid": asdict(self.bid), "metrics": dict(self.metrics)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError when a field is missing, unknown, or out of its type's range."""
        manifest = parsed(cls, data, {"bid": lambda v: parsed(Bid, v, {}), "metrics": _metrics})
        for name, kind in cls.struct_fields:
            if kind.startswith("uint"):
                source = manifest.bid if name in {"steps", "rank"} else manifest
                _check_count(name, getattr(source, name), int(kind[4:]))
        if wrong := fault("wire", manifest.wire):
            raise FormatError(f"manifest: wire: {wrong}")
        finite("epsilon", manifest.epsilon, 0.0, MOST_EPSILON)
        return manifest


def _check_count(name: str, value: int, bits: int) -> None:
    # Canonical JSON has no integers beyond 2^53 − 1, whatever the contract could hold.
    if not 0 <= value < 2 ** min(bits, 53):
        raise FormatError(f"expected {name} from 0 to 2^{min(bits, 53)} − 1, got {value}")


def _metrics(metrics: Any) -> dict[str, float]:
    if not isinstance(metrics, Mapping):
        raise FormatError(f"metrics: expected an object, got {metrics!r:.140}")
    if unknown := set(metrics) - set(METRICS):
        raise FormatError(f"metrics: expected some of {', '.join(METRICS)}, got {min(unknown)!r:.80}")
    for name, value in metrics.items():
        finite(f"metric {name!r}", value, *METRICS[name])
    return dict(metrics)
