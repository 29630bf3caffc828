"""Queries beside training and their answers, as they were sent, and whatever else comes as a FormatError."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flwr.app import ConfigRecord, RecordDict

from core.canonical import to_json
from core.erasures import ErasureRequest
from core.errors import FormatError
from core.messages import codec, queries
from core.messages.queries import Bind, Bound, Deletion, OfferQuery, RecordsAnswer, RecordsQuery
from core.update import Bid, Offer
from tests import federation as f
from tests.core.messages.records import NOT_JSON, config, with_record
from tests.erasures import DAY, attested, signed_receipt

GENESIS = f.genesis()
CHALLENGE = f.other("challenge")
BIND = Bind(f.asked(CHALLENGE), f.CHAIN)
BOUND = Bound(
    tuple(f.registration(member, CHALLENGE, f.key(member.name), f.CHAIN) for member in GENESIS.organisations), 4
)
OFFER = OfferQuery(GENESIS, f.address("medical"), 0, 1, 3, 12.5, {1: 0.25, 2: 0.0})
DELETION = Deletion(GENESIS, f.address("medical"), attested(GENESIS))


def test_a_bind_query_and_its_answer_arrive_as_they_were_sent() -> None:
    assert Bind.from_content(BIND.to_content()) == BIND
    assert Bound.from_content(BOUND.to_content()) == BOUND


def test_a_query_for_an_offer_and_the_offer_arrive_as_they_were_sent() -> None:
    assert OfferQuery.from_content(OFFER.to_content()) == OFFER
    offer = Offer(GENESIS.digest, f.address("medical"), 0, 1, 3, Bid(25, 2)).sign(f.key("medical"), GENESIS.chain)
    assert queries.offer_of(queries.offered(offer)) == offer


@pytest.mark.parametrize("field", ["genesis", "organisation", "lane", "generation", "round", "traffic", "paid"])
def test_no_field_of_a_query_for_an_offer_may_be_missing(field: str) -> None:
    content = OFFER.to_content()
    query = codec.json_of(content, "offer", 2**20)
    del query[field]
    with pytest.raises(FormatError):
        OfferQuery.from_content(with_record(content, offer=config(query)))


def test_a_query_to_delete_and_its_receipt_arrive_as_they_were_sent() -> None:
    query = Deletion(GENESIS, f.address("medical"), attested(GENESIS))
    assert Deletion.from_content(query.to_content()) == query
    receipt = signed_receipt(GENESIS, query.attested.value.erasure, f.key("medical"))
    assert queries.receipt_of(queries.deleted(receipt)) == receipt


@pytest.mark.parametrize("broken", [{}, {"organisation": 1}, {"organisation": "0x", "signature": "0x"}, {"x": 1}])
def test_a_broken_receipt_is_a_format_error(broken: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        queries.receipt_of(RecordDict({"deleted": ConfigRecord({"json": to_json(broken)})}))


def test_a_query_to_delete_without_an_attestation_is_a_format_error() -> None:
    plain = {"genesis": GENESIS.to_dict(), "organisation": f.address("medical")}
    with pytest.raises(FormatError, match="expected the fields genesis, organisation, attested"):
        Deletion.from_content(RecordDict({"delete": ConfigRecord({"json": to_json(plain)})}))


REQUEST = ErasureRequest(
    GENESIS.digest, f.address("medical"), "shards", (0,), f.other("records"), 2, "GDPR Art. 17", DAY, f.other("nonce")
).sign(f.key("medical"), GENESIS.chain)
RECORDS = RecordsQuery(GENESIS, REQUEST, (f.other("one"), f.other("two")), forget=True)


def test_a_query_for_records_and_its_answer_arrive_as_they_were_sent() -> None:
    assert RecordsQuery.from_content(RECORDS.to_content()) == RECORDS
    assert not RecordsQuery.from_content(replace(RECORDS, forget=False).to_content()).forget
    answer = RecordsAnswer((f.other("one"),), (f.other("two"),))
    assert RecordsAnswer.from_content(answer.to_content(), 2) == answer


@pytest.mark.parametrize(
    "broken", [{"records": ["0x"]}, {"records": 1}, {"request": {}}, {"genesis": {}}, {"records": None}], ids=str
)
def test_a_broken_query_for_records_is_a_format_error(broken: dict[str, Any]) -> None:
    plain = {"genesis": GENESIS.to_dict(), "request": REQUEST.to_dict(), "records": [], "forget": False} | broken
    with pytest.raises(FormatError):
        RecordsQuery.from_content(RecordDict({"records": ConfigRecord({"json": to_json(plain)})}))


@pytest.mark.parametrize("broken", [{}, {"held": [], "forgotten": 1}, {"held": ["x"], "forgotten": []}], ids=str)
def test_a_broken_answer_about_records_is_a_format_error(broken: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        RecordsAnswer.from_content(RecordDict({"known": ConfigRecord({"json": to_json(broken)})}), 2)


@pytest.mark.parametrize("known", [-1, "4", 1.5, True, None])
def test_how_many_organisations_a_node_knows_is_a_count(known: object) -> None:
    with pytest.raises(FormatError):
        Bound.from_content(RecordDict({"bound": config({"organisations": [], "known": known})}))


@pytest.mark.parametrize("record", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize(
    ("name", "content", "parse"),
    [
        ("bound", BOUND.to_content, Bound.from_content),
        ("bind", BIND.to_content, Bind.from_content),
        ("offer", OFFER.to_content, OfferQuery.from_content),
        ("delete", DELETION.to_content, Deletion.from_content),
        ("records", RECORDS.to_content, RecordsQuery.from_content),
    ],
)
def test_what_is_no_canonical_object_is_a_format_error(
    record: Any, name: str, content: Callable[[], RecordDict], parse: Callable[[RecordDict], object]
) -> None:
    with pytest.raises(FormatError):
        parse(with_record(content(), **{name: record}))
