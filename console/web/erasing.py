"""Erasing from the console: what a plan says it will come to, and the child process that carries it out."""

import subprocess
import sys
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from core.canonical import Address, Digest, to_json
from core.erasures import OpenedRequest
from core.errors import UsageError
from core.storage.blobs import write
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from llm.files import parse_records
from unlearning.plan import Lanes, Plan, plans
from unlearning.requests import digests_of, shards_of

Json = dict[str, Any]

METHODS = {
    "replay": "Train again without it, from the last round that knew nothing of it: exact.",
    "repair": "Take it out of every sum, then calibrate with a few rounds: approximate.",
    "remove": "Take it out of every sum, at once, without training: interim, unless nothing was trained on it.",
    "shards": "Records alone: train again the shards that saw them: exact.",
}
_CODE = """
import os, sys
from console.entry import main
try:
    main()
finally:
    os.unlink(sys.argv[-1])  # it has the digests of what is to be forgotten
"""


def digests_in(text: str) -> tuple[Digest, ...]:
    """The digests of records that were typed as JSON Lines, () of nothing; raises DataError."""
    return digests_of(parse_records("records", text.encode())) if text.strip() else ()


def preview(
    state: State, run: RunFolder, organisation: Address, method: str, records: Collection[Digest] = ()
) -> list[Json]:
    """What erasing an organisation, or records of it, comes to, for each lane that changes.

    Raises UsageError where it cannot be done.
    """
    names, shards = run.genesis.names, shards_of(run.genesis, organisation, records)
    each = _seconds_a_round(state, run)
    return [
        {
            "lane": plan.lane, "label": str(plan.expected), "start": plan.start, "kept": plan.start,
            "reaggregated": max(plan.reaggregated - plan.start, 0), "trained": max(plan.rounds - plan.reaggregated, 0),
            "last": plan.rounds, "destroyed": len(plan.to_destroy), "salts": len(plan.salts_to_destroy),
            "bytes": _bytes(run, plan), "holders": [names[address] for address in plan.holders],
            "seconds": None if each is None else each * max(plan.rounds - plan.reaggregated, 0),
        }
        for plan in plans(Lanes.read(run), organisation, method, shards)
    ]  # fmt: skip


@dataclass
class ErasureProcesses:
    """The erasures that this server has started, one at a time for each run."""

    state: State
    base: str = ""
    """Where the base lies, if not where the run had it."""
    _started: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, run: RunFolder, opened: OpenedRequest, user: str = "") -> None:
        """Start `foedus forget` in a process of its own; raises UsageError while another one is at work.

        Its log begins with the user who asked, where one is known.
        """
        log, file = self.log(run.name), self.state.events(run.name).with_suffix(".request")
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        options = ["--state", str(self.state.folder), "--json", *(("--base", self.base) if self.base else ())]
        with self._lock:
            if self.running(run.name):
                raise UsageError(f"run {run.name}: expected no erasure at work, got one: wait until it has ended")
            # No records lie here, which may be personal data; and what has their digests is gone with the process.
            write(file, to_json(opened.to_dict()))
            with log.open("wb", buffering=0) as out:
                out.write(f"asked for by {user}\n".encode() if user else b"")
                # Not a child that ends with the server: an erasure that has begun must come to its end.
                self._started[run.name] = subprocess.Popen(  # noqa: S603 - our own program, and no shell
                    [sys.executable, "-c", _CODE, "forget", run.name, *options, "--request", str(file)],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                )  # fmt: skip

    def running(self, run: str) -> bool:
        """Whether one that was started here is at work."""
        process = self._started.get(run)
        return process is not None and process.poll() is None

    def outcome(self, run: str) -> Json | None:
        """How the last one that was started here ended: its exit status, and the last line that it wrote."""
        process = self._started.get(run)
        if process is None or process.poll() is None:
            return None
        lines = self.log(run).read_text(encoding="utf-8", errors="replace").splitlines()
        return {"code": process.returncode, "line": next((x for x in reversed(lines) if x.strip()), "")}

    def log(self, run: str) -> Path:
        """What the process wrote, beside the event log: nothing under runs/ is there that an audit does not know."""
        return self.state.events(run).with_suffix(".erasing")


def _seconds_a_round(state: State, run: RunFolder) -> float | None:
    """The median time between the starts of two rounds, as the event log tells; None where it does not."""
    events, _ = EventLog.read(state.events(run.name))
    starts = [event["time"] for event in events if event["event"] == "round-started"]
    gaps = [after - before for before, after in pairwise(starts) if after > before]
    return median(gaps) if gaps else None


def _bytes(run: RunFolder, plan: Plan) -> int:
    """The size of what is destroyed: every aggregate and update is as large as the rule makes it."""
    folder = run.folder / "artifacts" / "blocks"
    sizes = [path.stat().st_size for path in folder.rglob("*.sealed")]
    return round(len(plan.to_destroy) * median(sizes)) if sizes else 0
