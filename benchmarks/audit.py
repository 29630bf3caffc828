"""Time of `foedus verify` over 1,000 rounds of 16 organisations with updates of 0.5 MB, on the embedded chain.

The run is built as the tests build theirs (real keys, manifests, rules, records and ledger, but no training). After a
quarter of its rounds, and after all, it is audited in a fresh process, as by a user, and must pass. The time includes
opening the ledger and starting the processes that read ahead, whose processor seconds count, too. Files are read from
the page cache where it holds them.

    python -m benchmarks.audit [--rounds 1000] [--organisations 16] [--rule frozen-a] [--folder DIR]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import arguments, report
from chain.audit.reading import spare_processors
from chain.audit.run import verify_on_chain
from chain.ledger import open_ledger
from chain.nodes import embedded_service
from core.lora import Layout
from core.storage.state_folder import State
from tests.behaviours.runs import COORDINATOR, SEED, advance, found

LAYOUT = Layout.of({f"layers.{i}.down_proj": (256, 1024) for i in range(16)}, rank=8)
LIMIT_SECONDS = 60.0


def main() -> None:
    """Build, audit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=arguments.count(), default=1000)
    parser.add_argument("--organisations", type=arguments.count(), default=16)
    parser.add_argument("--rule", default="frozen-a")
    parser.add_argument("--folder", type=Path, help="where the run is built; it is removed at the end")
    parser.add_argument("--audit", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.audit:
        sys.stdout.write(json.dumps(audit(options.audit)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = measure(Path(folder), options.rounds, options.organisations, options.rule)
    report.write("audit", figures, "python -m benchmarks.audit", SEED)
    report.print_table(("figure", "value"), figures.items())


def measure(folder: Path, rounds: int, organisations: int, rule: str) -> dict[str, Any]:
    """Make a run, and audit it after a quarter of its rounds and after all."""
    ledger = open_ledger("embedded", folder, COORDINATOR)
    run = folder / "runs" / "run"
    try:
        federation = found(run, rounds=rounds, organisations=organisations, rule=rule, ledger=ledger, layout=LAYOUT)
        update_mb = federation.update(0, federation.names(0)[0]).nbytes / 1e6
        advance(federation, rounds // 4)
        quarter = _audited(folder)
        advance(federation, rounds)
        every = _audited(folder)
    finally:
        embedded_service(folder).stop()
    growth = every["processor_seconds"] / quarter["processor_seconds"] / (rounds / (rounds // 4))
    shape = {"rounds": rounds, "organisations": organisations, "rule": rule, "update_mb": update_mb}
    return {**shape, **every, "a quarter": quarter, "growth": growth, "limit_seconds": LIMIT_SECONDS}


def _audited(folder: Path) -> dict[str, Any]:
    """The figures of an audit in a process of its own: one that has built the run would find its ledger warm."""
    command = [sys.executable, "-m", "benchmarks.audit", "--audit", str(folder)]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return figures


def audit(folder: Path) -> dict[str, Any]:
    """The figures of one audit; ends the process when the run does not pass."""
    started = time.perf_counter(), _processor_seconds()
    checked = verify_on_chain(State(folder).existing(), "embedded", folder, processes=spare_processors())
    ended = time.perf_counter(), _processor_seconds()
    if not checked.ok:
        raise SystemExit(str(checked.failures[0]))
    seconds, used = (end - start for start, end in zip(started, ended, strict=True))
    found = {"recomputed": checked.recomputed, "files": checked.checked["files"]}
    return {"seconds": seconds, "processor_seconds": used, **found}


def _processor_seconds() -> float:
    """Of this process, and of those that it has started and that have ended."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
