"""Time of `foedus verify` over 100 rounds of 16 organisations with updates of 0.5 MB, on the embedded chain.

The run is built as the tests build theirs (real keys, manifests, rules, records and ledger, but no training), is
audited in a fresh process, as by a user, and must pass. The time includes opening the ledger; the files are in the
page cache.

    python -m benchmarks.audit [--rounds 100] [--organisations 16] [--rule frozen-a] [--folder DIR]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import report
from chain.audit.run import verify_on_chain
from chain.ledger import open_ledger
from chain.nodes import embedded_service
from core.lora import Layout
from core.storage.state_folder import State
from tests.behaviours.runs import COORDINATOR, SEED, build

LAYOUT = Layout.of({f"layers.{i}.down_proj": (256, 1024) for i in range(16)}, rank=8)
LIMIT_SECONDS = 60.0


def main() -> None:
    """Build, audit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--organisations", type=int, default=16)
    parser.add_argument("--rule", default="frozen-a")
    parser.add_argument("--folder", type=Path)
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
    """Make a run and audit it in a process of its own."""
    ledger = open_ledger("embedded", folder, COORDINATOR)
    try:
        federation = build(
            folder / "runs" / "run",
            rounds=rounds,
            organisations=organisations,
            rule=rule,
            ledger=ledger,
            layout=LAYOUT,
        )
        # A process that has built the run would find its ledger and modules warm.
        command = [sys.executable, "-m", "benchmarks.audit", "--audit", str(folder)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    finally:
        embedded_service(folder).stop()
    audited: dict[str, Any] = json.loads(done.stdout)
    update_mb = federation.update(0, federation.names(0)[0]).nbytes / 1e6
    shape = {"rounds": rounds, "organisations": organisations, "rule": rule, "update_mb": update_mb}
    return {**shape, **audited, "limit_seconds": LIMIT_SECONDS}


def audit(folder: Path) -> dict[str, Any]:
    """The figures of one audit; ends the process when the run does not pass."""
    started, used = time.perf_counter(), time.process_time()
    found = verify_on_chain(State(folder).existing(), "embedded", folder)
    figures = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - used}
    if not found.ok:
        raise SystemExit(str(found.failures[0]))
    return figures | {"recomputed": found.recomputed, "files": found.checked["files"]}


if __name__ == "__main__":
    main()
