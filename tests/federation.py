"""A small federation made of plain values: what the tests of formats, records and the server start from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from core import lora, seeds
from core.adapter import AdapterState
from core.aggregation import RULES, by_address
from core.canonical import Address, Digest, digest
from core.config import RunConfig
from core.genesis import Base, Genesis
from core.keys import Domain, Key, derive
from core.names import Name
from core.rounds import Admitted, RoundRecord
from core.signed import Signed
from core.storage.readers import Readers
from core.update import Asked, Bid, Organisation, Registration, UpdateManifest

SEED = 7
CHAIN = Domain(31337, Address("0x5FbDB2315678afecb367f032d93F642f64180aa3"))
COORDINATOR = derive(SEED, "coordinator")
RUN = "example"
LAYOUT = lora.Layout.of({"model.a": (6, 5), "model.b": (4, 8)}, 2)
EXAMPLES = {"medical": 100, "financial": 300, "mathematical": 200, "coding": 400}


@cache
def key(name: str) -> Key:
    return derive(SEED, name)


@cache
def address(name: str) -> Address:
    return key(name).address


def members(names: Sequence[str] = tuple(EXAMPLES)) -> tuple[Organisation, ...]:
    """The organisations in order of address, as a genesis lists them."""
    found = [Organisation(address(name), Name(name), EXAMPLES[name], derived=True) for name in names]
    return tuple(sorted(found, key=lambda member: by_address(member.address)))


def fresh() -> AdapterState:
    return lora.fresh(LAYOUT, seeds.shared(SEED))


def genesis(names: Sequence[str] = tuple(EXAMPLES), **changes: Any) -> Genesis:
    """A genesis; lanes are one of all unless `lanes` says otherwise, run settings come from `changes` too."""
    organisations = members(names)
    config = RunConfig(
        rounds=2, participation="all", fraction=1.0, local_steps=25, local_epochs=0.0, batch_size=8, learning_rate=3e-3
    )  # the vectors must not follow the defaults
    values: dict[str, Any] = {
        "run": RUN,
        "salt": "5a" * 32,
        "coordinator": COORDINATOR.address,
        "chain": CHAIN,
        "private": None,
        "base": Base("tiny", digest("base", b"weights"), "none"),
        "rank": LAYOUT.rank,
        "alpha": 2.0,
        "shared_a": lora.factor(fresh(), "A").digest,
        "rule": "frozen-a",
        "lanes": (tuple(member.address for member in organisations),),
        "composition": "sum",
        "organisations": organisations,
        "validation": digest("validation", b"[]"),
        "auditors": (),
        "seed": SEED,
        "training": config.training,
        "participation": config.participating,
        "norm_bound": 100.0,
        "environment": {"numpy": "2", "threads": "1"},
    }
    return Genesis(**values | changes)


def registration(
    member: Organisation, challenge: Digest, by: Key | None = None, domain: Domain = CHAIN
) -> Signed[Registration]:
    """Its answer to the coordinator's challenge, signed with its own key or with another."""
    plain = Registration(member, COORDINATOR.address, RUN, challenge)
    return plain.sign(by or key(member.name), domain)


def asked(challenge: Digest) -> Asked:
    """What the coordinator of the small federation asks."""
    return Asked(COORDINATOR.address, RUN, challenge)


def readers(founded: Genesis) -> Readers:
    """The keys of those whom a genesis of derived keys names; its auditors are not among them."""
    return Readers(COORDINATOR.public, tuple(key(member.name).public for member in founded.organisations))


def delta(shapes: Mapping[str, tuple[int, ...]], *seed: object) -> AdapterState:
    """Small random arrays, a function of the seed alone."""
    source = np.random.default_rng(list(str(seed).encode()))
    return AdapterState({name: source.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})


def update_of(founded: Genesis, name: str, number: int = 1) -> AdapterState:
    rule = RULES[founded.rule]
    return delta(rule.shapes(rule.initial(fresh()), fresh()), name, number)


def manifest(founded: Genesis, name: str = "medical", **changes: Any) -> UpdateManifest:
    """The manifest of `update_of(founded, name)` in round 1."""
    values: dict[str, Any] = {
        "genesis": founded.digest,
        "organisation": address(name),
        "lane": founded.lanes_of(address(name))[0],
        "generation": 0,
        "round": 1,
        "parent": founded.digest,
        "update": update_of(founded, name).digest,
        "examples": EXAMPLES[name],
        "tokens": 1234,
        "bid": Bid(25, 2),
        "nonce": digest("nonce", name.encode()),
        "metrics": {"loss": 2.5},
    }
    return UpdateManifest(**values | changes)


def signed(founded: Genesis, name: str = "medical", **changes: Any) -> Signed[UpdateManifest]:
    return manifest(founded, name, **changes).sign(key(name), founded.chain)


def record(founded: Genesis, names: Sequence[str] = ("medical", "coding"), **changes: Any) -> RoundRecord:
    """Round 1 with these organisations admitted at equal weights."""
    ordered = sorted(names, key=lambda name: by_address(address(name)))
    plain = RoundRecord(
        genesis=founded.digest,
        lane=0,
        generation=0,
        round=1,
        attempt=1,
        parent=founded.digest,
        previous=founded.digest,
        rule=founded.rule,
        admitted=tuple(Admitted(signed(founded, name), 1 / len(names)) for name in ordered),
        rejected=(),
        aggregate=digest("adapter", b"aggregate"),
    )
    return replace(plain, **changes)


def other(value: str) -> Digest:
    """A digest that nothing else has."""
    return digest("other", value.encode())
