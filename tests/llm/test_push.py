"""Uploading to a hub: one commit of everything, in a private repository, and one line where the hub refuses."""

from pathlib import Path

import pytest

from core.errors import RunError, UsageError
from llm.push import checked_name, push
from tests.hub import reach_hub, writable_hub


@pytest.fixture
def export(tmp_path: Path) -> Path:
    (tmp_path / "hub").mkdir()
    folder = tmp_path / "export"
    (folder / "lane-0").mkdir(parents=True)
    (folder / "lane-0" / "adapter_model.safetensors").write_bytes(b"\x00\x01" * 10_000)  # by Git LFS
    (folder / "README.md").write_text("card", encoding="utf-8")
    return folder


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the Hub's client
@pytest.mark.parametrize("private", [True, False])
def test_every_file_arrives(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private: bool) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    with writable_hub(tmp_path / "hub", "secret") as (url, made):
        reach_hub(monkeypatch, url)
        assert push(export, "owner/name", private=private) == f"{url}/owner/name"
    assert made == {"owner/name": private}
    for name in ("README.md", "lane-0/adapter_model.safetensors"):
        assert (tmp_path / "hub" / "name" / name).read_bytes() == (export / name).read_bytes()


def test_a_hub_that_refuses_is_told_in_one_line(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with writable_hub(tmp_path / "hub", "secret") as (url, made):
        reach_hub(monkeypatch, url)
        with pytest.raises(RunError, match=r"expected owner/name to take the files, got: .*401"):
            push(export, "owner/name", private=True)
    assert not made


def test_a_hub_that_is_not_there_is_told_in_one_line(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reach_hub(monkeypatch, "http://127.0.0.1:1")
    with pytest.raises(RunError, match="expected owner/name to take the files, got: "):
        push(export, "owner/name", private=True)


@pytest.mark.parametrize("name", ["", "name", "a/b/c", "owner/na me", "owner/..", "--help/x"])
def test_a_name_that_no_hub_takes_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--push: expected OWNER/NAME"):
        checked_name(name)
