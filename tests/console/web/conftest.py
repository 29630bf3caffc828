"""One server for the tests that only read."""

from collections.abc import Iterator

import pytest

from tests.commands import World
from tests.console.web.served import Served, serving


@pytest.fixture(scope="session")
def served(finished: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(finished.state, tmp_path_factory.mktemp("token") / "token") as found:
        yield found
