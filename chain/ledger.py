"""EthereumLedger: core.ledger.Ledger over a node and the PublicLedger contract; `open_ledger` is the way in.

Values are read from the contract's storage; parent, members and transaction, which storage lacks, from an event. The
number of its block is in storage too, and both must agree.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from eth_hash.auto import keccak

from chain.contract import BoundContract, to_digest
from chain.credits import Credits
from chain.deployment import COORDINATOR_ROLE, bind
from chain.devnet.accounts import administrator
from chain.erasures import Erasures
from chain.registry import Registry, RevocationEvents
from core.canonical import Address, Digest, raw
from core.errors import LedgerConflictError, LedgerError
from core.keys import Domain, Key
from core.ledger import Anchor, Erasure, GenerationOpening, LaneHead, RoundCommitment
from core.round_key import RoundKey


class EthereumLedger:
    """See core.ledger.Ledger; every method raises LedgerUnreachableError when the node does not answer.

    `bound` is the PublicLedger contract, for what else it records: chain.credits, chain.registry.
    """

    def __init__(self, bound: BoundContract) -> None:
        self.bound = bound
        self._erasures = Erasures(bound)
        self._revocations = RevocationEvents(bound)
        self._revoked: tuple[tuple[Address, ...], Digest, dict[Address, int]] | None = None
        """What was asked last, behind which block, and the answer."""

    @property
    def domain(self) -> Domain:
        """See `Ledger.domain`."""
        return self.bound.domain

    def open_run(self, run: Digest, organisations: Iterable[Address]) -> None:
        """See `Ledger.open_run`. Raises LedgerConflictError also when the run belongs to another coordinator."""
        open_run(self.bound, run, organisations)

    def members(self, run: Digest) -> frozenset[Address]:
        """See `Ledger.members`. Raises LedgerError when event and storage disagree."""
        return members(self.bound, run)

    def coordinator(self, run: Digest) -> Address | None:
        """See `Ledger.coordinator`."""
        account, opened_at, _ = self.bound.call("getRun", raw(run), purpose=f"run {run}")
        return Address(account) if opened_at else None

    def opened_by(self, run: Digest) -> Address | None:
        """See `Ledger.opened_by`. Raises LedgerError when event and storage disagree."""
        return _opening(self.bound, run)[0]

    def administrator(self) -> Address | None:
        """See `Ledger.administrator`."""
        return Address(self.bound.call("owner", purpose="the administrator"))

    def administers(self, account: Address) -> bool:
        """See `Ledger.administers`."""
        if self.administrator() == account:
            return True
        filters = {"role": bytes(32), "account": account}
        return bool(self.bound.events("RoleGranted", 0, "latest", filters, purpose="the administrators"))

    def change_coordinator(self, run: Digest, coordinator: Address) -> None:
        """See `Ledger.change_coordinator`."""
        change_coordinator(self.bound, run, coordinator)

    def opened_at(self, run: Digest) -> int:
        """See `Ledger.opened_at`."""
        return int(self.bound.call("getRun", raw(run), purpose=f"run {run}")[1])

    def commit(self, commitment: RoundCommitment) -> Anchor:
        """See `Ledger.commit`."""
        key = commitment.key

        def committed() -> Anchor | None:
            known = self.read(key)
            if known is None:
                return None
            if known[0] != commitment:
                raise LedgerConflictError(
                    f"{key} is already committed with other values: expected {known[0]}, got {commitment}"
                )
            return known[1]

        values = (
            *_lane(key),
            key.round,
            raw(commitment.parent),
            raw(commitment.updates_root),
            raw(commitment.aggregate),
            commitment.count,
        )
        return self.bound.execute("commitRound", values, effect=committed, purpose=f"committing round {key.round}")

    def read(self, key: RoundKey) -> tuple[RoundCommitment, Anchor] | None:
        """See `Ledger.read`. Raises LedgerError when event and storage disagree."""
        purpose = f"round {key.round}"
        *stored, block = self.bound.call("getRound", *_lane(key), key.round, purpose=purpose)
        if not block:
            return None
        filters = dict(zip(("run", "lane", "generation"), _lane(key), strict=True))
        # An event has three indexed fields at most, so that the round is looked for here.
        for event in self.bound.events("RoundCommitted", block, block, filters, purpose=purpose):
            values = event["args"]
            if values["round"] == key.round:
                if [values["updatesRoot"], values["aggregate"], values["count"]] != stored:
                    raise LedgerError(f"event and storage of {key} disagree in block {block}")
                commitment = RoundCommitment(
                    key=key,
                    parent=to_digest(values["parent"]),
                    updates_root=to_digest(values["updatesRoot"]),
                    aggregate=to_digest(values["aggregate"]),
                    count=values["count"],
                )
                return commitment, self.bound.anchor(event)
        raise LedgerError(f"{key} is in storage, but its event is not in block {block}")

    def head(self, run: Digest, lane: int) -> LaneHead:
        """See `Ledger.head`."""
        return self._erasures.head(run, lane)

    def erasure(self, run: Digest, erasure: Digest) -> Erasure | None:
        """See `Ledger.erasure`."""
        return self._erasures.read(run, erasure)

    def credit_root(self, run: Digest, epoch: int) -> Digest:
        """See `Ledger.credit_root`."""
        return Credits(self.bound).root(run, epoch)

    def revoked(self, organisations: Iterable[Address]) -> dict[Address, int]:
        """See `Ledger.revoked`."""
        asked, newest = tuple(organisations), self.bound.newest_hash
        # Asked every second of a run, and a question for each organisation costs the chain milliseconds.
        if self._revoked is None or self._revoked[:2] != (asked, newest):
            registry, among = Registry(self.bound), self._revocations.among(asked)
            registered = ((address, registry.read(address)) for address in among)
            found = {address: known.revoked_at for address, known in registered if known and known.revoked_at}
            self._revoked = asked, newest, found
        return dict(self._revoked[2])

    def attest(self, run: Digest, erasure: Digest, lane: int, attestation: Digest) -> Anchor:
        """See `Ledger.attest`."""
        return self._erasures.attest(run, erasure, lane, attestation)

    def open_generation(self, opening: GenerationOpening) -> Anchor:
        """See `Ledger.open_generation`."""
        return self._erasures.open_generation(opening)

    def certify(self, run: Digest, erasure: Digest, certificate: Digest) -> Anchor:
        """See `Ledger.certify`."""
        return self._erasures.certify(run, erasure, certificate)

    def is_admitted(self, key: RoundKey, manifest: Digest, proof: Sequence[bytes]) -> bool:
        """Whether the contract finds a salted manifest among the updates of a round, by a proof of core.merkle."""
        arguments = (*_lane(key), key.round, raw(manifest), list(proof))
        return bool(self.bound.call("isAdmitted", *arguments, purpose=f"a proof in round {key.round}"))


def open_ledger(chain: str, state: Path, key: Key | None, contract: Address | None = None) -> EthereumLedger:
    """The public ledger on `chain` (``embedded``, ``anvil`` or a URL) of the folder `state`.

    With the coordinator's key the contract is deployed when the chain has none yet; without it the ledger is read-only,
    as an auditor has it, and the contract must be known from `contract` or from the state. See `deployment.bind` for
    what it raises.
    """
    return EthereumLedger(bind("PublicLedger", chain, state, key, contract=contract))


def open_run(bound: BoundContract, run: Digest, organisations: Iterable[Address]) -> None:
    """Open a run in either ledger's contract; repeating it with the same members changes nothing."""
    expected = frozenset(organisations)

    def opened() -> bool | None:
        """Whether the run is open; raises LedgerConflictError when it is, with other members or another coordinator."""
        known = members(bound, run)
        if not known:
            return None
        if known != expected:
            raise LedgerConflictError(
                f"run {run} is already open with other members: expected {sorted(known)}, got {sorted(expected)}"
            )
        coordinator = bound.call("getRun", raw(run), purpose=f"run {run}")[0]
        if coordinator != bound.account:
            raise LedgerConflictError(f"run {run}: expected the key of coordinator {coordinator}, got {bound.account}")
        return True

    ascending = sorted(expected, key=lambda address: int(address, 16))
    bound.execute("openRun", raw(run), ascending, effect=opened, purpose=f"opening run {run}")


def change_coordinator(bound: BoundContract, run: Digest, coordinator: Address) -> None:
    """Hand a run to another account in either ledger's contract, which has or is given the coordinator's role."""
    purpose = f"handing run {run} to {coordinator}"

    def holds_role() -> bool | None:
        return bound.call("hasRole", COORDINATOR_ROLE, coordinator, purpose=purpose) or None

    def changed() -> bool | None:
        return bound.call("getRun", raw(run), purpose=purpose)[0] == coordinator or None

    if not changed():
        # On a development chain everybody has the administrator's key; elsewhere it is this account, or has given it.
        development = bound.call("owner", purpose=purpose) == administrator().address
        owner = bound.written_by(administrator()) if development else bound
        owner.execute("grantRole", COORDINATOR_ROLE, coordinator, effect=holds_role, purpose=purpose)
        bound.execute("changeCoordinator", raw(run), coordinator, effect=changed, purpose=purpose)


def members(bound: BoundContract, run: Digest) -> frozenset[Address]:
    """The organisations of a run in either ledger's contract; raises LedgerError when event and storage disagree."""
    return _opening(bound, run)[1]


def _opening(bound: BoundContract, run: Digest) -> tuple[Address | None, frozenset[Address]]:
    """The account that opened a run, and its organisations; raises LedgerError when event and storage disagree."""
    purpose = f"the members of run {run}"
    coordinator, opened_at, digest = bound.call("getRun", raw(run), purpose=purpose)
    if not opened_at:
        return None, frozenset()
    events = bound.events("RunOpened", opened_at, opened_at, {"run": raw(run)}, purpose=purpose)
    values = events[0]["args"] if events else {"coordinator": None, "organisations": []}
    padded = b"".join(bytes.fromhex(address[2:]).rjust(32, b"\0") for address in values["organisations"])
    if keccak(padded) != digest:
        raise LedgerError(f"{purpose}, of {coordinator}, do not match their digest")
    return values["coordinator"], frozenset(Address(address) for address in values["organisations"])


def _lane(key: RoundKey) -> tuple[bytes, int, int]:
    """A generation of a lane, as the contract takes it."""
    return raw(key.genesis), key.lane, key.generation
