"""Every row of the threat model names a test that exists, or says that it is not defended."""

import re
from pathlib import Path

import pytest

from core.rejections import Reason

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "concepts" / "threat-model.md").read_text(encoding="utf-8")
ROWS = [row for table in re.findall(r"\| att\w+ \|.*\n\|---.*\n((?:\|.*\n)+)", PAGE) for row in table.splitlines()]
"""Those of the tables of attacks and attempts."""
TESTED = re.compile(r"\*(audit|check|witness)\*|" + "|".join(rf"\b{reason}\b" for reason in Reason.__members__))
"""What the page's first section names the tests of, once for all rows."""
UNDEFENDED = re.compile(r"\*\*(not |trusts |indistinguishable)")
NAMED = re.compile(r"`(tests/(?:[\w/]+/)?test_\w+\.py|\w+\.t\.sol|tests/[\w/]+)`")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:50])
def test_a_row_names_a_test_or_says_that_it_is_not_defended(row: str) -> None:
    assert NAMED.search(row) or TESTED.search(row) or UNDEFENDED.search(row)


@pytest.mark.parametrize("name", sorted(set(NAMED.findall(PAGE))))
def test_a_test_that_the_page_names_exists(name: str) -> None:
    folder = ROOT / "chain" / "contracts" / "test" if name.endswith(".sol") else ROOT
    assert (folder / name).exists()


def test_the_page_has_its_rows() -> None:
    assert len(ROWS) > 100
