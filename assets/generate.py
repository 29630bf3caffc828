"""Writes the embedded sample data: four organisations with different knowledge, and the shared validation set.

    python -m assets.generate --seed 7 --out assets/samples

Decisions:

- Few and short facts, each asked in three wordings: a small model learns them within minutes, and an answer is right or
  wrong at a glance. An organisation has 16, four of each of its four kinds; every entity has one.
- Dev asks each fact in a fourth wording, with the same answer: it measures what was learnt, not verbatim memory.
- The seed chooses the order of training and the wordings of the shared validation set. The committed files are those of
  seed 7, to the byte.
- Names and facts are invented, or cannot be guessed. No organisation shares one with another, with the validation set,
  or with the text that the embedded base model was trained on: each fact has one source.
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


def generate(out: Path, seed: int = SEED) -> None:
    """Write NAME/train.jsonl and NAME/dev.jsonl for every organisation, and validation.jsonl, under `out`."""
    validation: list[SampleRecord] = []
    for organisation in ORGANISATIONS:
        # One generator an organisation: editing one leaves the files of the others alone.
        rng = seeded(f"{seed} {organisation.name}")
        train = organisation.train()
        rng.shuffle(train)
        _write(out / organisation.name / "train.jsonl", train)
        _write(out / organisation.name / "dev.jsonl", organisation.dev())
        validation += organisation.validation(rng)
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
