import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from eth_account import Account
from web3 import Web3
from web3.exceptions import Web3RPCError
from web3.types import RPCEndpoint

from chain.devnet.accounts import CHAIN_IDS, administrator
from chain.devnet.server import MAX_CONNECTIONS
from chain.devnet.service import Service, is_free, last_address
from chain.nodes import SERVICE_SECONDS, TIMEOUT_SECONDS, connect, embedded, embedded_service, rpc
from console.backends.processes import alive
from core.errors import LedgerUnreachableError, UsageError
from tests.waiting import until

pytestmark = pytest.mark.chain
ROOT = Path(__file__).parents[2]
SOMEONE = "0x" + "11" * 20


def signed(nonce: int, chain_id: int = CHAIN_IDS["public"]) -> bytes:
    fields = {"to": SOMEONE, "value": 1, "gas": 21_000, "gasPrice": 2 * 10**9, "nonce": nonce, "chainId": chain_id}
    return bytes(Account.sign_transaction(fields, administrator().secret).raw_transaction)


def hashes(node: Web3) -> list[bytes]:
    return [bytes(node.eth.get_block(number)["hash"]) for number in range(node.eth.block_number + 1)]


def pid(state: Path) -> int:
    content = json.loads((embedded_service(state).folder / "service.json").read_text())
    return int(content["pid"])


def kill_9(state: Path) -> None:
    os.kill(pid(state), signal.SIGKILL)
    until(lambda: is_free(embedded_service(state).folder))


STARTER = """
import sys
from pathlib import Path
from chain.nodes import embedded_service
print(embedded_service(Path(sys.argv[1])).ensure())
"""


def test_processes_that_start_at_once_share_one_daemon_which_outlives_them(state: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(state)]
    starters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)]
    urls = {starter.communicate()[0].strip() for starter in starters}
    assert {starter.returncode for starter in starters} == {0}
    assert urls == {embedded_service(state).url()}
    assert os.getsid(pid(state)) != os.getsid(0)


def test_the_same_port_is_used_again(state: Path) -> None:
    service = embedded_service(state)
    first = service.ensure()
    assert service.stop()
    assert service.url() is None
    assert service.ensure() == first


@pytest.mark.parametrize("address", ["embedded", "url"])
def test_a_process_that_opens_a_chain_many_times_leaves_room_for_others(state: Path, address: str) -> None:
    url = embedded_service(state).ensure() + "/public"
    opened = [connect("embedded" if address == "embedded" else url, state) for _ in range(MAX_CONNECTIONS + 1)]
    assert {node.eth.chain_id for node in opened} == {CHAIN_IDS["public"]}
    assert embedded_service(state).url()


def test_kill_9_between_blocks_loses_none(state: Path) -> None:
    node = embedded(state)
    for nonce in range(3):
        node.eth.send_raw_transaction(signed(nonce))
    before = hashes(node)
    kill_9(state)
    assert hashes(node) == before
    node.eth.send_raw_transaction(signed(3))
    assert hashes(node)[:-1] == before


def test_kill_9_while_blocks_are_made_keeps_every_acknowledged_one(state: Path) -> None:
    node = embedded(state)
    acknowledged: list[bytes] = []

    some_blocks = threading.Event()

    def kill_soon() -> None:
        some_blocks.wait()
        time.sleep(0.002)
        os.kill(pid(state), signal.SIGKILL)

    killer = threading.Thread(target=kill_soon)
    killer.start()
    while True:
        try:
            # Sent to the daemon itself: the provider would start it again and send once more.
            super(type(node.provider), node.provider).make_request(  # type: ignore[misc]  # is HTTPProvider
                RPCEndpoint("eth_sendRawTransaction"), ["0x" + signed(len(acknowledged)).hex()]
            )
        except OSError:
            break
        acknowledged.append(bytes(Web3.keccak(signed(len(acknowledged)))))
        if len(acknowledged) == 3:
            some_blocks.set()
    killer.join()
    assert acknowledged
    assert len(acknowledged) <= node.eth.block_number <= len(acknowledged) + 1
    for number, transaction in enumerate(acknowledged, start=1):
        assert bytes(node.eth.get_block(number)["transactions"][0]) == transaction  # type: ignore[arg-type]  # a hash


def test_a_torn_tail_loses_the_last_block_only(state: Path) -> None:
    node = embedded(state)
    for nonce in range(3):
        node.eth.send_raw_transaction(signed(nonce))
    before = hashes(node)
    kill_9(state)  # a daemon that ends in good order leaves no log behind
    log = embedded_service(state).folder / "public.sqlite-wal"
    log.write_bytes(log.read_bytes()[:-5])
    assert hashes(node) == before[:-1]
    node.eth.send_raw_transaction(signed(2))
    assert node.eth.get_balance(Web3.to_checksum_address(SOMEONE)) == 3


def test_a_damaged_chain_is_not_served(state: Path) -> None:
    service = embedded_service(state)
    service.folder.mkdir(parents=True)
    (service.folder / "public.sqlite").write_bytes(b"something else altogether")
    with pytest.raises(LedgerUnreachableError, match=r"public\.sqlite .*not a database"):
        service.ensure()


def test_public_and_private_are_separate_chains(state: Path) -> None:
    public, private = embedded(state), embedded(state, "private")
    public.eth.send_raw_transaction(signed(0))
    assert (public.eth.chain_id, private.eth.chain_id) == (CHAIN_IDS["public"], CHAIN_IDS["private"])
    assert (public.eth.block_number, private.eth.block_number) == (1, 0)


def test_only_transactions_that_the_chain_can_mine_are_taken(state: Path) -> None:
    node = embedded(state)
    with pytest.raises(Web3RPCError, match=rf"chain {CHAIN_IDS['public']}, .* chain 1\b"):
        node.eth.send_raw_transaction(signed(0, chain_id=1))
    with pytest.raises(Web3RPCError, match="Invalid transaction nonce"):
        node.eth.send_raw_transaction(signed(5))
    with pytest.raises(Web3RPCError, match="expected a signed transaction"):
        node.eth.send_raw_transaction(b"abc")
    assert node.eth.block_number == 0


def test_two_chains_with_the_same_genesis_begin_alike(state: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    assert hashes(embedded(state)) == hashes(embedded(other))
    embedded_service(other).stop()


def test_the_daemon_ends_when_idle(state: Path) -> None:
    folder = embedded_service(state).folder
    folder.mkdir(parents=True)
    # Not by `ensure`, whose first question may come when it has ended already.
    subprocess.run([sys.executable, "-m", "chain.devnet.daemon", folder, "--idle", "0.1"], check=True, cwd=ROOT)
    until(lambda: is_free(folder))
    assert last_address(folder).port, "it has answered before it ended"


def test_the_daemon_ends_when_its_folder_is_replaced(state: Path) -> None:
    service = embedded_service(state)
    service.ensure()
    old = pid(state)
    shutil.rmtree(state / "chain")
    service.ensure()
    assert pid(state) != old
    until(lambda: not alive(old))


def test_a_port_that_is_taken_is_named_in_the_error(state: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        service = replace(embedded_service(state), arguments=("--port", port))
        with pytest.raises(LedgerUnreachableError, match="Address already in use"):
            service.ensure()


def test_requests_that_are_none_are_answered_with_an_error(state: Path) -> None:
    node = embedded(state)
    ask = node.provider.make_request
    assert ask(RPCEndpoint("eth_mine"), [])["error"]["message"] == "the method eth_mine does not exist"
    assert "eth_getBalance" in ask(RPCEndpoint("eth_getBalance"), [])["error"]["message"]
    assert "no block" in ask(RPCEndpoint("eth_getBalance"), [SOMEONE, "0x99"])["error"]["message"]


@pytest.fixture
def web_server() -> Iterator[str]:
    """Something that speaks HTTP but is no node."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_url_where_nothing_answers_is_named_with_what_was_wanted() -> None:
    with pytest.raises(LedgerUnreachableError, match=r"nothing answers at http://127.0.0.1:1 .* its chain id"):
        rpc("http://127.0.0.1:1")


def test_a_web_server_is_no_node(web_server: str) -> None:
    with pytest.raises(LedgerUnreachableError, match=web_server):
        rpc(web_server)


def test_a_chain_setting_is_a_name_or_a_url(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"embedded, anvil or an http\(s\) URL, got 'ganache'"):
        connect("ganache", tmp_path)


def test_a_service_that_does_not_run_cannot_be_stopped(tmp_path: Path) -> None:
    assert not Service(tmp_path, "chain.devnet.daemon", 1).stop()


def test_a_development_chain_is_waited_for_longer_than_a_node_elsewhere(state: Path) -> None:
    near, far = embedded(state), rpc(embedded_service(state).ensure())
    of_http = [node.provider.get_request_kwargs() for node in (near, far)]  # type: ignore[attr-defined] # HTTPProvider's
    patience = [dict(settings)["timeout"] for settings in of_http]
    # It executes a run's opening, of thousands of members, before it answers.
    assert patience == [SERVICE_SECONDS, TIMEOUT_SECONDS]
    assert SERVICE_SECONDS > TIMEOUT_SECONDS
