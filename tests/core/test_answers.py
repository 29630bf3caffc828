"""Receipts of served answers: one form, one signer, and the very request and answer."""

import json
from typing import Any

import pytest

from core import keys
from core.answers import AnswerReceipt, checked_bundle, receipt_bundle
from core.canonical import ZERO_DIGEST, from_json, to_json
from core.errors import FoedusError, ForgeryError, FormatError, IntegrityError
from tests import federation as f

GENESIS = f.genesis()
SERVER = keys.derive(9, "server")
REQUEST = {"model": "run", "messages": [{"role": "user", "content": "Which dose?"}], "temperature": 0.5}
ANSWER = {"content": "None.", "finish_reason": "stop", "tokens": [1, 2]}


def bundle() -> dict[str, Any]:
    return receipt_bundle(GENESIS, SERVER, f.other("served"), ZERO_DIGEST, REQUEST, ANSWER)


def test_a_receipt_names_server_model_request_and_answer() -> None:
    receipt, federation = checked_bundle(from_json(to_json(bundle())))
    assert (receipt.server, receipt.run, receipt.base) == (SERVER.address, GENESIS.run, GENESIS.base.digest)
    assert federation == GENESIS.header
    assert AnswerReceipt.from_dict(receipt.to_dict()) == receipt


def test_a_bundle_holds_whatever_the_order_of_its_fields_and_its_white_space() -> None:
    turned = json.dumps(dict(reversed(bundle().items())), indent=2)
    assert checked_bundle(json.loads(turned))[0].server == SERVER.address


@pytest.mark.parametrize(
    ("place", "value", "error"),
    [
        (("answer", "content"), "Two.", IntegrityError),
        (("request", "temperature"), 0.25, IntegrityError),
        (("federation", "coordinator"), "0x" + "12" * 20, IntegrityError),
        (("receipt", "value", "aggregate"), "0x" + "12" * 32, ForgeryError),
        (("receipt", "value", "server"), "0x" + "12" * 20, ForgeryError),
        (("receipt", "value", "trace"), "0x12", FormatError),
        (("receipt", "signatures"), [], ForgeryError),
        (("more",), 1, FormatError),
        (("request", "seed"), 2**60, FormatError),
    ],
)
def test_a_bundle_that_was_changed_does_not_hold(place: tuple[str, ...], value: Any, error: type[FoedusError]) -> None:
    found: Any = json.loads(json.dumps(bundle()))
    inner = found
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    with pytest.raises(error):
        checked_bundle(found)


@pytest.mark.parametrize("data", [None, [], {}, "text", {"receipt": 1, "answer": 1, "federation": 1, "request": 1}])
def test_what_is_no_bundle_is_refused(data: Any) -> None:
    with pytest.raises(FormatError):
        checked_bundle(data)
