"""An embedded chain in this process: the real EVM and JSON-RPC without a daemon, its port and its start-up."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from web3 import Web3
from web3.providers.base import JSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from chain.contract import BoundContract
from chain.deployment import bind
from chain.devnet.accounts import CHAIN_IDS, FUNDS, ChainName, administrator
from chain.devnet.evm import EmbeddedChain
from chain.devnet.rpc import JsonRpc
from core.keys import Key


class Provider(JSONBaseProvider):
    """Answers requests itself, and counts them; `around` may lose, delay or forge an answer."""

    endpoint_uri = "in this process"

    def __init__(self, chain: EmbeddedChain) -> None:
        super().__init__()
        self.chain = chain
        self.asked: list[str] = []
        self.around: Callable[[str, Callable[[], Any]], Any] = lambda _method, ask: ask()
        self._rpc = JsonRpc(chain)

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        self.asked.append(method)
        request = self.decode_rpc_response(self.encode_rpc_request(method, params))
        answer: RPCResponse = self.around(method, lambda: self._rpc.answer(request))
        return answer


@contextmanager
def open_node(folder: Path, name: ChainName = "public") -> Iterator[Web3]:
    """The chain of a folder, new or as it was left."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = bytes.fromhex(administrator().address[2:])
    chain = EmbeddedChain(folder / f"{name}.sqlite", CHAIN_IDS[name], {owner: FUNDS})
    yield Web3(Provider(chain))
    chain.close()


def bound(node: Web3, folder: Path, key: Key | None, name: str = "PublicLedger") -> BoundContract:
    """A contract on the node, deployed when it is not there yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chain.deployment.connect", lambda *_: node)
        return bind(name, "embedded", folder, key)
