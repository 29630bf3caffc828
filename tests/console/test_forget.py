"""`foedus forget`: its result is read from the events of the erasure."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from console.forget import newest_certificates
from core import keys
from core.canonical import to_json
from core.erasures import OpenedRequest
from core.errors import RunError
from core.storage.events import EventLog
from core.storage.state_folder import State
from llm.served import serving
from tests import erasures as e
from tests.commands import ORGANISATIONS, World
from unlearning.certificate import read_certificate

pytestmark = pytest.mark.chain


def test_a_certificate_names_what_is_served_without_the_erased(base: Path, data: Path, tmp_path: Path) -> None:
    world = World(base, data, tmp_path / "state")
    assert world.inline("--lane-size", 1, "--composition", "routing").code == 0
    done = world.command("forget", "--organisation", "medical", "--method", "remove", "--backend", "inline")
    forgotten, said = done.json, done.err.splitlines()
    assert said.index("auditing the run, before anything is erased") < said.index("making the adapter anew")
    served = serving(State(world.state).existing())
    assert (served.state.kind, len(served.state.parts)) == ("routing", len(ORGANISATIONS) - 1)
    assert forgotten["aggregate"] == served.state.digest
    checked = world.command("check", forgotten["certificate"])
    assert checked.code == 0, checked.out
    assert world.command("verify").json["ok"]


def test_a_request_that_its_organisation_signed_is_carried_out(base: Path, data: Path, tmp_path: Path) -> None:
    world = World(base, data, tmp_path / "state")
    assert world.inline("--lane-size", 1).code == 0
    genesis = State(world.state).existing().genesis
    signed = OpenedRequest.of(keys.derive(genesis.seed, "coding"), genesis, "remove", (), "GDPR Art. 17", e.TODAY)
    (path := tmp_path / "request.json").write_bytes(to_json(signed.to_dict()))
    done = world.command("forget", "--request", path, "--backend", "inline").json
    assert (done["organisation"], done["method"], done["label"]) == ("coding", "remove", "exact")
    certificate = read_certificate(Path(done["certificate"]).read_bytes()).verified(genesis)
    assert certificate.attestation.value.request == signed.request
    again = world.command("forget", "--request", path, "--backend", "inline").json
    assert again["certificate"] == done["certificate"]
    # What another signed is refused before anything is started.
    other = replace(signed, request=signed.request.value.sign(keys.derive(genesis.seed, "medical"), genesis.chain))
    path.write_bytes(to_json(other.to_dict()))
    refused = world.command("forget", "--request", path, "--backend", "inline")
    assert "erasure request: expected the signature of" in refused.error


@pytest.mark.parametrize(
    "options", [(), ("--organisation", "coding"), ("--request", "r.json", "--method", "remove"), ("--method", "remove")]
)
def test_it_is_a_request_or_what_a_simulation_asks_for(twice: World, options: tuple[str, ...]) -> None:
    done = twice.command("forget", *options)
    assert done.code == 2
    assert "expected --request alone, or --organisation and --method, got " in done.error


@pytest.fixture(scope="module")
def twice(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A run of lanes of one, of which coding and then medical were erased."""
    world = World(base, data, tmp_path_factory.mktemp("twice") / "state")
    assert world.inline("--lane-size", 1).code == 0
    for name in ("coding", "medical"):
        done = world.command("forget", "--organisation", name, "--method", "remove", "--backend", "inline")
        assert done.code == 0, done.err
    return world


def test_the_result_is_that_of_the_event_and_not_of_the_newest_file(twice: World) -> None:
    state = State(twice.state)
    run = state.existing()
    events, _ = EventLog.read(state.events(run.name))
    erased = [event for event in events if event["event"] == "erased"]
    for event in erased:
        (certificate,) = event["certificates"]
        os.utime(certificate, ns=(2**62, 2**62) if event is erased[0] else (0, 0))
    last = erased[-1]
    certificates = newest_certificates(state, run, last["organisation"])
    assert [str(path) for path in certificates] == last["certificates"]
    assert next(iter(certificates.values())).label == last["label"]


def test_a_state_folder_that_was_moved_has_its_newest_certificates(twice: World, tmp_path: Path) -> None:
    shutil.copytree(twice.state, tmp_path / "moved")
    moved = State(tmp_path / "moved")
    run = moved.existing()
    (path,) = newest_certificates(moved, run, run.genesis.named("coding").address)
    assert path.is_relative_to(tmp_path / "moved")


def test_an_erasure_without_an_event_is_asked_for_again(twice: World, tmp_path: Path) -> None:
    state = State(twice.state)
    run = state.existing()
    with pytest.raises(RunError, match=run.genesis.named("financial").address):
        newest_certificates(state, run, run.genesis.named("financial").address)
