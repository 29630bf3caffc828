"""One federation on a backend: one CLI a run, one writer, and the ServerApp's own error."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from console.backends.federation import NODES, Backend, federate
from core.config import RunConfig
from core.errors import RunError, RunLockedError, UsageError
from core.storage.events import EventLog
from core.storage.lock import locked
from core.storage.state_folder import State

Simulation = Callable[[RunConfig, int, Callable[[], bool]], None]


@pytest.fixture
def settings(tmp_path: Path) -> RunConfig:
    return RunConfig(run="spring", state=str(tmp_path / "state"))


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch) -> Callable[[Simulation], None]:
    """Put a function in the place of the Ray backend."""

    def put(simulation: Simulation) -> None:
        monkeypatch.setitem(sys.modules, "console.backends.ray", SimpleNamespace(run_simulation=simulation))

    return put


@pytest.mark.parametrize("backend", Backend)
def test_every_backend_is_a_module_that_runs_simulations(backend: Backend) -> None:
    module = __import__(f"console.backends.{backend}", fromlist=["run_simulation"])
    assert callable(module.run_simulation)


def test_settings_are_remembered_and_the_run_is_said(
    settings: RunConfig, simulate: Callable[[Simulation], None], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[RunConfig, int]] = []
    simulate(lambda config, nodes, watch: seen.append((config, nodes)))
    federate(settings, Backend.ray)
    assert seen == [(settings, NODES)]
    assert State.of(settings).settings("spring").exists()
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"Run spring, state in {settings.state}\n")


def test_the_server_apps_error_is_raised_and_not_flowers_echo(
    settings: RunConfig, simulate: Callable[[Simulation], None]
) -> None:
    def fail(config: RunConfig, nodes: int, watch: Callable[[], bool]) -> None:
        EventLog(State.of(config).events(config.run)).write("failed", error="bad data", exit_code=2)
        raise RunError("Flower says the run is finished:failed")

    simulate(fail)
    with pytest.raises(UsageError, match=r"^bad data$"):
        federate(settings, Backend.ray)


@pytest.mark.parametrize("suffix", [".cli", ".lock"])
def test_a_run_that_another_process_writes_is_refused_before_anything_starts(
    settings: RunConfig, simulate: Callable[[Simulation], None], suffix: str
) -> None:
    simulate(lambda *_: pytest.fail("nothing may be started"))
    state = State.of(settings)
    with locked(state.lock("spring").with_suffix(suffix)), pytest.raises(RunLockedError, match="spring"):
        federate(settings, Backend.ray)
    assert not state.settings("spring").exists()
    simulate(lambda *_: None)
    federate(replace(settings, rounds=5), Backend.ray)
