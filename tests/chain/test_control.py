import socket
from pathlib import Path

import pytest

from chain import control
from chain.devnet.accounts import CHAIN_IDS
from chain.devnet.service import last_address
from chain.nodes import embedded_service, rpc
from console.backends.children import free_port
from core.errors import LedgerUnreachableError, UsageError
from core.keys import derive

pytestmark = pytest.mark.chain


def test_a_chain_is_started_seen_and_stopped(state: Path) -> None:
    assert not control.status("embedded", state).running
    port = free_port()
    started = control.start("embedded", state, port)
    assert started == control.status("embedded", state) == control.start("embedded", state)
    token = last_address(embedded_service(state).folder).token
    assert started.urls == {name: f"http://127.0.0.1:{port}/{token}/{name}" for name in CHAIN_IDS}
    assert {name: rpc(url).eth.chain_id for name, url in started.urls.items()} == CHAIN_IDS
    assert control.stop("embedded", state)
    assert not control.stop("embedded", state)
    assert not control.status("embedded", state).running


def test_both_contracts_are_deployed_once(state: Path) -> None:
    contracts = control.deploy("embedded", state, derive(1, "coordinator"))
    assert set(contracts) == {"PublicLedger", "PrivateLedger"}
    assert control.deploy("embedded", state, derive(2, "coordinator")) == contracts


def test_a_port_in_use_is_an_error(state: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(LedgerUnreachableError, match="Address already in use"):
            control.start("embedded", state, taken.getsockname()[1])


@pytest.mark.usefixtures("needs_anvil")
def test_anvil_has_a_process_for_each_chain(state: Path) -> None:
    started = control.start("anvil", state)
    assert {name: rpc(url).eth.chain_id for name, url in started.urls.items()} == CHAIN_IDS
    assert control.stop("anvil", state)


@pytest.mark.parametrize(("chain", "port"), [("http://127.0.0.1:1", 0), ("anvil", 8545)])
def test_what_is_not_ours_to_start_is_refused(tmp_path: Path, chain: str, port: int) -> None:
    with pytest.raises(UsageError):
        control.start(chain, tmp_path, port)
