"""An organisation's node as its operator watches it: SuperNode, worker, the way to the SuperLink, and its answers."""

import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version

import httpx
import psutil
from prometheus_client.core import CounterMetricFamily

from client_app.activity import Activity
from console.backends.children import Kept
from console.monitoring.server import HealthReport
from core.deployment import NodeSettings

_PATIENCE_SECONDS = 3.0


@dataclass(frozen=True)
class NodeMonitor:
    """A node whose two processes `foedus node` keeps."""

    settings: NodeSettings
    supernode: Kept
    worker: Kept

    def look(self) -> HealthReport:
        """See `Monitored.look`."""
        found, activity, now = HealthReport(), Activity.read(self.settings.activity), time.time()
        reached, working, serving = self.reaches_superlink(), self.worker.alive, self.supernode.alive
        if not working:
            found.problems.append("the worker has ended, and is started again")
        if not serving:
            found.problems.append("the SuperNode has ended, and is started again")
        if not reached:
            found.problems.append(f"the SuperLink behind {self.settings.superlink} does not answer")
        if activity.error:
            found.problems.append(f"the last message was answered with an error: {activity.error}")
        found.facts["organisation"] = self.settings.organisation
        found.facts["last_answer_seconds"] = None if activity.at is None else round(now - activity.at, 1)
        found.facts["working_seconds"] = None if activity.since is None else round(now - activity.since, 1)
        who = {"organisation": self.settings.organisation, "version": version("foedus")}
        found.gauge("foedus_node_info", "Whose node this is.", [(who, 1)])
        found.gauge("foedus_node_superlink_up", "Whether the SuperLink answers.", [({}, reached)])
        found.gauge("foedus_node_supernode_up", "Whether the SuperNode lives.", [({}, serving)])
        found.gauge("foedus_node_worker_up", "Whether the worker lives.", [({}, working)])
        found.gauge("foedus_node_worker_memory_bytes", "Resident memory of the worker.", [({}, self.memory)])
        found.gauge("foedus_node_last_answer_timestamp_seconds", "When it last answered.", [({}, activity.at)])
        found.gauge("foedus_node_last_answer_seconds", "How long its last answer took.", [({}, activity.seconds)])
        found.gauge("foedus_node_working_since_timestamp_seconds", "Since when it works.", [({}, activity.since)])
        found.disk("foedus_node_disk_free_bytes", self.settings.state)
        answers = CounterMetricFamily("foedus_node_answers", "Messages that it has answered.", labels=["outcome"])
        answers.add_metric(["ok"], activity.answered)
        answers.add_metric(["error"], activity.failed)
        restarts = CounterMetricFamily("foedus_node_restarts", "Processes started again.", labels=["process"])
        restarts.add_metric(["supernode"], self.supernode.restarts)
        restarts.add_metric(["worker"], self.worker.restarts)
        found.metrics.extend((answers, restarts))
        return found

    def reaches_superlink(self) -> bool:
        """Whether the SuperLink answers, through whatever lies between."""
        ca = self.settings.root_certificates
        with suppress(httpx.HTTPError, OSError):
            verify = ssl.create_default_context(cafile=ca) if ca else True
            url = f"{'https' if ca else 'http'}://{self.settings.superlink}/health"
            return httpx.get(url, verify=verify, timeout=_PATIENCE_SECONDS).is_success
        return False

    @property
    def memory(self) -> int | None:
        """Resident bytes of the worker; None when it has ended."""
        with suppress(psutil.Error):
            return int(psutil.Process(self.worker.process.pid).memory_info().rss)
        return None
