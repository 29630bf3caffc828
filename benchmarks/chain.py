"""Cost of the chain: gas and bytes of a round by the number of organisations, and the time that a round waits.

A round waits only for `CommitQueue.put`, once for the public chain and once for the private one; that is measured with
both chains up and with both down. Committing and reading a round are timed with all calls around the transaction, and
for the private chain with the anchor of its head.

    python -m benchmarks.chain [--chain embedded --chain anvil] [--rounds 20]
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Generic

from eth_utils.address import to_checksum_address

from benchmarks import arguments, report
from benchmarks.timing import wall_timed
from chain import control
from chain.commitments import Commitment, PrivateCommitment, Recorder
from chain.ledger import EthereumLedger, open_ledger
from chain.private import PrivateLedger, PrivateRounds, open_private_ledger
from chain.queue import CommitQueue
from core.canonical import ZERO_DIGEST, Address, Digest, digest
from core.errors import LedgerUnreachableError
from core.keys import derive
from core.ledger import Anchor, RoundCommitment
from core.round_key import RoundKey

SEED = 7
SIZES = (4, 64, 1024)
GAS_LIMIT = 120_000
WAIT_LIMIT_MS = 50.0


class UnreachableLedger(Generic[Commitment]):
    """A ledger whose chain is down."""

    def commit(self, commitment: Commitment) -> Anchor:
        """Raise LedgerUnreachableError."""
        raise LedgerUnreachableError(f"the chain is down; round {commitment.key.round} was not committed")

    def read(self, key: RoundKey) -> tuple[Commitment, Anchor] | None:
        """Raise LedgerUnreachableError."""
        raise LedgerUnreachableError(f"the chain is down; round {key.round} was not read")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chain", action="append", choices=("embedded", "anvil"))
    parser.add_argument("--rounds", type=arguments.count(), default=20)
    options = parser.parse_args()
    figures = {chain: measure(chain, options.rounds) for chain in options.chain or ["embedded"]}
    limits = {"gas_limit": GAS_LIMIT, "wait_limit_ms": WAIT_LIMIT_MS}
    report.write("chain", figures | limits, "python -m benchmarks.chain", SEED)
    names = next(iter(figures.values()))
    report.print_table(("figure", *figures), [(name, *(f[name] for f in figures.values())) for name in names])


def measure(chain: str, rounds: int) -> dict[str, Any]:
    """All figures of one kind of node, in a state of its own."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        try:
            key = derive(SEED, "coordinator")
            ledger, private = open_ledger(chain, state, key), open_private_ledger(chain, state, key)
            figures = _gas(ledger)
            members = PrivateRounds(private, ledger.bound)
            history = _opened(ledger, private, "times", rounds)
            figures |= {
                "commit_ms": median(_milliseconds(ledger.commit, history)),
                "read_ms": median(_milliseconds(ledger.read, [commitment.key for commitment in history])),
                "private_commit_ms": median(_milliseconds(members.commit, [_private(c) for c in history])),
            }
            history = _opened(ledger, private, "waits", rounds)
            up, missing = _longest_wait(state / "up", ledger, members, history, close=60.0)
            # Nothing will ever be anchored on a chain that is down: its queues are not waited for.
            down, _ = _longest_wait(state / "down", UnreachableLedger(), UnreachableLedger(), history, close=0.0)
            return figures | {"longest_wait_ms_up": up, "longest_wait_ms_down": down, "not_anchored": missing}
        finally:
            control.stop(chain, state)


def _gas(ledger: EthereumLedger) -> dict[str, Any]:
    """Gas and transaction bytes of a lane's first and second round, by the number of organisations."""
    figures: dict[str, Any] = {}
    eth = ledger.bound.node.eth
    for size in SIZES:
        history = _history(f"gas {size}", 2)
        members = [Address(to_checksum_address(f"0x{number:040x}")) for number in range(1, size + 1)]
        ledger.open_run(history[0].key.genesis, members)
        anchors: list[Any] = [ledger.commit(commitment).transaction for commitment in history]
        first, second = (int(eth.get_transaction_receipt(transaction)["gasUsed"]) for transaction in anchors)
        figures[f"first_round_gas_{size}"] = first
        figures[f"round_gas_{size}"] = second
        figures[f"round_bytes_{size}"] = len(eth.get_transaction(anchors[1])["input"])
    return figures


def _longest_wait(
    folder: Path,
    public: Recorder[RoundCommitment],
    private: Recorder[PrivateCommitment],
    history: Sequence[RoundCommitment],
    close: float,
) -> tuple[float, int]:
    """The longest `put` into both queues in milliseconds, and the commitments left after `close` seconds."""
    queue, own = CommitQueue(folder / "public", public), CommitQueue(folder / "private", private)

    def put(commitment: RoundCommitment) -> None:
        queue.put(commitment)
        own.put(_private(commitment))

    longest = max(_milliseconds(put, history))
    return longest, queue.close(close) + own.close(close)


def _private(commitment: RoundCommitment) -> PrivateCommitment:
    """The private chain's commitment to the same round of four organisations."""
    manifests, bids, allocations = (
        tuple(_digest(f"{kind} {commitment.key.round} {number}") for number in range(commitment.count))
        for kind in ("manifest", "bid", "allocation")
    )
    return PrivateCommitment(commitment.key, manifests, bids, allocations)


def _opened(ledger: EthereumLedger, private: PrivateLedger, name: str, rounds: int) -> list[RoundCommitment]:
    """The history of a run of four organisations that both ledgers know."""
    history = _history(name, rounds)
    for each in (ledger, private):
        each.open_run(history[0].key.genesis, [derive(SEED, str(number)).address for number in range(4)])
    return history


def _history(name: str, rounds: int) -> list[RoundCommitment]:
    """A lane's rounds 1 to `rounds`, each the child of the one before."""
    heads = [ZERO_DIGEST, *(_digest(f"{name} {number}") for number in range(1, rounds + 1))]
    return [
        RoundCommitment(RoundKey(_digest(name), 0, 0, number), heads[number - 1], _digest("root"), heads[number], 4)
        for number in range(1, rounds + 1)
    ]


def _digest(text: str) -> Digest:
    return digest("benchmark", text.encode())


def _milliseconds(action: Callable[[Any], object], values: Sequence[Any]) -> list[float]:
    """The milliseconds of a call with each value."""
    return [1000 * wall_timed(partial(action, value))[1] for value in values]


if __name__ == "__main__":
    main()
