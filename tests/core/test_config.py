"""Settings: one name each, one default each, checked at the edge and documented."""

import ast
import inspect
import math
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from core import config as module
from core.aggregation import RULES
from core.composition import COMPOSITIONS
from core.config import RunConfig, key
from core.errors import ConfigError
from core.genesis import Participation, Privacy, Training
from core.keys import derive
from core.policies import POLICIES
from core.robust import BOUNDS, Robust

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
PUBLISHED = tomllib.loads(PYPROJECT.read_text())["tool"]["flwr"]["app"]["config"]


def test_pyproject_publishes_every_setting_with_its_default() -> None:
    assert RunConfig().to_flat() == PUBLISHED
    assert list(RunConfig().to_flat()) == list(PUBLISHED)
    assert {k: type(v) for k, v in RunConfig().to_flat().items()} == {k: type(v) for k, v in PUBLISHED.items()}


def test_updates_travel_in_the_smallest_form_that_keeps_the_loss_unless_told() -> None:
    assert RunConfig().wire == "nf4"


def test_every_setting_is_documented() -> None:
    (cls,) = (node for node in ast.parse(inspect.getsource(module)).body if getattr(node, "name", "") == "RunConfig")
    assert isinstance(cls, ast.ClassDef)
    documented = {
        item.target.id
        for item, after in zip(cls.body, cls.body[1:], strict=False)
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and str(after.value.value).strip()
    }
    assert documented == {field.name for field in fields(RunConfig)}


def test_settings_come_back_under_their_public_names() -> None:
    settings = RunConfig(rank=4, local_steps=7, data="/data", gradient_checkpointing=True)
    assert RunConfig.from_flat(settings.to_flat()) == settings
    assert settings.to_flat()["local-steps"] == 7


def test_what_is_not_set_has_its_default() -> None:
    assert RunConfig.from_flat({"rounds": 9}) == RunConfig(rounds=9)


@pytest.mark.parametrize("name", ["clients", "", "epochs", "compression"])
def test_an_unknown_setting_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=f"expected a setting, got {name!r}: one of .*learning-rate.*, wire$"):
        RunConfig.from_flat({name: 1})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("local_steps", "local-steps"), ("Rank", "rank"), ("learning rate", "learning-rate"),
        ("organizations", "organisations"), ("quantization", "quantisation"),
    ],
)  # fmt: skip
def test_a_setting_that_was_mistyped_is_guessed(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"^expected a setting, got {name!r}: did you mean {meant}.$"):
        RunConfig.from_flat({name: 1})


WRONG = {bool: (1, "true", 0.0), int: (True, 1.5, "1"), float: (True, "1"), str: (1, False, 1.0)}


@pytest.mark.parametrize("field", fields(RunConfig), ids=lambda field: field.name)
def test_a_wrong_type_is_refused_with_what_was_wanted(field: Any) -> None:
    for value in (*WRONG[field.type], None, [1]):
        with pytest.raises(
            ConfigError, match=rf"{key(field.name)}: expected (true or false|an integer|a number|text), got"
        ):
            RunConfig.from_flat({key(field.name): value})


def test_an_integer_stands_for_a_number() -> None:
    settings = RunConfig.from_flat({"alpha": 16})
    assert settings.alpha == 16.0
    assert type(settings.alpha) is float


RANGES: dict[str, tuple[float, float]] = {
    "organisations": (0, 4_294_967_296),
    "rank": (1, 4096),
    "alpha": (0.000_001, 1_000_000),
    "rounds": (1, 99_999),
    "local_steps": (1, 1_000_000),
    "local_epochs": (0, 1_000_000),
    "batch_size": (1, 100_000),
    "accumulation": (1, 100_000),
    "max_length": (8, 1_000_000),
    "learning_rate": (0.000_000_001, 10),
    "dropout": (0, 0.9),
    "server_rate": (0.000_001, 1_000_000),
    "lane_size": (0, 4_294_967_296),
    "shards": (1, 1000),
    "fraction": (0.000_000_001, 1),
    "pool": (0, 1_000_000_000_000),
    "step_price": (0, 1_000_000_000_000),
    "traffic_price": (0, 1_000_000_000_000),
    "budget": (0, 1_000_000_000_000),
    "most_examples": (0, 9_007_199_254_740_991),
    "most_weight": (0.000_000_001, 1),
    "quorum": (1, 4_294_967_296),
    "anchor_every": (1, 99_999),
    "retries": (0, 98),
    "timeout": (0.1, 1_000_000_000),
    "evaluate_timeout": (0.1, 1_000_000_000),
    "bind_timeout": (0.1, 1_000_000_000),
    "grace": (0, 1_000_000),
    "silent_rounds": (1, 99_999),
    "staleness": (0, 1),
    "norm_bound": (0.000_000_001, 1_000_000_000),
    "robust_bound": (0, 1_000_000_000),
    "dp_epsilon": (0, 100),
    "dp_delta": (1e-15, 0.5),
    "dp_clip": (0.000_001, 1_000_000),
    "dp_reserve": (0, 99_999),
    "chain_lag": (0, 99_999),
    "seed": (0, 9_007_199_254_740_991),
    "evaluate_limit": (0, 1_000_000_000),
    "patience": (0, 99_999),
    "calibration": (0, 1000),
    "sample_answers": (0, 16),
}
CHOICES = {
    "mode": ("train", "unlearn", "attribute"),
    "quantisation": ("nf4", "int8", "none"),
    "aggregation": ("frozen-a", "fedavg", "stack", "svd"),
    "composition": ("sum", "ensemble", "routing"),
    "participation": ("all", "random", "round-robin", "greedy", "power-of-choice", "oort", "ucb", "q-learning"),
    "robust": ("none", "clip", "multi-krum", "trimmed-mean", "validation"),
    "serve": ("last", "best"),
    "chain_lag_policy": ("flag", "abstain"),
}


def test_a_privacy_budget_is_for_frozen_a_and_none_by_default() -> None:
    assert RunConfig().privacy is None
    assert RunConfig(dp_epsilon=3.0, dp_reserve=2).privacy == Privacy(3.0, 1e-5, 1.0, 2)
    with pytest.raises(ConfigError, match="dp-epsilon: expected rule frozen-a"):
        RunConfig(dp_epsilon=3.0, aggregation="fedavg")


@pytest.mark.parametrize("rule", ["multi-krum", "trimmed-mean"])
def test_rules_that_compare_updates_need_three_of_them_and_updates_that_can_be_compared(rule: str) -> None:
    assert RunConfig(robust=rule, quorum=3).robustness == Robust(rule, BOUNDS[rule])
    with pytest.raises(ConfigError, match=f"robust {rule}: expected a quorum of 3 or more, got 2"):
        RunConfig(robust=rule, quorum=2)
    with pytest.raises(ConfigError, match=f"robust {rule}: expected aggregation frozen-a or fedavg, .* got stack"):
        RunConfig(robust=rule, quorum=3, aggregation="stack")


def test_no_rule_has_no_bound() -> None:
    with pytest.raises(ConfigError, match="robust-bound: expected a bound of none of 0, got 1"):
        RunConfig(robust="none", robust_bound=1.0)


def test_late_updates_count_under_frozen_a_and_where_nobody_bids() -> None:
    assert RunConfig(staleness=1).staleness == 1
    for wrong in ({"aggregation": "stack"}, {"participation": "q-learning"}):
        with pytest.raises(ConfigError, match=f"staleness: expected .*, got {next(iter(wrong.values()))}"):
            RunConfig(staleness=1, **wrong)  # type: ignore[arg-type] # two texts


def test_a_stack_has_no_differences_that_a_sparse_form_could_make_up_for() -> None:
    assert RunConfig(wire="sparse").wire == "sparse"
    assert RunConfig(wire="nf4", aggregation="stack").wire == "nf4"
    with pytest.raises(ConfigError, match=r"wire: expected .*, got sparse with stack"):
        RunConfig(wire="sparse", aggregation="stack")
    with pytest.raises(ConfigError, match="wire: expected one of fp32, bf16, int8, nf4, sparse, got 'zip'"):
        RunConfig(wire="zip")


def test_every_number_has_a_range() -> None:
    assert {field.name for field in fields(RunConfig) if field.type in (int, float)} == set(RANGES)


@pytest.mark.parametrize("name", RANGES)
def test_a_number_outside_its_range_is_refused(name: str) -> None:
    low, high = RANGES[name]
    kind = next(field.type for field in fields(RunConfig) if field.name == name)
    for good in (low, high):
        assert getattr(RunConfig(**{name: good}), name) == good
    beyond = (low - 1, high + 1) if kind is int else (math.nextafter(low, -math.inf), math.nextafter(high, math.inf))
    for bad in (*beyond, float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ConfigError, match=rf"^{key(name)}\b") as refused:
            RunConfig(**{name: bad})
        assert str(bad) in str(refused.value)


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_one_of_those_there_are(name: str) -> None:
    for good in CHOICES[name]:
        assert getattr(RunConfig(**{name: good}, quorum=3), name) == good  # some compare three updates
    for bad in ("", "ALL", "fp4"):
        with pytest.raises(ConfigError, match=rf"^{key(name)}\b") as refused:
            RunConfig(**{name: bad})
        assert all(fact in str(refused.value) for fact in (repr(bad), *CHOICES[name]))


def test_every_rule_policy_and_composition_can_be_chosen() -> None:
    assert set(CHOICES["aggregation"]) == set(RULES)
    assert set(CHOICES["participation"]) == set(POLICIES)
    assert set(CHOICES["composition"]) == set(COMPOSITIONS)


@pytest.mark.parametrize("name", ["state", "data", "validation", "coordinator_key"])
@pytest.mark.parametrize("value", ["relative", "./here", "~/home", "../up"])
def test_relative_paths_are_refused_since_flower_runs_elsewhere(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{key(name)}: expected an absolute path.*, got '{value}'"):
        RunConfig(**{name: value})


@pytest.mark.parametrize(
    ("chain", "private", "wanted"),
    [
        ("embedded", "", "embedded"),
        ("anvil", "", "anvil"),
        ("http://127.0.0.1:8545", "", "none"),
        ("http://127.0.0.1:8545", "http://127.0.0.1:8546", "http://127.0.0.1:8546"),
        ("http://127.0.0.1:8545", "embedded", "embedded"),
        ("embedded", "none", "none"),
    ],
)
def test_a_development_chain_brings_a_private_one(chain: str, private: str, wanted: str) -> None:
    assert RunConfig(chain=chain, private_chain=private).private == wanted


def test_auditors_are_public_keys_in_order_of_address() -> None:
    keys = [derive(1, name) for name in ("one", "two", "three")]
    config = RunConfig(auditors=", ".join(key.public for key in (*keys, keys[0])))
    assert config.auditing == tuple(key.public for key in sorted(keys, key=lambda key: int(key.address, 16)))
    assert RunConfig().auditing == ()


def test_an_auditors_address_is_no_key() -> None:
    with pytest.raises(ConfigError, match="auditors: a public key is 0x, 02 or 03"):
        _ = RunConfig(auditors=derive(1, "one").address).auditing


def test_a_store_is_a_folder_or_a_url() -> None:
    assert RunConfig(store="memory://bucket").store == "memory://bucket"
    with pytest.raises(ConfigError, match=r"store: expected an absolute path.*, got 'bucket'"):
        RunConfig(store="bucket")


def test_only_data_may_come_from_the_hub() -> None:
    assert RunConfig(data="hf:some/set").data == "hf:some/set"
    with pytest.raises(ConfigError, match="expected an absolute path"):
        RunConfig(state="hf:some/set")
    assert RunConfig(data="hf:/some/folder").data == "hf:/some/folder"
    for relative in ("hf:./set", "hf:../set", "hf:~/set"):
        with pytest.raises(ConfigError, match="data: expected an absolute path"):
            RunConfig(data=relative)


def test_the_genesis_takes_its_training_and_participation_from_the_settings() -> None:
    settings = RunConfig(rounds=4, local_steps=2, quorum=3, participation="random", fraction=0.5)
    assert settings.training == Training(
        4, 2, 1.0, 2, 1, 256, 3e-3, gradient_checkpointing=False, dropout=0.0, evaluate_limit=64
    )
    assert settings.participating == Participation("random", 0.5, 3, 3)


@pytest.mark.parametrize("path", sorted((PYPROJECT.parent / "conf").glob("*.toml")), ids=lambda path: path.stem)
def test_every_file_of_conf_holds_settings_that_there_are(path: Path) -> None:
    RunConfig.from_flat(RunConfig().to_flat() | tomllib.loads(path.read_text()))
