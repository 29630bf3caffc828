import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Federations here write hundreds of files; that writes are durable is a claim of tests/core/test_store.py."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
