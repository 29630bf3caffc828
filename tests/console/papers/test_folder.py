"""The papers in an export's folder: each is there, and each speaks of what lay there before it."""

import json
from pathlib import Path

from console.papers.folder import write_papers
from core.model_signature import file_digests, file_key, opened, verified_folder
from tests.behaviours.runs import build
from tests.console.papers.test_origin import origin_of


def test_the_signature_covers_the_statement_and_the_statement_the_other_papers(tmp_path: Path) -> None:
    origin = origin_of(build(tmp_path / "state" / "runs" / "run", rounds=1))
    key = file_key(tmp_path / "keys" / "signing.pem")
    (folder := tmp_path / "export").mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    write_papers(folder, origin, key, "llama", 4)
    signed = verified_folder(folder, key.public)
    assert set(signed) == {"README.md", "adapter_model.safetensors", "bom.cdx.json", "provenance.intoto.jsonl"}
    told = opened(json.loads((folder / "provenance.intoto.jsonl").read_text(encoding="utf-8")), key.public)
    stated = {subject["name"]: subject["digest"]["sha256"] for subject in told["subject"]}
    assert stated == {name: sha for name, sha in file_digests(folder).items() if name != "provenance.intoto.jsonl"}
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("---\nbase_model: ")
