"""What only a node with a mempool can show. Nothing of it is specific to anvil but the means."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from web3.types import RPCEndpoint

from chain.ledger import EthereumLedger, open_ledger
from chain.nodes import anvil, anvil_service
from chain.queue import CommitQueue
from core.canonical import ZERO_DIGEST, Digest
from core.keys import derive
from core.ledger import RoundCommitment
from tests.behaviours.ledger import MEMBERS, a_round, some_digest
from tests.waiting import PATIENCE_SECONDS

pytestmark = [pytest.mark.chain, pytest.mark.slow, pytest.mark.usefixtures("needs_anvil")]
COORDINATOR = derive(1, "coordinator")


@pytest.fixture
def ledger(state: Path) -> EthereumLedger:
    return open_ledger("anvil", state, COORDINATOR)


@pytest.fixture
def run(ledger: EthereumLedger) -> Digest:
    run = some_digest()
    ledger.open_run(run, MEMBERS)
    return run


def ask(ledger: EthereumLedger, method: str, *params: Any) -> Any:
    answer = ledger.bound.node.provider.make_request(RPCEndpoint(method), list(params))
    assert "error" not in answer, answer
    return answer["result"]


def events(ledger: EthereumLedger) -> int:
    return len(ledger.bound.events("RoundCommitted", 0, "latest", {}, purpose="rounds"))


def rounds(run: Digest, length: int) -> list[RoundCommitment]:
    found: list[RoundCommitment] = []
    for number in range(1, length + 1):
        found.append(a_round(run, number, found[-1].aggregate if found else ZERO_DIGEST))
    return found


def test_the_chain_is_still_there_after_a_restart(ledger: EthereumLedger, run: Digest, state: Path) -> None:
    commitment = a_round(run)
    anchor = ledger.commit(commitment)
    assert anvil_service(state).stop()
    assert open_ledger("anvil", state, COORDINATOR).read(commitment.key) == (commitment, anchor)
    assert anvil(state).eth.block_number >= anchor.block


def test_a_transaction_in_flight_is_not_made_twice(ledger: EthereumLedger, run: Digest, state: Path) -> None:
    commitment, other = a_round(run), open_ledger("anvil", state, COORDINATOR)
    ask(ledger, "evm_setAutomine", False)
    anchors = []

    def commit(by: EthereumLedger) -> None:
        anchors.append(by.commit(commitment))

    threads = [threading.Thread(target=commit, args=(by,)) for by in (ledger, other)]
    for thread in threads:
        thread.start()
        time.sleep(0.5)
    ask(ledger, "evm_setAutomine", True)
    ask(ledger, "evm_mine")
    for thread in threads:
        thread.join()
    assert len(anchors) == 2
    assert anchors[0] == anchors[1]
    assert events(ledger) == 1


def test_a_nonce_gap_is_filled(ledger: EthereumLedger, run: Digest) -> None:
    node = ledger.bound.node
    account = COORDINATOR.address
    stuck = {
        "to": account,
        "value": 0,
        "gas": 21_000,
        "gasPrice": 10**10,
        "nonce": node.eth.get_transaction_count(account) + 1,  # type: ignore[arg-type]  # checksummed
        "chainId": node.eth.chain_id,
    }
    node.eth.send_raw_transaction(Account.sign_transaction(stuck, COORDINATOR.secret).raw_transaction)
    commitment = a_round(run)
    anchor = ledger.commit(commitment)
    assert ledger.read(commitment.key) == (commitment, anchor)


def test_a_stuck_transaction_is_replaced_by_one_that_pays_more(ledger: EthereumLedger, run: Digest) -> None:
    ask(ledger, "evm_setAutomine", False)
    node = ledger.bound.node
    fields = {
        "to": COORDINATOR.address,
        "value": 0,
        "gas": 21_000,
        "maxFeePerGas": 3 * 10**9,
        "maxPriorityFeePerGas": 10**9,
        "nonce": node.eth.get_transaction_count(COORDINATOR.address),  # type: ignore[arg-type]  # checksummed
        "chainId": node.eth.chain_id,
    }
    node.eth.send_raw_transaction(Account.sign_transaction(fields, COORDINATOR.secret).raw_transaction)
    assert ledger.bound._sender is not None
    ledger.bound._sender._patience = 0.3
    miner = threading.Timer(1.0, lambda: ask(ledger, "evm_setAutomine", True) or ask(ledger, "evm_mine"))
    miner.start()
    commitment = a_round(run)
    assert ledger.read(commitment.key) is None
    anchor = ledger.commit(commitment)
    miner.join()
    assert ledger.read(commitment.key) == (commitment, anchor)


def test_the_queue_heals_a_reorganisation(ledger: EthereumLedger, run: Digest, tmp_path: Path) -> None:
    *before, last = rounds(run, 5)
    queue = CommitQueue(tmp_path / "queue", ledger)
    for commitment in before:
        queue.put(commitment)
    while queue.pending():
        time.sleep(0.05)
    ask(ledger, "anvil_rollback", 3)
    queue.put(last)
    assert queue.close(PATIENCE_SECONDS) == 0
    assert queue.anchors() == {item.key: ledger.commit(item) for item in [*before, last]}
    assert events(ledger) == 5


def test_rounds_wait_for_a_chain_that_is_down(ledger: EthereumLedger, run: Digest, state: Path, tmp_path: Path) -> None:
    queue = CommitQueue(tmp_path / "queue", ledger)
    for commitment in rounds(run, 4):
        anvil_service(state).stop()
        queue.put(commitment)
        time.sleep(0.2)
    assert queue.close(PATIENCE_SECONDS) == 0
    assert events(ledger) == 4
