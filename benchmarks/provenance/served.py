"""Attributes real responses on a run that was trained with `foedus run` and has not seen them.

    python -m benchmarks.provenance.served --state STATE --data DATA --work WORK [--limit 50]

The first records of every organisation's DATA/NAME/dev.jsonl, and of its domain of DATA/validation.jsonl, each with its
own answer, are attributed as by `foedus attribute --prompt --response`. The scores lie in WORK, in files like those of
`python -m benchmarks.provenance`: calibration is fitted on the validation records (seed 0) and measured on the others
(seed 1).
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import arguments
from benchmarks.provenance.measure import FAST, attributed, save
from core.adapter import AdapterState
from core.canonical import Address
from core.errors import UsageError
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from llm.batches import encode
from llm.files import read_records
from llm.records import Record
from provenance import served
from provenance.attribution import METHODS, without_end
from provenance.method import Subject

PARTS = ("validation", "dev")
"""The shared validation set, and each organisation's held-out records."""
_UNCUT = 2**31


def main() -> None:
    """Read the command line, attribute, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True, help="state folder of the newest run")
    parser.add_argument("--data", type=arguments.folder, required=True, help="the folder that it was trained on")
    parser.add_argument("--work", type=arguments.output, required=True, help="folder for the scores")
    parser.add_argument("--limit", type=arguments.count(), default=50, help="records of each organisation")
    options = parser.parse_args()
    run = State(options.state).existing()
    base = Path(run.genesis.base.name).name
    found = asked(run, options.data, options.limit, FAST)
    for seed, part in enumerate(PARTS):
        rows = [row for row in found if row["kind"] == part]
        where = {"experiment": "served", "base": base, "domain": "", "seed": seed}
        save({**where, "rows": rows}, options.work / f"served-{base}-{part}-{seed}.pt")


def asked(run: RunFolder, data: Path, limit: int, methods: Sequence[str]) -> list[dict[str, Any]]:
    """What methods say of the first records of each part of the data, with their own answers: a row for each record."""
    subject, names = served.subject(run), run.genesis.names
    if not isinstance(subject, Subject) or not isinstance(subject.adapter, AdapterState):
        raise UsageError(f"expected a run that serves one sum, got composition {run.genesis.composition}")
    subject.model.set_adapter(subject.adapter)
    rows = []
    for part in PARTS:
        for organisation, record in _records(data, part, sorted(names.items()), limit):
            # Whole, as by the command: rows are cut in training only.
            example = without_end(subject.model, encode(subject.model.tokenizer, record, _UNCUT))
            scores = attributed(subject, example, {name: METHODS[name].score for name in methods})
            rows.append({"round": 0, "right": [organisation], "kind": part, "marked": (), **scores})
    return rows


def _records(
    data: Path, part: str, names: Sequence[tuple[Address, str]], limit: int
) -> Iterator[tuple[Address, Record]]:
    """The first records of each organisation's dev set, or of its domain in the shared validation set."""
    for organisation, name in names:
        if part == "dev":
            found = iter(read_records(data / name / "dev.jsonl"))
        else:
            found = (record for record in read_records(data / "validation.jsonl") if record.domain == name)
        yield from ((organisation, record) for record in islice(found, limit))


if __name__ == "__main__":
    main()
