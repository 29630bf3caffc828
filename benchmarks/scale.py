"""How a federation grows with its organisations, and what it costs beside plain Flower with the same steps.

For each size one data set is divided by a Dirichlet draw, and `foedus run` trains on Flower's Ray backend with
signatures, admission, store, record and anchor, asking a few organisations a round; then it is audited. The same base,
records and steps are run by plain Flower (benchmarks/plain_flower.py), whose every organisation is a node. Seconds of a
round are those from its first message to its close, of every round but the first, in which the base is loaded;
evaluation comes after them, and plain Flower does none. Memory is the coordinator's peak of anonymous pages (RssAnon).
Whatever is measured is kept in WORK: a measurement that stops goes on from there.

    python -m benchmarks.scale --work DIR [--sizes 10,100,1000] [--asked 10] [--rounds 3]
"""

import argparse
import json
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

from benchmarks import plain_flower, report
from benchmarks.command_line import foedus
from benchmarks.speaking import once
from chain import control
from chain.ledger import open_ledger
from chain.queue import read_anchors
from console.backends.ray import superlink
from core.canonical import raw
from core.config import RunConfig
from core.storage.events import EventLog
from core.storage.lock import holder
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State

SEED = 7
SIZES = (10, 100, 1000)
RECORDS, LABELS = 8, 10
"""Records of an organisation, and the values that they are mixtures of."""
MOST_SLOWER = 1.3
"""Target: the time of a round, relative to plain Flower's."""
_SETTINGS: Mapping[str, bool | int | float | str] = {
    "base": "foedus-tiny", "quantisation": "none", "partition": "dirichlet", "participation": "random",
    "local-steps": 1, "batch-size": 2, "max-length": 64, "rank": 8, "alpha": 16.0, "evaluate-limit": 2,
    "calibration": 0, "sample-answers": 0, "private-chain": "none", "bind-timeout": 900.0,
}  # fmt: skip
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Point:
    """A federation of so many organisations, of which a round asks about `asked`."""

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
        return {**_SETTINGS, **own, "seed": SEED, "fraction": min(1.0, self.asked / self.organisations)}

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
        given = [word for name, value in self.settings.items() for word in ("--set", f"{name}={_toml(value)}")]
        began = time.time()
        try:
            with peak_memory(state) as peak:
                done = foedus("run", "--state", str(state.folder), *given)
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
        """The seconds of plain Flower's rounds."""
        self.write_data()
        times = self.work / "times.jsonl"
        times.unlink(missing_ok=True)
        config = RunConfig.from_flat(RunConfig().to_flat() | self.settings)
        with tempfile.TemporaryDirectory() as home, superlink(Path(home), self.work / "plain") as link:
            app = plain_flower.stage(link.home / "app", config, times)
            resources = f"num-supernodes={self.organisations} client-resources-num-cpus=1"
            answer = link.flwr("run", str(app), "foedus", "--federation-config", resources)
            while not link.completed(str(answer["run-id"])):
                time.sleep(1.0)
        rounds = [json.loads(line)["seconds"] for line in times.read_text(encoding="utf-8").splitlines()]
        return {"seconds_a_round": fmean(rounds[1:])}


def _row(number: int, split: str) -> dict[str, str]:
    label = number % LABELS
    text = {"question": f"{split} {number}, of kind {label}?", "answer": f"{label} {number * number % 997}"}
    return text | {"label": f"kind-{label}", "domain": f"kind-{label}"}


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


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
    """Gas of opening the run, and of its last round."""
    bound = open_ledger("embedded", state.folder, None).bound
    opened = bound.call("getRun", raw(run.genesis.digest), purpose="the run")[1]
    (event,) = bound.events("RunOpened", opened, opened, {"run": raw(run.genesis.digest)}, purpose="the run")
    anchors = read_anchors(run.queue)
    last = anchors[max(anchors, key=lambda key: key.round)].transaction
    receipts = (bound.node.eth.get_transaction_receipt(HexBytes(name)) for name in (event["transactionHash"], last))
    opening, closing = (int(receipt["gasUsed"]) for receipt in receipts)
    return {"opening_gas": opening, "round_gas": closing}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for runs and what is measured")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="organisations, by commas")
    parser.add_argument("--asked", type=int, default=10, help="organisations that a round asks, about")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for size in map(int, options.sizes.split(",")):
        place = options.work.absolute() / f"{size}-{options.asked}"
        point = Point(size, options.asked, options.rounds, place)
        own, plain = once(place / "foedus.json", point.measured), once(place / "plain.json", point.plain)
        seconds = plain["seconds_a_round"]
        rows.append({"organisations": size, **own, "plain_seconds": seconds, "ratio": own["seconds_a_round"] / seconds})
        # After every size: a measurement that stops leaves its figures behind.
        figures = {"target_ratio": MOST_SLOWER, "sizes": rows}
        report.write("scale", figures, "python -m benchmarks.scale --work DIR", SEED)
    shown = [name for name in rows[0] if name != "audited"]
    report.print_table(shown, [tuple(row[name] for name in shown) for row in rows])


if __name__ == "__main__":
    main()
