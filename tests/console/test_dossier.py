"""`foedus dossier` on a real run from which an organisation was erased."""

import json
from pathlib import Path

import pytest
from model_signing import verifying

from console.papers.base_signature import NOT_SIGNED
from tests.commands import ORGANISATIONS, World, foedus

pytestmark = pytest.mark.chain


@pytest.fixture(autouse=True)
def signer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "foedus" / "signing.pub"


def test_a_dossier_tells_of_an_erasure_and_is_signed(world: World, tmp_path: Path, signer: Path) -> None:
    assert world.inline().code == 0
    assert (
        world.command("forget", "--organisation", ORGANISATIONS[0], "--method", "remove", "--backend", "inline").code
        == 0
    )
    entry = {"run": world.command("status").json["run"], "what": "train", "bytes": 321}
    (log := tmp_path / "sent.jsonl").write_text(json.dumps(entry) + "\n", encoding="utf-8")
    options = ("--purpose", "A test", "--sent", f"{ORGANISATIONS[1]}={log}")
    done = world.command("dossier", "--out", tmp_path / "dossier", *options).json
    folder = tmp_path / "dossier"
    assert done["ok"] is True
    assert {path.name for path in folder.iterdir()} == {"dossier.html", "dossier.json", "model.sig"}
    verifying.Config().use_elliptic_key_verifier(public_key=signer).verify(folder, folder / "model.sig")
    content = json.loads((folder / "dossier.json").read_text(encoding="utf-8"))
    (erasures,) = (section for section in content["sections"] if section["id"] == "erasures")
    (row,) = erasures["rows"]
    told = dict(zip(erasures["columns"], row["cells"], strict=True))
    assert (told["organisation"], told["what"], told["label"]) == (ORGANISATIONS[0], "all", "exact")
    assert told["asked"] < told["deadline"]
    assert content["sources"][row["source"]]["text"].startswith("certificates/")
    cells = [row["cells"] for section in content["sections"] for row in section["rows"]]
    assert [row[4] for row in cells if row[0] == ORGANISATIONS[1] and len(row) == 6] == ["1 answers, 321 bytes"]
    assert [row[1] for row in cells if row[0] == "signature of the base"] == [NOT_SIGNED]
    page = (folder / "dossier.html").read_text(encoding="utf-8")
    assert "A member can have kept a copy of what was erased." in page


def test_a_folder_that_is_not_empty_is_left_alone(finished: World, tmp_path: Path) -> None:
    done = foedus("dossier", "--no-audit", "--out", tmp_path, "--state", finished.state)
    assert (done.code, "expected a new or empty folder" in done.error) == (2, True)
