"""Requests, attestations and certificates: one form, one digest, the signers they claim."""

from dataclasses import replace
from typing import Any

import pytest

from core.canonical import from_json, to_json
from core.erasures import Attestation, hidden
from core.errors import ForgeryError, FormatError
from core.signed import Signed
from tests import federation as f
from tests.erasures import attestation, signed_receipt
from unlearning.certificate import ErasureCertificate, Root, read_certificate

GENESIS = f.genesis()
CODING, MEDICAL = f.key("coding"), f.key("medical")
ATTESTATION = attestation(GENESIS, holders=(MEDICAL.address,))
REQUEST = ATTESTATION.request.value
ATTESTED = ATTESTATION.sign(f.COORDINATOR, GENESIS.chain)
CERTIFICATE = ErasureCertificate(
    attestation=ATTESTED,
    label="interim",
    before=Root(0, 0, 2, f.other("before"), f.other("old state")),
    after=Root(0, 1, 2, f.other("after"), f.other("new state")),
    heads=(f.other("after"),),
    aggregate=f.other("served"),
    seed=7,
    versions={"numpy": "2"},
    metrics={"before": {"all": 2.5}, "after": {"all": 2.75}},
    receipts=(),
    outstanding=(MEDICAL.address,),
)
SIGNED = CERTIFICATE.sign(f.COORDINATOR, GENESIS.chain)


def test_what_is_signed_is_read_back_as_it_was_written() -> None:
    assert Signed.parse(Attestation, from_json(to_json(ATTESTED.to_dict()))) == ATTESTED
    assert read_certificate(to_json(SIGNED.to_dict())) == SIGNED
    assert ATTESTED.verified(GENESIS) == ATTESTATION
    assert SIGNED.verified(GENESIS) == CERTIFICATE


@pytest.mark.parametrize("name", ATTESTATION.to_dict())
def test_every_field_of_an_attestation_is_signed(name: str) -> None:
    value = getattr(ATTESTATION, name)
    changes: dict[type, Any] = {int: lambda: value + 1, tuple: lambda: (), str: lambda: "00" * 32}
    other = REQUEST.sign(MEDICAL, GENESIS.chain) if name == "request" else changes[type(value)]()
    changed = replace(ATTESTED, value=replace(ATTESTATION, **{name: other}))
    with pytest.raises(ForgeryError):
        changed.verified(GENESIS)


@pytest.mark.parametrize(
    "forged",
    [
        ATTESTATION.sign(MEDICAL, GENESIS.chain),
        ATTESTATION.sign(f.COORDINATOR, GENESIS.chain, CODING),
        ATTESTATION.sign(CODING, GENESIS.chain),
        Signed(ATTESTATION, ()),
    ],
)
def test_an_attestation_is_the_coordinator_s(forged: Signed[Attestation]) -> None:
    with pytest.raises(ForgeryError, match="attestation: expected"):
        forged.verified(GENESIS)


def test_a_request_is_the_organisation_s_own_and_for_one_federation() -> None:
    with pytest.raises(ForgeryError, match=f"got that of {MEDICAL.address}"):
        REQUEST.sign(MEDICAL, GENESIS.chain).verified(GENESIS)
    with pytest.raises(ForgeryError, match="expected federation"):
        REQUEST.sign(CODING, GENESIS.chain).verified(f.genesis(seed=8))


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": 0},
        {"parent_generation": 1},
        {"erased": []},
        {"destroyed": ["0x"]},
        {"lane": -1},
        {"lane": True},
        {"salt": "5A" * 32},
        {"x": 1},
        {"request": REQUEST.sign(CODING, GENESIS.chain).to_dict() | {"x": 1}},
        *(
            {"request": Signed(replace(REQUEST, **odd), ATTESTED.signatures[1:]).to_dict()}
            for odd in (
                {"method": "forgive"},
                {"method": "shards"},  # of no records
                {"count": 2},  # hidden by nothing
                {"records": f.other("records")},  # none of them
                {"method": "remove", "records": f.other("records"), "count": 2},
                {"method": "shards", "records": f.other("records"), "count": -1},
                {"method": "shards", "records": f.other("records"), "count": 2},  # whose organisation is erased, too
            )
        ),
    ],
    ids=str,
)
def test_a_malformed_attestation_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        Attestation.from_dict(ATTESTATION.to_dict() | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"label": "perfect"},
        {"heads": ["0x"]},
        {"metrics": {"before": {"all": "2"}}},
        {"versions": {"numpy": 2}},
        {"limits": [1]},
        {"receipts": [{"organisation": MEDICAL.address}]},
        {"seed": "7"},
        {"x": 1},
    ],
    ids=str,
)
def test_a_malformed_certificate_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        ErasureCertificate.from_dict(CERTIFICATE.to_dict() | changes)


def test_an_attestation_of_records_erases_nobody() -> None:
    asked = replace(REQUEST, method="shards", records=f.other("records"), count=2).sign(CODING, GENESIS.chain)
    made = replace(ATTESTATION, request=asked, erased=())
    assert Attestation.from_dict(from_json(to_json(made.to_dict()))) == made
    assert not made.whole
    assert made.sign(f.COORDINATOR, GENESIS.chain).verified(GENESIS) == made


def test_records_are_hidden_from_who_does_not_have_the_key() -> None:
    records = [f.other("one"), f.other("two")]
    salt = CODING.salt_for(REQUEST.nonce)
    found = hidden(salt, records)
    assert found == hidden(salt, [*reversed(records), records[0]])
    others = [
        hidden(MEDICAL.salt_for(REQUEST.nonce), records),
        hidden(CODING.salt_for(f.other("another nonce")), records),
        hidden(salt, records[:1]),
    ]
    assert len({found, *others}) == 4


def test_bytes_with_anything_more_are_no_certificate() -> None:
    data = SIGNED.to_dict()
    data["value"]["before"]["x"] = 1
    with pytest.raises(FormatError):
        read_certificate(to_json(data))
    with pytest.raises(FormatError, match="not in canonical form"):
        read_certificate(to_json(SIGNED.to_dict()) + b"\n")


def test_a_receipt_is_for_one_erasure_and_of_its_signer() -> None:
    receipt = signed_receipt(GENESIS, ATTESTATION.erasure, MEDICAL)
    assert receipt.verified(GENESIS).erasure == ATTESTATION.erasure
    for changes in ({"erasure": f.other("erasure")}, {"organisation": CODING.address}):
        with pytest.raises(ForgeryError):
            replace(receipt, value=replace(receipt.value, **changes)).verified(GENESIS)


def test_nothing_plain_goes_on_the_chain() -> None:
    plain = {REQUEST.digest, ATTESTATION.digest, CERTIFICATE.digest}
    assert not plain & {ATTESTATION.erasure, ATTESTATION.hide(ATTESTATION.digest), CERTIFICATE.committed}
