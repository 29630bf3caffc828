"""A state folder's development chains as a user handles them: start, look, stop, deploy."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from eth_utils.address import to_checksum_address

from chain.deployment import bind
from chain.devnet.accounts import CHAIN_IDS, ChainName
from chain.devnet.service import Service
from chain.nodes import anvil_service, connect, embedded_service, reaching
from core.canonical import Address
from core.errors import UsageError
from core.escape import redacted
from core.keys import Domain, Key


@dataclass(frozen=True)
class ChainStatus:
    """The URLs of a setting's chains; none when they do not run."""

    chain: str
    running: bool
    urls: Mapping[ChainName, str]


def start(chain: str, state: Path, port: int = 0) -> ChainStatus:
    """Start ``embedded`` or ``anvil`` unless it runs; `port` 0 is the last one or any that is free.

    Raises LedgerUnreachableError when it does not come up (the port is in use), UsageError for another chain, and for a
    port with anvil, whose two chains need two.
    """
    for service, _ in _services(chain, state, port):
        service.ensure()
    return status(chain, state)


def status(chain: str, state: Path) -> ChainStatus:
    """Whether and where the chains run; starts nothing."""
    urls: dict[ChainName, str] = {}
    for service, paths in _services(chain, state, 0):
        url = service.url()
        if url is not None:
            urls.update({name: url + path for name, path in paths.items()})
    return ChainStatus(chain, len(urls) == len(CHAIN_IDS), urls)


def stop(chain: str, state: Path) -> bool:
    """End the chains; False when none ran. The next request starts them again."""
    stopped = [service.stop() for service, _ in _services(chain, state, 0)]
    return any(stopped)


def public_contract(chain: str, state: Path, key: Key) -> Domain:
    """The public contract, deployed where it is missing, with its coordinator appointed.

    Raises UsageError, which names the account, where that has no funds to pay for it on a chain behind a URL.
    """
    node = connect(chain, state)
    with reaching(node, f"the balance of {key.address}"):
        balance = node.eth.get_balance(to_checksum_address(key.address))
    if chain not in ("embedded", "anvil") and not balance:
        raise UsageError(
            f"account {key.address} on {redacted(chain)}: expected funds for transactions, got none: send it some, and "
            "run this again"
        )
    bound = bind("PublicLedger", chain, state, key)
    return bound.domain


def deploy(chain: str, state: Path, key: Key, private_chain: str = "") -> Mapping[str, Address]:
    """Put both contracts where they are missing and appoint the coordinator; returns their addresses by name.

    `private_chain` is the URL of the private ledger's chain, beside a URL; a development chain has its own.
    """
    public = bind("PublicLedger", chain, state, key)
    private = bind("PrivateLedger", private_chain or chain, state, key, side="private")
    return {"PublicLedger": public.address, "PrivateLedger": private.address}


def _services(chain: str, state: Path, port: int) -> list[tuple[Service, Mapping[ChainName, str]]]:
    """The processes behind a setting, and the path of each chain that it serves."""
    if chain == "embedded":
        service = embedded_service(state)
        if port:
            service = replace(service, arguments=("--port", str(port)))
        return [(service, {name: f"/{name}" for name in CHAIN_IDS})]
    if chain != "anvil":
        raise UsageError(f"expected chain embedded or anvil, got {chain!r}: others are not ours to start")
    if port:
        raise UsageError(f"expected no port with anvil, got {port}: choose one with the embedded chain only")
    return [(anvil_service(state, name), {name: ""}) for name in CHAIN_IDS]
