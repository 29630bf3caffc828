"""Genesis: everything that is fixed when a federation starts."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import cached_property
from typing import Any, Self

from core.aggregation import by_address, weights
from core.canonical import ZERO_DIGEST, Address, Digest, address, digest, raw, salt_bytes, to_json
from core.errors import FormatError, ObjectionError, UsageError
from core.keys import Domain
from core.membership import MembershipRecord
from core.names import check_distinct, listed
from core.origins import FormerRun
from core.parsing import parsed
from core.ranges import fault
from core.robust import NO_RULE, Robust
from core.rotations import KeyChain
from core.seeds import from_nonces
from core.signed import Place, Signed
from core.update import Bid, Organisation

CALIBRATION_ROUNDS, CALIBRATION_STEPS = 2, 8
"""A calibration has so many rounds for each of the federation's, each with one step for so many: a quarter in all."""


@dataclass(frozen=True)
class Base:
    """The frozen base model: how it was asked for, the digest of its files, how it is quantised."""

    name: str
    digest: Digest
    quantisation: str


@dataclass(frozen=True)
class Stage:
    """The optimiser steps of a whole round, those before it on the learning rate's schedule, and all of that."""

    steps: int
    first_step: int
    total_steps: int


@dataclass(frozen=True)
class Training:
    """Everything about local training that every organisation must do alike. Lengths are in tokens.

    Rounds behind the last are a calibration: short ones, over which the learning rate goes through its schedule again.
    """

    rounds: int
    local_steps: int
    local_epochs: float
    batch_size: int
    accumulation: int
    max_length: int
    learning_rate: float
    gradient_checkpointing: bool
    dropout: float
    evaluate_limit: int

    @property
    def calibration_rounds(self) -> int:
        """The rounds of one calibration."""
        return self.rounds * CALIBRATION_ROUNDS

    def most(self, generation: int) -> int:
        """The last round that a lane's generation may have: each opens with one calibration at most."""
        return self.rounds + generation * self.calibration_rounds

    def calibrates(self, number: int) -> bool:
        """Whether a round, from 1, lies behind the federation's last."""
        return number > self.rounds

    def schedule(self, number: int) -> int:
        """The schedule of the learning rate that a round is in: 0 of the federation, i of the i-th calibration."""
        behind = number - self.rounds - 1
        return 1 + behind // self.calibration_rounds if self.calibrates(number) else 0

    def stage(self, number: int, steps: int) -> Stage:
        """Where round `number` stands for an organisation that does `steps` in a whole round of the federation."""
        if not self.calibrates(number):
            return Stage(steps, (number - 1) * steps, self.rounds * steps)
        # At least one step: a calibration of none would leave the sum as it is and still call it repaired.
        short = max(1, steps // CALIBRATION_STEPS)
        index = (number - self.rounds - 1) % self.calibration_rounds
        return Stage(short, index * short, self.calibration_rounds * short)


@dataclass(frozen=True)
class Participation:
    """Who is asked in a round, how many admitted updates a round needs, how often a round is tried."""

    policy: str
    fraction: float
    quorum: int
    retries: int


@dataclass(frozen=True)
class PrivateChain:
    """The members' own chain, and every how many rounds of a lane its head is anchored on the public one."""

    chain_id: int
    contract: Address
    anchor_every: int


SOURCES = ("open", "members", "registry")


@dataclass(frozen=True)
class Membership:
    """Where members come from, and how much any one may weigh.

    `source` is open (whoever binds at the founding), members (a list that the coordinator was given) or registry (the
    contract's). `most_examples` caps a registered example count n_k (0: no cap), `most_weight` a weight p_k.
    """

    source: str = "open"
    most_examples: int = 0
    most_weight: float = 1.0


@dataclass(frozen=True)
class Privacy:
    """Differential privacy of records: (ε, δ) over all rounds and generations, and C, an example's largest gradient.

    `reserve` are the rounds beyond the federation's that the budget is made for, as a replay needs them.
    """

    epsilon: float
    delta: float
    clip: float
    reserve: int = 0

    def fault(self, rule: str, examples: int = 1) -> str | None:
        """What is wrong with it under a rule, where a member has so many examples: `expected X, got Y`."""
        # Where A is trained too, a step is no linear function of the examples' clipped gradients of B.
        if rule != "frozen-a":
            return f"expected rule frozen-a, under which B alone is trained, got {rule}"
        if self.epsilon <= 0:
            return f"expected an ε above 0, got {self.epsilon:g}"
        # A mechanism that publishes one record in n whole is (0, 1/n)-private.
        if self.delta * examples >= 1:
            return f"expected a δ below 1 / {examples}, the most examples of a member, got {self.delta:g}"
        return None


def staleness_fault(staleness: int, rule: str, policy: str) -> str | None:
    """What is wrong with counting late updates under a rule and a policy: `expected X, got Y`."""
    # A stack's update has the columns of its round, svd's factors are those of the state that it began with.
    if staleness and rule != "frozen-a":
        return f"expected rule frozen-a, under which an update adds to any state, got {rule}"
    if staleness and policy == "q-learning":
        return "expected a policy without bids, which are for one round, got q-learning"
    return None


def wire_fault(wire: str, rule: str) -> str | None:
    """What is wrong with a form of updates under a rule: `expected X, got Y`."""
    # What is left out of a block of its own cannot be made up for by another one.
    if wire == "sparse" and rule == "stack":
        return "expected another form, or a rule whose updates are differences, got sparse with stack"
    return None


def origin_fault(rule: str, lanes: Sequence[Sequence[Address]], wire: str) -> str | None:
    """What is wrong with beginning from another run's state: `expected X, got Y`."""
    # Another rule's state is no sum, and each of several lanes would bring the former run's part again.
    if rule != "frozen-a" or len(lanes) > 1:
        return f"expected frozen-a in one lane, got {rule} in {len(lanes)} lanes"
    # Members compare the first state that they are sent with the one that the genesis names.
    if wire != "fp32":
        return f"expected wire fp32, in which a state travels as it is, got {wire}"
    return None


@dataclass(frozen=True)
class Template:
    """The chat template: digest (zero: the base's own, covered by the base's digest), and the date that it prints.

    The date is YYYY-MM-DD, or "" for a template that prints none.
    """

    digest: Digest = ZERO_DIGEST
    date: str = ""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        template = parsed(cls, data, {"date": lambda v: v and date.fromisoformat(v).isoformat()})
        # Compared, since Python reads other forms of a date as well.
        if template.digest != ZERO_DIGEST or template.date != data["date"]:
            raise FormatError(f"genesis: expected the base's own template and a date YYYY-MM-DD, got {template}")
        return template


@dataclass(frozen=True)
class GenesisHeader:
    """What the digest of a genesis opens to: chain, coordinator, and the digest of the rest.

    It shows whose a federation is and where it stands, and nothing else of its genesis, whose salt hides the content.
    """

    chain: Domain
    content: Digest
    coordinator: Address

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/genesis/v1``: the run's name on the chain."""
        return digest("genesis", to_json(asdict(self)))

    def signing(self, owner: Address, place: Place | None = None) -> Address:  # noqa: ARG002 - it knows of no change
        """The owner: who has nothing but this knows no key that was replaced."""
        return owner

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        return parsed(cls, data, {"chain": lambda v: parsed(Domain, v, {})})


@dataclass(frozen=True)
class Genesis:
    """Everything fixed when a federation starts.

    `salt` (64 hex digits, random) hides the genesis behind its digest, which is public, and names its stored artifacts.
    `lanes` partition the organisations: each lane learns together; `composition` says how they are served
    (core/composition.py). `validation` is the digest of the shared validation set, on which rounds are credited.
    `auditors` may read every artifact, besides the coordinator and the organisations of a lane. `administrator` is the
    account that administers the contract, and may replace a key that was lost (None: nobody may). `origin` is the run
    whose served adapter is the state before round 1 (None: zero). `norm_bound` is the
    largest L2 norm an update may have. `environment` names the software, instruction set and threads in which training
    is promised to be bit-equal.

    B^t = B^{t−1} + Σ w_k f_k δ_k with w_k = min(1, η p_k): `server_rate` is η, `robust` the rule behind f_k. `wire` is
    the form in which updates travel, `staleness` how many rounds late one may count, at w_k / √(1 + its delay), where
    the round that it was made for names it as late. `target_modules` (last parts of
    names) and `target_blocks` (FIRST-LAST, from 0) choose the layers that carry an adapter (() and "": every linear
    layer of every block). `nonces` are what the members revealed, in order of address,
    where the seed is drawn from them; a simulation's seed is set and has none. `serve` says which round of a lane is
    served, the last or the best, and after `patience` rounds without a better one its training ends (0: never).
    """

    run: str
    salt: str
    coordinator: Address
    chain: Domain
    private: PrivateChain | None
    base: Base
    rank: int
    alpha: float
    shared_a: Digest
    rule: str
    lanes: tuple[tuple[Address, ...], ...]
    composition: str
    organisations: tuple[Organisation, ...]
    validation: Digest
    auditors: tuple[Address, ...]
    seed: int
    training: Training
    participation: Participation
    norm_bound: float
    environment: Mapping[str, str]
    membership: Membership = Membership()
    nonces: tuple[Digest, ...] = ()
    wire: str = "fp32"
    robust: Robust = NO_RULE
    privacy: Privacy | None = None
    server_rate: float = 1.0
    template: Template = Template()
    target_modules: tuple[str, ...] = ()
    target_blocks: str = ""
    staleness: int = 0
    rslora: bool = False
    serve: str = "last"
    patience: int = 0
    administrator: Address | None = None
    origin: FormerRun | None = None

    @cached_property
    def memberships(self) -> tuple[Signed[MembershipRecord], ...]:
        """What changed the members since, as far as `amended` was told; no part of the digest."""
        return ()

    @cached_property
    def keys(self) -> KeyChain:
        """Which keys have replaced others since, as far as `amended` was told."""
        return KeyChain()

    def signing(self, owner: Address, place: Place | None = None) -> Address:
        """The address whose key signs for a member, or the coordinator, at a place; now, where there is none."""
        return self.keys.signing(owner, place)

    @property
    def signers(self) -> tuple[Address, ...]:
        """The addresses of all keys that sign, or did, for those who are or were members."""
        own = (member.address for member in self.everyone)
        return (*own, *(rotation.new for _, rotation in self.keys.rotations if rotation.owner != self.coordinator))

    @cached_property
    def header(self) -> GenesisHeader:
        """Chain and coordinator, and SHA-256 of the canonical JSON under ``foedus/genesis-content/v1``."""
        return GenesisHeader(self.chain, digest("genesis-content", to_json(self.to_dict())), self.coordinator)

    @cached_property
    def shown(self) -> bytes:
        """Canonical JSON of `to_message`: what organisations are shown of their federation."""
        return to_json(self.to_message())

    @cached_property
    def shown_digest(self) -> Digest:
        """SHA-256 of `shown` under ``foedus/federation/v1``, by which messages name it."""
        return digest("federation", self.shown)

    @property
    def scale(self) -> float:
        """What an adapter's product B A is multiplied by: α / r, with `rslora` α / √r (Kalajdzievski, 2023)."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def shared_seed(self) -> int:
        """The seed that the shared A is drawn from: that of the first of the runs that go on from each other."""
        return self.origin.seed if self.origin else self.seed

    @property
    def compares_rounds(self) -> bool:
        """Whether rounds are compared by their loss on the shared validation set, which is then recorded."""
        return self.serve == "best" or self.patience > 0

    @property
    def digest(self) -> Digest:
        """That of the header."""
        return self.header.digest

    def policy(self, number: int) -> str:
        """Who is asked in a round: to a calibration everyone, without bids and unpaid."""
        return "all" if self.training.calibrates(number) else self.participation.policy

    def amended(self, memberships: Iterable[Signed[MembershipRecord]]) -> Self:
        """The same genesis, with these changes of its members known.

        Raises ForgeryError for a signature that is missing, ObjectionError for a change that does not take all whom it
        needs, or lets somebody in, or a key, that is known already.
        """
        known = tuple(memberships)
        amended = replace(self)
        amended.__dict__["memberships"] = known  # where a cached property keeps its value
        amended.__dict__["keys"] = amended._key_chain()
        for signed in known:
            signed.verified(amended).check()
        everyone = amended.everyone
        if len({member.address for member in everyone}) != len(everyone):
            raise ObjectionError("membership: expected newcomers that were never members, got one that was")
        check_distinct(member.name for member in everyone)
        if beyond := [m.name for m in everyone if 0 < self.membership.most_examples < m.examples]:
            most = self.membership.most_examples
            raise ObjectionError(f"membership: expected at most {most} examples of a member, got more of {beyond[0]!r}")
        return amended

    def _key_chain(self) -> KeyChain:
        """The rotations among the changes of members; raises ObjectionError for one that does not hold."""
        chain = KeyChain()
        taken = {self.coordinator, *self.auditors, *(member.address for member in self.everyone)}
        for record in (signed.value for signed in self.memberships):
            for rotation in (signed.value for signed in record.rotations):
                if rotation.owner not in (self.coordinator, *record.proposal.members):
                    raise ObjectionError(f"rotation: expected a member or the coordinator, got {rotation.owner}")
                chain = chain.extended(record.place, rotation, taken, self.administrator)
        return chain

    @cached_property
    def everyone(self) -> tuple[Organisation, ...]:
        """All who ever were members: the founders, then those who joined, in order."""
        joined = (member for signed in self.memberships for member in signed.value.proposal.joins)
        return (*self.organisations, *joined)

    def ever_in(self, lane: int) -> tuple[Address, ...]:
        """All who ever were members of a lane."""
        joined = (
            member.address
            for proposal in (signed.value.proposal for signed in self.memberships)
            for member in proposal.joins
            if proposal.lane == lane
        )
        return (*self.lanes[lane], *joined)

    def organisation(self, address: Address) -> Organisation | None:
        """The organisation with this address, which is or was a member."""
        return self._by_address.get(address)

    @cached_property
    def _by_address(self) -> dict[Address, Organisation]:
        return {member.address: member for member in self.everyone}

    @property
    def full_bid(self) -> Bid:
        """The federation's own steps and rank: the most that an organisation can offer."""
        return Bid(self.training.local_steps, self.rank)

    @cached_property
    def names(self) -> dict[Address, str]:
        """What all who ever were members are called."""
        return {member.address: member.name for member in self.everyone}

    @property
    def contributors(self) -> dict[Address, str]:
        """What all are called who may have a part in what is served: members, and the run that this one began with."""
        return self.names | ({self.origin.address: self.origin.name} if self.origin else {})

    @cached_property
    def examples(self) -> dict[Address, int]:
        """How many examples everyone registered who ever was a member: n_k."""
        return {member.address: member.examples for member in self.everyone}

    def weights(self, delays: Mapping[Address, int]) -> dict[Address, float]:
        """The weight that each of the admitted members must have in a round, by how many rounds late it is."""
        examples = {address: self.examples[address] for address in delays}
        return weights(examples, self.server_rate, self.membership.most_weight, delays)

    def named(self, name: str) -> Organisation:
        """The member of this name or address; raises UsageError."""
        for member in self.everyone:
            if name in (member.name, member.address):
                return member
        names = listed(member.name for member in self.everyone)
        raise UsageError(f"expected one of the members {names}, got organisation {name!r}")

    def lanes_of(self, address: Address) -> tuple[int, ...]:
        """The indices of the lanes that an organisation learns in, one for each of its shards; none for a stranger."""
        return tuple(i for i in range(len(self.lanes)) if address in self.ever_in(i))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON: what was founded."""
        return asdict(self) | {"environment": dict(self.environment)}

    def to_message(self) -> dict[str, Any]:
        """Plain data for a message: what was founded, and what changed the members since."""
        return {"founded": self.to_dict(), "memberships": [signed.to_dict() for signed in self.memberships]}

    @classmethod
    def from_message(cls, data: Mapping[str, Any]) -> Self:
        """Parse a message's plain data; raises FormatError, and as `amended` does."""
        whole = isinstance(data, Mapping) and set(data) == {"founded", "memberships"}
        if not whole or not isinstance(data["memberships"], list):
            raise FormatError("malformed genesis: expected what was founded, and a list of memberships")
        changes = (Signed.parse(MembershipRecord, signed) for signed in data["memberships"])
        return cls.from_dict(data["founded"]).amended(changes)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        nested = {
            "salt": lambda v: salt_bytes(v).hex(),
            "chain": lambda v: parsed(Domain, v, {}),
            "private": lambda v: None if v is None else parsed(PrivateChain, v, {}),
            "base": lambda v: parsed(Base, v, {}),
            "training": lambda v: parsed(Training, v, {}),
            "participation": lambda v: parsed(Participation, v, {}),
            "lanes": lambda v: tuple(tuple(address(member) for member in lane) for lane in v),
            "organisations": lambda v: tuple(parsed(Organisation, o, {}) for o in v),
            "auditors": lambda v: tuple(address(auditor) for auditor in v),
            "origin": lambda v: None if v is None else FormerRun.from_dict(v),
            "administrator": lambda v: None if v is None else address(v),
            "environment": dict,
            "membership": lambda v: parsed(Membership, v, {}),
            "nonces": lambda v: tuple(Digest("0x" + raw(nonce).hex()) for nonce in v),
            "robust": lambda v: parsed(Robust, v, {}),
            "privacy": lambda v: None if v is None else parsed(Privacy, v, {}),
            "template": Template.from_dict,
            "target_modules": tuple,
        }
        genesis = parsed(cls, data, nested)
        genesis.check_values()
        genesis.check_members()
        genesis.check_lanes()
        return genesis

    def check_values(self) -> None:
        """Raises FormatError for a value that no setting may have: whoever reads a genesis computes with it."""
        own = {
            name: getattr(self, name)
            for name in (
                "rank", "alpha", "composition", "seed", "norm_bound", "server_rate", "serve", "patience", "staleness",
                "wire",
            )
        }  # fmt: skip
        named = {"quantisation": self.base.quantisation, "aggregation": self.rule}
        robust = {"robust": self.robust.rule, "robust_bound": self.robust.bound}
        dp = {f"dp_{name}": value for name, value in asdict(self.privacy).items()} if self.privacy else {}
        asked = asdict(self.participation)
        private = {"anchor_every": self.private.anchor_every} if self.private else {}
        settings = (
            own | named | robust | dp | asdict(self.training) | asked | {"participation": asked["policy"]} | private
        )
        for name, value in settings.items():
            if wrong := fault(name, value):
                raise FormatError(f"genesis: {name}: {wrong}")
        if wrong := self.robust.fault():
            raise FormatError(f"genesis: robust: {wrong}")
        if self.privacy and (wrong := self.privacy.fault(self.rule, max(self.examples.values(), default=1))):
            raise FormatError(f"genesis: privacy: {wrong}")
        if wrong := staleness_fault(self.staleness, self.rule, self.participation.policy):
            raise FormatError(f"genesis: staleness: {wrong}")
        if wrong := wire_fault(self.wire, self.rule):
            raise FormatError(f"genesis: wire: {wrong}")
        words = (
            self.run,
            self.base.name,
            self.target_blocks,
            *self.target_modules,
            *self.environment,
            *self.environment.values(),
        )
        if odd := [word for word in words if not isinstance(word, str) or not word.isprintable() or len(word) > 256]:
            raise FormatError(f"genesis: expected printable text of at most 256 characters, got {odd[0]!r:.140}")

    def check_members(self) -> None:
        """Raises FormatError for members from nowhere, a cap that is none, or a seed that was not drawn from nonces."""
        membership, cap = self.membership, self.membership.most_examples
        if membership.source not in SOURCES or not 0 < membership.most_weight <= 1 or cap < 0:
            raise FormatError(f"genesis: expected members from {', '.join(SOURCES)} with caps, got {membership}")
        if beyond := [member.name for member in self.organisations if 0 < cap < member.examples]:
            raise FormatError(f"genesis: expected at most {cap} examples of a member, got more of {beyond[0]!r}")
        if not self.nonces:
            return
        if len(self.nonces) != len(self.organisations):
            raise FormatError(f"genesis: expected a nonce of each member, got {len(self.nonces)}")
        if self.seed != (expected := from_nonces(self.nonces)):
            raise FormatError(f"genesis: expected seed {expected}, which follows from the nonces, got {self.seed}")

    def check_lanes(self) -> None:
        """Raises FormatError unless members are distinct and in order, and in one lane each, or one for each shard."""
        addresses = [organisation.address for organisation in self.organisations]
        if not addresses or addresses != sorted(set(addresses), key=by_address):
            raise FormatError(f"genesis: expected organisations in order of address, each once, got {addresses}")
        check_distinct(organisation.name for organisation in self.organisations)
        if empty := [member.name for member in self.organisations if not member.examples]:
            raise FormatError(f"genesis: expected examples of every member, got none of {empty[0]!r}")
        if (shards := len(self.lanes) // len(addresses)) > 1:
            # Each organisation has as many lanes of its own as any other, next to each other.
            complete = self.lanes == tuple((address,) for address in addresses for _ in range(shards))
        else:
            complete = all(self.lanes) and sorted(a for lane in self.lanes for a in lane) == sorted(addresses)
        if not complete:
            raise FormatError("genesis: expected lanes that hold every member once, or once for each shard")
        if self.origin and (wrong := origin_fault(self.rule, self.lanes, self.wire)):
            raise FormatError(f"genesis: origin: {wrong}")
