"""`foedus verify` as an auditor sees it, and `foedus proof`: a chain, a folder of artifacts, and a key."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from core import keys
from core.config import RunConfig
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from tests import federation as f
from tests.commands import ORGANISATIONS, Done, World, foedus

pytestmark = pytest.mark.chain


@dataclass(frozen=True)
class Audited:
    """A finished run with an auditor, and what the auditor has of it."""

    world: World
    url: str
    private_url: str
    address: str
    store: Path
    key: Path

    @property
    def run(self) -> RunFolder:
        return State(self.world.state).existing()

    def outside(self, *options: object, store: Path | None = None, key: Path | None = None) -> Done:
        """The outsider's audit."""
        given = ("--address", self.address, "--store", store or self.store, "--key", key or self.key)
        return foedus("verify", "--from-chain", self.url, *given, *options, "--json")


@pytest.fixture(scope="module")
def audited(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("audited")
    public = json.loads(foedus("keys", "new", folder / "auditor", "--json").out)["public_key"]
    world = World(base, data, folder / "state")
    store = folder / "bucket"
    done = world.inline("--store", store, "--auditors", public, "--set", "anchor-every=2", rounds=2)
    assert done.code == 0, done.err
    chain = world.command("chain start").json
    run = done.json["run"]
    urls, address = chain["urls"], chain["addresses"]["PublicLedger"]
    yield Audited(world, urls["public"], urls["private"], address, store / run, folder / "auditor")
    world.command("chain stop")


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
    assert "cannot be read with the key of 0x" in done.error


@pytest.mark.parametrize("left_out", ["--address", "--store", "--key"])
def test_an_outsider_needs_all_three(audited: Audited, left_out: str) -> None:
    given = {"--address": audited.address, "--store": audited.store, "--key": audited.key}
    del given[left_out]
    done = foedus("verify", "--from-chain", audited.url, *(word for pair in given.items() for word in pair))
    assert done.code == 2
    assert f"--from-chain got no {left_out}" in done.error


def test_a_folder_without_a_run_is_refused(audited: Audited, tmp_path: Path) -> None:
    done = audited.outside(store=tmp_path)
    assert done.code == 2
    assert "holds no run" in done.error


def test_another_contract_is_a_finding(audited: Audited) -> None:
    given = ("--address", "0x" + "11" * 20, "--store", audited.store, "--key", audited.key)
    report = foedus("verify", "--from-chain", audited.url, *given, "--json").json
    assert report["failures"][0]["what"] == "contract"


# --- a proof of participation --------------------------------------------------------------------------------------


@pytest.fixture
def proof(audited: Audited, tmp_path: Path) -> Path:
    path = tmp_path / "proof.json"
    done = audited.world.command("proof", "--organisation", "medical", "--round", 2, "--out", path)
    assert done.json["path"] == str(path)
    return path


def test_a_proof_is_checked_alone_and_by_the_contract(audited: Audited, proof: Path, tmp_path: Path) -> None:
    done = foedus("proof", "--check", proof, "--chain", audited.url, "--state", tmp_path / "empty", "--json")
    assert done.code == 0
    medical = audited.run.genesis.named("medical")
    assert (done.json["ok"], done.json["organisation"], done.json["round"]) == (True, medical.address, 2)


def test_a_proof_that_was_changed_does_not_hold(audited: Audited, proof: Path) -> None:
    changed = json.loads(proof.read_bytes())
    changed["salt"] = "00" * 32
    proof.write_text(json.dumps(changed, sort_keys=True, separators=(",", ":")))
    done = audited.world.command("proof", "--check", proof)
    assert done.code == 1
    assert "the proof leads to" in done.json["failure"]


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        ((), "so --organisation NAME, --round N and --out FILE are wanted"),
        (("--organisation", "hospital", "--round", 1, "--out", "x"), "'hospital' is not a member"),
        (("--organisation", "medical", "--round", 9, "--out", "x"), "admitted no update of medical"),
        (("--check", "/nowhere"), "a file of `foedus proof` wanted"),
    ],
)
def test_what_cannot_be_proven_is_refused_in_one_line(
    audited: Audited, options: tuple[object, ...], finding: str
) -> None:
    done = audited.world.command("proof", *options)
    assert done.code == 2
    assert finding in done.error


def test_a_store_that_nobody_opens_is_refused_before_anything_starts(audited: Audited) -> None:
    done = audited.world.inline("--store", "no-such-scheme://bucket")
    assert done.code == 2
    assert "a folder or a URL that fsspec opens wanted" in done.error


def test_an_auditor_who_is_no_key_is_refused_before_anything_starts(audited: Audited) -> None:
    done = audited.world.inline("--auditors", audited.address)
    assert done.code == 2
    assert "auditors: a public key is 0x, 02 or 03" in done.error


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
    assert "run spring is sealed: got no --key, the key file of one of its readers wanted" in done.error


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
    assert "a file of 64 hex digits wanted" in done.error
    report = foedus("verify", "--state", deployed, "--key", deployed.parent / "coordinator", "--json").json
    assert report["checked"]["sealed copies"] == 2
