"""A hostile reply of 10 MB is refused, and reading it takes next to no memory; `benchmarks.replies` has the times."""

import tracemalloc

import pytest

from benchmarks.replies import REPLIES, outcome

MOST_BYTES = 30 * 2**20
OUTCOMES = {
    "an update that is admitted": "admitted",
    "an update with one NaN, its last": "not-finite",
    "an update of another digest": "digest-mismatch",
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_of_ten_megabytes_costs_little_memory_to_read(name: str) -> None:
    make, parse = REPLIES[name]
    content = make()
    tracemalloc.start()
    try:
        assert outcome(content, parse) == OUTCOMES.get(name, "malformed")
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
