"""One trace, whoever asks for it: the strategy's hook, the mode attribute, the function behind both."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from flwr.clientapp import ClientApp

import server_app.chains
from client_app.app import app as client
from console.backends.inline import run_inline
from core.config import RunConfig
from core.errors import UsageError
from core.keys import derive
from core.ledger import MemoryLedger
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from llm.served import serving, shared_adapter
from provenance.attribution import DEFAULT
from provenance.method import Subject
from provenance.served import trace
from server_app.app import app as server
from server_app.binding import Bindings
from server_app.rounds import Rounds
from server_app.strategy import Foedus
from tests.commands import make_base, make_data

SETTINGS = {
    "rank": 2,
    "alpha": 4.0,
    "rounds": 1,
    "local-steps": 2,
    "batch-size": 1,
    "max-length": 48,
    "private-chain": "none",
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("attribute")
    places = {"base": make_base(folder / "base"), "data": make_data(folder / "data"), "state": folder / "state"}
    return RunConfig().to_flat() | SETTINGS | {k: str(v) for k, v in places.items()} | {"quantisation": "none"}


@pytest.fixture(scope="module")
def run(settings: dict[str, Any]) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_app.chains, "open_ledger", lambda *_: MemoryLedger())
        run_inline(server, client, 2, settings | {"run": "spring"})
    return State(Path(settings["state"])).existing("spring")


def by_mode(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, **changes: Any) -> dict[str, Any]:
    """What mode=attribute writes, where any question to a node or a chain is an error."""
    monkeypatch.setattr(server_app.chains, "open_ledger", None)
    run_inline(server, cast(ClientApp, None), 2, settings | {"mode": "attribute", "prompt": "coding 3?"} | changes)
    *_, event = EventLog.read(State(Path(settings["state"])).events("spring"))[0]
    assert event["event"] == "attributed"
    found: dict[str, Any] = event["trace"]
    return found


@pytest.mark.parametrize("method", ["", "protoken"])
def test_the_mode_and_the_function_give_the_same_trace(
    run: RunFolder, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    found = by_mode(settings, monkeypatch, run="spring", response="cod 9", method=method)
    wanted = trace(run, "coding 3?", "cod 9", method or DEFAULT)
    assert found["digest"] == wanted.digest
    assert found["organisations"].keys() <= {"coding", "financial", "medical"}


def test_the_mode_reads_the_newest_run_and_generates_an_answer(
    run: RunFolder, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert by_mode(settings, monkeypatch)["digest"] == trace(run, "coding 3?", None).digest


def test_the_strategy_gives_the_same_trace(run: RunFolder) -> None:
    model = serving(run).model
    fresh = shared_adapter(model, run.genesis.rank, run.genesis.seed)
    rounds = Rounds(run, derive(7, "coordinator"), fresh, EventLog(Path("/nowhere")), lambda _: None)
    strategy = Foedus(rounds, Bindings(run.genesis.chain, run.genesis.coordinator, run.name), lambda _: {})
    assert strategy.attribute("coding 3?", "cod 9", DEFAULT).digest == trace(run, "coding 3?", "cod 9").digest


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"method": "guess"}, "expected one of gradient, .*, got 'guess'"),
        ({"organisation": "hospital"}, "expected one of the members .* got organisation 'hospital'"),
        ({"prompt": " "}, "prompt: expected a question"),
        ({"run": "autumn"}, "autumn"),
    ],
)
def test_bad_input_ends_the_mode_with_one_line(
    run: RunFolder, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], line: str
) -> None:
    with pytest.raises(UsageError, match=line):
        by_mode(settings, monkeypatch, **changes)


def test_an_organisation_goes_by_name_or_address(run: RunFolder) -> None:
    (coding,) = (o.address for o in run.genesis.organisations if o.name == "coding")
    assert run.genesis.named("coding").address == run.genesis.named(coding).address == coding


def test_who_contributed_nothing_cannot_be_traced(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (coding,) = (o.address for o in run.genesis.organisations if o.name == "coding")
    whole = Subject.of

    def without_coding(*arguments: Any) -> Subject:
        found = whole(*arguments)
        parts = [tuple(s._replace(updates=tuple(u for u in s.updates if u.organisation != coding)) for s in lane)
                 for lane in found.contributions.lanes]  # fmt: skip
        return replace(found, contributions=replace(found.contributions, lanes=tuple(parts)))

    monkeypatch.setattr(Subject, "of", without_coding)
    with pytest.raises(UsageError, match="coding has no part in what is served: never admitted, erased, absent"):
        trace(run, "coding 3?", "cod 9", organisation=coding)
