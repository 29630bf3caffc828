"""Which records taught an answer, in JSON and in a table."""

import pytest
import torch
from rich.console import Console

from console.views.teaching import FIRST, table_of, to_dict
from llm.records import Message, Record
from tests.provenance.traces import trace

RECORDS = tuple(
    Record((Message("user", "?"),), f"answer {i} \x1b[31m{'x' * 80}", where=f"data.jsonl:{i + 1}") for i in range(5)
)
TRACE = trace()


@pytest.fixture
def scores() -> torch.Tensor:
    """Every token's first is record 3, but the last's, which is record 1."""
    found = torch.zeros(len(TRACE.tokens), 5, dtype=torch.float64)
    found[:, 3] = 2.0
    found[-1, 1] = 9.0
    return found


def test_json_has_the_first_records_of_the_answer_and_of_each_token(scores: torch.Tensor) -> None:
    found = to_dict(TRACE, RECORDS, scores)["records"]
    assert found["count"] == 5
    assert [token["text"] for token in found["tokens"]] == [token.text for token in TRACE.tokens]
    assert found["tokens"][-1]["records"][0] == {"where": "data.jsonl:2", "score": 9.0}
    assert found["tokens"][0]["records"][0] == {"where": "data.jsonl:4", "score": 2.0}
    assert all(len(token["records"]) == FIRST for token in found["tokens"])
    assert found["response"][0]["score"] == max(scores.sum(0))


def test_the_table_has_a_row_for_each_record_that_is_first_somewhere(scores: torch.Tensor) -> None:
    console = Console(width=200, no_color=True)
    with console.capture() as captured:
        console.print(table_of(TRACE, RECORDS, scores))
    text = captured.get()
    assert text.index("data.jsonl:4") < text.index("data.jsonl:2")
    assert "data.jsonl:1" not in text
    assert "\x1b[31m" not in text
    assert "x" * 80 not in text
