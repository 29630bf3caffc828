"""What benchmarks report and keep."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.lds import WORLDS


def test_a_seed_is_measured_once_and_kept_with_its_hardware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MEASURED", tmp_path)
    calls = []

    def measure() -> dict[str, float]:
        calls.append(1)
        return {"loss": 0.5}

    found = [report.kept("rules", "7", measure) for _ in range(2)]
    assert found == [{"loss": 0.5}] * 2
    assert len(calls) == 1
    kept = json.loads((tmp_path / "rules" / "7.json").read_text(encoding="utf-8"))
    assert kept["hardware"]["cores"] >= 1
    assert kept["versions"]["torch"]


@pytest.mark.parametrize(
    "content", ["", '{"hardware": {}, "figures": {"loss"', "[]", "{}", '{"figures": 1}\x00', "\udcff"]
)
def test_a_file_that_is_no_result_is_named_in_one_line(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MEASURED", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "rules")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "7.json").write_bytes(content.encode(errors="surrogateescape"))
    for read in (lambda: report.known("rules", "7"), lambda: report.figures("7")):
        with pytest.raises(SystemExit, match=r"7\.json: expected a benchmark's result, got .*: restore or remove it"):
            read()


def test_a_result_names_every_machine_that_measured_some_of_its_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MEASURED", tmp_path)
    for seed, (processor, load) in enumerate((("a", 1.5), ("b", 0.5), ("a", 3.5), ("a", 2.0))):
        hardware = {"processor": processor, "load_average": load}
        monkeypatch.setattr(report, "hardware", lambda hardware=hardware: hardware)
        report.kept("rules", f"{seed}", lambda: 1)
    written = json.loads(report.write("rules", {}, "command", 7, tmp_path, kept_as="rules").read_text())
    found = [machine["hardware"] for machine in written["machines"]]
    assert found == [{"processor": "a", "load_average": 3.5}, {"processor": "b", "load_average": 0.5}]
    written = json.loads(report.write("rules", {}, "command", 7, tmp_path).read_text())
    assert [machine["hardware"] for machine in written["machines"]] == [{"processor": "a", "load_average": 2.0}]


def test_a_seed_that_failed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MEASURED", tmp_path)
    with pytest.raises(ValueError, match="Out of range"):
        report.kept("rules", "7", lambda: {"loss": float("nan")})
    assert not (tmp_path / "rules" / "7.json").exists()


@pytest.mark.parametrize(
    ("module", "options", "result"),
    [
        ("lds", "--work WORK", "lds"),
        ("records", "--work WORK", "records"),
        ("rules", "--work WORK", "rules"),
        ("speaking", "--work WORK --erasures 2", "speaking"),
        (
            "speaking",
            "--work WORK --data WORLDS --name speaking_unseen --seeds 3 --isolated-seeds 0 --erasures 0",
            "speaking_unseen",
        ),
        ("agents.tables", "--scenario speaking", "agents_speaking"),
        ("provenance.speaking", "--work WORK --data WORK --only natural", "provenance_speaking"),
        ("unlearning.speaking", "--data DATA", "unlearning_speaking"),
    ],
)
def test_published_figures_are_those_of_the_seeds_that_are_kept(
    module: str,
    options: str,
    result: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    places = {"WORK": tmp_path, "WORLDS": WORLDS}
    if "DATA" in options.split():
        places["DATA"] = request.getfixturevalue("real_data")
    written: dict[str, Any] = {}

    def known(name: str, key: str, _measure: object) -> Any:
        found = report.known(name, key)
        assert found is not None, f"{name} {key} was published and is not kept"
        return found

    def write(name: str, figures: dict[str, Any], *_: object, **__: object) -> None:
        written[name] = json.loads(json.dumps(figures))

    monkeypatch.setattr(report, "kept", known)
    monkeypatch.setattr(report, "write", write)
    monkeypatch.setattr(sys, "argv", [module, *(str(places.get(word, word)) for word in options.split())])
    import_module(f"benchmarks.{module}").main()
    assert written == {result: report.figures(result)}
