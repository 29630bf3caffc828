"""What the chain costs: gas and bytes of a round by the number of organisations, and how long a round loop waits.

A loop waits only for `CommitQueue.put`, once for the public chain and once for the private one, which is measured with
both chains up and with both gone. Committing and reading a round are timed too, including all questions that are asked
around the transaction, and for the private chain the anchor of its head.

    python -m benchmarks.chain [--chain embedded --chain anvil] [--rounds 20]
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic

from eth_utils.address import to_checksum_address

from benchmarks import report
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

_SEED = 7
_SIZES = (4, 64, 1024)
_GAS_LIMIT = 120_000
_WAIT_LIMIT_MS = 50.0


class Gone(Generic[Commitment]):
    """A ledger whose chain does not answer."""

    def commit(self, commitment: Commitment) -> Anchor:
        """Fail."""
        raise LedgerUnreachableError(f"gone when round {commitment.key.round} came")

    def read(self, key: RoundKey) -> tuple[Commitment, Anchor] | None:
        """Fail."""
        raise LedgerUnreachableError(f"gone when asked for round {key.round}")


def main() -> None:
    """Measure, print and write."""
    options = _options()
    figures = {chain: measure(chain, options.rounds) for chain in options.chain or ["embedded"]}
    limits = {"gas_limit": _GAS_LIMIT, "wait_limit_ms": _WAIT_LIMIT_MS}
    report.write("chain", figures | limits, "python -m benchmarks.chain", _SEED)
    header = ("figure", *figures)
    names = next(iter(figures.values()))
    rows = [(name, *(found[name] for found in figures.values())) for name in names]
    sys.stdout.write(report.table(header, rows) + "\n")


def measure(chain: str, rounds: int) -> dict[str, Any]:
    """All figures of one kind of node, in a state of its own."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        try:
            key = derive(_SEED, "coordinator")
            ledger, private = open_ledger(chain, state, key), open_private_ledger(chain, state, key)
            members = PrivateRounds(private, ledger.bound)
            return _gas(ledger) | _times(ledger, private, rounds) | _waits(ledger, private, members, state, rounds)
        finally:
            control.stop(chain, state)


def _gas(ledger: EthereumLedger) -> dict[str, Any]:
    """Gas and transaction bytes of a lane's first and second round, and gas of opening the run, by its size."""
    figures: dict[str, Any] = {}
    for size in _SIZES:
        history = _history(f"gas {size}", 2)
        members = [Address(to_checksum_address(f"0x{number:040x}")) for number in range(1, size + 1)]
        ledger.open_run(history[0].key.genesis, members)
        first, second = (ledger.bound.node.eth.get_transaction(_hash(ledger.commit(item))) for item in history)
        figures[f"first_round_gas_{size}"] = _used(ledger, first["hash"])
        figures[f"round_gas_{size}"] = _used(ledger, second["hash"])
        figures[f"round_bytes_{size}"] = len(second["input"])
    return figures


def _times(ledger: EthereumLedger, private: PrivateLedger, rounds: int) -> dict[str, Any]:
    """Median milliseconds of committing and of reading a round, and of committing it privately with its anchor."""
    history = _opened(ledger, private, "times", rounds)
    commits = [_milliseconds(lambda item=item: ledger.commit(item)) for item in history]  # type: ignore[misc]  # bound
    reads = [_milliseconds(lambda item=item: ledger.read(item.key)) for item in history]  # type: ignore[misc]  # bound
    members = PrivateRounds(private, ledger.bound)
    own = [_milliseconds(lambda item=item: members.commit(_private(item))) for item in history]  # type: ignore[misc]  # bound
    medians = {"commit_ms": commits, "read_ms": reads, "private_commit_ms": own}
    return {name: statistics.median(values) for name, values in medians.items()}


def _waits(
    ledger: EthereumLedger, private: PrivateLedger, members: PrivateRounds, state: Path, rounds: int
) -> dict[str, Any]:
    """The longest that a round loop waits for both queues, in milliseconds, and how many commitments stayed behind."""
    history = _opened(ledger, private, "waits", rounds)
    up, missing = _longest_wait(state / "up", ledger, members, history, close=60.0)
    down, _ = _longest_wait(state / "down", Gone(), Gone(), history, close=0.0)
    return {"longest_wait_ms_up": up, "longest_wait_ms_down": down, "not_anchored": missing}


def _longest_wait(
    folder: Path,
    public: Recorder[RoundCommitment],
    private: Recorder[PrivateCommitment],
    history: list[RoundCommitment],
    close: float,
) -> tuple[float, int]:
    queue, own = CommitQueue(folder / "public", public), CommitQueue(folder / "private", private)

    def put(item: RoundCommitment) -> None:
        queue.put(item)
        own.put(_private(item))

    longest = max(_milliseconds(lambda item=item: put(item)) for item in history)  # type: ignore[misc]  # bound
    return longest, queue.close(close) + own.close(close)


def _private(item: RoundCommitment) -> PrivateCommitment:
    """What the private chain is told of a round of four organisations."""
    manifests, bids, allocations = (
        tuple(_digest(f"{kind} {item.key.round} {number}") for number in range(item.count))
        for kind in ("manifest", "bid", "allocation")
    )
    return PrivateCommitment(item.key, manifests, bids, allocations)


def _opened(ledger: EthereumLedger, private: PrivateLedger, name: str, rounds: int) -> list[RoundCommitment]:
    history = _history(name, rounds)
    for each in (ledger, private):
        each.open_run(history[0].key.genesis, [derive(_SEED, str(number)).address for number in range(4)])
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


def _hash(anchor: Anchor) -> Any:
    return anchor.transaction


def _used(ledger: EthereumLedger, transaction: Any) -> int:
    return int(ledger.bound.node.eth.get_transaction_receipt(transaction)["gasUsed"])


def _milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chain", action="append", choices=("embedded", "anvil"))
    parser.add_argument("--rounds", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
