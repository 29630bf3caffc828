"""`foedus export`: an adapter with its papers, signed; a folder for every lane that is not summed; a hub."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from model_signing import verifying
from safetensors.numpy import load_file

from chain.observer import observe
from console.papers.base_signature import NOT_SIGNED
from core.canonical import Digest, commitment, digest, raw
from core.model_signature import file_key, opened
from core.round_key import RoundKey
from core.storage.state_folder import State
from tests.commands import ORGANISATIONS, World, foedus
from tests.hub import reach_hub, writable_hub

pytestmark = pytest.mark.chain


@pytest.fixture(autouse=True)
def signer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the signer's public key lies after an export."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "foedus" / "signing.pub"


def test_an_export_is_signed_and_carries_its_papers(finished: World, tmp_path: Path, signer: Path) -> None:
    result = finished.command("export", "--out", tmp_path / "adapter").json
    folder = tmp_path / "adapter"
    assert result["path"] == str(folder)
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "bom.cdx.json", "model.sig",
        "provenance.intoto.jsonl",
    }  # fmt: skip
    verifying.Config().use_elliptic_key_verifier(public_key=signer).verify(folder, folder / "model.sig")
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"Hash mismatch for .*adapter_config\.json"):
        verifying.Config().use_elliptic_key_verifier(public_key=signer).verify(folder, folder / "model.sig")


def test_the_statement_opens_what_stands_on_the_chain(finished: World, tmp_path: Path, signer: Path) -> None:
    finished.command("export", "--out", tmp_path / "adapter")
    (line,) = (tmp_path / "adapter" / "provenance.intoto.jsonl").read_text(encoding="utf-8").splitlines()
    told = opened(json.loads(line), signer.read_bytes())
    (served,) = told["predicate"]["runDetails"]["byproducts"]
    place, run = served["annotations"], State(finished.state).existing()
    key = RoundKey(run.genesis.digest, place["lane"], place["generation"], place["round"])
    found, anchor = observe("embedded", finished.state, run.genesis.chain.contract).read(key) or (None, None)
    assert found
    assert anchor
    record = Digest("0x" + served["digest"]["foedus-round-v1"])
    outcome = digest("outcome", raw(record), raw(place["aggregate"]))
    assert commitment(bytes.fromhex(place["salt"]), outcome) == found.aggregate == place["commitment"]
    assert place["anchor"]["transaction"] == anchor.transaction
    files = {subject["name"]: subject["digest"]["sha256"] for subject in told["subject"]}
    weights = (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
    assert files["adapter_model.safetensors"] == hashlib.sha256(weights).hexdigest()


def test_organisations_go_by_pseudonym_unless_names_are_asked_for(
    finished: World, tmp_path: Path, signer: Path
) -> None:
    addresses = finished.command("status").json["organisations"]
    for folder, options, shown, hidden in (
        ("pseudonyms", (), addresses.values(), addresses),
        ("names", ("--names",), addresses, ()),
    ):
        finished.command("export", "--out", tmp_path / folder, *options)
        papers = [(tmp_path / folder / name).read_text(encoding="utf-8") for name in ("README.md", "bom.cdx.json")]
        assert all(word in paper for word in shown for paper in papers), folder
        assert not [word for word in hidden if word in "".join(papers)], folder


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the Hub's client
def test_an_export_is_pushed_to_a_hub(
    finished: World, tmp_path: Path, signer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hub").mkdir()
    monkeypatch.setenv("HF_TOKEN", "secret")
    with writable_hub(tmp_path / "hub", "secret") as (url, private):
        reach_hub(monkeypatch, url)
        result = finished.command("export", "--out", tmp_path / "adapter", "--push", "owner/taught").json
    assert private == {"owner/taught": True}
    assert result["url"] == f"{url}/owner/taught"
    verifying.Config().use_elliptic_key_verifier(public_key=signer).verify(
        tmp_path / "hub" / "taught", tmp_path / "hub" / "taught" / "model.sig"
    )


def test_a_repository_without_an_owner_is_refused_before_anything_is_loaded(finished: World, tmp_path: Path) -> None:
    done = foedus("export", "--out", tmp_path / "adapter", "--push", "taught", "--state", finished.state)
    assert (done.code, "--push: expected OWNER/NAME, got 'taught'" in done.error) == (2, True)
    assert not (tmp_path / "adapter").exists()


def test_a_base_that_moved_is_found_or_named(finished: World, tmp_path: Path) -> None:
    """Beside its old place it is found by its digest; elsewhere --base names it, and another base is refused."""
    beside = finished.base.rename(finished.base.with_name("renamed"))
    try:
        assert finished.command("export", "--out", tmp_path / "found").code == 0
        away = shutil.copytree(beside, tmp_path / "away")
        assert finished.command("export", "--out", tmp_path / "named", "--base", away).code == 0
        wrong = foedus("export", "--out", tmp_path / "wrong", "--state", finished.state, "--base", "foedus-tiny")
        assert (wrong.code, "give its place with --base" in wrong.error) == (2, True)
    finally:
        beside.rename(finished.base)


def test_an_export_has_a_folder_for_every_lane(composed: World, tmp_path: Path) -> None:
    kind = State(composed.state).existing().genesis.composition
    result = composed.command("export", "--out", tmp_path / "adapters").json
    assert result["composition"] == kind
    assert sum(one["share"] for one in result["adapters"]) == pytest.approx(1)
    folders = [Path(one["path"]) for one in result["adapters"]]
    assert folders == [tmp_path / "adapters" / f"lane-{lane}" for lane in range(len(ORGANISATIONS))]
    weights = [(folder / "adapter_model.safetensors").read_bytes() for folder in folders]
    assert len(set(weights)) == len(ORGANISATIONS)
    assert all(load_file(folder / "adapter_model.safetensors") for folder in folders)
    way = {"ensemble": "mixes their next-token probabilities", "routing": "answers each prompt with one of them"}[kind]
    assert all(way in (folder / "README.md").read_text(encoding="utf-8") for folder in folders)


def test_a_merged_export_says_how_far_it_diverges_and_is_a_base_by_itself(finished: World, tmp_path: Path) -> None:
    result = finished.command("export", "--merge", "--out", tmp_path / "merged").json
    assert 0 <= result["divergence"] < 1e-4
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "model.sig", "bom.cdx.json"} <= names
    assert "adapter_config.json" not in names


def test_lanes_that_are_served_apart_are_not_merged(composed: World, tmp_path: Path) -> None:
    refused = foedus("export", "--merge", "--out", tmp_path / "merged", "--state", composed.state)
    assert refused.code == 2
    assert f"--merge: expected one adapter, got {len(ORGANISATIONS)} of composition" in refused.error


def test_a_base_that_is_not_signed_by_the_key_that_was_given_is_not_exported(
    finished: World, tmp_path: Path, signer: Path
) -> None:
    file_key(tmp_path / "publisher.pem")
    options = ("--out", tmp_path / "adapter", "--base-key", tmp_path / "publisher.pub", "--state", finished.state)
    done = foedus("export", *options)
    assert (done.code, "it is not signed" in done.error) == (1, True)
    assert not (tmp_path / "adapter").exists()


def test_the_card_says_whether_the_base_is_signed(finished: World, tmp_path: Path, signer: Path) -> None:
    done = finished.command("export", "--out", tmp_path / "adapter")
    assert done.json["base_signature"] == NOT_SIGNED
    assert f"| signature of the base | {NOT_SIGNED} |" in (tmp_path / "adapter" / "README.md").read_text()
