"""Whole federations in one process: the real ServerApp and ClientApp, a small random model, a ledger in memory."""

import copy
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
from flwr.clientapp import ClientApp

from client_app.app import app as client
from console.backends.inline import run_inline
from core.config import RunConfig
from core.ledger import MemoryLedger
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from server_app.app import app as server

SETTINGS = {
    "rank": 2,
    "alpha": 4.0,
    "rounds": 2,
    "participation": "all",
    "local-steps": 2,
    "batch-size": 1,
    "max-length": 48,
    "evaluate-limit": 2,
    "calibration": 0,
    "sample-answers": 0,
    "private-chain": "none",
}


class World:
    """Runs in one state folder on one ledger."""

    def __init__(self, state: Path, base: Path, data: Path, ledger: MemoryLedger) -> None:
        self.state, self.ledger = State(state), ledger
        places = {"base": str(base), "data": str(data), "state": str(state), "quantisation": "none"}
        self.settings = RunConfig().to_flat() | SETTINGS | places

    def run(self, name: str, through: Any = client, nodes: int = 2, **changes: Any) -> RunFolder:
        run_inline(server, cast(ClientApp, through), nodes, self.settings | {"run": name} | changes)
        return self.state.run(name)

    def events(self, name: str, kind: str) -> list[dict[str, Any]]:
        return [event for event in EventLog.read(self.state.events(name))[0] if event["event"] == kind]

    def take_over(self, other: "World") -> None:
        """Become a copy of another world, which stays as it is; the own state folder is not made yet."""
        shutil.copytree(other.state.folder, self.state.folder)
        self.ledger.__dict__.update(copy.deepcopy(vars(other.ledger)))


def make_world(state: Path, base: Path, data: Path, patch: pytest.MonkeyPatch) -> World:
    """A world whose coordinator and organisations share a ledger of their own."""
    ledger = MemoryLedger()
    patch.setattr("server_app.chains.open_ledger", lambda chain, state, key: ledger)
    patch.setattr("client_app.oversight._ledger", lambda chain, state, contract: ledger)
    return World(state, base, data, ledger)
