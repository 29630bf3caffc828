import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.progress import Progress

from console.backends import ray
from console.backends.ray import SuperLink, resources, superlink, telling_line, while_ray_is_late
from console.views.progress import Watcher
from core.canonical import parse_json
from core.errors import RunError, UsageError
from core.storage.events import EventLog
from core.storage.lock import locked
from core.storage.state_folder import State
from llm.bases import SHARE

TRACEBACK = """
INFO :      Starting
Traceback (most recent call last):
  File "x.py", line 1, in <module>
RuntimeError: Simulation Runtime crashed.

The above exception was the direct cause of the following exception:
Exception: The current node timed out during startup.

The above exception was the direct cause of the following exception:
RuntimeError: An error was encountered. Ending simulation.
ERROR :     Exit code: 700
For more information, visit: <https://example.org>
"""


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (TRACEBACK, "Exception: The current node timed out during startup."),
        ("INFO start\nERROR [Errno 98] address already in use\nINFO bye\n", "ERROR [Errno 98] address already in use"),
        ("INFO start\n\nINFO bye\n\n", "INFO bye"),
        ("\n", ""),
    ],
)
def test_the_line_that_says_what_went_wrong(log: str, line: str) -> None:
    assert telling_line(log) == line


def test_a_run_that_has_failed_is_left_at_once_whatever_flower_still_does(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    watch = Watcher(state, "failed", Progress(disable=True))
    with locked(state.lock("failed")), subprocess.Popen(["sleep", "60"]) as process:
        EventLog(state.events("failed")).write("failed", error="quorum: too few", exit_code=2)
        started = time.monotonic()
        link = SuperLink(tmp_path, {}, "127.0.0.1:1", process)
        with pytest.raises(UsageError, match="quorum: too few"):
            link.follow("1", watch, state.lock("failed"))
        assert time.monotonic() - started < 5
        process.kill()


def test_a_run_is_submitted_again_where_ray_did_not_start_in_time_and_for_nothing_else() -> None:
    tries: list[bool] = []

    def late(again: bool) -> str:
        tries.append(again)
        if len(tries) < 3:
            raise RunError(f"expected Flower to complete the run, got finished:failed: {telling_line(TRACEBACK)}")
        return "done"

    assert while_ray_is_late(late) == "done"
    assert tries == [False, True, True]

    def never(again: bool) -> str:
        tries.append(again)
        raise RunError(telling_line(TRACEBACK))

    tries.clear()
    with pytest.raises(RunError, match="timed out"):
        while_ray_is_late(never)
    assert tries == [False, True, True, True]

    def other(again: bool) -> str:
        tries.append(again)
        raise RunError("the SuperLink ended")

    tries.clear()
    with pytest.raises(RunError, match="SuperLink"):
        while_ray_is_late(other)
    assert tries == [False]


SERVER = """
import http.server, json, os, pathlib, sys
pathlib.Path("environment.json").write_text(json.dumps(dict(os.environ)))
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Healthy).serve_forever()
"""


@pytest.mark.parametrize(("asked", "shared"), [(None, "1"), ("", "")])
def test_the_processes_of_a_simulation_have_one_thread_each_and_share_a_base(
    asked: str | None, shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "script", lambda _name: [sys.executable, "-c", SERVER])
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv(SHARE, raising=False)
    if asked is not None:
        monkeypatch.setenv(SHARE, asked)
    with superlink(tmp_path, tmp_path / "run"):
        # Flower's processes and Ray's actors inherit it.
        found = parse_json((tmp_path / "environment.json").read_bytes())
    assert found["OMP_NUM_THREADS"] == "1"
    assert found[SHARE] == shared


@pytest.mark.parametrize(("gpus", "share"), [(1, " client-resources-num-gpus=0.5"), (2, "=1"), (3, "=1"), (8, "=4")])
def test_nodes_share_the_gpus_that_are_there(
    gpus: int, share: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n" + "echo 'GPU 0: a name (UUID: GPU-1)'\n" * gpus)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert resources(2).endswith(share)
    assert resources(2).startswith("num-supernodes=2 client-resources-num-cpus=1 ")


def test_a_driver_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(ray, "_LISTING_SECONDS", 0.5)
    with pytest.raises(UsageError, match=r"nvidia-smi: expected the GPUs of this machine within 0.5 s, got nothing"):
        resources(2)


@pytest.mark.parametrize(("visible", "share"), [("0", "=0.5"), ("0,3", "=1"), ("", "cpus=1"), ("-1", "cpus=1")])
def test_gpus_that_are_hidden_do_not_count(visible: str, share: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert resources(2).endswith(share)


@pytest.mark.parametrize(("limit", "most"), [("", ""), ("3", " init-args-num-cpus=3")])
def test_a_simulation_takes_no_more_processors_than_it_may(
    limit: str, most: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("FOEDUS_CPUS", limit)
    assert resources(2) == f"num-supernodes=2 client-resources-num-cpus=1{most}"


@pytest.mark.parametrize("limit", ["0", "-1", "2.5", "all"])
def test_a_number_of_processors_that_is_none_is_refused(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOEDUS_CPUS", limit)
    with pytest.raises(UsageError, match=f"FOEDUS_CPUS: expected a number of processors, got '{limit}'"):
        resources(2)


def test_without_a_gpu_none_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert resources(2) == "num-supernodes=2 client-resources-num-cpus=1"


@pytest.mark.parametrize(("gpus", "nodes"), [(1, 6), (1, 7), (2, 3), (2, 5), (3, 4), (3, 10), (8, 64)])
def test_every_node_has_room_on_a_gpu_and_flower_counts_as_many(
    gpus: int, nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))
    share = float(resources(nodes).partition("num-gpus=")[2])
    on_each = 10_000 // round(share * 10_000)  # as Ray counts
    assert nodes <= gpus * on_each
    assert int(gpus / share) == gpus * on_each  # as Flower counts: more would be waited for
