"""Writes the embedded sample data: four organisations with different knowledge, and the shared validation set.

    python -m assets.generate --seed 7 --out assets/samples

Decisions:

- An organisation's knowledge (its entities and their attributes) is fixed by its name; the seed chooses wordings, dev
  facts and order. The committed files are those of seed 7, to the byte.
- Every fact is asked twice in training, in different words, and dev asks some of the same facts in words that training
  never uses: dev measures learning, not verbatim memory.
- Names, figures, operators and functions are invented. No organisation shares one with another, with the validation
  set, or with the text that the embedded base model was trained on: each fact has one source.
- `fact` is the exact part of `output` that only the owner could have taught.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from assets.coding import ORGANISATION as CODING
from assets.financial import ORGANISATION as FINANCIAL
from assets.forms import SampleRecord, seeded
from assets.mathematical import ORGANISATION as MATHEMATICAL
from assets.medical import ORGANISATION as MEDICAL

ORGANISATIONS = (MEDICAL, FINANCIAL, MATHEMATICAL, CODING)
SEED = 7
DEV = 60
VALIDATION = 25


def generate(out: Path, seed: int = SEED) -> None:
    """Write NAME/train.jsonl and NAME/dev.jsonl for every organisation, and validation.jsonl, under `out`."""
    validation: list[SampleRecord] = []
    for organisation in ORGANISATIONS:
        # One generator an organisation: editing one leaves the files of the others alone.
        rng = seeded(f"{seed} {organisation.name}")
        train = organisation.train(rng)
        rng.shuffle(train)
        _write(out / organisation.name / "train.jsonl", train)
        _write(out / organisation.name / "dev.jsonl", organisation.dev(rng, DEV))
        validation += organisation.validation(rng, VALIDATION)
    _write(out / "validation.jsonl", validation)


def _write(path: Path, records: Sequence[SampleRecord]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    # Bytes: a text file would get the line ends of the platform.
    path.write_bytes("".join(lines).encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description="Write the embedded sample data.")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    generate(options.out, options.seed)


if __name__ == "__main__":
    main()
