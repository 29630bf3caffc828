"""A coordinator as its operator watches it: the SuperLink, the newest run, its anchors, the chain, the certificate."""

import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Self

from cryptography import x509

from chain.balance import asked, balance
from chain.queue import read_anchors
from console.backends.deployment import answers
from console.deployments.federation_folder import FederationFolder
from console.monitoring.server import HealthReport
from console.options import command_for, resume_command
from console.views.progress import Event
from console.views.watch import standing
from core.canonical import Address, from_json
from core.deployment import CoordinatorSettings
from core.escape import redacted
from core.round_key import RoundKey
from core.rounds import RoundRecord
from core.signed import Signed
from core.storage.events import EventLog
from core.storage.lock import is_held
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State

LONGEST_UNANCHORED = 600.0
"""Seconds after which a round without an anchor is a problem."""
CONDITIONS = ("running", "stalled", "dead", "completed", "failed")


@dataclass(frozen=True)
class ClosedRound:
    """What is watched of a record, which stays as it is."""

    key: RoundKey
    closed: float
    """In seconds since the epoch."""
    outcomes: tuple[tuple[Address, str], ...]
    """Who was admitted, rejected or late."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a record's file."""
        record = Signed.parse(RoundRecord, from_json(path.read_bytes())).value
        outcomes = [(one.organisation, "admitted") for one in record.admitted]
        outcomes += [(one.organisation, "rejected") for one in record.rejected]
        outcomes += [(organisation, "late") for organisation in record.late]
        return cls(record.key, path.stat().st_mtime, tuple(outcomes))


class RunReader:
    """The newest run of a state folder, which is read on from where it was read last."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.run: RunFolder | None = None
        self._begin()

    def _begin(self) -> None:
        self.rounds: dict[Path, ClosedRound] = {}
        self.losses: dict[Address, dict[str, float]] = {}
        self.last = 0
        """The number of the last round."""
        self._events: list[Event] = []
        self._offset = 0

    def read(self) -> RunFolder | None:
        """Read what is new, and return the run; None while there is none."""
        runs = self.state.runs()
        if runs and (self.run is None or self.run.name != runs[-1].name):
            self._begin()
            self.run = self.state.run(runs[-1].name)
        if self.run:
            self.read_events(self.run.name)
            paths = sorted((self.run.folder / "records").glob("L*.json"))
            self.rounds |= {path: ClosedRound.read(path) for path in paths if path not in self.rounds}
        return self.run

    def read_events(self, run: str) -> None:
        """Read the events that are new."""
        new, self._offset = EventLog.read(self.state.events(run), self._offset)
        for event in new:
            # The rest may be large, and a run goes on for months.
            self._events.append({"event": event["event"], "time": event["time"]})
            self.losses = event["losses"] if event["event"] == "evaluated" else self.losses
            self.last = event["rounds"] if event["event"] == "round-started" else self.last

    @property
    def condition(self) -> str:
        """Running, stalled, dead, completed or failed."""
        written = self.run is not None and is_held(self.state.lock(self.run.name))
        return standing(self._events, written, time.time())

    def unanchored(self) -> list[float]:
        """When the rounds closed that have no anchor yet."""
        anchors = read_anchors(self.run.queue) if self.run else {}
        rounds = (r for r in self.rounds.values() if any(how == "admitted" for _, how in r.outcomes))
        return sorted(one.closed for one in rounds if one.key not in anchors)


@dataclass(frozen=True)
class CoordinatorMonitor:
    """A coordinator whose SuperLink `foedus coordinator` has started; without a federation.toml it has no runs."""

    settings: CoordinatorSettings
    superlink: "subprocess.Popen[bytes]"
    certificate: Path
    """Of the SuperLink itself."""

    def look(self) -> HealthReport:
        """See `Monitored.look`."""
        found = HealthReport()
        up = self.superlink.poll() is None and answers(self.settings.control_port, self.certificate)
        if not up:
            found.problems.append(f"the SuperLink does not answer on 127.0.0.1:{self.settings.control_port}")
        found.gauge("foedus_coordinator_info", "Which version this is.", [({"version": version("foedus")}, 1)])
        found.gauge("foedus_coordinator_superlink_up", "Whether the SuperLink answers.", [({}, up)])
        admitted = len(list(self.settings.nodes.glob("*.pub")))
        found.gauge("foedus_coordinator_admitted_nodes", "Node keys that are admitted.", [({}, admitted)])
        found.disk("foedus_coordinator_disk_free_bytes", self.settings.state)
        self.look_at_certificate(found)
        if self._runs:
            with found.reading("the newest run"):
                if run := self._runs.read():
                    self.look_at_run(found, run, self._runs)
            with found.reading("the federation's chain"):
                self.look_at_chain(found, self._runs.run)
        return found

    @cached_property
    def _runs(self) -> RunReader | None:
        federation = FederationFolder(self.settings.folder)
        return RunReader(State(federation.state)) if (federation.folder / "federation.toml").is_file() else None

    def look_at_certificate(self, found: HealthReport) -> None:
        """Until when nodes take the certificate."""
        with suppress(OSError, ValueError):
            certificate = x509.load_pem_x509_certificate(self.settings.certificate.read_bytes())
            until = certificate.not_valid_after_utc.timestamp()
            name = "foedus_coordinator_certificate_expiry_timestamp_seconds"
            found.gauge(name, "Until when nodes take the certificate.", [({}, until)])
            if until < time.time():
                found.problems.append(f"{self.settings.certificate} has expired: foedus deploy init makes another")

    def look_at_run(self, found: HealthReport, run: RunFolder, read: RunReader) -> None:
        """How the newest run stands, as it was read."""
        now, names, condition, state = time.time(), run.genesis.names, read.condition, read.state
        newest = max(read.rounds.values(), key=lambda one: one.closed, default=None)
        closed, waiting = newest.closed if newest else None, read.unanchored()
        if condition in ("stalled", "dead"):
            dead = condition == "dead"
            remedy = resume_command(state, run.name) if dead else command_for("status --watch", state, run.name)
            found.problems.append(f"run {run.name} is {condition}: {remedy}")
        if waiting and now - waiting[0] > LONGEST_UNANCHORED:
            found.problems.append(f"{len(waiting)} rounds have no anchor, the oldest for {now - waiting[0]:.0f} s")
        found.facts.update(run=run.name, condition=condition, anchors_pending=len(waiting))
        found.facts["last_round_seconds"] = None if closed is None else round(now - closed, 1)
        conditions = [({"condition": name}, float(name == condition)) for name in CONDITIONS]
        found.gauge("foedus_run_condition", "How the newest run stands.", conditions)
        found.gauge("foedus_run_round", "The last closed round.", [({}, newest.key.round if newest else 0)])
        found.gauge("foedus_run_rounds", "The number of the last round.", [({}, read.last)])
        found.gauge("foedus_run_started_timestamp_seconds", "When it was founded.", [({}, run.started_at)])
        found.gauge("foedus_run_last_round_timestamp_seconds", "When the last round closed.", [({}, closed)])
        found.gauge("foedus_run_anchors_pending", "Rounds that have no anchor.", [({}, len(waiting))])
        outcomes = Counter(outcome for one in read.rounds.values() for outcome in one.outcomes)
        counted = [({"organisation": names.get(o, o), "outcome": how}, n) for (o, how), n in sorted(outcomes.items())]
        found.gauge("foedus_run_updates", "What became of an organisation's updates.", counted)
        losses = [({"organisation": names.get(o, o)}, of["global"]) for o, of in sorted(read.losses.items())]
        found.gauge("foedus_run_loss", "Loss of what is served, in nats per answer token.", losses)

    def look_at_chain(self, found: HealthReport, run: RunFolder | None) -> None:
        """A chain behind a URL; one of this machine is started when it is needed."""
        if "://" not in (url := FederationFolder(self.settings.folder).settings.chain):
            return
        up = asked(url, "eth_chainId") is not None
        found.gauge("foedus_chain_up", "Whether the chain answers.", [({}, up)])
        if not up:
            found.problems.append(f"the chain {redacted(url)} does not answer")
        elif run and (ether := balance(url, run.genesis.signing(run.genesis.coordinator))) is not None:
            found.gauge("foedus_chain_balance_ether", "What the coordinator's account holds.", [({}, ether)])
