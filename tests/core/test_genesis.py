"""Genesis: everything that is fixed at the start, with one canonical form and one digest."""

from dataclasses import fields, replace
from typing import Any

import pytest

from core.canonical import Address, from_json, to_json
from core.errors import FormatError, UsageError
from core.genesis import Genesis, Membership, Privacy, PrivateChain, Robust, Stage, Template
from core.origins import FormerRun
from core.seeds import from_nonces
from tests import federation as f

GENESIS = f.genesis()


def test_a_genesis_comes_back_from_its_canonical_json() -> None:
    back = Genesis.from_dict(from_json(to_json(GENESIS.to_dict())))
    assert back == GENESIS
    assert back.digest == GENESIS.digest


CHANGES: dict[str, Any] = {
    "salt": "a5" * 32,
    "private": PrivateChain(9, f.CHAIN.contract, 1),
    "auditors": (f.COORDINATOR.address,),
    "run": "other",
    "coordinator": f.address("coding"),
    "chain": replace(GENESIS.chain, chain_id=1),
    "base": replace(GENESIS.base, quantisation="nf4"),
    "rank": 3,
    "alpha": 3.0,
    "shared_a": f.other("A"),
    "rule": "fedavg",
    "lanes": tuple((member.address,) for member in GENESIS.organisations),
    "composition": "routing",
    "organisations": (replace(GENESIS.organisations[0], examples=1), *GENESIS.organisations[1:]),
    "validation": f.other("validation"),
    "seed": 8,
    "training": replace(GENESIS.training, local_steps=1),
    "participation": replace(GENESIS.participation, quorum=2),
    "norm_bound": 1.0,
    "environment": {"threads": "2"},
    "membership": Membership("registry"),
    "nonces": (f.other("nonce"),),
    "wire": "int8",
    "robust": Robust("clip", 3.0),
    "privacy": Privacy(3.0, 1e-5, 1.0),
    "server_rate": 2.0,
    "template": Template(date="2026-01-31"),
    "target_modules": ("q_proj",),
    "target_blocks": "20-29",
    "staleness": 1,
    "rslora": True,
    "serve": "best",
    "patience": 2,
    "administrator": f.address("coding"),
    "origin": FormerRun("before", f.other("genesis"), f.other("record"), f.other("state"), 5),
}


def test_every_field_of_a_genesis_is_tried_below() -> None:
    assert set(CHANGES) == {field.name for field in fields(Genesis)}


@pytest.mark.parametrize("field", CHANGES)
def test_everything_fixed_at_the_start_is_in_the_digest(field: str) -> None:
    assert replace(GENESIS, **{field: CHANGES[field]}).digest != GENESIS.digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "svd"}, "expected rule frozen-a, under which an update adds to any state, got svd"),
        ({"participation": replace(GENESIS.participation, policy="q-learning")}, "got q-learning"),
        ({"staleness": 2}, "expected 0 to 1, got 2"),
    ],
)
def test_late_updates_count_only_where_they_can_be_added(changes: dict[str, Any], message: str) -> None:
    data = replace(GENESIS, **{"staleness": 1} | changes).to_dict()
    with pytest.raises(FormatError, match=f"staleness: .*{message}"):
        Genesis.from_dict(from_json(to_json(data)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"wire": "zip"}, "expected one of fp32"), ({"wire": "sparse", "rule": "stack"}, "got sparse with stack")],
)
def test_a_form_that_nobody_knows_or_that_its_rule_does_not_allow_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FormatError, match=f"wire: .*{message}"):
        Genesis.from_dict(from_json(to_json(replace(GENESIS, **changes).to_dict())))


@pytest.mark.parametrize(
    "template",
    [Template(f.other("template")), Template(date="20260131"), Template(date="2026-02-30"), Template(date="today")],
)
def test_a_template_of_another_base_or_of_no_date_is_refused(template: Template) -> None:
    with pytest.raises(FormatError):
        Genesis.from_dict(replace(GENESIS, template=template).to_dict())


PRIVATE = Privacy(3.0, 1e-5, 1.0, 2)


def test_a_private_genesis_comes_back() -> None:
    private = replace(GENESIS, privacy=PRIVATE)
    assert Genesis.from_dict(from_json(to_json(private.to_dict()))) == private


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "fedavg"},
        {"privacy": replace(PRIVATE, epsilon=0.0)},
        {"privacy": replace(PRIVATE, epsilon=101.0)},
        {"privacy": replace(PRIVATE, delta=0.0)},
        {"privacy": replace(PRIVATE, delta=1 / 400)},  # coding has 400 examples
        {"privacy": replace(PRIVATE, clip=0.0)},
        {"privacy": replace(PRIVATE, reserve=-1)},
    ],
)
def test_a_privacy_budget_that_promises_nothing_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="expected"):
        Genesis.from_dict(from_json(to_json(replace(GENESIS, **{"privacy": PRIVATE} | changes).to_dict())))


NONCES = tuple(f.other(f"nonce {member.name}") for member in GENESIS.organisations)


@pytest.mark.parametrize(
    "changes",
    [
        {"membership": Membership("friends")},
        {"membership": Membership("open", 99)},
        {"membership": Membership("open", -1)},
        {"membership": Membership("open", 0, 0.0)},
        {"membership": Membership("open", 0, 1.5)},
        {"nonces": NONCES},
        {"nonces": NONCES[:-1], "seed": from_nonces(NONCES[:-1])},
    ],
)
def test_a_genesis_of_members_or_nonces_that_do_not_fit_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="expected"):
        Genesis.from_dict(from_json(to_json(replace(GENESIS, **changes).to_dict())))


def test_a_seed_follows_from_all_nonces_and_no_weight_is_above_its_cap() -> None:
    drawn = replace(GENESIS, nonces=NONCES, seed=from_nonces(NONCES), membership=Membership("members", 10**6, 0.25))
    assert Genesis.from_dict(from_json(to_json(drawn.to_dict()))) == drawn
    assert max(drawn.weights({member.address: 0 for member in drawn.organisations}).values()) == 0.25
    assert from_nonces(NONCES) != from_nonces(NONCES[::-1])


def read(genesis: Genesis) -> Genesis:
    return Genesis.from_dict(from_json(to_json(genesis.to_dict())))


FIRST, *OTHERS = GENESIS.organisations


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"organisations": (), "lanes": ()}, "organisations in order"),
        ({"organisations": GENESIS.organisations[::-1]}, "organisations in order"),
        ({"organisations": (FIRST, FIRST, *OTHERS)}, "organisations in order"),
        ({"organisations": (replace(FIRST, name=OTHERS[0].name.upper()), *OTHERS)}, "in any case"),
        ({"organisations": (replace(FIRST, examples=0), *OTHERS)}, "examples of every member"),
        ({"lanes": (GENESIS.lanes[0][1:],)}, "lanes that hold every member once"),
        ({"lanes": ((*GENESIS.lanes[0], f.address("stranger")),)}, "lanes that hold every member once"),
        ({"rule": "median"}, "'median'"),
    ],
)
def test_an_impossible_federation_is_refused_on_reading(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(FormatError, match=fault):
        read(replace(GENESIS, **changes))


ONE, TWO = (member.address for member in f.members(("medical", "coding")))
Lanes = tuple[tuple[Address, ...], ...]


@pytest.mark.parametrize("lanes", [((ONE, TWO),), ((ONE,), (TWO,)), ((TWO,), (ONE,)), ((ONE,),) * 3 + ((TWO,),) * 3])
def test_every_organisation_has_its_lanes(lanes: Lanes) -> None:
    assert read(f.genesis(("medical", "coding"), lanes=lanes)).lanes == lanes


@pytest.mark.parametrize(
    "lanes",
    [
        (),
        ((ONE,),),
        ((ONE, TWO), (ONE,)),
        ((ONE,), (ONE,), (TWO,)),
        ((ONE,), (TWO,), ()),
        ((ONE,), (TWO,), (ONE,), (TWO,)),
        ((ONE, TWO),) * 2,
        ((ONE, TWO),) * 4,
        ((ONE,),) * 3 + ((TWO,),),
    ],
)
def test_lanes_that_cannot_be_are_refused(lanes: Lanes) -> None:
    with pytest.raises(FormatError, match="lanes that hold every member once"):
        read(f.genesis(("medical", "coding"), lanes=lanes))


def test_members_and_lanes_are_found_by_address() -> None:
    lanes = ((f.address("coding"), f.address("medical")), (f.address("financial"),))
    genesis = f.genesis(("coding", "medical", "financial"), lanes=lanes)
    member = genesis.organisation(f.address("medical"))
    assert member is not None
    assert (member.name, member.examples) == ("medical", 100)
    assert [genesis.lanes_of(f.address(name)) for name in ("coding", "medical", "financial")] == [(0,), (0,), (1,)]
    assert genesis.organisation(f.address("mathematical")) is None
    assert genesis.lanes_of(f.address("mathematical")) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": 1},
        {"rank": "8"},
        {"rank": 8.0},
        {"rank": True},
        {"alpha": "8"},
        {"seed": None},
        {"coordinator": "me"},
        {"salt": "5a"},
        {"private": {}},
        {"private": False},
        {"private": {"chain_id": "1", "contract": f.CHAIN.contract, "anchor_every": 1}},
        {"auditors": ["me"]},
        {"shared_a": "0x"},
        {"lanes": [["me"]]},
        {"lanes": 5},
        {"organisations": [{"name": "x"}]},
        {"organisations": None},
        {"chain": {"chain_id": 1}},
        {"chain": {"chain_id": "1", "contract": "0x" + "11" * 20}},
        {"base": []},
        {"training": {}},
        {"participation": {"policy": 1}},
    ],
    ids=str,
)
def test_a_malformed_genesis_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=r"malformed|digest|address|salt"):
        Genesis.from_dict(GENESIS.to_dict() | changes)


@pytest.mark.parametrize("data", [{}, [], None, "text", 5])
def test_what_is_no_genesis_is_refused(data: Any) -> None:
    with pytest.raises(FormatError):
        Genesis.from_dict(data)


def test_a_member_is_found_by_its_name_or_address() -> None:
    member = GENESIS.named("medical")
    assert (member.name, member.examples) == ("medical", 100)
    assert GENESIS.named(member.address) == member
    with pytest.raises(UsageError, match="medicine") as refused:
        GENESIS.named("medicine")
    assert all(name in str(refused.value) for name in f.EXAMPLES)


def test_names_and_examples_are_by_address() -> None:
    assert {GENESIS.names[address]: count for address, count in GENESIS.examples.items()} == f.EXAMPLES


# --- training ------------------------------------------------------------------------------------------------------

TRAINING = replace(f.genesis().training, rounds=3)


@pytest.mark.parametrize(
    ("number", "steps", "stage"),
    [
        (1, 25, Stage(25, 0, 75)),
        (3, 25, Stage(25, 50, 75)),
        (4, 25, Stage(3, 0, 18)),  # behind the last: twice as many rounds, each an eighth as long
        (9, 25, Stage(3, 15, 18)),
        (10, 25, Stage(3, 0, 18)),  # a second calibration
        (4, 1, Stage(1, 0, 6)),
    ],
)
def test_a_calibration_goes_through_the_schedule_again_in_short_rounds(number: int, steps: int, stage: Stage) -> None:
    assert TRAINING.stage(number, steps) == stage
    assert TRAINING.calibrates(number) is (number > 3)


def test_nobody_chooses_whom_a_calibration_asks() -> None:
    genesis = f.genesis()
    drawn = replace(genesis, training=TRAINING, participation=replace(genesis.participation, policy="random"))
    assert [drawn.policy(number) for number in (1, 3, 4)] == ["random", "random", "all"]


def test_a_lane_s_generation_has_room_for_one_calibration_each() -> None:
    assert TRAINING.calibration_rounds == 6
    assert [TRAINING.most(generation) for generation in (0, 1, 2)] == [3, 9, 15]
