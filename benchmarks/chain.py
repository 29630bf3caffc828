"""What the chain costs: gas and bytes of a round by the number of organisations, and how long a round loop waits.

A loop waits only for `CommitQueue.put`, which is measured with the chain up and with the chain gone. Committing and
reading a round are timed too, including all questions that are asked around the transaction.

    python -m benchmarks.chain [--chain embedded --chain anvil] [--rounds 20]
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eth_utils.address import to_checksum_address

from benchmarks import report
from chain import control
from chain.commitments import Recorder
from chain.ethereum import EthereumLedger, open_ledger
from chain.queue import CommitQueue
from core.canonical import ZERO_DIGEST, Address, Digest, digest
from core.errors import LedgerUnreachableError
from core.keys import derive
from core.ledger import Anchor, RoundCommitment, RoundKey

_SEED = 7
_SIZES = (4, 64, 1024)
_GAS_LIMIT = 120_000
_WAIT_LIMIT_MS = 50.0


class Gone:
    """A ledger whose chain does not answer."""

    def commit(self, commitment: RoundCommitment) -> Anchor:
        """Fail."""
        raise LedgerUnreachableError(f"gone when round {commitment.key.round} came")

    def read(self, key: RoundKey) -> tuple[RoundCommitment, Anchor] | None:
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
            ledger = open_ledger(chain, state, derive(_SEED, "coordinator"))
            return _gas(ledger) | _times(ledger, rounds) | _waits(ledger, state, rounds)
        finally:
            control.stop(chain, state)


def _gas(ledger: EthereumLedger) -> dict[str, Any]:
    """Gas and transaction bytes of a lane's first and second round, and gas of opening the run, by its size."""
    figures: dict[str, Any] = {}
    for size in _SIZES:
        history = _history(f"gas {size}", 2)
        members = [Address(to_checksum_address(f"0x{number:040x}")) for number in range(1, size + 1)]
        ledger.open_run(history[0].key.run, members)
        first, second = (ledger.bound.node.eth.get_transaction(_hash(ledger.commit(item))) for item in history)
        figures[f"first_round_gas_{size}"] = _used(ledger, first["hash"])
        figures[f"round_gas_{size}"] = _used(ledger, second["hash"])
        figures[f"round_bytes_{size}"] = len(second["input"])
    return figures


def _times(ledger: EthereumLedger, rounds: int) -> dict[str, Any]:
    """Median milliseconds of committing and of reading a round."""
    history = _opened(ledger, "times", rounds)
    commits = [_milliseconds(lambda item=item: ledger.commit(item)) for item in history]  # type: ignore[misc]  # bound
    reads = [_milliseconds(lambda item=item: ledger.read(item.key)) for item in history]  # type: ignore[misc]  # bound
    return {"commit_ms": statistics.median(commits), "read_ms": statistics.median(reads)}


def _waits(ledger: EthereumLedger, state: Path, rounds: int) -> dict[str, Any]:
    """The longest that a round loop waits, in milliseconds, and whether every round was anchored."""
    history = _opened(ledger, "waits", rounds)
    up, missing = _longest_put(state / "up", ledger, history, close=60.0)
    down, _ = _longest_put(state / "down", Gone(), history, close=0.0)
    return {"longest_wait_ms_up": up, "longest_wait_ms_down": down, "not_anchored": missing}


def _longest_put(
    path: Path, ledger: Recorder[RoundCommitment], history: list[RoundCommitment], close: float
) -> tuple[float, int]:
    queue = CommitQueue(path, ledger)
    longest = max(_milliseconds(lambda item=item: queue.put(item)) for item in history)  # type: ignore[misc]  # bound
    return longest, queue.close(close)


def _opened(ledger: EthereumLedger, name: str, rounds: int) -> list[RoundCommitment]:
    history = _history(name, rounds)
    ledger.open_run(history[0].key.run, [derive(_SEED, str(number)).address for number in range(4)])
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
