"""Which of somebody's own records taught an answer, as JSON and as a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import RenderableType

from console.views.tables import table
from core.storage.run_folder import RunFolder
from llm.files import read_records
from llm.records import Record
from provenance.records import check_one_answers, scores_of_records
from provenance.trace import TokenTrace

FIRST = 3
"""Records that are named for each token, and for the answer."""
_LONGEST = 60
"""Characters of a record's answer in the table."""


def own_records(run: RunFolder, file: Path) -> tuple[Record, ...]:
    """The records of a file; raises UsageError where what the run serves has no scores for records."""
    check_one_answers(run)  # before the answer, which may take a minute
    return read_records(file)


def by_records(
    run: RunFolder, trace: TokenTrace, records: Sequence[Record], base: str
) -> tuple[dict[str, Any], tuple[RenderableType, ...]]:
    """The records that taught a trace's answer, as JSON and as lines for people; raises what scoring them raises."""
    scores = scores_of_records(run, trace, records, base)
    return to_dict(trace, records, scores), ("", table_of(trace, records, scores))


def to_dict(trace: TokenTrace, records: Sequence[Record], scores: torch.Tensor) -> dict[str, Any]:
    """The first records for the answer, and for each token, with their place and score; `scores` (T, N)."""

    def first(of: torch.Tensor) -> list[dict[str, Any]]:
        return [{"where": records[index].where, "score": float(of[index])} for index in _order(of)[:FIRST]]

    tokens = [{"text": token.text, "records": first(row)} for token, row in zip(trace.tokens, scores, strict=True)]
    return {"records": {"count": len(records), "response": first(scores.sum(0)), "tokens": tokens}}


def table_of(trace: TokenTrace, records: Sequence[Record], scores: torch.Tensor) -> RenderableType:
    """A row for each record that is the first of a token, in order of the answer."""
    tokens: dict[int, list[str]] = {}
    for token, row in zip(trace.tokens, scores, strict=True):
        tokens.setdefault(_order(row)[0], []).append(token.text)
    rows = [
        (records[index].where, "".join(texts).strip(), records[index].answer[:_LONGEST])
        for index, texts in tokens.items()
    ]
    title = f"The first of your {len(records)} records for each token"
    return table(title, ("record", "tokens", "its answer"), rows)


def _order(scores: torch.Tensor) -> list[int]:
    found: list[int] = torch.argsort(scores, descending=True, stable=True).tolist()
    return found
