"""What is fixed when a federation starts, and refused before it does."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from core import lora, seeds
from core.canonical import digest
from core.config import RunConfig
from core.errors import ConfigError, DataError, FoedusError, ModelError, RunError
from core.genesis import Genesis, PrivateChain
from core.policies import selected
from core.update import Organisation
from llm.model import Model, ModelSpec
from server_app.founding import GenesisInputs, check_not_grown, check_unchanged, create_genesis, warnings
from tests import federation as f

MODEL = cast(
    Model,
    SimpleNamespace(
        digest=digest("base", b"weights"),
        modules={"model.a": (16, 15), "model.b": (14, 18)},
        spec=ModelSpec("tiny", modules=("a", "b"), blocks="2-3"),
    ),
)
CONFIG = RunConfig(rank=2, rounds=2)
MEMBERS = f.members()
INPUTS = GenesisInputs(MODEL, digest("validation", b"[]"), f.CHAIN)


def founded(members: tuple[Organisation, ...] = MEMBERS, **changes: Any) -> Genesis:
    config = replace(CONFIG, **changes)
    return create_genesis(config, "one", f.COORDINATOR.address, INPUTS, members)


def test_a_genesis_holds_the_settings_the_members_and_the_digests() -> None:
    genesis = founded()
    assert genesis.organisations == MEMBERS
    assert genesis.base.digest == MODEL.digest
    assert genesis.training == CONFIG.training
    assert genesis.participation == CONFIG.participating
    assert (genesis.server_rate, genesis.target_modules, genesis.target_blocks) == (4.0, ("a", "b"), "2-3")
    fresh = lora.fresh(lora.Layout.of(MODEL.modules, 2), seeds.shared(CONFIG.seed))
    assert genesis.shared_a == lora.factor(fresh, "A").digest


def test_the_order_in_which_members_arrived_does_not_matter() -> None:
    assert founded(tuple(reversed(MEMBERS))).organisations == founded().organisations


def test_every_federation_is_salted_anew() -> None:
    one, another = founded(), founded()
    assert replace(one, salt=another.salt) == another
    assert one.digest != another.digest


def test_the_environment_is_named() -> None:
    named = founded().environment
    assert {"torch", "transformers", "peft", "bitsandbytes", "numpy", "python", "instruction-set", "threads"} <= set(
        named
    )
    assert all(isinstance(value, str) and value for value in named.values())


@pytest.mark.parametrize(("size", "lanes"), [(0, 1), (1, 4), (3, 2)])
def test_lanes_divide_the_members(size: int, lanes: int) -> None:
    genesis = founded(lane_size=size)
    assert len(genesis.lanes) == lanes
    assert {address for lane in genesis.lanes for address in lane} == {member.address for member in MEMBERS}


def test_every_slice_is_a_lane_of_its_organisation() -> None:
    genesis = founded(lane_size=1, shards=3)
    assert [genesis.lanes_of(member.address) for member in genesis.organisations] == [
        tuple(range(start, start + 3)) for start in range(0, 12, 3)
    ]


def test_two_members_of_one_name_are_refused() -> None:
    twin = replace(MEMBERS[0], address=f.COORDINATOR.address)
    with pytest.raises(RunError, match="expected each once, in any case"):
        founded((*MEMBERS, twin))


def test_a_deployment_has_no_derived_coordinator() -> None:
    own = tuple(replace(member, derived=False) for member in MEMBERS)
    with pytest.raises(ConfigError, match="coordinator-key is not set"):
        founded(own)
    assert not any(member.derived for member in founded(own, coordinator_key="/outside/key").organisations)


def test_real_and_derived_keys_do_not_mix() -> None:
    with pytest.raises(RunError, match="some organisations use derived keys"):
        founded((replace(MEMBERS[0], derived=False), *MEMBERS[1:]))


INFEASIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "lanes of a rule that cannot be summed": (
        {"lane_size": 1, "aggregation": "fedavg"},
        "lane-size 1: expected aggregation frozen-a, got fedavg",
    ),
    "shards of who learns with others": (
        {"shards": 4, "lane_size": 2},
        "shards is 4: expected lane-size 1 with it, got 2",
    ),
    "shards for which an agent bids": (
        {"shards": 2, "lane_size": 1, "participation": "q-learning"},
        "shards is 2 with participation q-learning",
    ),
    "an ensemble of one lane": (
        {"composition": "ensemble"},
        "composition ensemble: expected lane-size 1 to 3, got 0",
    ),
    "routing to one lane of all": (
        {"composition": "routing", "lane_size": 4},
        "composition routing: expected lane-size 1 to 3, got 4",
    ),
    "a stack that would outgrow a layer": (
        {"aggregation": "stack", "participation": "all"},
        "stack: expected a rank of at most 14, .* got 16 in the end: lower rank or rounds, or ask fewer",
    ),
    "a quorum above the number of members": ({"quorum": 5}, "quorum: expected at most 4, .* got 5"),
    "a quorum above the smallest lane": ({"quorum": 2, "lane_size": 3}, "quorum: expected at most 1, .* got 2"),
    "a rank above a layer's smaller side": ({"rank": 15}, "rank: expected 1 to the smaller side of model.b .* got 15"),
}


@pytest.mark.parametrize("what", INFEASIBLE)
def test_settings_that_would_fail_later_are_refused_at_the_start(what: str) -> None:
    changes, message = INFEASIBLE[what]
    with pytest.raises(ConfigError, match=message):
        founded(**changes)


LANES_OF_TWO = {"participation": "all", "lane_size": 2, "composition": "routing"}


@pytest.mark.parametrize("fewer", [{"fraction": 0.5}, LANES_OF_TWO])
def test_a_stack_grows_by_those_that_a_round_of_its_lane_asks(fewer: dict[str, Any]) -> None:
    assert founded(aggregation="stack", **fewer).rule == "stack"


def test_an_epsilon_that_no_noise_reaches_is_refused_when_it_is_founded() -> None:
    """Else every node would fail in round 1, and none would say why."""
    private = {"dp_delta": 1e-5, "rounds": 2, "local_steps": 5}
    with pytest.raises(ConfigError, match=r"dp-epsilon: expected one that some noise reaches .* got 0.001: raise"):
        founded(dp_epsilon=0.001, **private)
    assert founded(dp_epsilon=3.0, **private).privacy


@pytest.mark.parametrize("policy", ["round-robin", "greedy", "random"])
def test_members_that_no_round_asks_are_named(policy: str) -> None:
    few = founded(rounds=1, participation=policy, fraction=0.5)
    (text,) = warnings(few)
    asked = selected(few, few.lanes[0], 1, (), {})
    unasked = {name for address, name in few.names.items() if address not in asked}
    assert set(text.split(": ")[0].split(", ")) == unasked != set()
    assert "in 1 round of policy" in text
    assert "set participation all" in text


@pytest.mark.parametrize(
    "settings", [{"rounds": 2}, {"rounds": 99_999}, {"rounds": 1, "participation": "all"}, {"participation": "ucb"}]
)
def test_a_federation_that_asks_everyone_once_is_not_warned_of(settings: dict[str, Any]) -> None:
    assert warnings(founded(**settings)) == []


def test_a_stack_that_just_fits_is_founded() -> None:
    assert founded(aggregation="stack", rounds=1).rule == "stack"


def test_lanes_of_any_rule_are_founded_where_they_are_not_summed() -> None:
    genesis = founded(lane_size=1, aggregation="fedavg", composition="ensemble")
    assert (genesis.composition, genesis.rule, len(genesis.lanes)) == ("ensemble", "fedavg", 4)


def test_a_run_is_resumed_with_its_own_settings() -> None:
    check_unchanged(CONFIG, INPUTS, founded())


def test_a_simulation_is_not_resumed_with_more_records() -> None:
    genesis, first = founded(), MEMBERS[0]
    check_not_grown(genesis, MEMBERS)
    check_not_grown(genesis, [replace(first, examples=first.examples - 1)])
    more = replace(first, examples=first.examples + 1)
    own = tuple(replace(member, derived=False) for member in MEMBERS)
    check_not_grown(founded(own, coordinator_key="/outside/key"), [more])
    with pytest.raises(
        DataError, match=rf"{first.name}: expected the {first.examples} training records .*, got {more.examples}"
    ):
        check_not_grown(genesis, [more])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quantisation", "none"),
        ("rank", 3),
        ("alpha", 2.0),
        ("aggregation", "svd"),
        ("seed", 8),
        ("norm_bound", 1.0),
        ("rounds", 3),
        ("local_steps", 1),
        ("batch_size", 1),
        ("accumulation", 2),
        ("max_length", 64),
        ("learning_rate", 0.1),
        ("gradient_checkpointing", True),
        ("dropout", 0.1),
        ("rslora", True),
        ("serve", "best"),
        ("patience", 1),
        ("evaluate_limit", 1),
        ("lane_size", 1),
        ("shards", 2),
        ("composition", "routing"),
        ("quorum", 2),
        ("fraction", 0.25),
        ("participation", "random"),
        ("retries", 0),
    ],
)
def test_a_run_is_not_resumed_with_another(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name.replace('_', '-')}: expected .*, as in the genesis, got {value!r}"):
        check_unchanged(replace(CONFIG, **{name: value}), INPUTS, founded())


@pytest.mark.parametrize("changes", [{"chain_id": 1}, {"contract": f.COORDINATOR.address}], ids=str)
def test_a_run_is_not_resumed_on_another_chain_or_contract(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"chain 'embedded': expected .* 0x5FbDB.* 31337, as in the genesis, got"):
        check_unchanged(CONFIG, replace(INPUTS, chain=replace(f.CHAIN, **changes)), founded())


@pytest.mark.parametrize(
    ("changes", "error", "what"),
    [
        ({"model": SimpleNamespace(digest=f.other("base"), spec=MODEL.spec)}, ModelError, "base model"),
        ({"model": SimpleNamespace(digest=MODEL.digest, spec=ModelSpec("tiny"))}, ConfigError, "target-modules"),
        ({"validation": f.other("validation")}, DataError, "validation set"),
        ({"private": PrivateChain(9, f.CHAIN.contract, 1)}, ConfigError, "private-chain"),
    ],
)
def test_a_run_is_not_resumed_with_other_inputs(changes: dict[str, Any], error: type[FoedusError], what: str) -> None:
    with pytest.raises(error, match=f"{what}.*: expected .*, as in the genesis, got"):
        check_unchanged(CONFIG, replace(INPUTS, **changes), founded())
