"""Contracts are deployed once for each chain, found again, and given their coordinator."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from web3 import Web3

from chain.contract import BoundContract
from chain.deployment import COORDINATOR_ROLE, AddressBook, bind
from chain.devnet.accounts import ALLOWANCE, CHAIN_IDS, FUNDS, administrator
from core.canonical import Address
from core.errors import LedgerConflictError, LedgerError, UsageError
from core.keys import derive
from tests.chain.chains import bound, open_node

pytestmark = pytest.mark.chain
COORDINATOR = derive(1, "coordinator")
NOWHERE = Address("0x" + "22" * 20)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Web3]:
    with open_node(tmp_path / "chain") as node:
        yield node


def balance(node: Web3, address: str) -> int:
    return node.eth.get_balance(Web3.to_checksum_address(address))


def test_a_contract_is_deployed_once_and_then_found(node: Web3, tmp_path: Path) -> None:
    first = bound(node, tmp_path, COORDINATOR)
    assert first.exists
    height = node.eth.block_number
    again = bound(node, tmp_path, COORDINATOR)
    assert again.address == first.address
    assert node.eth.block_number == height  # nothing was sent
    private = bound(node, tmp_path, COORDINATOR, "PrivateLedger")
    assert private.address != first.address


def test_the_coordinator_of_a_development_chain_gets_its_role_and_funds(node: Web3, tmp_path: Path) -> None:
    contract = bound(node, tmp_path, COORDINATOR)
    assert contract.call("hasRole", COORDINATOR_ROLE, COORDINATOR.address, wanted="a role")
    assert not contract.call("hasRole", COORDINATOR_ROLE, NOWHERE, wanted="a role")
    assert balance(node, COORDINATOR.address) == ALLOWANCE
    assert balance(node, administrator().address) < FUNDS - ALLOWANCE


def test_two_coordinators_share_a_contract(node: Web3, tmp_path: Path) -> None:
    other = derive(2, "coordinator")
    contract = bound(node, tmp_path, COORDINATOR)
    assert bound(node, tmp_path, other).address == contract.address
    assert contract.call("hasRole", COORDINATOR_ROLE, other.address, wanted="a role")


def test_a_reader_finds_what_was_deployed_and_nothing_else(node: Web3, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no contract is known"):
        bound(node, tmp_path, None)
    deployed = bound(node, tmp_path, COORDINATOR)
    reader = bound(node, tmp_path, None)
    assert (reader.address, reader.account) == (deployed.address, None)


def test_an_address_without_code_is_refused(node: Web3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.deployment.connect", lambda *_: node)
    for address in (NOWHERE, Address("0x12")):
        with pytest.raises(UsageError, match=rf"{address}.*{CHAIN_IDS['public']}"):
            bind("PublicLedger", "embedded", tmp_path, None, contract=address)


def test_behind_a_url_nobody_gives_funds(node: Web3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.deployment.connect", lambda *_: node)
    with pytest.raises(LedgerError, match="insufficient funds"):
        bind("PublicLedger", "http://127.0.0.1:8545", tmp_path, COORDINATOR)
    assert balance(node, COORDINATOR.address) == 0


def test_behind_a_url_the_coordinator_deploys_and_administers(
    node: Web3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chain.deployment.connect", lambda *_: node)
    owner = administrator()  # the one account with funds
    contract = bind("PublicLedger", "http://127.0.0.1:8545", tmp_path, owner)
    assert contract.call("hasRole", COORDINATOR_ROLE, owner.address, wanted="a role")
    stranger = derive(3, "stranger")
    known = bind("PublicLedger", "http://127.0.0.1:8545", tmp_path, None, contract=contract.address)
    assert known.address == contract.address
    with pytest.raises(LedgerConflictError, match="AccessControlUnauthorizedAccount"):
        bind("PublicLedger", "http://127.0.0.1:8545", tmp_path, stranger, contract=contract.address)


def test_the_book_forgets_a_chain_that_began_anew(tmp_path: Path) -> None:
    """An address counts for one chain id and one genesis, and only while its code is there."""
    with open_node(tmp_path / "one") as node:
        deployed = bound(node, tmp_path, COORDINATOR)
        assert AddressBook(tmp_path, node).find("PublicLedger") == deployed.address
        assert AddressBook(tmp_path, node).find("PrivateLedger") is None
    with open_node(tmp_path / "two") as node:  # the same genesis, and no contract on it
        assert AddressBook(tmp_path, node).find("PublicLedger") is None
    with open_node(tmp_path / "one", "private") as node:
        assert AddressBook(tmp_path, node).find("PublicLedger") is None
    with open_node(tmp_path / "one") as node:
        assert isinstance(bound(node, tmp_path, None), BoundContract)
