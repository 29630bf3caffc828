"""An HTTP server, on the loopback unless the settings say otherwise, with two pages.

    /metrics    Prometheus' text format
    /health     200, or 503 with the problems, as JSON

Nothing can be changed by it, and nobody is asked who he is: what it shows are names, counts, times and losses.
"""

import json
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from core.errors import FoedusError, UsageError

FRESH_SECONDS = 5.0
"""How long what was found is shown again: asking often must cost nothing."""


@dataclass(frozen=True)
class HealthReport:
    """What a part is like now."""

    metrics: list[Metric] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What is wrong, a sentence each; none where the part is well."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else `/health` says."""

    def gauge(self, name: str, help_: str, values: Iterable[tuple[dict[str, str], float | None]]) -> None:
        """Add a gauge with its labelled values; None is left out, and a gauge without values, too."""
        known = [(labels, value) for labels, value in values if value is not None]
        if known:
            family = GaugeMetricFamily(name, help_, labels=[*known[0][0]])
            for labels, value in known:
                family.add_metric([*labels.values()], value)
            self.metrics.append(family)

    def disk(self, name: str, state: Path) -> None:
        """Add a gauge of the bytes that are free on the disk of a state folder."""
        with self.reading("the state folder"):
            self.gauge(name, "Free on the disk of its state.", [({}, shutil.disk_usage(state).free)])

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Make a problem of what cannot be read inside: it is news, and no reason to be silent about the rest."""
        try:
            yield
        except (FoedusError, OSError, KeyError) as error:
            self.problems.append(f"{what} cannot be read: {error}")


class Monitored(Protocol):
    """A part that can say what it is like."""

    def look(self) -> HealthReport:
        """What it is like now; raises nothing."""


class Monitor:
    """A collector of Prometheus' client over a part, which is looked at once in a while."""

    def __init__(self, part: Monitored) -> None:
        self._part, self._lock = part, threading.Lock()
        self._found, self._looked = HealthReport(), -FRESH_SECONDS

    def findings(self) -> HealthReport:
        """What the part was like a few seconds ago at most."""
        with self._lock:
            if time.monotonic() - self._looked >= FRESH_SECONDS:
                self._found, self._looked = self._part.look(), time.monotonic()
            return self._found

    def collect(self) -> Iterator[Metric]:
        """The metrics, for a registry."""
        yield from self.findings().metrics

    def health(self) -> tuple[int, dict[str, Any]]:
        """The status and the JSON of `/health`."""
        found = self.findings()
        return 503 if found.problems else 200, {"ok": not found.problems, "problems": found.problems, **found.facts}


@contextmanager
def monitored(listen: str, part: Monitored) -> Iterator[None]:
    """Serve both pages on ADDRESS:PORT while the block runs; nothing where that is "".

    Raises UsageError when it cannot listen there.
    """
    if not listen:
        yield
        return
    monitor, (host, _, port) = Monitor(part), listen.rpartition(":")
    try:
        server = _Server((host, int(port)), monitor)
    except OSError as error:
        raise UsageError(f"metrics: expected an address that is free, got {listen}: {error.strerror}") from error
    with server:
        threading.Thread(target=server.serve_forever, name="monitor", daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], monitor: Monitor) -> None:
        self.monitor, self.registry = monitor, CollectorRegistry(auto_describe=False)
        self.registry.register(monitor)
        super().__init__(address, _Pages)


class _Pages(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10.0  # a client that says nothing keeps no thread

    def do_GET(self) -> None:
        """Answer for one of the two pages."""
        match self.path:
            case "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.server.registry))
            case "/health":
                status, found = self.server.monitor.health()
                self._answer(status, "application/json", json.dumps(found).encode() + b"\n")
            case _:
                self._answer(404, "text/plain", b"expected /metrics or /health\n")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a question every few seconds is no news."""
