"""How a federation grows with its organisations, and what it costs beside plain Flower with the same steps.

For each size one data set is divided by a Dirichlet draw, and `foedus run` trains on Flower's Ray backend with
signatures, admission, store, record and anchor, asking a few organisations a round, in turn; then it is audited. The
same base, records and steps are run by plain Flower (benchmarks/plain_flower.py), which asks as many and whose every
organisation is a node. Seconds of a round are those from its first message to its close, of every round but the first,
in which the base is loaded; evaluation comes after them, and plain Flower does none. Memory is the coordinator's peak
of anonymous pages (RssAnon). Whatever is measured is kept in WORK: a measurement that stops goes on from there.

On paper stands what a round of 100,000 organisations on a base of 70 billion parameters would take, from these figures
and those of `wire`, `aggregation` and `audit`: each part against a limit, the one that breaks first at the top.

    python -m benchmarks.scale --work DIR [--sizes 10:10,100:10,1000:10,10000:100] [--rounds 3]
"""

import argparse
import json
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from hexbytes import HexBytes

from benchmarks import arguments, json_lines, plain_flower, report
from benchmarks.command_line import foedus, given
from benchmarks.speaking import once
from chain import control
from chain.ledger import open_ledger
from chain.queue import read_anchors
from console.backends.ray import SuperLink, superlink, while_ray_is_late
from core.canonical import LARGEST, raw
from core.config import RunConfig
from core.storage.events import EventLog
from core.storage.lock import holder
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from core.wire import MOST_NUMBERS

SEED = 7
SIZES = "10:10,100:10,1000:10,10000:100"
"""Organisations, and how many of them a round asks."""
RECORDS, LABELS = 8, 10
"""Records of an organisation, and the values that they are mixtures of."""
MOST_SLOWER = 1.3
"""Target: the time of a round, relative to plain Flower's."""
_SETTINGS: Mapping[str, bool | int | float | str] = {
    "base": "foedus-tiny", "quantisation": "none", "partition": "dirichlet", "participation": "round-robin",
    "local-steps": 1, "batch-size": 2, "max-length": 64, "rank": 8, "alpha": 16.0, "evaluate-limit": 2,
    "calibration": 0, "sample-answers": 0, "private-chain": "none", "bind-timeout": 900.0,
}  # fmt: skip
POOL_BYTES = 128 * 2**10
"""The largest transaction that go-ethereum's pool takes."""
TRANSACTION_GAS = 2**24
"""The most gas of a transaction on Ethereum (EIP-7825)."""
BYTES_A_SECOND = 1e9 / 8
ROUND_SECONDS, DAY_SECONDS = 3600.0, 86400.0
MEMORY_BYTES = 64 * 2**30
NF4_BITS = 4.127
"""Of a weight with double quantisation (Dettmers et al., 2023)."""
_POLL_SECONDS = 0.1
_ASK_SECONDS = 60.0
"""Before Flower is asked how a run is that has not noted all its rounds."""


@dataclass(frozen=True)
class Part:
    """A part of a round on paper: what it takes grows with the organisations from `fixed` by `each`, up to `limit`."""

    part: str
    fixed: float
    each: float
    limit: float

    @property
    def holds_up_to(self) -> float:
        """The most organisations within the limit; infinite where it does not grow."""
        if self.fixed > self.limit:
            return 0
        return (self.limit - self.fixed) // self.each if self.each else math.inf

    def row(self, organisations: int) -> dict[str, Any]:
        """Its row for so many organisations."""
        holds, takes = self.holds_up_to, self.fixed + self.each * organisations
        return {
            "part": self.part,
            "takes": takes,
            "limit": self.limit,
            "of_the_limit": takes / self.limit,
            "holds_up_to": int(holds) if holds < math.inf else "any number",
        }


@dataclass(frozen=True)
class Paper:
    """A federation that nobody has run: Llama 2 70B at rank 32, every linear layer, of which a round asks a part."""

    organisations: int = 100_000
    asked: float = 0.01
    weights: float = 70e9
    outputs: int = 80 * (3 * 8192 + 2 * 1024 + 2 * 28672)
    """Of all adapted layers: in each block q, o and down of 8,192, k and v of 1,024, gate and up of 28,672."""
    rank: int = 32
    wire: str = "nf4"

    def rows(
        self,
        sizes: Sequence[Mapping[str, Any]],
        wire: Mapping[str, Any],
        aggregation: Mapping[str, float],
        audit: Mapping[str, float],
    ) -> list[dict[str, Any]]:
        """Every part from what was measured, the first that breaks at the top."""
        numbers = self.outputs * self.rank
        megabytes = 4 * numbers / 1e6
        measured = {row["wire"]: row for row in wire["a model of 7 billion parameters"]}
        of, plain = measured[self.wire], measured["fp32"]["up_bytes"] / 4
        traffic = (of["up_bytes"] + of["down_bytes"]) * numbers / plain
        summing = aggregation["aggregate_seconds"] / aggregation["updates"] / aggregation["update_mb"] * megabytes
        reading = of["decompress_seconds"] * numbers / plain + summing
        audited = audit["rounds"] * audit["organisations"] * audit["update_mb"]
        auditing = audit["processor_seconds"] / audited * megabytes
        memory = growth(sizes, "server_memory_mib")[1] * 2**20
        held = aggregation["peak_aggregating_updates"] * megabytes * 1e6 + self.weights * NF4_BITS / 8
        parts = [
            Part("bytes of the transaction that opens the run", *growth(sizes, "opening_bytes"), POOL_BYTES),
            Part("gas of it", *growth(sizes, "opening_gas"), TRANSACTION_GAS),
            Part("gas of a round's transaction", sizes[-1]["round_gas"], 0.0, TRANSACTION_GAS),
            Part("bytes of the genesis", *growth(sizes, "genesis_bytes"), LARGEST),
            Part("numbers of an update", numbers, 0.0, MOST_NUMBERS),
            Part(
                "seconds of a round's messages at 1 Gbit/s", 0.0, self.asked * traffic / BYTES_A_SECOND, ROUND_SECONDS
            ),
            Part(
                "seconds to decompress and sum a round's updates, on one core", 0.0, self.asked * reading, ROUND_SECONDS
            ),
            Part("seconds of a round in an audit, on one core", 0.0, self.asked * auditing, ROUND_SECONDS),
            Part("seconds until the first round", *growth(sizes, "seconds_to_first_round"), DAY_SECONDS),
            Part("bytes of the coordinator's memory, the base in NF4 with it", held, max(memory, 0.0), MEMORY_BYTES),
        ]
        return [part.row(self.organisations) for part in sorted(parts, key=lambda part: part.holds_up_to)]


def growth(sizes: Sequence[Mapping[str, Any]], figure: str) -> tuple[float, float]:
    """A figure without organisations, and what each adds, on the line through the smallest and the largest size."""
    (few, least), (many, most) = ((row["organisations"], row[figure]) for row in (sizes[0], sizes[-1]))
    each = (most - least) / (many - few)
    return least - each * few, each


@dataclass(frozen=True)
class Point:
    """A federation of so many organisations, of which a round asks `asked`."""

    organisations: int
    asked: int
    rounds: int
    work: Path

    @property
    def settings(self) -> dict[str, bool | int | float | str]:
        """The settings of both sides."""
        own: dict[str, bool | int | float | str] = {
            "data": f"hf:{self.work / 'data'}",
            "organisations": self.organisations,
            "rounds": self.rounds,
        }
        # With a quorum of all asked, both sides wait for as many updates, and sum as many.
        return {**_SETTINGS, **own, "seed": SEED, "fraction": self.asked / self.organisations, "quorum": self.asked}

    def write_data(self) -> None:
        """Write the data set that is divided."""
        (self.work / "data").mkdir(parents=True, exist_ok=True)
        for split, count in (("train", RECORDS * self.organisations), ("validation", LABELS)):
            lines = (json.dumps(_row(number, split)) + "\n" for number in range(count))
            (self.work / "data" / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")

    def measured(self) -> dict[str, Any]:
        """Figures of a run, its audit and its status."""
        self.write_data()
        state = State.at(self.work / "state")
        began = time.time()
        try:
            with peak_memory(state) as peak:
                done = foedus("run", "--state", str(state.folder), *given(self.settings))
            run = state.existing(done["run"])
            audit, audited = _timed(partial(foedus, "verify", "--state", str(state.folder)))
            return {
                **seconds_of(EventLog.read(state.events(run.name))[0], began),
                "server_memory_mib": peak() / 2**20,
                **sizes_of(run),
                **gas_of(state, run),
                "audit_seconds": audited,
                "audited": audit["ok"],
                "status_seconds": _timed(partial(foedus, "status", "--state", str(state.folder)))[1],
            }
        finally:
            control.stop("embedded", state.folder)

    def plain(self) -> dict[str, Any]:
        """Seconds of plain Flower's rounds, and of those the seconds in which its actors trained."""
        self.write_data()
        _, *later = while_ray_is_late(lambda _: self._plain_rounds())
        # As many actors as cores train at a time.
        training = fmean(found["training"] for found in later) / (os.cpu_count() or 1)
        return {
            "seconds_a_round": fmean(found["seconds"] for found in later),
            "training_seconds": training,
            "trained": fmean(found["trained"] for found in later),
        }

    def _plain_rounds(self) -> list[dict[str, float]]:
        times = self.work / "times.jsonl"
        times.unlink(missing_ok=True)
        config = RunConfig.from_flat(RunConfig().to_flat() | self.settings)
        with tempfile.TemporaryDirectory() as home, superlink(Path(home), self.work / "plain") as link:
            app = plain_flower.stage(link.home / "app", config, times)
            resources = f"num-supernodes={self.organisations} client-resources-num-cpus=1"
            answer = link.flwr("run", str(app), "foedus", "--federation-config", resources)
            self._wait(link, str(answer["run-id"]), times)
        return _noted(times)

    def _wait(self, link: SuperLink, run_id: str, times: Path) -> None:
        """Wait for the end of plain Flower's run: asking costs the start of its CLI, which would slow rounds down."""
        asked = time.monotonic()
        while True:
            if len(_noted(times)) == self.rounds or time.monotonic() - asked > _ASK_SECONDS:
                if link.completed(run_id):
                    return
                asked = time.monotonic()
            time.sleep(_POLL_SECONDS)


def _noted(times: Path) -> list[dict[str, float]]:
    """What plain Flower's rounds have noted so far."""
    return json_lines.read(times) if times.exists() else []


def _row(number: int, split: str) -> dict[str, str]:
    label = number % LABELS
    text = {"question": f"{split} {number}, of kind {label}?", "answer": f"{label} {number * number % 997}"}
    return text | {"label": f"kind-{label}", "domain": f"kind-{label}"}


def _timed(command: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float]:
    began = time.monotonic()
    return command(), time.monotonic() - began


@contextmanager
def peak_memory(state: State) -> Iterator[Callable[[], int]]:
    """While the block runs, the largest RssAnon in bytes of the process that writes the state's run."""
    peak, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(_POLL_SECONDS):
            writers = (holder(lock) for lock in (state.folder / "locks").glob("*.lock"))
            peak[0] = max([peak[0], *(anonymous_bytes(writer) for writer in writers if writer)])

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield lambda: peak[0]
    finally:
        ended.set()
        thread.join()


def anonymous_bytes(pid: int) -> int:
    """RssAnon of a process in bytes; 0 for one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def seconds_of(events: Sequence[Mapping[str, Any]], began: float) -> dict[str, float]:
    """Seconds until the first round, and of each round but that; what each asked."""
    started = {event["round"]: event for event in events if event["event"] == "round-started"}
    closed = {event["round"]: event["time"] for event in events if event["event"] == "round-closed"}
    later = sorted(closed)[1:]
    return {
        "asked": fmean(len(started[number]["asked"]) for number in later),
        "seconds_to_first_round": started[min(started)]["time"] - began,
        "seconds_a_round": fmean(closed[number] - started[number]["time"] for number in later),
    }


def sizes_of(run: RunFolder) -> dict[str, int]:
    """Bytes of the genesis, of an update, of the newest record, and of all that the run has stored."""
    newest = max((run.folder / "records").glob("L*.json"))
    *_, last = run.records()
    return {
        "genesis_bytes": len(run.genesis.shown),
        "update_bytes": run.artifacts.size(last.value.admitted[0].signed.value.update),
        "record_bytes": newest.stat().st_size,
        "stored_bytes": sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file()),
    }


def gas_of(state: State, run: RunFolder) -> dict[str, int]:
    """Gas of opening the run, and of its last round; bytes of the opening, which names all members."""
    bound = open_ledger("embedded", state.folder, None).bound
    opened = bound.call("getRun", raw(run.genesis.digest), purpose="the run")[1]
    (event,) = bound.events("RunOpened", opened, opened, {"run": raw(run.genesis.digest)}, purpose="the run")
    anchors = read_anchors(run.queue)
    last = anchors[max(anchors, key=lambda key: key.round)].transaction
    eth = bound.node.eth
    receipts = (eth.get_transaction_receipt(HexBytes(name)) for name in (event["transactionHash"], last))
    opening, closing = (int(receipt["gasUsed"]) for receipt in receipts)
    sent = len(eth.get_transaction(HexBytes(event["transactionHash"]))["input"])
    return {"opening_gas": opening, "opening_bytes": sent, "round_gas": closing}


def compared(own: Mapping[str, float], plain: Mapping[str, float]) -> dict[str, float]:
    """Plain Flower's seconds beside ours, and what is left of ours without the steps, which are the same."""
    ours, theirs, steps = own["seconds_a_round"], plain["seconds_a_round"], plain["training_seconds"]
    return {
        "plain_asked": plain["trained"],
        "plain_seconds": theirs,
        "ratio": ours / theirs,
        "messages_seconds": ours - steps,
    }


def points(sizes: str, rounds: int, work: Path) -> list[Point]:
    """The federations of a list like SIZES, each with a folder of its own in `work`."""
    pairs = (tuple(map(int, size.split(":"))) for size in sizes.split(","))
    return [Point(count, asked, rounds, work / f"{count}-{asked}") for count, asked in pairs]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=arguments.output, required=True, help="a folder for runs and what is measured")
    parser.add_argument("--sizes", default=SIZES, help="organisations:asked, by commas")
    parser.add_argument("--rounds", type=arguments.count(), default=3)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for point in points(options.sizes, options.rounds, options.work.absolute()):
        own, plain = once(point.work / "foedus.json", point.measured), once(point.work / "plain.json", point.plain)
        rows.append({"organisations": point.organisations, **own, **compared(own, plain)})
        # After every size: a measurement that stops leaves its figures behind.
        figures: dict[str, Any] = {"target_ratio": MOST_SLOWER, "sizes": rows}
        if len(rows) > 1:
            figures["on paper"] = Paper().rows(rows, *map(report.figures, ("wire", "aggregation", "audit")))
        report.write("scale", figures, "python -m benchmarks.scale --work DIR", SEED)
    for title in (name for name, found in figures.items() if isinstance(found, list)):
        report.print_table(tuple(figures[title][0]), [tuple(row.values()) for row in figures[title]], title)


if __name__ == "__main__":
    main()
