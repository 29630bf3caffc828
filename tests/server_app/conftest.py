import os
from pathlib import Path

import pytest

from tests.commands import make_base, make_data
from tests.server_app.worlds import World, make_world


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Federations here write hundreds of files; that writes are durable is a claim of tests/core/storage."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "organisations")


@pytest.fixture
def world(tmp_path: Path, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(tmp_path / "state", base, data, monkeypatch)
