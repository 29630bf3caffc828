"""The coordinator's chains: the ledger that everyone reads, the members' own, and the queues of rounds towards both."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agents.rewards import Rewards
from chain.commitments import Commitment, Recorder, private_commitment
from chain.credits import Credits
from chain.ledger import EthereumLedger, open_ledger
from chain.private import PrivateLedger, PrivateRounds, open_private_ledger
from chain.queue import CommitQueue
from chain.registry import RegisteredOrganisation, Registry
from core.canonical import Address
from core.config import RunConfig
from core.credit import CreditTree
from core.errors import ConfigError, LedgerUnreachableError
from core.genesis import Genesis, PrivateChain
from core.keys import Key
from core.ledger import Ledger
from core.rounds import RoundRecord
from core.storage.run_folder import RunFolder

_ANCHOR_SECONDS = 120.0


@dataclass(frozen=True)
class Chains:
    """The public ledger, and the members' private one where the run has one."""

    public: Ledger
    private: PrivateLedger | None = None
    private_rounds: PrivateRounds | None = None

    @classmethod
    def of(cls, config: RunConfig, state: Path, key: Key) -> "Chains":
        """The chains of a run's settings; raises LedgerUnreachableError when one does not answer."""
        public = open_ledger(config.chain, state, key)
        if config.private == "none":
            return cls(public)
        private = open_private_ledger(config.private, state, key)
        return cls(public, private, PrivateRounds(private, public.bound, config.anchor_every))

    @classmethod
    def to_read(cls, config: RunConfig, state: Path) -> "Chains":
        """The public ledger alone, as a reader has it: nothing is deployed and nothing sent.

        Raises UsageError where no contract is known, LedgerUnreachableError when the chain does not answer.
        """
        return cls(open_ledger(config.chain, state, None))

    def private_chain(self, anchor_every: int) -> PrivateChain | None:
        """The private chain as a genesis fixes it."""
        if self.private is None:
            return None
        private = self.private.bound.domain
        return PrivateChain(private.chain_id, private.contract, anchor_every)

    def registered(self, organisation: Address) -> RegisteredOrganisation | None:
        """An organisation's registration with the contract, or None; raises ConfigError without a chain."""
        if not isinstance(self.public, EthereumLedger):
            raise ConfigError("require-registration: expected a contract with a registry, got a ledger in memory")
        return Registry(self.public.bound).read(organisation)

    def open_run(self, genesis: Genesis) -> None:
        """Open the run on every chain."""
        for ledger in (self.public, self.private):
            if ledger:
                ledger.open_run(genesis.digest, [organisation.address for organisation in genesis.organisations])

    def change_coordinator(self, genesis: Genesis, coordinator: Address) -> None:
        """Hand the run to another account on every chain."""
        for ledger in (self.public, self.private):
            if ledger:
                ledger.change_coordinator(genesis.digest, coordinator)

    @contextmanager
    def committing(self, run: RunFolder) -> Iterator[Callable[[RoundRecord], None]]:
        """A callback that queues a round's record for every chain; earlier rounds are queued first.

        Leaving waits until every round is anchored, unless by an exception; raises LedgerUnreachableError when that
        takes too long.
        """
        with ExitStack() as stack:
            public = stack.enter_context(anchoring(run.queue, self.public))
            rounds = self.private_rounds
            private = stack.enter_context(anchoring(run.private_queue, rounds)) if rounds else None

            def commit(record: RoundRecord) -> None:
                public.put(run.commitment(record))
                if private:
                    private.put(private_commitment(record, run.salts(record)))

            # A round whose salts were destroyed can't be committed any more; it was, before they were.
            salts_destroyed = run.salts_destroyed()
            for signed in run.records():
                if signed.value.admitted and signed.value.digest not in salts_destroyed:
                    commit(signed.value)
            yield commit

    def post(self, run: RunFolder, rewards: Rewards | None) -> None:
        """Put the organisations' cumulative payments on the public chain, where each can claim its own by proof."""
        if rewards is None or not isinstance(self.public, EthereumLedger):
            return
        credits, tree = Credits(self.public.bound), CreditTree.of(run.genesis.digest, rewards.cumulative())
        epoch, root = credits.newest(tree.run)
        if tree.cumulative and root != tree.root:
            run.keep_epoch(epoch + 1, tree)
            credits.post(epoch + 1, tree)


@contextmanager
def anchoring(path: Path, ledger: Recorder[Commitment]) -> Iterator[CommitQueue[Commitment]]:
    """The commit queue in `path`, emptied before it is left, unless by an exception."""
    queue, patience = CommitQueue(path, ledger), 0.0
    try:
        yield queue
        patience = _ANCHOR_SECONDS + queue.pending()  # a second for each, when rounds were faster than the chain
    finally:
        missing = queue.close(patience)
    if missing:
        raise LedgerUnreachableError(f"{missing} rounds of {path.name} wait for their chain: resume to anchor them")
