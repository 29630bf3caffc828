"""EthereumLedger: core.ledger.Ledger over a node and the PublicLedger contract.

`open_ledger` is the way in: it finds or starts the node, finds or deploys the contract, whose address STATE/chain/
contracts.json remembers for each chain, and on development chains gives the coordinator funds and its role. Behind a
URL nothing is given: the coordinator's account must hold funds, and when it has to deploy the contract it becomes its
administrator too. Without a key the ledger can only be read, as an auditor does.

What is read comes from the contract's storage; the events that carry what storage does not (parent, members,
transaction) lie in a block whose number is in storage too, and must agree with it.
"""

import fcntl
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

from eth_hash.auto import keccak
from eth_typing import ChecksumAddress
from eth_utils.address import is_address, to_checksum_address
from hexbytes import HexBytes
from web3 import Web3
from web3.contract import Contract
from web3.types import EventData, RPCEndpoint, TxParams, Wei

from chain import artefacts
from chain.addresses import created
from chain.development import ALLOWANCE, FUNDS, administrator
from chain.nodes import connect, reaching
from chain.transactions import Sender
from core.canonical import Address, Digest, raw
from core.errors import LedgerConflictError, LedgerError, UsageError
from core.keys import Key
from core.ledger import Anchor, RoundCommitment, RoundKey

CONTRACT: Final = "PublicLedger"
HANDOVER_SECONDS: Final = 86_400
"""How long a handover of the administration of a contract behind a URL takes at least."""
COORDINATOR_ROLE: Final = keccak(b"COORDINATOR_ROLE")

T = TypeVar("T")


class EthereumLedger:
    """See core.ledger.Ledger; every method raises LedgerUnreachableError when the node does not answer."""

    def __init__(self, node: Web3, contract: Address, key: Key | None = None) -> None:
        """`key`: the coordinator's; without it the ledger can only be read."""
        self._node = node
        abi = artefacts.load(CONTRACT).abi
        self._contract: Contract = node.eth.contract(address=to_checksum_address(contract), abi=abi)
        self._sender = Sender(node, key, abi) if key else None

    @cached_property
    def chain_id(self) -> int:
        """See `Ledger.chain_id`."""
        with reaching(self._node, "its chain id"):
            return int(self._node.eth.chain_id)

    @property
    def contract(self) -> Address:
        """See `Ledger.contract`."""
        return Address(self._contract.address)

    def open_run(self, run: Digest, organisations: Iterable[Address]) -> None:
        """See `Ledger.open_run`. Raises LedgerConflictError also when the run belongs to another coordinator."""
        members = frozenset(organisations)
        ascending = sorted(members, key=lambda address: int(address, 16))
        self._execute(
            "openRun", [raw(run), ascending], lambda: self._opened(run, members) or None, f"opening run {run}"
        )

    def members(self, run: Digest) -> frozenset[Address]:
        """See `Ledger.members`. Raises LedgerError when event and storage disagree."""
        with reaching(self._node, f"the members of run {run}"):
            coordinator, opened_at, digest = self._contract.functions.getRun(raw(run)).call()
            if not opened_at:
                return frozenset()
            events = self._contract.events.RunOpened.get_logs(
                from_block=opened_at, to_block=opened_at, argument_filters={"run": raw(run)}
            )
        organisations = events[0]["args"]["organisations"] if events else []
        padded = b"".join(bytes.fromhex(address[2:]).rjust(32, b"\0") for address in organisations)
        if keccak(padded) != digest:
            raise LedgerError(f"the members of run {run}, opened by {coordinator}, do not match their digest")
        return frozenset(Address(address) for address in organisations)

    def commit(self, commitment: RoundCommitment) -> Anchor:
        """See `Ledger.commit`."""
        key = commitment.key
        values = (
            raw(key.run),
            key.lane,
            key.generation,
            key.round,
            raw(commitment.parent),
            raw(commitment.updates_root),
            raw(commitment.aggregate),
            commitment.count,
        )
        return self._execute(
            "commitRound", [values], lambda: self._committed(commitment), f"committing round {key.round}"
        )

    def read(self, key: RoundKey) -> tuple[RoundCommitment, Anchor] | None:
        """See `Ledger.read`. Raises LedgerError when event and storage disagree."""
        place = (raw(key.run), key.lane, key.generation)
        with reaching(self._node, f"round {key.round}"):
            root, aggregate, count, block = self._contract.functions.getRound(*place, key.round).call()
            if not block:
                return None
            events = self._contract.events.RoundCommitted.get_logs(
                from_block=block,
                to_block=block,
                argument_filters=dict(zip(("run", "lane", "generation"), place, strict=True)),
            )
        for event in events:
            values = event["args"]
            if values["round"] == key.round:
                if (values["updatesRoot"], values["aggregate"], values["count"]) != (root, aggregate, count):
                    raise LedgerError(f"event and storage of round {key.round} disagree in block {block}")
                return _commitment(key, values), self._anchor(event)
        raise LedgerError(f"round {key.round} is in storage, but its event is not in block {block}")

    def _execute(self, name: str, arguments: list[Any], effect: Callable[[], T | None], wanted: str) -> T:
        """Send a call of the contract until its effect is there."""
        if self._sender is None:
            raise UsageError(f"{wanted} needs the coordinator's key, got none")
        request: TxParams = {
            "to": self._contract.address,
            "data": self._contract.encode_abi(name, arguments),
        }
        return self._sender.execute(request, effect, wanted)

    def _opened(self, run: Digest, members: frozenset[Address]) -> bool:
        """Whether the run is open; raises LedgerConflictError when it is, but not as wanted."""
        known = self.members(run)
        if known and known != members:
            raise LedgerConflictError(f"run {run} is already open with other members")
        coordinator = self._contract.functions.getRun(raw(run)).call()[0] if known else None
        if coordinator and self._sender and coordinator != self._sender.address:
            raise LedgerConflictError(
                f"run {run} belongs to coordinator {coordinator}, the key is {self._sender.address}"
            )
        return bool(known)

    def _committed(self, commitment: RoundCommitment) -> Anchor | None:
        """The anchor of the commitment; raises LedgerConflictError when the round holds another."""
        known = self.read(commitment.key)
        if known is None:
            return None
        if known[0] != commitment:
            raise LedgerConflictError(
                f"round {commitment.key.round} is already committed with other values: "
                f"got {commitment}, the ledger has {known[0]}"
            )
        return known[1]

    def _anchor(self, event: EventData) -> Anchor:
        transaction = HexBytes(event["transactionHash"]).to_0x_hex()
        return Anchor(self.chain_id, self.contract, transaction, event["blockNumber"])


def open_ledger(
    chain: str,
    state: Path,
    key: Key | None,
    contract: Address | None = None,
) -> EthereumLedger:
    """The public ledger on `chain` (``embedded``, ``anvil`` or a URL) of the folder `state`.

    With the coordinator's key the contract is deployed when the chain has none yet; without it the ledger is read-only
    and the contract must be known from `contract` or from the state. Any number of processes may do this at once.

    Raises LedgerUnreachableError when no node answers, UsageError when no contract is known or there is no code at its
    address.
    """
    node = connect(chain, state)
    book = AddressBook(state, node)
    known = contract or book.find(CONTRACT)
    if contract and not (is_address(contract) and book.has_code(contract)):
        raise UsageError(f"there is no contract at {contract} on chain {node.eth.chain_id}")
    if key is None:
        if known is None:
            raise UsageError(f"no contract is known for chain {chain!r}: give its address")
        return EthereumLedger(node, known)
    development = chain in ("embedded", "anvil")
    with book.locked():
        if development:
            endow(node, key)
        known = contract or book.find(CONTRACT) or _deploy(node, administrator() if development else key, book)
        _appoint(node, known, administrator() if development else key, key)
    return EthereumLedger(node, known, key)


class AddressBook:
    """Which contract stands where: STATE/chain/contracts.json, for each chain by its id and genesis hash."""

    def __init__(self, state: Path, node: Web3) -> None:
        self._node = node
        self._path = state / "chain" / "contracts.json"
        with reaching(node, "its genesis block"):
            genesis = HexBytes(node.eth.get_block(0)["hash"]).to_0x_hex()
            self._chain = f"{node.eth.chain_id}/{genesis}"

    def find(self, name: str) -> Address | None:
        """The address of contract `name`, if its code is still there."""
        address = self._load().get(self._chain, {}).get(name)
        return Address(address) if address and self.has_code(address) else None

    def has_code(self, address: str) -> bool:
        """Whether there is a contract at `address`."""
        with reaching(self._node, f"the code at {address}"):
            return bool(self._node.eth.get_code(to_checksum_address(address)))

    def enter(self, name: str, address: Address) -> None:
        """Remember a contract. The caller holds the lock."""
        content = self._load()
        content.setdefault(self._chain, {})[name] = address
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")
        part.replace(self._path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time deploy."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _load(self) -> dict[str, dict[str, str]]:
        try:
            content: dict[str, dict[str, str]] = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        return content


def endow(node: Web3, key: Key) -> None:
    """Give an account of a development chain what it needs for its transactions."""
    source = administrator()
    with reaching(node, "funds"):
        if node.client_version.startswith("anvil") and not node.eth.get_balance(_checksum(source)):
            node.provider.make_request(RPCEndpoint("anvil_setBalance"), [source.address, hex(FUNDS)])

        def funded() -> bool | None:
            return node.eth.get_balance(_checksum(key)) >= ALLOWANCE // 2 or None

        Sender(node, source, []).execute({"to": _checksum(key), "value": Wei(ALLOWANCE)}, funded, "funds")


def _deploy(node: Web3, deployer: Key, book: AddressBook) -> Address:
    """Deploy the contract; the deployer becomes its administrator."""
    development = deployer.derived
    artefact = artefacts.load(CONTRACT)
    constructor = node.eth.contract(abi=artefact.abi, bytecode=artefact.bytecode).constructor(
        0 if development else HANDOVER_SECONDS, deployer.address
    )
    account = _checksum(deployer)
    with reaching(node, "the deployer's nonce"):
        first = node.eth.get_transaction_count(account)

    def deployed() -> Address | None:
        """The contract, whichever of our transactions created it."""
        for nonce in range(first, node.eth.get_transaction_count(account)):
            address = to_checksum_address(created(bytes.fromhex(account[2:]), nonce))
            if book.has_code(address):
                return Address(address)
        return None

    sender = Sender(node, deployer, artefact.abi)
    address = sender.execute({"data": constructor.data_in_transaction}, deployed, "deploying the contract")
    book.enter(CONTRACT, address)
    return address


def _appoint(node: Web3, contract: Address, source: Key, coordinator: Key) -> None:
    """Grant the coordinator role if the account lacks it. Raises LedgerConflictError when `source` may not."""
    abi = artefacts.load(CONTRACT).abi
    ledger = node.eth.contract(address=to_checksum_address(contract), abi=abi)
    arguments = [COORDINATOR_ROLE, coordinator.address]

    def appointed() -> bool | None:
        return ledger.functions.hasRole(*arguments).call() or None

    Sender(node, source, abi).execute(
        {"to": ledger.address, "data": ledger.encode_abi("grantRole", arguments)},
        appointed,
        "the coordinator's role",
    )


def _commitment(key: RoundKey, values: Any) -> RoundCommitment:
    """The commitment that a RoundCommitted event carries."""
    return RoundCommitment(
        key=key,
        parent=_digest(values["parent"]),
        updates_root=_digest(values["updatesRoot"]),
        aggregate=_digest(values["aggregate"]),
        count=values["count"],
    )


def _digest(data: bytes) -> Digest:
    return Digest("0x" + bytes(data).hex())


def _checksum(key: Key) -> ChecksumAddress:
    return to_checksum_address(key.address)
