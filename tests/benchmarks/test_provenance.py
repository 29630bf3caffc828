"""Attribution experiments on a tiny model: each federation is measured once, and its scores become tables."""

import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from benchmarks.in_process import Member, Schedule, address
from benchmarks.provenance import measure, served, tables
from benchmarks.provenance.experiments import EXPERIMENTS, Experiment, ExperimentSettings, Probe
from benchmarks.provenance.federation import subjects
from benchmarks.provenance.speaking import ASKED, shortened
from benchmarks.tofu import AUTHORS
from core.config import RunConfig
from core.storage.run_folder import RunFolder
from llm.model import Model
from tests.commands import make_base
from tests.llm.conftest import question

SCHEDULE = Schedule(rounds=((0, 1, 2),) * 2, steps=2, max_length=64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return measure.model_of(make_base(tmp_path_factory.mktemp("base")))


def tiny(settings: ExperimentSettings) -> Experiment:
    """Three organisations; after the last round the first record of each is attributed."""
    records = [tuple(question(f"What is {i} and {k}?", f"It is {i + k}.") for i in range(6)) for k in (1, 5, 7)]
    probes = tuple(
        Probe(
            example := settings.example(own[0], SCHEDULE), (k,), "own", (True,) * (len(example) - example.prompt_length)
        )
        for k, own in enumerate(records)
    )
    return Experiment(tuple(map(Member, records)), SCHEDULE, {1: probes})


@pytest.fixture(scope="module")
def runs(model: Model, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The kept scores of two experiments under two seeds; each file is measured once."""
    work, found = tmp_path_factory.mktemp("work"), []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("paper", "facts"):
            patch.setattr(measure, "EXPERIMENTS", {name: tiny})
            for seed in (0, 1):
                settings = ExperimentSettings(model, Path(), "coding", seed)
                file = measure.run(name, "tiny", settings, work)
                before = file.stat().st_mtime_ns
                assert measure.run(name, "tiny", settings, work) == file
                assert file.stat().st_mtime_ns == before, "measured twice"
                found.append(torch.load(file, weights_only=False))
    return found


def test_on_a_base_that_speaks_each_teacher_is_asked_about_equally_often_after_fewer_rounds(model: Model) -> None:
    example = tiny(ExperimentSettings(model, Path(), "coding", 0)).probes[1][0].example
    probes = tuple(Probe(example, (k % 2,), kind) for kind in ("dev", "own") for k in range(50))
    rounds = ((0, 1),) * 3 + ((0,),) * 3
    short = shortened(Experiment((), Schedule(rounds), {5: probes}))
    assert short.schedule.rounds == ((0, 1), (0,), (0,))
    assert short.schedule.server_rate == RunConfig().server_rate
    (kept,) = (short.probes[2],)
    assert Counter((probe.right, probe.kind) for probe in kept) == {
        ((k,), kind): ASKED for k in (0, 1) for kind in ("dev", "own")
    }


def test_a_run_is_asked_the_first_records_of_its_organisations_and_of_their_domains(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny(ExperimentSettings(model, Path(), "coding", 0))
    *_, subject = subjects(model, experiment.members, SCHEDULE, 0)
    monkeypatch.setattr(served.served, "subject", lambda _: subject)
    names = {address(0): "ava", address(1): "ben"}
    rows = [{"question": f"What is {n}?", "answer": str(n), "domain": name} for n in (1, 2) for name in names.values()]
    for name, some in {"validation.jsonl": rows, "ava/dev.jsonl": rows[:1], "ben/dev.jsonl": rows[1:]}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("\n".join(map(json.dumps, some)), encoding="utf-8")
    run = cast(RunFolder, SimpleNamespace(genesis=SimpleNamespace(names=names)))
    for part, limit, asked in (("validation", 1, [0, 1]), ("dev", 2, [0, 1, 1])):
        found = [row for row in served.asked(run, tmp_path, limit, ("gradient",)) if row["kind"] == part]
        assert [row["right"] for row in found] == [[address(index)] for index in asked]
        assert all({*row["familiarity"]} == {*map(address, range(3))} for row in found)


def test_twenty_organisations_with_authors_of_their_own_are_asked_what_nobody_trained_on(
    model: Model, tmp_path: Path
) -> None:
    (tmp_path / "unlearning").mkdir()
    rows = [
        {"question": f"What is {n} of {a}?", "answer": f"Author {a}: {n}."} for a in range(AUTHORS) for n in range(20)
    ]
    (tmp_path / "unlearning" / "tofu_full.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    experiment = EXPERIMENTS["authors"](ExperimentSettings(model, tmp_path, "", 7))
    answers = [[record.answer for record in member.records] for member in experiment.members]
    authors = [{answer.split(":")[0] for answer in own} for own in answers]
    assert [len(own) for own in answers] == [20] * 20
    assert len(set().union(*authors)) == sum(map(len, authors)) == 40
    (probes,) = experiment.probes.values()
    assert Counter((probe.right, probe.kind) for probe in probes) == {
        ((k,), kind): 1 for k in range(20) for kind in ("own record", "held out")
    }
    for probe in probes:
        asked = model.tokenizer.decode(probe.example.tokens[probe.example.prompt_length :])
        (right,) = probe.right
        assert any(asked.strip() in answer for answer in answers[right]) == (probe.kind == "own record")
        assert any(author in asked for author in authors[right])


def test_every_fifth_response_is_attributed_by_the_slow_methods_and_the_controls(runs: list[dict[str, Any]]) -> None:
    first, second, _ = runs[0]["rows"]
    slow = {*measure.BY_PASSES, "shapley", "exact shapley", *measure.CONTROLS}
    assert first["methods"].keys() == {*measure.FAST, *slow}
    assert second["methods"].keys() == {*measure.FAST, *measure.BY_PASSES}
    assert first["right"] == [address(0)]
    for tokens, response, organisations in first["methods"].values():
        assert tokens.shape[1] == len(response) == len(organisations) == 3


def test_the_paths_response_scores_approach_exact_shapley_values(runs: list[dict[str, Any]]) -> None:
    methods = runs[0]["rows"][0]["methods"]
    path, exact = (methods[name][1].double() for name in ("shapley", "exact shapley"))
    assert path.sum().item() == pytest.approx(exact.sum().item(), abs=0.05 * exact.abs().sum().item() + 1e-4)


def test_controls_say_nothing_where_they_must(runs: list[dict[str, Any]]) -> None:
    row = runs[0]["rows"][0]
    assert tables.Attributed(runs[0], row, "lm_head only").verdict == (0.0, None)
    assert not tables.Attributed(runs[0], row, "lm_head only").right
    repeated = [run["rows"][0]["methods"]["random"][1].tolist() for run in runs[:2]]
    assert repeated[0] == repeated[1], "one response has one set of random scores"


def test_scores_become_tables(runs: list[dict[str, Any]]) -> None:
    known = json.loads(json.dumps([tables.judged(run) for run in runs]))
    paper = tables.paper(known)
    assert (paper["configurations"], paper["responses"]) == (1, 6)
    assert paper["by_configuration"][0][tables.JUDGED].keys() == {"percent", "low", "high"}
    assert paper["macro_mean_percent"]["lm_head only"] == 0
    (row,) = tables.harder(known)["by_experiment"]
    assert (row["experiment"], row["seeds"], row["responses"]) == ("facts, own", 2, 6)
    facts = tables.harder(known)["tokens_of_facts"]
    assert all(row["fact tokens"] == row["all tokens"] for row in facts), "here every token is one of a fact"
    for row in tables.correlations(known):
        assert -1 <= row["pooled pearson"] <= 1
        assert re.fullmatch(r"-?\d\.\d{3} to -?\d\.\d{3}", row["95 % of it"])
        assert row["method"] != row["compared with"]


def test_calibration_is_fitted_on_even_seeds_and_measured_on_the_others(runs: list[dict[str, Any]]) -> None:
    rows = {row["method"]: row for row in tables.calibration(runs)["methods"]}
    assert rows[tables.JUDGED]["responses"] == 3
    assert all(0 <= row["calibration error"] <= 1 for row in rows.values())
    only_fitted = [run for run in runs if run["seed"] == 0]
    assert tables.calibration(only_fitted)["methods"] == []
