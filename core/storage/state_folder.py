"""Where a state folder keeps what. One folder holds everything of an installation but the keys.

STATE/runs/RUN/          the record: every file in it is covered by `foedus verify`
STATE/events/RUN.jsonl   what happened, for progress bars
STATE/locks/RUN.lock     held by the one writer of a run
STATE/agents/GENESIS/    what the agents of the organisations here have learnt; see agents/notebook.py
STATE/feedback/GENESIS/ what compression left out of their updates so far; see client_app/feedback.py
STATE/witness/GENESIS/   what each organisation remembers of a federation; see client_app/witness.py
STATE/agreed/            what each organisation has agreed to found; see client_app/agreement.py
STATE/forgotten/GENESIS/ records that each organisation has erased; see client_app/erased_records.py
STATE/privacy/GENESIS/   what each organisation has spent of its privacy budget; see client_app/privacy.py
STATE/approvals/         the updates that its people looked at, and held/GENESIS/ those that wait; see
                         client_app/approvals.py
STATE/sent.jsonl         what left the site; see client_app/sent.py
STATE/chain/             the development chains
"""

import os
import secrets
import stat
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from core.canonical import Address, Digest, address, from_json, raw, to_json
from core.config import RunConfig
from core.errors import UsageError
from core.escape import redacted
from core.names import RUN_ID
from core.storage.blobs import write
from core.storage.run_folder import RunFolder


@dataclass(frozen=True)
class State:
    """A state folder."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> Self:
        """The one in a folder, which need not exist; what this process writes from now on is its user's alone.

        Raises UsageError for a folder that other users can write: whoever can put a file there decides what is read.
        """
        os.umask(0o077)
        if folder.exists():
            found = folder.stat()
            mode, strange = stat.S_IMODE(found.st_mode), found.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0
            if mode & 0o022 or strange:
                got = f"one of user {found.st_uid}" if strange else f"mode {mode:04o}"
                raise UsageError(f"state folder {folder}: expected one that you alone can write, got {got}: chmod 700")
        return cls(folder)

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """The one that a run's settings name: `state`, else $FOEDUS_HOME, else .foedus in the home folder."""
        return cls.at(Path(config.state or os.environ.get("FOEDUS_HOME") or Path.home() / ".foedus").resolve())

    def run(self, name: str, config: RunConfig | None = None) -> RunFolder:
        """A run's folder, existing or not, with the store and the coordinator's key of `config` or its saved settings.

        Raises UsageError for a name that cannot be a folder, ConfigError or FormatError for settings that are none.
        """
        if not RUN_ID.fullmatch(name):
            raise UsageError(f"run id: expected up to 64 letters, digits, dots, dashes and underscores, got {name!r}")
        config = config or self._saved(name)
        store = f"{config.store.rstrip('/')}/{name}" if config.store else ""
        key = Path(config.coordinator_key) if config.coordinator_key else None
        return RunFolder(self.folder / "runs" / name, store, key)

    def runs(self) -> list[RunFolder]:
        """All runs that have started, oldest first."""
        found = (RunFolder(path) for path in (self.folder / "runs").glob("*") if path.is_dir())
        return sorted((run for run in found if run.started), key=lambda run: run.started_at)

    def existing(self, name: str = "") -> RunFolder:
        """The run of this name, or the newest; raises UsageError when there is none."""
        if name:
            if not (run := self.run(name)).started:
                raise UsageError(f"expected one of the runs {self._names()} in {self.folder}, got {name!r}")
            return run
        if not (runs := self.runs()):
            raise UsageError(f"no run in {self.folder}: `foedus run` makes one")
        return self.run(runs[-1].name)

    def events(self, run: str) -> Path:
        """The event log of a run."""
        return self.folder / "events" / f"{run}.jsonl"

    def settings(self, run: str) -> Path:
        """What a run was started with."""
        return self.folder / "settings" / f"{run}.json"

    def remember(self, config: RunConfig) -> None:
        """Write down what a run is started with, unless that is known: a run that is resumed begins with it."""
        path = self.settings(config.run)
        # A run that is resumed goes on with its first settings, whatever the caller's are now.
        if not path.exists():
            write(path, to_json(config.to_flat()))

    def change_key(self, run: str, key_file: str, organisations: int) -> None:
        """Have a run gone on with by another key of its coordinator, and so many organisations waited for."""
        saved = self._saved(run)
        changed = replace(saved, coordinator_key=key_file, organisations=saved.organisations or organisations)
        write(self.settings(run), to_json(changed.to_flat()))

    def witness(self, genesis: Digest, organisation: Address) -> Path:
        """What an organisation of this state folder remembers of a federation."""
        return self.folder / "witness" / raw(genesis).hex() / f"{address(organisation)}.jsonl"

    def agreed(self, organisation: Address) -> Path:
        """What an organisation of this state folder has agreed to found."""
        return self.folder / "agreed" / f"{address(organisation)}.jsonl"

    def agreed_genesis(self) -> Path:
        """The folder of the genesis documents that organisations here have agreed to."""
        return self.folder / "agreed"

    @property
    def federations(self) -> Path:
        """The folder of the geneses that a node was shown, by which messages may name them."""
        return self.folder / "federations"

    def forgotten(self, genesis: Digest, organisation: Address) -> Path:
        """The records that an organisation of this state folder has erased from a federation."""
        return self.folder / "forgotten" / raw(genesis).hex() / f"{address(organisation)}.json"

    def privacy(self, genesis: Digest, organisation: Address) -> Path:
        """What an organisation of this state folder has spent of its privacy budget in a federation."""
        return self.folder / "privacy" / raw(genesis).hex() / f"{address(organisation)}.jsonl"

    def approvals(self, organisation: Address) -> Path:
        """Which updates an organisation of this state folder has looked at."""
        return self.folder / "approvals" / f"{address(organisation)}.jsonl"

    def held(self, genesis: Digest, organisation: Address) -> Path:
        """The folder of the updates of an organisation that wait to be looked at."""
        return self.folder / "held" / raw(genesis).hex() / address(organisation)

    @property
    def sent(self) -> Path:
        """What left the site of the organisation that a deployed node speaks for."""
        return self.folder / "sent.jsonl"

    def agent(self, genesis: Digest, organisation: Address) -> Path:
        """What the agent of an organisation of this state folder has saved."""
        return self.folder / "agents" / raw(genesis).hex() / address(organisation)

    def feedback(self, genesis: Digest, organisation: Address, lane: int) -> Path:
        """What was left out of the updates of an organisation of this state folder to a lane."""
        return self.folder / "feedback" / raw(genesis).hex() / address(organisation) / f"L{lane:04}"

    def stores(self) -> list[str]:
        """Where runs keep their artifacts outside this folder, without what is secret in a URL."""
        return sorted({redacted(store) for run in self.runs() if (store := self._saved(run.name).store)})

    def lock(self, run: str) -> Path:
        """The lock of a run's one writer."""
        return self.folder / "locks" / f"{run}.lock"

    def _saved(self, run: str) -> RunConfig:
        path = self.settings(run)
        return RunConfig.from_flat(from_json(path.read_bytes())) if path.exists() else RunConfig()

    def _names(self) -> str:
        return ", ".join(run.name for run in self.runs()) or "none"


def new_run_id() -> str:
    """A run id that sorts by time: 20260131-235959-ab12."""
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(2)
