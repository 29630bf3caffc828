"""A node that is watched: real processes behind it, and a SuperLink that answers or does not."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from client_app.activity import Activity, note_failure
from console.backends.children import Children, Kept, free_port
from console.monitoring.node import NodeMonitor
from console.monitoring.server import HealthReport
from core.deployment import NodeSettings

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]


def settings(folder: Path, port: int) -> NodeSettings:
    (folder / "node.toml").write_text(
        f'organisation = "medical"\nsuperlink = "127.0.0.1:{port}"\ndata = "data"\nsigner = "signer.sock"\n'
    )
    found = NodeSettings.read(folder)
    found.state.mkdir(exist_ok=True)
    return found


@contextmanager
def superlink() -> Iterator[int]:
    """Something that answers as a SuperLink's health check does; its port."""

    class _Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), _Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def kept() -> Iterator[tuple[Kept, Kept]]:
    with Children() as children:
        yield Kept(children, SLEEP, {}), Kept(children, SLEEP, {})


def values(found: HealthReport) -> dict[str, float]:
    """Every value, under its name and its labels."""
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value for m in found.metrics for sample in m.samples
    }


def test_a_node_is_well_while_its_processes_live_and_its_superlink_answers(
    tmp_path: Path, kept: tuple[Kept, Kept]
) -> None:
    with superlink() as port:
        own = settings(tmp_path, port)
        Activity(answered=4, failed=1, at=1_000.0, seconds=2.5).write(own.activity)
        found = NodeMonitor(own, *kept).look()
    assert found.problems == []
    got = values(found)
    assert got["foedus_node_superlink_up"] == got["foedus_node_worker_up"] == got["foedus_node_supernode_up"] == 1
    assert (got["foedus_node_answers_total ok"], got["foedus_node_answers_total error"]) == (4, 1)
    assert (got["foedus_node_last_answer_timestamp_seconds"], got["foedus_node_last_answer_seconds"]) == (1000, 2.5)
    assert got["foedus_node_worker_memory_bytes"] > 2**20
    assert "foedus_node_working_since_timestamp_seconds" not in got
    assert found.facts["last_answer_seconds"] > 10**9


def test_a_worker_that_has_ended_is_a_problem_until_it_is_started_again(
    tmp_path: Path, kept: tuple[Kept, Kept]
) -> None:
    with superlink() as port:
        monitor = NodeMonitor(settings(tmp_path, port), *kept)
        kept[1].process.kill()
        kept[1].process.wait()
        assert monitor.look().problems == ["the worker has ended, and is started again"]
        kept[1].start()
        found = monitor.look()
    assert found.problems == []
    assert values(found)["foedus_node_restarts_total worker"] == 1
    assert values(found)["foedus_node_restarts_total supernode"] == 0


def test_a_superlink_that_is_away_and_a_last_answer_that_was_an_error_are_problems(
    tmp_path: Path, kept: tuple[Kept, Kept]
) -> None:
    own = settings(tmp_path, port := free_port())
    note_failure(own.activity, "client-error: memory")
    assert NodeMonitor(own, *kept).look().problems == [
        f"the SuperLink behind 127.0.0.1:{port} does not answer",
        "the last message was answered with an error: client-error: memory",
    ]


def test_a_state_folder_that_is_gone_is_a_problem_and_the_rest_is_still_told(
    tmp_path: Path, kept: tuple[Kept, Kept]
) -> None:
    with superlink() as port:
        own = settings(tmp_path, port)
        own.state.rmdir()
        found = NodeMonitor(own, *kept).look()
    assert [problem.partition(":")[0] for problem in found.problems] == ["the state folder cannot be read"]
    assert values(found)["foedus_node_superlink_up"] == 1


def test_watching_imports_no_torch() -> None:
    code = "import sys, console.monitoring.node, console.monitoring.coordinator as c; "
    code += "print({'torch', 'web3', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
