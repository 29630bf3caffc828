"""The chains that Foedus can talk to, behind one interface: a web3.Web3.

    embedded(state)    the daemon of the state folder, started on demand; needs pip packages only
    anvil(state)       a managed anvil with its state in the folder
    rpc(url)           anything else: geth, Besu, a testnet

Both services live under STATE/chain/. A request to a service that has ended or was killed starts it again; `running`
is for those who only look on, and starts nothing.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import requests
from eth_typing import URI
from web3 import HTTPProvider, Web3
from web3.exceptions import BadFunctionCallOutput, BadResponseFormat, Web3RPCError
from web3.types import RPCEndpoint, RPCResponse

from chain.devnet.accounts import CHAIN_IDS, ChainName
from chain.devnet.anvil import binary
from chain.devnet.service import Service
from core.errors import LedgerUnreachableError, UsageError
from core.escape import one_line, redacted

TIMEOUT_SECONDS: Final = 30.0
SERVICE_SECONDS: Final = 300.0
"""For an answer of a development chain, which executes a transaction meanwhile: one that opens a run of 10,000 members
takes it 6 seconds of a processor that it may have to share."""
_PROVIDER: Final[dict[str, Any]] = {
    "exception_retry_configuration": None,
    "cache_allowed_requests": True,
    "cacheable_requests": {RPCEndpoint("eth_chainId")},
    "request_cache_validation_threshold": None,
}
"""Of every provider. web3 asks for the chain's id with every call, which made half of an audit's requests; a node is
of one chain. Nothing is asked again by itself."""


class ServiceProvider(HTTPProvider):
    """HTTP to a service that is started again when nothing answers."""

    def __init__(self, service: Service, path: str = "") -> None:
        self._service = service
        self._path = path
        super().__init__(
            URI(service.ensure() + path),
            {"timeout": SERVICE_SECONDS},
            session=_direct(),
            **_PROVIDER,
        )

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """The answer; when the service has gone, it is started and asked once more."""
        try:
            return super().make_request(method, params)
        except requests.ConnectionError:
            # It may have been given another port.
            self.endpoint_uri = URI(self._service.ensure() + self._path)
            return super().make_request(method, params)


def embedded_service(state: Path) -> Service:
    """The daemon that serves the embedded chains of a state folder."""
    return Service(state.resolve() / "chain" / "embedded", "chain.devnet.daemon", CHAIN_IDS["public"], probe="/public")


def anvil_service(state: Path, chain: ChainName = "public") -> Service:
    """The anvil of a state folder, one for each chain."""
    chain_id = CHAIN_IDS[chain]
    folder = state.resolve() / "chain" / f"anvil-{chain}"
    return Service(folder, "chain.devnet.anvil", chain_id, arguments=("--chain-id", str(chain_id)))


def embedded(state: Path, chain: ChainName = "public") -> Web3:
    """The embedded chain of a state folder.

    Raises LedgerUnreachableError when its daemon does not start.
    """
    return Web3(ServiceProvider(embedded_service(state), f"/{chain}"))


def anvil(state: Path, chain: ChainName = "public") -> Web3:
    """The managed anvil of a state folder.

    Raises UsageError when it is not installed, LedgerUnreachableError when it does not start.
    """
    binary()
    return Web3(ServiceProvider(anvil_service(state, chain)))


def rpc(url: str, timeout: float = TIMEOUT_SECONDS) -> Web3:
    """A node behind a URL, which has `timeout` seconds for every answer.

    Raises UsageError when it is no HTTP URL, LedgerUnreachableError when no Ethereum node answers there.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"expected chain embedded, anvil or an http(s) URL, got {redacted(url)!r}")
    node = Web3(HTTPProvider(URI(url), {"timeout": timeout}, _proxied(), **_PROVIDER))
    with reaching(node, "its chain id"):
        _ = node.eth.chain_id
    return node


def connect(chain: str, state: Path, name: ChainName = "public") -> Web3:
    """The node that a setting names: ``embedded``, ``anvil`` or a URL."""
    if chain == "embedded":
        return embedded(state, name)
    if chain == "anvil":
        return anvil(state, name)
    return rpc(chain)


def running(chain: str, state: Path, timeout: float) -> Web3:
    """The public node that a setting names, as it runs now; it has `timeout` seconds for every answer.

    Raises LedgerUnreachableError when it does not run.
    """
    services = {"embedded": embedded_service, "anvil": anvil_service}
    if chain not in services:
        return rpc(chain, timeout)
    service = services[chain](state)
    if (url := service.announced()) is None:
        raise LedgerUnreachableError(f"the chain in {service.folder} does not run")
    return Web3(HTTPProvider(URI(url + service.probe), {"timeout": timeout}, _direct(), **_PROVIDER))


@contextmanager
def reaching(node: Web3, purpose: str) -> Iterator[None]:
    """Turn every way of not getting an answer into LedgerUnreachableError, which names the URL and the purpose."""
    try:
        yield
    except requests.RequestException as error:
        raise LedgerUnreachableError(
            f"nothing answers at {_url(node)} when asked for {purpose}: {type(error).__name__}"
        ) from error
    except (BadResponseFormat, json.JSONDecodeError) as error:
        raise LedgerUnreachableError(
            f"expected an Ethereum node at {_url(node)} when asked for {purpose}, got another kind of answer"
        ) from error
    except Web3RPCError as error:  # too many requests, a block that it has not seen yet, a fault of its own
        raise LedgerUnreachableError(
            f"expected an answer at {_url(node)} when asked for {purpose}, got an error: {one_line(refusal_of(error))}"
        ) from error
    except BadFunctionCallOutput as error:
        raise LedgerUnreachableError(
            f"expected the contract at {_url(node)} when asked for {purpose}, got none: its chain is another, or behind"
        ) from error


def refusal_of(error: Web3RPCError) -> str:
    """What a node says of a request that it does not answer."""
    detail = (error.rpc_response or {}).get("error")
    return str(detail["message"]) if isinstance(detail, dict) else str(error)


@cache
def _direct() -> requests.Session:
    """The process's one session for the loopback: no proxy of the environment stands between.

    Shared, since each session keeps connections open, and a service has room for so many.
    """
    session = requests.Session()
    session.trust_env = False
    return session


@cache
def _proxied() -> requests.Session:
    """The process's one session for other nodes, which may lie behind the proxy that the environment names."""
    return requests.Session()


def _url(node: Web3) -> str:
    return redacted(str(getattr(node.provider, "endpoint_uri", "an unnamed node")))
