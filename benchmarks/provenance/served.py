"""Asks a run that was trained with `foedus run` who taught real responses that it has not seen.

    python -m benchmarks.provenance.served --state STATE --data DATA --work WORK [--limit 50]

The first records of every organisation's DATA/NAME/dev.jsonl, and of its domain of DATA/validation.jsonl, each with its
own answer, are asked about as `foedus attribute --prompt --response` does. What is found lies in WORK, in files like
those of `python -m benchmarks.provenance`: calibration is fitted on the validation records (seed 0) and measured on the
others (seed 1).
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.provenance.measure import FAST, ask, save
from benchmarks.provenance.tasks import unended
from core.adapter import AdapterState
from core.storage.state_folder import State
from llm.records import Record, read_records
from provenance.attribution import METHODS
from provenance.method import Subject
from provenance.served import subject as subject_of

_UNCUT = 2**31


def main() -> None:
    """Read the command line, ask, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True, help="state folder of the newest run")
    parser.add_argument("--data", type=Path, required=True, help="the folder that it was trained on")
    parser.add_argument("--work", type=Path, required=True, help="folder for what was measured")
    parser.add_argument("--limit", type=int, default=50, help="records of each organisation")
    options = parser.parse_args()
    run = State(options.state).existing()
    subject, names = subject_of(run), run.genesis.names
    if not isinstance(subject, Subject) or not isinstance(subject.adapter, AdapterState):
        parser.error("a run that serves one sum is wanted")
    subject.model.set_adapter(subject.adapter)
    base = Path(run.genesis.base.name).name
    for seed, part in enumerate(("validation", "dev")):
        rows = list(_rows(subject, part, _records(options.data, part, sorted(names.items()), options.limit)))
        where = {"experiment": "served", "base": base, "domain": "", "seed": seed}
        save({**where, "rows": rows}, options.work / f"served-{base}-{part}-{seed}.pt")


def _records(data: Path, part: str, names: Sequence[tuple[Any, str]], limit: int) -> Iterator[tuple[Any, Record]]:
    for organisation, name in names:
        if part == "dev":
            found = iter(read_records(data / name / "dev.jsonl"))
        else:
            found = (record for record in read_records(data / "validation.jsonl") if record.domain == name)
        yield from ((organisation, record) for record in islice(found, limit))


def _rows(subject: Subject, part: str, asked: Iterator[tuple[Any, Record]]) -> Iterator[dict[str, Any]]:
    for organisation, record in asked:
        found = ask(subject, unended(subject.model, record, _UNCUT), {name: METHODS[name].score for name in FAST})
        yield {"round": 0, "right": [organisation], "kind": part, "marked": (), **found}


if __name__ == "__main__":
    main()
