"""Genesis and records: they come back as they went, name their parents, and hide on the chain what they hold."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest

from core import merkle
from core.canonical import ZERO_DIGEST, commitment, digest, from_json, raw, to_json
from core.errors import ForgeryError, FormatError
from core.genesis import Genesis, Membership, Privacy, PrivateChain, Robust, Stage, Template
from core.keys import derive
from core.round_key import RoundKey
from core.rounds import Rejection, RoundRecord, Salts, commit_to
from core.signed import Signed
from core.update import Bid, Offer
from tests import federation as f

GENESIS = f.genesis()
RECORD = replace(
    f.record(GENESIS), rejected=(Rejection(f.address("financial"), "no-reply", "nothing came"),), residual=0.25
)
SIGNED = RECORD.sign(f.COORDINATOR, GENESIS.chain)
SIGNED_RECORD = partial(Signed.parse, RoundRecord)


def test_a_genesis_comes_back_from_its_canonical_json() -> None:
    back = Genesis.from_dict(from_json(to_json(GENESIS.to_dict())))
    assert back == GENESIS
    assert back.digest == GENESIS.digest


def test_a_record_comes_back_from_its_canonical_json() -> None:
    back = Signed.parse(RoundRecord, from_json(to_json(SIGNED.to_dict())))
    assert back == SIGNED
    assert back.value.digest == RECORD.digest
    assert back.verified(GENESIS) == RECORD


def test_salts_come_back_from_their_canonical_json() -> None:
    salts = Salts.draw(RECORD)
    assert Salts.from_dict(from_json(to_json(salts.to_dict()))) == salts


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
    "template": Template(f.other("template"), "2026-01-31"),
    "target_modules": ("q_proj",),
    "target_blocks": "20-29",
    "staleness": 1,
}
LATER = tuple(CHANGES)[-10:]
"""Fields that only their neutral values are known of."""


def test_every_field_of_a_genesis_is_tried_below() -> None:
    assert set(CHANGES) == {field.name for field in fields(Genesis)}


@pytest.mark.parametrize("field", CHANGES)
def test_everything_fixed_at_the_start_is_in_the_digest(field: str) -> None:
    assert replace(GENESIS, **{field: CHANGES[field]}).digest != GENESIS.digest


@pytest.mark.parametrize("field", LATER)
def test_a_setting_of_a_later_version_is_refused_by_name(field: str) -> None:
    data = replace(GENESIS, **{field: CHANGES[field]}).to_dict()
    with pytest.raises(FormatError, match=f"expected {field} "):
        Genesis.from_dict(from_json(to_json(data)))


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


@pytest.mark.parametrize("read", [Genesis.from_dict, RoundRecord.from_dict, Salts.from_dict, SIGNED_RECORD])
@pytest.mark.parametrize("data", [{}, [], None, "text", 5])
def test_what_is_no_noun_is_refused(read: Callable[[Any], object], data: Any) -> None:
    with pytest.raises(FormatError):
        read(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"round": "1"},
        {"parent": "0x"},
        {"aggregate": None},
        {"admitted": [{}]},
        {"admitted": 5},
        {"rejected": [{"reason": "x"}]},
        {"rejected": [{"organisation": "me", "reason": "x", "detail": ""}]},
        {"residual": "0"},
        {"bids": [{}]},
        {"credit": ""},
        {"late": ["me"]},
        {"grace": None},
        {"extra": 0},
    ],
    ids=str,
)
def test_a_malformed_record_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        RoundRecord.from_dict(RECORD.to_dict() | changes)


RECORD_CHANGES: dict[str, Any] = {
    "genesis": f.other("genesis"),
    "lane": 1,
    "generation": 1,
    "round": 2,
    "attempt": 2,
    "parent": f.other("parent"),
    "previous": f.other("previous"),
    "rule": "stack",
    "admitted": RECORD.admitted[:1],
    "rejected": (),
    "aggregate": f.other("aggregate"),
    "residual": 0.5,
    "bids": (Offer(GENESIS.digest, f.address("coding"), 0, 0, 1, Bid(5, 2)).sign(f.key("coding"), GENESIS.chain),),
    "credit": f.other("credit"),
    "late": (f.address("financial"),),
    "grace": 2.5,
}


def test_every_field_of_a_record_is_tried_below() -> None:
    assert set(RECORD_CHANGES) == {field.name for field in fields(RoundRecord)}


@pytest.mark.parametrize("field", RECORD_CHANGES)
def test_the_coordinators_signature_covers_every_field(field: str) -> None:
    changed = replace(RECORD, **{field: RECORD_CHANGES[field]})
    assert changed.digest != RECORD.digest
    with pytest.raises(ForgeryError):
        Signed(changed, SIGNED.signatures).verified(GENESIS)


def test_nobody_else_signs_as_coordinator() -> None:
    with pytest.raises(ForgeryError, match=f"expected the signature of {GENESIS.coordinator}"):
        RECORD.sign(derive(1, "mallory"), GENESIS.chain).verified(GENESIS)


def test_a_record_of_another_federation_is_refused_before_its_signature_is_read() -> None:
    elsewhere = f.genesis(seed=8)
    with pytest.raises(ForgeryError, match=f"expected federation {elsewhere.digest}"):
        SIGNED.verified(elsewhere)


def test_a_record_stands_where_its_key_says() -> None:
    assert RECORD.key == RoundKey(GENESIS.digest, 0, 0, 1)


# --- what is committed ---------------------------------------------------------------------------------------------

SALTS = Salts("01" * 32, {a.organisation: f"{i:02x}" * 32 for i, a in enumerate(RECORD.admitted, 2)})


def test_a_commitment_is_made_of_salted_digests() -> None:
    committed = commit_to(RECORD, SALTS, f.other("head"))
    first, second = RECORD.admitted
    leaves = [
        merkle.leaf(raw(commitment(bytes([2]) * 32, first.signed.value.digest))),
        merkle.leaf(raw(commitment(bytes([3]) * 32, second.signed.value.digest))),
    ]
    assert committed.key == RECORD.key
    assert committed.parent == f.other("head")
    assert committed.count == 2
    outcome = digest("outcome", raw(RECORD.digest), raw(RECORD.aggregate))
    assert committed.aggregate == commitment(bytes([1]) * 32, outcome)
    assert raw(committed.updates_root) == merkle.root(leaves)


def test_the_first_commitment_of_a_lane_has_no_parent() -> None:
    assert commit_to(RECORD, SALTS).parent == ZERO_DIGEST


def test_salts_are_drawn_anew_for_every_update_of_every_record() -> None:
    salts = [Salts.draw(RECORD), Salts.draw(RECORD)]
    drawn = [s.aggregate for s in salts] + [text for s in salts for text in s.updates.values()]
    assert len(set(drawn)) == 6
    assert all(len(text) == 64 for text in drawn)


def test_two_runs_of_equal_digests_do_not_show_it_on_the_chain() -> None:
    one, two = (commit_to(RECORD, Salts.draw(RECORD)) for _ in range(2))
    assert one.aggregate != two.aggregate
    assert one.updates_root != two.updates_root


def test_a_missing_salt_is_named() -> None:
    address = RECORD.admitted[1].organisation
    partial = Salts(SALTS.aggregate, {RECORD.admitted[0].organisation: "02" * 32})
    with pytest.raises(FormatError, match=f"no salt for the update of {address}"):
        commit_to(RECORD, partial)


@pytest.mark.parametrize("text", ["", "01", "zz" * 32, "AB" * 32, "01" * 33, "01 " * 32, 5, None])
def test_a_salt_has_one_spelling(text: Any) -> None:
    with pytest.raises(FormatError):
        commit_to(RECORD, Salts(text, SALTS.updates))
    with pytest.raises(FormatError):
        commit_to(RECORD, Salts(SALTS.aggregate, dict.fromkeys(SALTS.updates, text)))


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


def test_a_factor_of_a_later_version_is_refused() -> None:
    data = RECORD.to_dict()
    data["admitted"][0]["factor"] = 0.5
    with pytest.raises(FormatError, match=r"expected factor 1.* got 0\.5"):
        RoundRecord.from_dict(data)
