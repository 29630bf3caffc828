"""Contracts are found where they were put, deployed once, and their coordinators given what they need."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from web3 import Web3

from chain import deployment
from chain.contract import BoundContract
from chain.deployment import COORDINATOR_ROLE, AddressBook, bind, endow
from chain.devnet.accounts import ALLOWANCE, administrator
from core.canonical import Address
from core.errors import LedgerConflictError, LedgerError, UsageError
from core.keys import Key, derive
from tests.chain.chains import Provider, open_node

pytestmark = pytest.mark.chain
COORDINATOR, SECOND = derive(1, "coordinator"), derive(2, "coordinator")
NOWHERE = Address("0x" + "11" * 20)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web3]:
    """The node that every chain setting leads to."""
    with open_node(tmp_path / "chain") as node:
        monkeypatch.setattr(deployment, "connect", lambda _chain, _state, _side: node)
        yield node


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def balance(node: Web3, key: Key) -> int:
    return node.eth.get_balance(Web3.to_checksum_address(key.address))


def has_role(node: Web3, name: str, address: Address, key: Key) -> bool:
    bound = BoundContract(node, name, address)
    return bool(bound.call("hasRole", COORDINATOR_ROLE, key.address, purpose="a role"))


@pytest.mark.usefixtures("node")
def test_a_contract_is_deployed_once_and_found_again(state: Path) -> None:
    first = bind("PublicLedger", "embedded", state, COORDINATOR)
    assert first.genuine
    assert bind("PublicLedger", "embedded", state, COORDINATOR).address == first.address
    assert bind("PublicLedger", "embedded", state, None).address == first.address
    assert bind("PrivateLedger", "embedded", state, COORDINATOR).address != first.address


def test_every_coordinator_of_a_development_chain_gets_funds_and_its_role(node: Web3, state: Path) -> None:
    for key in (COORDINATOR, SECOND):
        bound = bind("PublicLedger", "embedded", state, key)
        assert has_role(node, "PublicLedger", bound.address, key)
        assert balance(node, key) >= ALLOWANCE // 2
    owner = bound.call("owner", purpose="its owner")
    assert owner == administrator().address


def test_behind_a_url_nothing_is_given(node: Web3, state: Path) -> None:
    with pytest.raises(LedgerError, match="insufficient funds"):
        bind("PublicLedger", "http://somewhere", state, COORDINATOR)
    endow(node, COORDINATOR)
    bound = bind("PublicLedger", "http://somewhere", state, COORDINATOR)
    assert bound.call("owner", purpose="its owner") == COORDINATOR.address
    assert bound.call("defaultAdminDelay", purpose="its delay") == deployment.HANDOVER_SECONDS
    endow(node, SECOND)
    with pytest.raises(LedgerConflictError, match="AccessControlUnauthorizedAccount"):
        bind("PublicLedger", "http://somewhere", state, SECOND)


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("address", [NOWHERE, "0x1111", "ledger.eth"])
def test_an_address_without_a_contract_is_refused(state: Path, address: str) -> None:
    with pytest.raises(UsageError, match=f"got {address}$"):
        bind("PublicLedger", "embedded", state, None, contract=Address(address))


@pytest.mark.usefixtures("node")
def test_a_contract_that_nobody_deployed_is_unknown_to_a_reader(state: Path) -> None:
    with pytest.raises(UsageError, match=r"PublicLedger .*'embedded', got none"):
        bind("PublicLedger", "embedded", state, None)


@pytest.mark.usefixtures("node")
def test_two_threads_deploy_one_contract(state: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda key=key: found.append(bind("PublicLedger", "embedded", state, key).address))
        for key in (COORDINATOR, SECOND)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert len(set(found)) == 1


def test_a_deployment_whose_answer_was_lost_is_not_made_again(node: Web3, state: Path) -> None:
    provider = node.provider
    assert isinstance(provider, Provider)

    def lose(method: str, ask: Callable[[], Any]) -> Any:
        answer = ask()
        if method == "eth_sendRawTransaction" and node.eth.block_number == 2:
            return {"id": 1, "jsonrpc": "2.0", "error": {"code": -32000, "message": "already known"}}
        return answer

    provider.around = lose
    bound = bind("PublicLedger", "embedded", state, COORDINATOR)
    provider.around = lambda _method, ask: ask()
    assert bound.genuine
    assert node.eth.block_number == 3  # funds, contract, role


def test_funds_are_given_once(node: Web3) -> None:
    endow(node, COORDINATOR)
    blocks = node.eth.block_number
    endow(node, COORDINATOR)
    assert (balance(node, COORDINATOR), node.eth.block_number) == (ALLOWANCE, blocks)


# The address book


def test_addresses_are_kept_for_each_chain(node: Web3, state: Path, tmp_path: Path) -> None:
    bound = bind("PublicLedger", "embedded", state, COORDINATOR)
    book = AddressBook(state, node)
    assert book.find("PublicLedger") == bound.address
    assert book.find("PrivateLedger") is None
    with open_node(tmp_path / "other", "private") as other:
        assert AddressBook(state, other).find("PublicLedger") is None
    with open_node(tmp_path / "anew") as anew:  # the same genesis, and no contract on it
        assert AddressBook(state, anew).find("PublicLedger") is None
    (chain,) = json.loads((state / "chain" / "contracts.json").read_text())
    assert chain.startswith(f"{node.eth.chain_id}/0x")


def test_an_address_whose_code_is_gone_is_forgotten(node: Web3, state: Path) -> None:
    book = AddressBook(state, node)
    assert book.find("PublicLedger") is None
    with book.locked():
        book.enter("PublicLedger", NOWHERE)
    assert book.find("PublicLedger") is None
