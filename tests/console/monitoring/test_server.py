"""The two pages of a part that is watched, as Prometheus and a container engine read them."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field

import pytest
from prometheus_client.parser import text_string_to_metric_families

from console.backends.children import free_port
from console.monitoring.server import HealthReport, Monitor, monitored
from core.errors import UsageError


@dataclass
class Part:
    """A part that counts how often it is looked at."""

    problems: list[str] = field(default_factory=list)
    looks: int = 0

    def look(self) -> HealthReport:
        self.looks += 1
        found = HealthReport(problems=self.problems, facts={"run": "r"})
        found.gauge("foedus_run_round", "The round.", [({}, self.looks)])
        found.gauge("foedus_run_loss", "The loss.", [({"organisation": 'a "b"\n'}, 1.5), ({"organisation": "c"}, None)])
        found.gauge("foedus_none", "Nothing.", [({}, None)])
        return found


def asked(listen: str, page: str) -> tuple[int, str, str]:
    """The status, the type and the text of a page."""
    try:
        with urllib.request.urlopen(f"http://{listen}{page}", timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Every sample by its name, as Prometheus' own parser reads a page."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def test_metrics_are_read_by_prometheus_own_parser_whatever_a_label_holds() -> None:
    listen = f"127.0.0.1:{free_port()}"
    with monitored(listen, Part()):
        status, kind, text = asked(listen, "/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert samples(text) == {
        "foedus_run_round": [({}, 1.0)],
        "foedus_run_loss": [({"organisation": 'a "b"\n'}, 1.5)],
    }


@pytest.mark.parametrize(("problems", "status"), [([], 200), (["the worker has ended"], 503)])
def test_health_is_200_or_503_with_the_reason_in_json(problems: list[str], status: int) -> None:
    listen = f"127.0.0.1:{free_port()}"
    with monitored(listen, Part(problems)):
        got, kind, text = asked(listen, "/health")
    assert (got, kind) == (status, "application/json")
    assert json.loads(text) == {"ok": not problems, "problems": problems, "run": "r"}


def test_nothing_else_is_served_and_nothing_after_the_end() -> None:
    listen = f"127.0.0.1:{free_port()}"
    with monitored(listen, Part()):
        assert asked(listen, "/metrics/../x")[0] == 404
        assert asked(listen, "/")[0] == 404
    with pytest.raises(urllib.error.URLError):
        asked(listen, "/health")


def test_a_part_is_looked_at_once_however_often_it_is_asked() -> None:
    part = Part()
    monitor = Monitor(part)
    for _ in range(20):
        monitor.health()
        list(monitor.collect())
    assert part.looks == 1


def test_an_address_that_is_taken_is_refused_and_none_serves_nothing() -> None:
    listen = f"127.0.0.1:{free_port()}"
    refused = pytest.raises(UsageError, match=f"metrics: expected an address that is free, got {listen}")
    with monitored("", Part()), monitored(listen, Part()), refused, monitored(listen, Part()):
        pass
