from collections.abc import Iterator
from pathlib import Path

import pytest

from chain.devnet.anvil import binary
from chain.nodes import anvil_service, embedded_service
from core.errors import UsageError


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose chains end with the test."""
    yield tmp_path
    embedded_service(tmp_path).stop()
    anvil_service(tmp_path).stop()


@pytest.fixture
def needs_anvil() -> None:
    try:
        binary()
    except UsageError as error:
        pytest.skip(str(error))
