"""Requests, attestations and receipts: what they say, who signs them, and what hides them on the chain."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import date
from typing import Any

import pytest

from core import seeds
from core.canonical import ZERO_DIGEST, Digest, commitment, domain, from_json, raw, to_json
from core.erasures import METHODS, OF_RECORDS, Attestation, ErasureRequest, OpenedRequest, Receipt, hidden
from core.errors import ForgeryError, FormatError
from core.keys import derive
from core.signed import Signed
from tests import erasures as e
from tests import federation as f

GENESIS = f.genesis()
CODING, MEDICAL = f.address("coding"), f.address("medical")
WHOLE = ErasureRequest(GENESIS.digest, CODING, "remove", (0,), ZERO_DIGEST, 0, "GDPR Art. 17", e.DAY, f.other("nonce"))
RECORDS = replace(WHOLE, method="shards", records=f.other("records"), count=2)
ATTESTATION = e.attestation(GENESIS)


# --- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [WHOLE, RECORDS])
def test_a_request_comes_back_from_its_canonical_json(request_: ErasureRequest) -> None:
    back = ErasureRequest.from_dict(from_json(to_json(request_.to_dict())))
    assert back == request_
    assert back.digest == request_.digest
    assert request_.whole is (request_ is WHOLE)


REQUEST_CHANGES: dict[str, Any] = {
    "genesis": f.other("genesis"),
    "organisation": MEDICAL,
    "method": "replay",
    "records": f.other("others"),
    "count": 3,
    "lanes": (1,),
    "basis": "at its own request",
    "date": "2026-03-02",
    "nonce": f.other("another"),
}


def test_every_field_of_a_request_is_tried_below() -> None:
    assert set(REQUEST_CHANGES) == {field.name for field in fields(ErasureRequest)}


@pytest.mark.parametrize("field", REQUEST_CHANGES)
def test_the_organisation_s_signature_covers_every_field(field: str) -> None:
    signed = RECORDS.sign(f.key("coding"), GENESIS.chain)
    assert signed.verified(GENESIS) == RECORDS
    changed = replace(RECORDS, **{field: REQUEST_CHANGES[field]})
    assert changed.digest != RECORDS.digest
    with pytest.raises(ForgeryError):
        Signed(changed, signed.signatures).verified(GENESIS)


def test_nobody_asks_for_another() -> None:
    with pytest.raises(ForgeryError, match=CODING):
        WHOLE.sign(f.key("medical"), GENESIS.chain).verified(GENESIS)


@pytest.mark.parametrize("method", METHODS)
def test_some_methods_erase_organisations_and_some_records(method: str) -> None:
    for request, methods in ((WHOLE, {"remove", "repair", "replay"}), (RECORDS, {"replay", "shards"})):
        data = replace(request, method=method).to_dict()
        if method in methods:
            assert ErasureRequest.from_dict(data).method == method
        else:
            with pytest.raises(FormatError, match=method):
                ErasureRequest.from_dict(data)
    assert set(OF_RECORDS) == {"replay", "shards"}


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 0},
        {"count": -1},
        {"count": 2**32},
        {"count": "2"},
        {"records": ZERO_DIGEST},
        {"records": "0x"},
        {"method": "forget"},
        {"basis": None},
        {"basis": "x" * 501},
        {"basis": "\x1b[31mred"},
        {"basis": "two\nlines"},
        {"lanes": []},
        {"lanes": [1, 0]},
        {"lanes": [0, 0]},
        {"lanes": [True]},
        {"lanes": [2**32]},
        {"lanes": 0},
        {"date": ""},
        {"date": "20260301"},
        {"date": "2026-02-30"},
        {"date": 20260301},
        {"more": 1},
    ],
    ids=str,
)
def test_a_malformed_request_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        ErasureRequest.from_dict(RECORDS.to_dict() | changes)


def test_records_are_hidden_by_the_organisation_s_key_and_the_nonce() -> None:
    key, nonce, records = f.key("coding"), f.other("nonce"), [f.other("two"), f.other("one"), f.other("two")]
    salt = hmac.new(key.secret, domain("records-salt") + raw(nonce), hashlib.sha256).digest()
    one, two = sorted([f.other("one"), f.other("two")])
    inner = "0x" + hashlib.sha256(domain("records") + raw(one) + raw(two)).hexdigest()
    assert key.salt_for(nonce) == salt
    assert hidden(salt, records) == commitment(salt, inner)  # type: ignore[arg-type]  # a digest
    assert hidden(salt, records[::-1]) == hidden(salt, records)
    assert hidden(f.key("medical").salt_for(nonce), records) != hidden(salt, records)
    assert hidden(key.salt_for(f.other("another")), records) != hidden(salt, records)
    assert hidden(b"", []) == ZERO_DIGEST


# --- requests as they are handed over ------------------------------------------------------------------------------

ASKED: tuple[Digest, ...] = tuple(sorted((f.other("one"), f.other("two"))))


def opened(**changes: Any) -> OpenedRequest:
    asked: dict[str, Any] = {"key": f.key("coding"), "genesis": GENESIS, "method": "replay", "records": ASKED}
    return OpenedRequest.of(**(asked | {"basis": "GDPR Art. 17", "date": e.TODAY} | changes))


@pytest.mark.parametrize("records", [(), ASKED], ids=["whole", "records"])
def test_a_request_that_is_handed_over_comes_back_and_opens(records: tuple[Digest, ...]) -> None:
    made = opened(records=records)
    back = OpenedRequest.from_dict(from_json(to_json(made.to_dict())))
    assert back == made
    request = back.verified(GENESIS).value
    assert (request.organisation, request.method, request.count) == (CODING, "replay", len(records))
    assert ErasureRequest.from_dict(request.to_dict()) == request


def test_asking_for_the_same_is_the_same_request_and_for_anything_else_another() -> None:
    assert opened(records=[*ASKED[::-1], ASKED[0]]) == opened()
    others: list[dict[str, Any]] = [
        {"key": f.key("medical")}, {"genesis": f.genesis(seed=8)}, {"method": "shards"}, {"records": ASKED[:1]},
        {"records": ()}, {"basis": "another"},
    ]  # fmt: skip
    nonces = {opened(**changes).request.value.nonce for changes in [{}, *others]}
    assert len(nonces) == len(others) + 1


def test_asking_again_on_another_day_is_one_question_with_two_days() -> None:
    first, second = (opened(date=day).request.value for day in (date(2026, 3, 1), date(2026, 4, 1)))
    assert (first.date, second.date) == ("2026-03-01", "2026-04-01")
    assert first.question == second.question
    assert first.nonce == second.nonce
    assert opened(basis="another").request.value.question != first.question


def test_a_request_names_the_lanes_that_must_forget() -> None:
    lanes = tuple((member.address,) for member in f.members() for _ in range(3))
    genesis = f.genesis(lanes=lanes)
    own = genesis.lanes_of(CODING)
    assert opened(genesis=genesis, records=()).request.value.lanes == own
    some = opened(genesis=genesis)
    assert some.request.value.lanes == tuple(sorted({own[seeds.shard_of(record, 3)] for record in ASKED}))
    other = replace(some.request.value, lanes=own[:1] if some.request.value.lanes != own[:1] else own[1:2])
    with pytest.raises(ForgeryError, match="expected the lanes"):
        replace(some, request=other.sign(f.key("coding"), genesis.chain)).verified(genesis)


def test_a_request_of_another_run_or_signer_or_about_other_records_is_refused() -> None:
    made = opened()
    with pytest.raises(ForgeryError, match="expected federation"):
        made.verified(f.genesis(seed=8))
    with pytest.raises(ForgeryError, match="expected the signature of"):
        replace(made, request=made.request.value.sign(f.key("medical"), GENESIS.chain)).verified(GENESIS)
    changed = ({"records": ASKED[:1]}, {"records": (), "salt": ""}, {"salt": "11" * 32}, {"records": (f.other("x"),)})
    for changes in changed:
        with pytest.raises(ForgeryError, match="expected the 2 records that were signed for, got others"):
            replace(made, **changes).verified(GENESIS)  # type: ignore[arg-type] # of the fields' types


@pytest.mark.parametrize(
    "changes",
    [
        {"records": list(ASKED[::-1])}, {"records": [ASKED[0]] * 2}, {"records": []}, {"salt": ""}, {"salt": "11"},
        {"records": 5}, {"records": ["0x"]}, {"request": {}}, {"more": 1}, {"records": dict.fromkeys(ASKED, 1)},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_file_of_a_request_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        OpenedRequest.from_dict(opened().to_dict() | changes)


@pytest.mark.parametrize(
    "changes", [{"records": ""}, {"records": {}}, *({"salt": no} for no in (0, [], {}, None))], ids=str
)
def test_a_request_has_one_spelling(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        OpenedRequest.from_dict(opened(records=()).to_dict() | changes)


# --- attestations --------------------------------------------------------------------------------------------------


def test_an_attestation_comes_back_from_its_canonical_json() -> None:
    back = Attestation.from_dict(from_json(to_json(ATTESTATION.to_dict())))
    assert back == ATTESTATION
    assert back.digest == ATTESTATION.digest
    assert (back.organisation, back.method, back.whole) == (CODING, "remove", True)


def test_how_long_a_request_waited_follows_from_its_own_day_and_the_attestation_s() -> None:
    assert ATTESTATION.days == 0
    assert replace(ATTESTATION, date="2026-04-01").days == 31


def test_the_coordinator_signs_it() -> None:
    assert e.attested(GENESIS).verified(GENESIS) == ATTESTATION
    with pytest.raises(ForgeryError):
        e.attested(GENESIS, coordinator="medical").verified(GENESIS)


def test_the_organisation_has_signed_the_request_in_it() -> None:
    stolen = ATTESTATION.request.value.sign(f.key("medical"), GENESIS.chain)
    with pytest.raises(ForgeryError, match="erasure request"):
        e.attested(GENESIS, request=stolen).verified(GENESIS)


def test_on_the_chain_it_is_hidden_by_its_salt() -> None:
    salt = bytes.fromhex("7b" * 32)
    assert ATTESTATION.erasure == commitment(salt, ATTESTATION.request.value.digest)
    assert ATTESTATION.hide(ATTESTATION.digest) == commitment(salt, ATTESTATION.digest)
    assert replace(ATTESTATION, salt="7c" * 32).erasure != ATTESTATION.erasure


ATTESTATION_CHANGES: dict[str, Any] = {
    "request": replace(WHOLE, nonce=f.other("x")).sign(f.key("coding"), GENESIS.chain),
    "lane": 1,
    "generation": 2,
    "parent_generation": 1,
    "parent_round": 0,
    "reaggregated": 1,
    "rounds": 3,
    "erased": (),
    "destroyed": (),
    "salts_destroyed": (),
    "holders": (),
    "recomputed": 1,
    "attested": 1,
    "date": "2026-03-02",
    "salt": "7c" * 32,
}


def test_every_field_of_an_attestation_is_tried_below() -> None:
    assert set(ATTESTATION_CHANGES) == {field.name for field in fields(Attestation)}


@pytest.mark.parametrize("field", ATTESTATION_CHANGES)
def test_the_signatures_cover_every_field_of_an_attestation(field: str) -> None:
    signed = e.attested(GENESIS)
    changed = replace(ATTESTATION, **{field: ATTESTATION_CHANGES[field]})
    assert changed.digest != ATTESTATION.digest
    with pytest.raises(ForgeryError):
        Signed(changed, signed.signatures).verified(GENESIS)


@pytest.mark.parametrize(
    "changes",
    [
        {"parent_generation": 1},
        {"parent_generation": -1},
        {"generation": 0},
        {"erased": []},
        {"erased": [MEDICAL]},
        {"erased": ["me"]},
        {"destroyed": ["0x"]},
        {"holders": 5},
        {"lane": -1},
        {"rounds": 2**32},
        {"recomputed": "2"},
        {"salt": "7b"},
        {"lane": 1},
        {"date": "today"},
        {"request": {}},
        {"more": 1},
    ],
    ids=str,
)
def test_a_malformed_attestation_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        Attestation.from_dict(ATTESTATION.to_dict() | changes)


def test_whoever_asks_for_records_only_is_not_erased() -> None:
    request = RECORDS.sign(f.key("coding"), GENESIS.chain)
    data = replace(ATTESTATION, request=request, erased=()).to_dict()
    assert not Attestation.from_dict(data).whole
    with pytest.raises(FormatError):
        Attestation.from_dict(data | {"erased": [CODING]})


# --- receipts ------------------------------------------------------------------------------------------------------


def test_a_receipt_comes_back_and_is_its_signer_s() -> None:
    signed = e.signed_receipt(GENESIS, ATTESTATION.erasure, f.key("medical"))
    back = Signed.parse(Receipt, from_json(to_json(signed.to_dict())))
    assert back == signed
    assert back.verified(GENESIS) == Receipt(GENESIS.digest, MEDICAL, ATTESTATION.erasure)


@pytest.mark.parametrize(
    "change",
    [
        lambda receipt: replace(receipt, organisation=CODING),
        lambda receipt: replace(receipt, erasure=f.other("another")),
        lambda receipt: replace(receipt, genesis=f.other("another")),
    ],
)
def test_nobody_vouches_for_another_or_another_erasure(change: Callable[[Receipt], Receipt]) -> None:
    signed = e.signed_receipt(GENESIS, ATTESTATION.erasure, f.key("medical"))
    with pytest.raises(ForgeryError):
        Signed(change(signed.value), signed.signatures).verified(GENESIS)


def test_a_stranger_s_receipt_is_only_its_own() -> None:
    stranger = derive(1, "stranger")
    assert e.signed_receipt(GENESIS, ATTESTATION.erasure, stranger).verified(GENESIS).organisation == stranger.address
