from collections.abc import Iterator
from pathlib import Path

import pytest
from web3 import Web3

from chain.contract import BoundContract
from chain.devnet.anvil import binary
from chain.nodes import anvil_service, embedded_service
from core.errors import UsageError
from tests.behaviours.runs import COORDINATOR
from tests.chain.in_process import deployed, node_on


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose chains end with the test."""
    yield tmp_path
    embedded_service(tmp_path).stop()
    anvil_service(tmp_path).stop()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Web3:
    """A node in this process, with a public chain."""
    return node_on(tmp_path_factory.mktemp("public"))


@pytest.fixture(scope="module")
def public(node: Web3) -> BoundContract:
    """The public contract, with the key of its coordinator; every test opens a run of its own."""
    return deployed(node, "PublicLedger", COORDINATOR)


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> BoundContract:
    """The private contract on a chain of its own, with the key of its coordinator."""
    return deployed(node_on(tmp_path_factory.mktemp("private"), "private"), "PrivateLedger", COORDINATOR)


@pytest.fixture
def needs_anvil() -> None:
    try:
        binary()
    except UsageError as error:
        pytest.skip(str(error))
