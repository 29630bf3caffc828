"""A contract of ours on a node: views, events and transactions, on an embedded chain in this process."""

from collections.abc import Callable, Iterator

import pytest
from web3 import Web3

from chain.contract import BoundContract, to_digest
from chain.devnet.accounts import CHAIN_IDS
from core.canonical import Address, raw
from core.errors import LedgerConflictError, LedgerUnreachableError, UsageError
from core.keys import derive
from tests.behaviours.ledger import MEMBERS, some_digest
from tests.chain.chains import bound, open_node

pytestmark = pytest.mark.chain
COORDINATOR = derive(1, "coordinator")
ASCENDING = sorted(MEMBERS, key=lambda address: int(address, 16))
NOWHERE = Address("0x" + "22" * 20)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web3]:
    with open_node(tmp_path_factory.mktemp("contract")) as node:
        yield node


@pytest.fixture(scope="module")
def contract(node: Web3, tmp_path_factory: pytest.TempPathFactory) -> BoundContract:
    return bound(node, tmp_path_factory.mktemp("book"), COORDINATOR)


def test_a_contract_knows_its_chain_and_its_account(contract: BoundContract, node: Web3) -> None:
    assert contract.domain.chain_id == CHAIN_IDS["public"]
    assert contract.account == Web3.to_checksum_address(COORDINATOR.address)
    assert contract.genuine
    assert not BoundContract(node, "PublicLedger", NOWHERE).genuine
    assert not BoundContract(node, "PrivateLedger", contract.address).genuine


def test_a_view_returns_a_struct_as_a_tuple(contract: BoundContract) -> None:
    coordinator, opened_at, members = contract.call("getRun", bytes(32), purpose="a run")
    assert (int(coordinator, 16), opened_at, members) == (0, 0, bytes(32))


@pytest.mark.parametrize("method", ["eth_call", "eth_getLogs", "eth_getCode", "eth_estimateGas"])
def test_a_node_that_answers_with_an_error_may_be_asked_again(
    node: Web3, contract: BoundContract, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    questions: dict[str, Callable[[], object]] = {
        "eth_call": lambda: contract.call("getRun", bytes(32), purpose="a run"),
        "eth_getLogs": lambda: contract.events("RunOpened", 0, "latest", {}, purpose="a run"),
        "eth_getCode": lambda: contract.genuine,
        "eth_estimateGas": lambda: contract.execute(
            "openRun", bytes(32), ASCENDING, effect=lambda: None, purpose="a run"
        ),
    }
    answer = {"id": 1, "jsonrpc": "2.0", "error": {"code": -32005, "message": "too many\nrequests"}}
    monkeypatch.setattr(node.provider, "around", lambda asked, ask: answer if asked == method else ask())
    with pytest.raises(LedgerUnreachableError, match=r"in this process when asked .*got an error: too many\\nrequests"):
        questions[method]()


def test_a_contract_that_is_not_there_may_be_asked_again(node: Web3) -> None:
    with pytest.raises(LedgerUnreachableError, match="when asked for a run, got none"):
        BoundContract(node, "PublicLedger", NOWHERE).call("getRun", bytes(32), purpose="a run")


def test_a_transaction_returns_its_effect_and_leaves_an_event(contract: BoundContract) -> None:
    run = some_digest()

    def opened() -> int | None:
        return contract.call("getRun", raw(run), purpose="a run")[1] or None

    block = contract.execute("openRun", raw(run), ASCENDING, effect=opened, purpose="opening a run")
    (event,) = contract.events("RunOpened", block, "latest", {"run": raw(run)}, purpose="a run")
    assert event["args"]["organisations"] == [Web3.to_checksum_address(member) for member in ASCENDING]
    anchor = contract.anchor(event)
    assert (anchor.chain_id, anchor.contract, anchor.block) == (CHAIN_IDS["public"], contract.address, block)
    assert len(anchor.transaction) == 66
    assert contract.events("RunOpened", 0, block - 1, {"run": raw(run)}, purpose="a run") == []


def test_a_refused_transaction_names_the_contract_s_error(contract: BoundContract) -> None:
    with pytest.raises(LedgerConflictError, match=r"NotCoordinator\(run=0x0{64}, "):
        contract.execute("postCredits", bytes(32), 1, bytes(32), effect=lambda: None, purpose="credits")


def test_without_a_key_a_contract_can_only_be_read(node: Web3, contract: BoundContract) -> None:
    readable = BoundContract(node, "PublicLedger", contract.address)
    assert readable.account is None
    assert readable.call("getRun", bytes(32), purpose="a run")[1] == 0
    with pytest.raises(UsageError, match="opening a run"):
        readable.execute("openRun", bytes(32), ASCENDING, effect=lambda: None, purpose="opening a run")


def test_bytes_of_the_abi_are_digests() -> None:
    assert to_digest(b"\x0a" * 32) == "0x" + "0a" * 32
