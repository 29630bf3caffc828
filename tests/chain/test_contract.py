"""A contract on a node: calls, events and transactions, with the purpose in every message."""

from collections.abc import Callable
from typing import Any

import pytest
import requests

from chain.contract import BoundContract, to_digest
from chain.devnet.accounts import CHAIN_IDS
from core.canonical import Address, raw
from core.errors import LedgerUnreachableError, UsageError
from tests.behaviours.ledger import MEMBERS, some_digest
from tests.behaviours.runs import COORDINATOR
from tests.chain.in_process import deployed, node_on, provider_of

pytestmark = pytest.mark.chain


def opened(bound: BoundContract, run: Any) -> int | None:
    return bound.call("getRun", raw(run), purpose="a run")[1] or None


def test_a_transaction_is_sent_until_it_has_its_effect(public: BoundContract) -> None:
    run, members = some_digest(), sorted(MEMBERS, key=lambda address: int(address, 16))
    block = public.execute("openRun", raw(run), members, effect=lambda: opened(public, run), purpose="a run")
    (event,) = public.events("RunOpened", block, block, {"run": raw(run)}, purpose="a run")
    assert event["args"]["organisations"] == members
    anchor = public.anchor(event)
    assert (anchor.chain_id, anchor.contract, anchor.block) == (CHAIN_IDS["public"], public.address, block)
    assert public.node.eth.get_transaction_receipt(anchor.transaction)["status"] == 1  # type: ignore[arg-type]  # a hash
    assert public.events("RunOpened", 0, "latest", {"run": raw(some_digest())}, purpose="a run") == []


def test_without_a_key_a_contract_is_read_only(public: BoundContract) -> None:
    reader = BoundContract(public.node, "PublicLedger", public.address)
    assert (reader.account, public.account) == (None, COORDINATOR.address)
    assert opened(reader, some_digest()) is None
    with pytest.raises(UsageError, match="key of an account for opening it, got none"):
        reader.execute("openRun", raw(some_digest()), [], effect=lambda: None, purpose="opening it")


def test_an_address_in_any_case_is_the_same_contract(public: BoundContract) -> None:
    lower = BoundContract(public.node, "PublicLedger", Address(public.address.lower()))
    assert lower.address == public.address
    assert lower.exists
    assert not BoundContract(public.node, "PublicLedger", Address("0x" + "00" * 20)).exists


def test_a_chain_id_is_asked_for_once(public: BoundContract) -> None:
    bound, asked = BoundContract(public.node, "PublicLedger", public.address), provider_of(public.node).asked
    asked.clear()
    assert [bound.chain_id, bound.chain_id] == [CHAIN_IDS["public"]] * 2
    assert asked.count("eth_chainId") == 1


@pytest.mark.parametrize(
    "question",
    [
        lambda bound: bound.chain_id,
        lambda bound: bound.exists,
        lambda bound: bound.call("getRun", bytes(32), purpose="a run"),
        lambda bound: bound.events("RunOpened", 0, 0, {}, purpose="a run"),
        lambda bound: bound.execute("unpause", effect=lambda: bound.exists or None, purpose="a run"),
    ],
)
def test_a_node_that_does_not_answer_is_a_ledger_that_is_unreachable(
    tmp_path: Any, question: Callable[[BoundContract], object]
) -> None:
    def refuse(_method: str, _ask: Callable[[], Any]) -> Any:
        raise requests.ConnectionError

    node = node_on(tmp_path)
    bound = deployed(node, "PublicLedger", COORDINATOR)
    provider_of(node).around = refuse
    with pytest.raises(LedgerUnreachableError):
        question(bound)


def test_a_digest_is_32_bytes_in_hex() -> None:
    digest = some_digest()
    assert to_digest(raw(digest)) == digest
