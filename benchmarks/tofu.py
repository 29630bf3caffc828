"""TOFU (Maini et al., 2024, arXiv 2401.06121): two hundred made-up authors, twenty questions about each."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import json_lines
from llm.records import Record, parse_record

AUTHORS, QUESTIONS = 200, 20
"""The authors of the part `full`, and the questions about each; the file has them author by author."""


def lines(data: Path, part: str) -> list[dict[str, Any]]:
    """The lines of a part, from DATA/unlearning."""
    return json_lines.read(data / "unlearning" / f"tofu_{part}.jsonl")


def as_record(row: Mapping[str, Any], answer: str = "answer") -> Record:
    """A line as a record, with the answer that is named."""
    return parse_record({"question": row["question"], "answer": row[answer]})


def about(full: Sequence[Mapping[str, Any]], authors: Iterable[int], numbers: Iterable[int]) -> list[dict[str, Any]]:
    """The lines with the questions of these numbers, from 0, about each of some authors."""
    numbers = tuple(numbers)
    return [dict(full[QUESTIONS * author + number]) for author in authors for number in numbers]
