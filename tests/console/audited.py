"""A finished run as an auditor sees it: a chain, a folder of artifacts, and a key."""

from dataclasses import dataclass
from pathlib import Path

from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from tests.commands import Done, World, foedus


@dataclass(frozen=True)
class Audited:
    """A finished run with an auditor, and what the auditor has of it."""

    world: World
    url: str
    private_url: str
    address: str
    store: Path
    key: Path

    @property
    def run(self) -> RunFolder:
        """The run's own folder, which the auditor does not have."""
        return State(self.world.state).existing()

    def outside(self, *options: object, store: Path | None = None, key: Path | None = None) -> Done:
        """The outsider's audit."""
        given = ("--address", self.address, "--store", store or self.store, "--key", key or self.key)
        return foedus("verify", "--from-chain", self.url, *given, *options, "--json")
