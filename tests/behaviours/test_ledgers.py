"""The claims of tests/behaviours/ledger.py on chains; tests/core/test_ledger.py has them on the ledger in memory."""

from collections.abc import Iterator

import pytest

from chain.devnet.anvil import binary
from chain.ledger import EthereumLedger, open_ledger
from chain.nodes import anvil_service, embedded_service
from core.errors import UsageError
from core.keys import derive
from core.ledger import Ledger
from tests.behaviours.ledger import LedgerClaims

COORDINATOR = derive(1, "coordinator")


@pytest.fixture(scope="module")
def embedded_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EthereumLedger]:
    state = tmp_path_factory.mktemp("embedded")
    yield open_ledger("embedded", state, COORDINATOR)
    embedded_service(state).stop()


@pytest.fixture(scope="module")
def anvil_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EthereumLedger]:
    try:
        binary()
    except UsageError as error:
        pytest.skip(str(error))
    state = tmp_path_factory.mktemp("anvil")
    yield open_ledger("anvil", state, COORDINATOR)
    anvil_service(state).stop()


@pytest.mark.chain
class TestEmbeddedLedger(LedgerClaims):
    @pytest.fixture
    def ledger(self, embedded_ledger: EthereumLedger) -> Ledger:
        return embedded_ledger


@pytest.mark.chain
@pytest.mark.slow
class TestAnvilLedger(LedgerClaims):
    @pytest.fixture
    def ledger(self, anvil_ledger: EthereumLedger) -> Ledger:
        return anvil_ledger
