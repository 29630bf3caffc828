"""Registrations and manifests: what is signed is what is read, and nothing out of range is read."""

import re
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.canonical import Address, Digest, from_json, to_json
from core.errors import ForgeryError, FormatError
from core.keys import derive
from core.signed import Signed
from core.update import METRICS, Asked, Bid, Organisation, Registration, UpdateManifest, verified_registration
from tests import federation as f

GENESIS = f.genesis()
MANIFEST = f.manifest(GENESIS)
SIGNED = f.signed(GENESIS)
DIGESTS = st.binary(min_size=32, max_size=32).map(lambda data: Digest("0x" + data.hex()))
MANIFESTS = st.builds(
    UpdateManifest,
    genesis=DIGESTS,
    organisation=st.sampled_from(list(f.EXAMPLES)).map(f.address),
    lane=st.integers(0, 2**32 - 1),
    generation=st.integers(0, 2**32 - 1),
    round=st.integers(0, 2**32 - 1),
    parent=DIGESTS,
    update=DIGESTS,
    examples=st.integers(0, 2**53 - 1),
    tokens=st.integers(0, 2**53 - 1),
    bid=st.builds(Bid, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    nonce=DIGESTS,
    metrics=st.dictionaries(st.sampled_from(sorted(METRICS)), st.floats(0, 1), max_size=3),
)


@given(MANIFESTS)
def test_a_manifest_comes_back_from_its_canonical_json(manifest: UpdateManifest) -> None:
    back = UpdateManifest.from_dict(from_json(to_json(manifest.to_dict())))
    assert back == manifest
    assert back.digest == manifest.digest


def test_a_signed_manifest_comes_back_and_is_its_signers() -> None:
    back = Signed.parse(UpdateManifest, from_json(to_json(SIGNED.to_dict())))
    assert back == SIGNED
    assert back.verified(GENESIS) == MANIFEST


FIELDS: dict[str, Any] = {
    "genesis": f.other("genesis"),
    "lane": 1,
    "generation": 1,
    "round": 2,
    "parent": f.other("parent"),
    "update": f.other("update"),
    "examples": 99,
    "tokens": 1235,
    "bid": Bid(24, 2),
    "nonce": f.other("nonce"),
    "metrics": {"loss": 2.4},
    "organisation": f.address("coding"),
    "wire": "bf16",
    "epsilon": 0.5,
}


def test_every_field_of_a_manifest_is_tried_below() -> None:
    assert set(FIELDS) == {field.name for field in fields(UpdateManifest)}


@pytest.mark.parametrize("field", FIELDS)
def test_the_signature_and_the_digest_cover_every_field(field: str) -> None:
    changed = replace(MANIFEST, **{field: FIELDS[field]})
    assert changed.digest != MANIFEST.digest
    with pytest.raises(ForgeryError, match=r"expected (the signature|federation)"):
        Signed(changed, SIGNED.signatures).verified(GENESIS)


def test_the_rank_of_a_bid_is_signed_too() -> None:
    changed = replace(MANIFEST, bid=Bid(25, 1))
    with pytest.raises(ForgeryError):
        Signed(changed, SIGNED.signatures).verified(GENESIS)


def test_a_manifest_signed_for_another_chain_is_forged_here() -> None:
    elsewhere = replace(GENESIS.chain, chain_id=1)
    with pytest.raises(ForgeryError):
        MANIFEST.sign(f.key("medical"), elsewhere).verified(GENESIS)


def test_another_organisations_signature_is_forged() -> None:
    with pytest.raises(ForgeryError, match=f"got that of {f.address('coding')}"):
        MANIFEST.sign(f.key("coding"), GENESIS.chain).verified(GENESIS)


def test_a_signed_manifest_is_named_by_what_was_signed_not_by_the_signature() -> None:
    assert (
        replace(SIGNED, signatures=f.signed(GENESIS, "coding").signatures).value.digest
        == SIGNED.value.digest
        == MANIFEST.digest
    )


@pytest.mark.parametrize("field", ["lane", "generation", "round"])
@pytest.mark.parametrize("value", [-1, 2**32, 1.0, "1", True, None])
def test_small_counts_are_unsigned_and_of_32_bits(field: str, value: object) -> None:
    with pytest.raises(FormatError, match=rf"{field}.*got {re.escape(repr(value))}"):
        UpdateManifest.from_dict(MANIFEST.to_dict() | {field: value})


@pytest.mark.parametrize("field", ["examples", "tokens"])
@pytest.mark.parametrize("value", [-1, 2**53, 1.0, "1", True, None])
def test_large_counts_are_what_canonical_json_can_hold(field: str, value: object) -> None:
    with pytest.raises(FormatError, match=rf"{field}.*got {re.escape(repr(value))}"):
        UpdateManifest.from_dict(MANIFEST.to_dict() | {field: value})


@pytest.mark.parametrize("field", ["genesis", "parent", "update", "nonce"])
@pytest.mark.parametrize("value", ["", "0x00", "0x" + "AB" * 32, 5, None, []])
def test_digests_are_digests(field: str, value: object) -> None:
    with pytest.raises(FormatError):
        UpdateManifest.from_dict(MANIFEST.to_dict() | {field: value})


@pytest.mark.parametrize("value", ["me", "0x" + "11" * 19, 5, None, ["0x" + "11" * 20]])
def test_an_organisation_is_an_address(value: object) -> None:
    with pytest.raises(FormatError):
        UpdateManifest.from_dict(MANIFEST.to_dict() | {"organisation": value})


@pytest.mark.parametrize(
    "metrics",
    [
        {"loss": float("nan")},
        {"loss": float("inf")},
        {"loss": 10**400},
        {"loss": "2"},
        {"loss": True},
        {"loss": -1},
        {"loss": 1.7e308},
        {"lo\x1bss": 1},
        [1],
        None,
    ],
)
def test_metrics_are_a_fixed_set_of_numbers_within_their_ranges(metrics: object) -> None:
    with pytest.raises(FormatError):
        UpdateManifest.from_dict(MANIFEST.to_dict() | {"metrics": metrics})


@pytest.mark.parametrize(
    "bid", [None, {}, {"steps": 1}, {"steps": 1, "rank": 1, "price": 1}, {"steps": -1, "rank": 1}, [1, 2]]
)
def test_a_bid_has_steps_and_rank(bid: object) -> None:
    with pytest.raises(FormatError):
        UpdateManifest.from_dict(MANIFEST.to_dict() | {"bid": bid})


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_of_a_manifest_may_be_missing(field: str) -> None:
    data = MANIFEST.to_dict()
    del data[field]
    with pytest.raises(FormatError, match=f"expected a field '{field}'"):
        UpdateManifest.from_dict(data)


@pytest.mark.parametrize("data", [{}, [], "text", None, MANIFEST.to_dict() | {"extra": 1}])
def test_what_is_no_manifest_is_refused(data: Any) -> None:
    with pytest.raises(FormatError):
        UpdateManifest.from_dict(data)
    with pytest.raises(FormatError):
        Signed.parse(UpdateManifest, data)


# --- registrations -------------------------------------------------------------------------------------------------

CHALLENGE = f.other("challenge")
KEY = f.key("medical")
MEDICAL = Organisation(KEY.address, "medical", 100, derived=True)
REGISTRATION = f.registration(MEDICAL, CHALLENGE, KEY, f.CHAIN)


def verified(signed: Signed[Registration]) -> Organisation:
    registration = signed.value
    asked = Asked(registration.coordinator, registration.run, registration.challenge)
    return verified_registration(signed, f.CHAIN, asked)


def test_a_registration_comes_back_and_is_its_signers() -> None:
    back = Signed.parse(Registration, from_json(to_json(REGISTRATION.to_dict())))
    assert back == REGISTRATION
    assert verified_registration(back, f.CHAIN, f.asked(CHALLENGE)) == MEDICAL
    assert back.public_key(f.CHAIN) == KEY.public


@pytest.mark.parametrize("changes", [{"challenge": f.other("later")}, {"run": "two"}, {"coordinator": KEY.address}])
def test_a_registration_answers_one_question(changes: dict[str, Any]) -> None:
    with pytest.raises(ForgeryError, match="expected an answer to"):
        verified_registration(REGISTRATION, f.CHAIN, replace(f.asked(CHALLENGE), **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"organisation": replace(MEDICAL, name="medica1")},
        {"organisation": replace(MEDICAL, examples=101)},
        {"organisation": replace(MEDICAL, derived=False)},
        {"organisation": replace(MEDICAL, address=f.address("coding"))},
        {"coordinator": KEY.address},
        {"run": "two"},
        {"challenge": f.other("later")},
        {"node_key": "04ab"},
        {"nonce": f.other("nonce")},
        {"product": "another 1.0"},
        {"formats": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_signature_covers_everything_that_is_registered(changes: dict[str, Any]) -> None:
    with pytest.raises(ForgeryError, match="expected the signature of"):
        verified(replace(REGISTRATION, value=replace(REGISTRATION.value, **changes)))


def test_nobody_registers_for_another() -> None:
    forged = f.registration(MEDICAL, CHALLENGE, derive(1, "mallory"), f.CHAIN)
    with pytest.raises(ForgeryError, match=f"got that of {derive(1, 'mallory').address}"):
        verified(forged)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": 5},
        {"examples": 0},
        {"examples": -1},
        {"examples": 2**64},
        {"examples": 1.5},
        {"derived": 1},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_registration_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        Registration.from_dict(REGISTRATION.value.to_dict() | {"organisation": MEDICAL.to_dict() | changes})


@pytest.mark.parametrize("data", [{}, [], None, {"organisation": MEDICAL.to_dict()}])
def test_what_is_no_registration_is_refused(data: Any) -> None:
    with pytest.raises(FormatError):
        Registration.from_dict(data)


@pytest.mark.parametrize("value", [5, None, "me"])
def test_a_registration_under_no_address_is_forged_and_no_crash(value: Any) -> None:
    data = REGISTRATION.value.to_dict() | {"organisation": MEDICAL.to_dict() | {"address": value}}
    with pytest.raises(FormatError):
        Registration.from_dict(data)


def test_an_address_is_compared_as_it_is_spelt() -> None:
    lower = replace(MEDICAL, address=Address(MEDICAL.address.lower()))
    with pytest.raises(ForgeryError):
        verified(f.registration(lower, CHALLENGE, KEY, f.CHAIN))
