"""Small federations in one process: the real ServerApp and ClientApps, and a ledger in memory."""

import os
from pathlib import Path

import pytest

import server_app.app
from client_app import oversight
from core.ledger import MemoryLedger
from tests.commands import make_base, make_data
from tests.server_app.worlds import World

NAMES = ("coding", "financial", "mathematical", "medical")


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Federations here write hundreds of files; that writes are durable is a claim of tests/core/test_store.py."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "organisations", NAMES)


@pytest.fixture
def world(tmp_path: Path, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(tmp_path / "state", base, data, monkeypatch)


def make_world(state: Path, base: Path, data: Path, patch: pytest.MonkeyPatch) -> World:
    """Four organisations on a ledger of their own."""
    ledger = MemoryLedger()
    patch.setattr(server_app.app, "open_ledger", lambda chain, state, key: ledger)
    patch.setattr(oversight, "_ledger", lambda chain, state, contract: ledger)
    return World(state, base, data, ledger)
