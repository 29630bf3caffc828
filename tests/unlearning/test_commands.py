"""`foedus forget` and `foedus check`, on the embedded chain."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from chain.control import stop
from chain.ledger import EthereumLedger
from core.errors import LedgerUnreachableError
from core.keys import derive
from core.storage.lock import locked
from core.storage.state_folder import State
from llm.data import read_folder
from tests.commands import World, foedus, make_base, make_data


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three organisations: coding, financial, medical."""
    folder = tmp_path_factory.mktemp("forget")
    world = World(make_base(folder / "base"), make_data(folder / "data"), folder / "state")
    yield world
    stop("embedded", world.state)


def forget(world: World, run: str, name: str, method: str, *options: object) -> dict[str, object]:
    done = world.command("forget", run, "--organisation", name, "--method", method, "--backend", "inline", *options)
    assert done.code == 0, done.err
    return done.json


def test_an_organisation_is_forgotten_and_everybody_can_check_it(world: World, tmp_path: Path) -> None:
    run = world.inline(rounds=2).json["run"]
    assert world.command("verify", run).json["ok"]
    result = forget(world, run, "coding", "replay", "--basis", "GDPR Art. 17 (1) (b)")
    assert result["label"] == "exact"
    assert (result["receipts"], result["outstanding"]) == (list(status_names(world, run)), [])
    others = World(world.base, _others(world, tmp_path), world.state).inline(rounds=2).json
    assert result["aggregate"] == others["rounds"][-1]["aggregate"]
    report = world.command("verify", run, "--strict").json
    assert report["ok"], report["failures"]
    assert (report["recomputed"], report["attested"]) == (2, 2)
    checked = world.command("check", result["certificate"]).json
    assert checked["ok"], checked["failures"]
    assert (checked["asked"], checked["days"]) == (checked["attested"], 0)
    traced = world.command("attribute", run, "--prompt", "coding 1?", "--response", "cod 1", "--method", "gradient")
    assert "coding" not in traced.json["response"]["scores"]
    status = world.command("status", run).json
    assert status["status"] == "completed"
    assert set(status["final_loss"]) == {"financial", "medical"}
    assert status["rounds"][-1]["aggregate"] == result["aggregate"]
    _reject_edits(world, Path(str(result["certificate"])), tmp_path)
    again = world.command("forget", run, "--organisation", "coding", "--method", "remove")
    assert again.code == 2
    assert "coding is already erased" in again.error


def test_a_replay_of_sparse_updates_is_bit_for_bit_the_run_without_the_erased(world: World, tmp_path: Path) -> None:
    sparse = ("--set", "wire=sparse")
    run = world.inline(*sparse, rounds=3).json["run"]
    assert all(0 < entry["rounding"] < 0.2 for entry in world.command("status", run).json["rounds"])
    assert world.command("verify", run).json["ok"]
    result = forget(world, run, "coding", "replay")
    assert result["label"] == "exact"
    # What the others had left out of updates that knew the erased must not come with later ones.
    others = World(world.base, _others(world, tmp_path), world.state).inline(*sparse, rounds=3).json
    assert result["aggregate"] == others["rounds"][-1]["aggregate"]
    report = world.command("verify", run, "--strict").json
    assert report["ok"], report["failures"]
    traced = world.command("attribute", run, "--prompt", "financial 1?", "--response", "fin 1", "--method", "gradient")
    assert set(traced.json["response"]["scores"]) == {"financial", "medical"}


@pytest.mark.parametrize("wire", ["int8", "sparse"])
def test_compressed_updates_are_summed_again_as_they_came(world: World, wire: str) -> None:
    run = world.inline("--set", f"wire={wire}", rounds=2).json["run"]
    result = forget(world, run, "coding", "repair")
    assert result["label"] == "approximate"
    report = world.command("verify", run, "--strict").json
    assert report["ok"], report["failures"]
    assert world.command("check", result["certificate"]).json["ok"]


def status_names(world: World, run: str) -> dict[str, str]:
    """The organisations in order of address."""
    found: dict[str, str] = world.command("status", run).json["organisations"]
    return found


def _others(world: World, folder: Path) -> Path:
    shutil.copytree(world.data, folder / "others", ignore=shutil.ignore_patterns("coding.jsonl"))
    return folder / "others"


def _reject_edits(world: World, path: Path, folder: Path) -> None:
    data = json.loads(path.read_bytes())
    data["value"]["label"] = "approximate"
    edited = folder / "edited.json"
    edited.write_bytes(json.dumps(data, sort_keys=True, separators=(",", ":")).encode())
    broken = folder / "broken.json"
    broken.write_bytes(path.read_bytes() + b" ")
    for file in (edited, broken):
        done = world.command("check", file)
        assert done.code == 1
        assert not done.json["ok"]


def test_a_lane_of_one_is_forgotten_at_once(world: World, tmp_path: Path) -> None:
    run = world.inline("--lane-size", 1).json["run"]
    result = forget(world, run, "coding", "remove")
    assert result["label"] == "exact"
    others = World(world.base, _others(world, tmp_path), world.state).inline("--lane-size", 1).json
    assert result["aggregate"] == others["rounds"][-1]["aggregate"]
    checked = world.command("check", result["certificate"]).json
    assert checked["ok"], checked["failures"]
    assert world.command("verify", run, "--strict").json["ok"]
    from_outside = world.command("check", result["certificate"], *_outside(world, run, tmp_path)).json
    assert from_outside["ok"], from_outside["failures"]
    assert world.command("check", result["certificate"], "--store", tmp_path).code == 2


def test_records_are_forgotten_and_everybody_can_check_it(world: World, tmp_path: Path) -> None:
    sharded = ("--lane-size", 1, "--shards", 2)
    run = world.inline(*sharded).json["run"]
    other = {"question": "coding 12?", "answer": "of nobody"}
    (file := tmp_path / "erased.jsonl").write_text(json.dumps(other) + "\n", encoding="utf-8")
    options = ("--organisation", "coding", "--method", "shards", "--records", file, "--backend", "inline")
    refused = world.command("forget", run, *options)
    assert refused.code == 2
    assert "1 of 1 records are not in the training data of coding" in refused.error
    data = read_folder(world.data).organisations[0]
    erased = [{"question": r.prompt[0].content, "answer": r.answer} for r in data.train[:4]]
    file.write_text("".join(json.dumps(record) + "\n" for record in erased), encoding="utf-8")
    wrong = world.command("forget", run, "--organisation", "coding", "--method", "remove", "--records", file)
    assert wrong.code == 2
    assert "expected replay or shards to erase records, got remove" in wrong.error
    done = world.command("forget", run, *options)
    assert done.code == 0, done.err
    result = done.json
    assert (result["records"], result["label"], result["method"]) == (4, "exact", "shards")
    assert result["certificates"][-1] == result["certificate"]
    for certificate in result["certificates"]:
        checked = world.command("check", certificate).json
        assert checked["ok"], checked["failures"]
    report = world.command("verify", run, "--strict").json
    assert report["ok"], report["failures"]
    assert report["attested"] == len(result["certificates"])
    status = world.command("status", run).json
    assert set(status["final_loss"]) == {"coding", "financial", "medical"}
    assert sorted(status["rounds"][0]["admitted"]) == ["coding", "financial", "medical"]


def _outside(world: World, run: str, folder: Path) -> tuple[object, ...]:
    """What somebody has who is a reader of the run, and has nothing of it but the store."""
    key = folder / "reader.key"
    key.touch(0o600)
    key.write_text(derive(7, "coordinator").secret.hex() + "\n", encoding="ascii")
    chain = world.command("chain status").json
    contract = json.loads((world.state / "runs" / run / "genesis.json").read_bytes())["chain"]["contract"]
    store = world.state / "runs" / run / "artifacts"
    return ("--store", store, "--chain", chain["url"], "--address", contract, "--key", key)


def test_a_certificate_that_the_chain_was_not_told_of_is_anchored_when_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of an erasure that is exact, which could not be asked for again."""

    def down(*_: object) -> None:
        raise LedgerUnreachableError("nothing answers")

    run = world.inline("--lane-size", 1).json["run"]
    with monkeypatch.context() as patch:
        patch.setattr(EthereumLedger, "certify", down)
        done = world.command("forget", run, "--organisation", "coding", "--method", "remove", "--backend", "inline")
    assert done.code == 1
    assert "nothing answers" in done.error
    (path,) = (world.state / "runs" / run / "certificates").iterdir()
    assert not world.command("check", path).json["ok"]
    before = path.read_bytes()
    assert forget(world, run, "coding", "remove")["certificate"] == str(path)
    assert path.read_bytes() == before
    assert world.command("check", path).json["ok"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--organisation", "nobody", "--method", "remove"), "got organisation 'nobody'"),
        (("--organisation", "medical", "--method", "forgive"), "replay, shards, got 'forgive'"),
        (("--organisation", "medical", "--method", "shards"), "method shards erases records: give --records FILE"),
        (
            ("--organisation", "medical", "--method", "replay", "--records", "x"),
            "x: expected a file that can be read, got No such file",
        ),
    ],
)
def test_bad_input_is_one_line(world: World, options: tuple[str, ...], error: str) -> None:
    if not (world.state / "runs").exists():
        world.inline()
    done = world.command("forget", *options)
    assert done.code == 2
    assert error in done.error


def test_a_run_with_another_writer_is_left_alone(world: World) -> None:
    run = world.inline().json["run"]
    with locked(State(world.state).lock(run)):
        done = world.command("forget", run, "--organisation", "medical", "--method", "remove")
    assert done.code == 1
    assert f"run {run} is being written by process" in done.error
    assert not (world.state / "runs" / run / "erasures").exists()


def test_a_certificate_of_another_state_folder_is_told_so(world: World, tmp_path: Path) -> None:
    missing = foedus("check", tmp_path / "none.json", "--state", world.state)
    assert missing.code == 2
    assert "`foedus forget`" in missing.error
