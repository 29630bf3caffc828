"""Records of rounds: they come back as they went, name their parents, and hide on the chain what they hold."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest

from core import merkle
from core.canonical import ZERO_DIGEST, commitment, digest, from_json, raw, to_json
from core.errors import ForgeryError, FormatError
from core.keys import derive
from core.round_key import RoundKey
from core.rounds import Best, Rejection, RoundRecord, Salts, commit_to
from core.signed import Signed
from core.update import Bid, Offer
from tests import federation as f

GENESIS = f.genesis()
RECORD = replace(
    f.record(GENESIS), rejected=(Rejection(f.address("financial"), "no-reply", "nothing came"),), residual=0.25
)
SIGNED = RECORD.sign(f.COORDINATOR, GENESIS.chain)
SIGNED_RECORD = partial(Signed.parse, RoundRecord)


def test_a_record_comes_back_from_its_canonical_json() -> None:
    back = Signed.parse(RoundRecord, from_json(to_json(SIGNED.to_dict())))
    assert back == SIGNED
    assert back.value.digest == RECORD.digest
    assert back.verified(GENESIS) == RECORD


def test_a_record_of_a_compared_round_comes_back_from_its_canonical_json() -> None:
    compared = replace(RECORD, validation_loss=2.0, best=Best(1, RECORD.aggregate, 2.0))
    assert RoundRecord.from_dict(from_json(to_json(compared.to_dict()))) == compared


def test_salts_come_back_from_their_canonical_json() -> None:
    salts = Salts.draw(RECORD)
    assert Salts.from_dict(from_json(to_json(salts.to_dict()))) == salts


@pytest.mark.parametrize("read", [RoundRecord.from_dict, Salts.from_dict, SIGNED_RECORD])
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
        {"grace": -1.0},
        {"grace": 1e10},
        {"round": 0},
        {"validation_loss": "0"},
        {"validation_loss": -1.0},
        {"best": {"round": 1, "aggregate": RECORD.aggregate}},
        {"best": {"round": 0, "aggregate": RECORD.aggregate, "loss": 2.0}},
        {"best": {"round": 1, "aggregate": RECORD.aggregate, "loss": 1e9}},
        {"extra": 0},
    ],
    ids=str,
)
def test_a_malformed_record_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        RoundRecord.from_dict(RECORD.to_dict() | changes)


def test_who_was_asked_is_admitted_in_time_rejected_or_late() -> None:
    late, *others = RECORD.admitted
    moved = replace(late, signed=f.signed(GENESIS, "medical", round=RECORD.round - 1))
    record = replace(RECORD, admitted=(moved, *others), late=(f.address("financial"),), rejected=())
    assert record.delays == {f.address("medical"): 1, f.address("coding"): 0}
    assert record.asked == {f.address("coding"), f.address("financial")}


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
    "loss_bound": 2.5,
    "validation_loss": 2.5,
    "best": Best(1, RECORD.aggregate, 2.5),
    "rounded": f.other("rounded"),
    "rounding": 0.01,
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


@pytest.mark.parametrize("factor", [-0.1, 1.5])
def test_a_factor_that_is_no_part_is_refused(factor: float) -> None:
    data = RECORD.to_dict()
    data["admitted"][0]["factor"] = factor
    with pytest.raises(FormatError, match=f"expected a factor from 0 to 1, got {factor}"):
        RoundRecord.from_dict(data)


@pytest.mark.parametrize("seconds", [-1e200, -1e-9, 2e9])
def test_an_update_took_a_time_that_is_one(seconds: float) -> None:
    data = RECORD.to_dict()
    data["admitted"][0]["seconds"] = seconds
    with pytest.raises(FormatError, match=r"seconds: expected 0 to 1e\+09"):
        RoundRecord.from_dict(data)
