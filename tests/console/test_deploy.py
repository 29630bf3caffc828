"""`foedus deploy`: from a file to kits, and from requests to who is admitted, on the chain too."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chain.nodes import embedded_service
from tests.commands import Done, foedus
from tests.console.deployments.founded import FILE

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("deploy")
    (folder / "federation.toml").write_text("require-registration = true\n" + FILE)
    yield folder
    embedded_service(folder / "clinics" / "state").stop()


@pytest.fixture(scope="module")
def made(home: Path) -> Done:
    return foedus("deploy", "init", home / "federation.toml", "--out", home / "clinics", "--json")


def test_kits_are_made_for_a_contract_that_is_there(made: Done, home: Path) -> None:
    assert made.code == 0, made.err
    assert [kit["organisation"] for kit in made.json["kits"]] == ["financial", "medical"]
    again = foedus("deploy", "init", home / "federation.toml", "--out", home / "clinics", "--json")
    assert again.json == made.json


def test_organisations_are_admitted_and_registered(made: Done, home: Path) -> None:
    requests, federation = [], home / "clinics"
    for kit in made.json["kits"]:
        joined = foedus("join", kit["file"], "--out", home / kit["organisation"], "--json").json
        assert (joined["kit"], joined["coordinator"]) == (kit["digest"], made.json["coordinator"])
        requests.append(joined["request"])
    for _ in range(2):
        admitted = foedus("deploy", "admit", *requests, "--federation", federation, "--json")
        assert admitted.code == 0, admitted.err
    shown = admitted.json["organisations"]
    assert [(entry["organisation"], entry["registered"]) for entry in shown] == [("financial", True), ("medical", True)]
    place = ("--state", federation / "state", "--json")
    assert foedus("members", "show", shown[0]["address"], *place).json["node_key"] == shown[0]["node_key"]
    assert "medical" in foedus("deploy", "admit", *requests, "--federation", federation).out


def test_what_is_no_request_admits_nobody(made: Done, home: Path) -> None:
    assert made.code == 0
    (home / "x.json").write_text("{}")
    assert (
        "malformed join request" in foedus("deploy", "admit", home / "x.json", "--federation", home / "clinics").error
    )
    assert "expected a folder" in foedus("deploy", "admit", home / "x.json", "--federation", home / "nowhere").error


def test_a_coordinator_without_funds_is_told_its_account(tmp_path: Path, home: Path, made: Done) -> None:
    assert made.code == 0
    url = embedded_service(home / "clinics" / "state").url()
    (tmp_path / "federation.toml").write_text(f'chain = "{url}/public"\n{FILE}')
    poor = foedus("deploy", "init", tmp_path / "federation.toml", "--out", tmp_path / "poor")
    assert "expected funds for transactions, got none" in poor.error
    address = foedus("keys", "show", tmp_path / "poor" / "own.key", "--json").json["address"]
    assert f"account {address}" in poor.error
