"""A survey sends nothing and needs no key; tests/console/deployments/test_chain_checks.py has it at a chain."""

import pytest

from chain.survey import Survey
from core.errors import LedgerUnreachableError, UsageError
from tests import federation as f


def test_a_chain_that_does_not_answer_is_named() -> None:
    with pytest.raises(LedgerUnreachableError, match=r"127\.0\.0\.1:9"):
        _ = Survey("http://127.0.0.1:9", f.CHAIN.contract).chain_id
    with pytest.raises(UsageError, match="expected chain embedded, anvil or an http"):
        _ = Survey("embedded", f.CHAIN.contract).time
