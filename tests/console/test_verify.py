"""`foedus verify` by the members, by an auditor from outside, and on a run whose keys nobody can derive."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core import keys
from core.config import RunConfig
from core.storage.state_folder import State
from tests import federation as f
from tests.commands import ORGANISATIONS, World, foedus
from tests.console.audited import Audited

pytestmark = pytest.mark.chain


def test_the_members_audit_both_chains(audited: Audited) -> None:
    report = audited.world.command("verify").json
    assert report["ok"], report["failures"]
    assert (report["recomputed"], report["attested"]) == (2, 0)
    assert report["checked"]["commitments"] == report["checked"]["private commitments"] == 2
    assert report["checked"]["private heads"] == 1
    assert report["checked"]["readers"] == len(ORGANISATIONS) + 2


def test_the_run_folder_holds_no_artifact(audited: Audited) -> None:
    assert not (audited.run.folder / "artifacts").exists()
    assert audited.store.is_dir()


def test_an_outsider_recomputes_every_round_from_chain_store_and_key(audited: Audited, tmp_path: Path) -> None:
    shutil.copytree(audited.store, tmp_path / "copy")
    report = audited.outside(store=tmp_path / "copy").json
    assert report["ok"], report["failures"]
    assert (report["recomputed"], report["attested"]) == (2, 0)
    assert report["run"] == audited.run.name
    assert report["checked"]["commitments"] == 2
    assert "private commitments" not in report["checked"]


def test_an_outsider_who_may_read_the_private_chain_audits_it_too(audited: Audited) -> None:
    report = audited.outside("--private-chain", audited.private_url).json
    assert report["ok"], report["failures"]
    assert report["checked"]["private commitments"] == 2


def test_an_outsider_finds_what_was_tampered_with(audited: Audited, tmp_path: Path) -> None:
    spoilt = tmp_path / "copy"
    shutil.copytree(audited.store, spoilt)
    (record,) = (spoilt / "records").glob("*R00002-A01.sealed")
    record.write_bytes(record.read_bytes()[:-1] + b"x")
    report = audited.outside(store=spoilt).json
    assert not report["ok"]
    assert report["failures"][0]["what"] == "sealed copy"
    assert "R00002-A01" in report["failures"][0]["where"]
    assert "on the ledger, not in the records" in {failure["what"] for failure in report["failures"]}


def test_who_is_no_reader_audits_nothing(audited: Audited, tmp_path: Path) -> None:
    keys.create(tmp_path / "stranger")
    done = audited.outside(key=tmp_path / "stranger")
    assert done.code == 2
    assert f"the key of {keys.read(tmp_path / 'stranger').address}" in done.error


@pytest.mark.parametrize("left_out", ["--address", "--store", "--key"])
def test_an_outsider_needs_all_three(audited: Audited, left_out: str) -> None:
    given = {"--address": audited.address, "--store": audited.store, "--key": audited.key}
    del given[left_out]
    done = foedus("verify", "--from-chain", audited.url, *(word for pair in given.items() for word in pair))
    assert done.code == 2
    assert "--from-chain" in done.error
    assert f"got no {left_out}" in done.error


def test_a_folder_without_a_run_is_refused(audited: Audited, tmp_path: Path) -> None:
    done = audited.outside(store=tmp_path)
    assert done.code == 2
    assert "holds no run" in done.error


def test_another_contract_is_a_finding(audited: Audited) -> None:
    given = ("--address", "0x" + "11" * 20, "--store", audited.store, "--key", audited.key)
    report = foedus("verify", "--from-chain", audited.url, *given, "--json").json
    assert report["failures"][0]["what"] == "contract"


# --- a run whose keys nobody can derive ----------------------------------------------------------------------------


@pytest.fixture
def deployed(tmp_path: Path) -> Path:
    """The state folder of a run whose members and coordinator have keys of their own, and what it was started with."""
    owner = keys.create(tmp_path / "coordinator")
    members = tuple(replace(member, derived=False) for member in f.members())
    genesis = f.genesis(coordinator=owner.address, organisations=members)
    state = State(tmp_path / "state")
    state.run("spring").begin(genesis, replace(f.readers(genesis), coordinator=owner.public))
    return state.folder


@pytest.mark.parametrize("command", ["verify", "evaluate", "export --out x", "attribute --prompt x"])
def test_a_deployed_run_wants_a_readers_key(deployed: Path, command: str) -> None:
    done = foedus(*command.split(), "--state", deployed)
    assert done.code == 2
    assert "run spring is sealed" in done.error
    assert "--key" in done.error


def test_the_coordinators_key_is_found_by_the_runs_settings(deployed: Path) -> None:
    config = RunConfig(run="spring", chain="embedded", coordinator_key=str(deployed.parent / "coordinator"))
    State(deployed).remember(config)
    report = foedus("verify", "--state", deployed, "--json").json
    assert "readers" not in {failure["what"] for failure in report["failures"]}
    assert report["checked"]["sealed copies"] == 2


def test_a_key_that_is_given_goes_before_the_settings(deployed: Path) -> None:
    State(deployed).remember(RunConfig(run="spring", coordinator_key=str(deployed.parent / "nowhere")))
    done = foedus("verify", "--state", deployed)
    assert done.code == 2
    assert str(deployed.parent / "nowhere") in done.error
    report = foedus("verify", "--state", deployed, "--key", deployed.parent / "coordinator", "--json").json
    assert report["checked"]["sealed copies"] == 2


def test_a_finished_run_holds(finished: World) -> None:
    done = finished.command("verify")
    assert done.code == 0
    assert done.json["ok"]
    assert done.json["recomputed"] == 2
    assert done.json["failures"] == []


def test_a_flipped_byte_is_named(world: World) -> None:
    aggregate = world.inline().json["rounds"][0]["aggregate"]
    run = State(world.state).existing()
    path = run.folder / "artifacts" / f"{run.artifacts.place(aggregate)}.sealed"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    done = world.command("verify")
    assert done.code == 1
    assert path.name in done.json["failures"][0]["where"]
    text = foedus("verify", "--state", world.state)
    assert text.code == 1
    first, *others = text.out.splitlines()
    assert path.name in first
    assert any("expected" in line and "got" in line for line in others)
