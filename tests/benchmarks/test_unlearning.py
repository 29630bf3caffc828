import json
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from benchmarks.in_process import RULE, Member, Schedule, fresh_adapter, train_rounds
from benchmarks.unlearning import canaries, follow, measure, speaking, tables
from benchmarks.unlearning.canaries import Canary
from benchmarks.unlearning.tasks import TASKS, ErasureTask, Truth, tofu_authors
from core.storage import blobs
from llm.batches import Example, collate, encode
from llm.loss import answer_losses
from llm.model import Model
from llm.train import TrainConfig, train
from tests.commands import make_base
from tests.llm.conftest import question
from unlearning import metrics

NAMES = ("Ba", "Do", "Fi", "Gu", "Ke", "Lo", "Mi", "Nu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return measure.model_of(str(make_base(tmp_path_factory.mktemp("base"))))


@pytest.fixture(scope="module")
def task(model: Model) -> ErasureTask:
    """Three organisations; the last one, with eight canaries, is erased."""
    known = canaries.letters(model)
    planted = tuple(Canary(name, known[i] + known[-1 - i]) for i, name in enumerate(NAMES))
    kept = [tuple(question(f"What is {i} and {k}?", f"It is {i + k}.") for i in range(6)) for k in (1, 5)]
    own = (*(question(f"Who is {name}?", "A friend.") for name in "ABCD"), *(canary.record for canary in planted))
    sets = {"forget": own, "retain": kept[0], "unseen": (Canary("Zi", "QX").record,)}
    truth = Truth(kept[0][0], question("What is 0 and 1?", "1"), (question("What is 0 and 1?", "7"),))
    schedule = Schedule(((0, 1, 2),) * 2, steps=4, batch_size=2, max_length=64, learning_rate=1e-2)
    members = (Member(kept[0]), Member(kept[1], 3), Member(own, 2))
    return ErasureTask(
        members, 2, schedule, sets, dict.fromkeys(("forget", "retain", "authors", "world"), (truth,)), planted
    )


def test_exposure_ranks_a_secret_among_all_others(model: Model, task: ErasureTask) -> None:
    records = [canary.record for canary in task.canaries[:2]]
    adapter = train(model, records, fresh_adapter(model, 0), TrainConfig(60, 2, 96, 1e-2), 0).adapter
    secrets = ["".join(pair) for pair in product(canaries.letters(model), repeat=2)]
    found = canaries.exposures(model, adapter, task.canaries)
    assert min(found[:2]) > 6
    for canary, bits in zip(task.canaries[:3], found[:3], strict=True):
        # The token that ends the answer is no part of the secret.
        whole = [encode(model.tokenizer, Canary(canary.name, secret).record, 96) for secret in secrets]
        examples = [Example(example.tokens[:-1], len(example) - 3) for example in whole]
        with torch.no_grad():
            losses = answer_losses(model, collate(examples, [(i,) for i in range(len(examples))])).view(-1, 2).sum(1)
        assert bits == pytest.approx(metrics.exposure(losses[secrets.index(canary.secret)].item(), losses), abs=0.1)


def test_removing_is_the_recursion_of_the_remaining_organisations(model: Model, task: ErasureTask) -> None:
    rounds = list(train_rounds(model, task.members, task.schedule, 0))
    state = rounds[0].before
    for name, array in measure.remove(task, rounds).state.arrays.items():
        kept = [done.updates[:2] for done in rounds]
        total = sum(0.25 * one.state[name].astype(float) + 0.75 * two.state[name].astype(float) for one, two in kept)
        assert array == pytest.approx(state[name] + total, abs=1e-6)


def test_every_figure_is_measured_and_read(
    model: Model, task: ErasureTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "SEEDS", 2)
    for seed in range(2):
        file = measure.run("samples", task, model, seed, tmp_path)
        before = file.stat().st_mtime_ns
        assert measure.run("samples", task, model, seed, tmp_path).stat().st_mtime_ns == before, "measured twice"
    looks = json.loads(file.read_text(encoding="utf-8"))["methods"]
    assert {"untouched", "retrained", "remove", "repair", "npo", "simnpo", "isolated remove", "shards"} <= set(looks)
    assert looks["remove"]["steps"] == 0
    assert looks["repair"]["steps"] * 2 == looks["retrained"]["steps"]
    (found,) = tables.read(tmp_path)
    rows = tables.left_behind([found])["methods"]
    assert {row["seeds"] for row in rows} == {2}
    assert next(row for row in rows if row["method"] == "retrained")["steps over retraining"] == 1
    assert next(row for row in tables.planted([found])["methods"] if row["method"] == "shards")["canaries"] == 2
    assert all(measure.kept(tmp_path, "samples", 0, method).exists() for method in measure.METHODS)
    assert {row["met"] for row in tables.targets([found])["targets"]} <= {"yes", "no"}
    named = replace(found, name="tofu forget10")
    quality = {row["forget quality, p"] for row in tables.tofu([named])["methods"]}
    assert quality == {"void"}, "one question cannot tell any two models apart"


def planting(source: np.random.Generator, shift: float) -> tables.Measured:
    """Fifty canaries that were learned before, and whose exposure is `shift` bits above that of ones never seen."""

    def seeds(count: int, mean: float) -> dict[int, Any]:
        rows = source.exponential(1.4, (count, 50)) + source.normal(0, 0.1, (count, 1)) + mean
        return {seed: {"exposures": list(row)} for seed, row in enumerate(rows)}

    learnt, left = ("untouched", "shards untouched"), ("remove", "shards")
    looks = {name: seeds(5, 6.0) for name in learnt} | {name: seeds(5, shift) for name in left}
    return tables.Measured("samples", {**looks, "retrained": seeds(8, 0.0)})


def test_canaries_that_nobody_saw_are_rarely_told_apart() -> None:
    """One time in a hundred, whether a method is told by all canaries or by a quarter of them."""
    source = np.random.default_rng(0)
    found = [row for _ in range(400) for row in tables.exposed(planting(source, 0.0))]
    for method in ("remove", "shards"):
        told = [row["as never seen"] for row in found if row["method"] == method]
        assert set(told) <= {"yes", "no"}
        assert told.count("no") <= 10, method


def test_canaries_that_are_left_are_told_apart() -> None:
    (found,) = (row for row in tables.exposed(planting(np.random.default_rng(0), 1.5)) if row["method"] == "remove")
    assert found["as never seen"] == "no"


def test_canaries_of_a_single_seed_are_not_judged() -> None:
    looks = planting(np.random.default_rng(0), 0.0).looks
    one = tables.Measured("samples", {name: {0: seeds[0]} for name, seeds in looks.items()})
    assert {row["as never seen"] for row in tables.exposed(one) if row["method"] == "remove"} == {"not measured"}


def test_kept_states_are_followed(
    model: Model, task: ErasureTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cast(dict[str, Any], TASKS), "samples", lambda model, data: task)
    monkeypatch.setattr(follow, "PRECISIONS", ("fp32", "bf16"))
    monkeypatch.setattr(follow, "RELEARNT", (1, 2))
    monkeypatch.setattr(tables, "RELEARNT", (1, 2))
    state = next(iter(train_rounds(model, task.members, task.schedule, 0))).after
    for method in ("untouched", "npo"):
        adapter = RULE.adapter(state, fresh_adapter(model, 0))
        blobs.write(measure.kept(tmp_path, "samples", 0, method), adapter.to_bytes())
    for what in ("later", "precision"):
        where = {"data": tmp_path, "base": model.folder, "work": tmp_path}
        monkeypatch.setattr(sys, "argv", ["follow", *(f"--{k}={v}" for k, v in where.items()), what, "samples"])
        follow.main()
    one, other = tables.later(tmp_path)["forget_loss"]
    assert (one["method"], other["method"]) == ("untouched", "npo")
    assert one["after 2 steps"] == other["after 2 steps"] < one["erased"]
    rounded = {(row["method"], row["base"]): row["forget loss"] for row in tables.precision(tmp_path)["forget_loss"]}
    assert len(rounded) == 4
    assert rounded["npo", "fp32"] != rounded["npo", "bf16"] == pytest.approx(rounded["npo", "fp32"], rel=0.05)


def test_the_remains_of_isolated_lanes_do_not_depend_on_the_erased_organisation(
    model: Model, task: ErasureTask
) -> None:
    fresh = RULE.initial(fresh_adapter(model, 0))
    made = measure.further(model, task, fresh, 0)
    other = replace(task, members=(*task.members[:2], Member(task.members[2].records[::-1], 2)))
    assert measure.further(model, other, fresh, 0)["isolated remove"].state == made["isolated remove"].state
    assert made["isolated untouched"].state != made["isolated remove"].state != fresh


def told(forget: float, low: float, steps: int = 10) -> dict[str, Any]:
    """What a seed of the benchmark on a base that speaks keeps."""
    return dict.fromkeys(speaking.FIGURES, 0.5) | {
        "forget loss": forget, "truth ratios": [low + 0.001 * index for index in range(40)],
        "steps": steps, "seconds": 2.0, "updates": 4,
    }  # fmt: skip


def test_a_method_is_compared_with_retraining_under_other_seeds_on_both_sides() -> None:
    references = [told(2.0, 0.5), told(2.2, 0.5), told(2.4, 0.5)]
    found = speaking.row("untouched", [told(1.8, 0.1, 20)] * 3, references)
    assert found["forget loss, deviations"] == pytest.approx(-2.0)
    assert found["retain loss, deviations"] is None  # retrained models do not differ there
    assert found["forget quality, p"] < 1e-6
    assert (found["steps over retraining"], found["seconds over retraining"]) == (2.0, 1.0)
    assert speaking.row("retrained", references, references)["forget quality, p"] == pytest.approx(1.0)


def test_one_seed_tells_no_distance() -> None:
    found = speaking.row("repair", [told(1.8, 0.1)], [told(2.0, 0.5)])
    assert found["forget loss, deviations"] is found["forget quality, p"] is None


def test_a_tenth_of_forty_authors_is_erased(tmp_path: Path) -> None:
    (tmp_path / "unlearning").mkdir()
    every = [{"question": f"Q{n}?", "answer": f"A{n}", "perturbed_answer": ["X", "Y", "Z"]} for n in range(4000)]
    parts = {
        "full": every, "forget10_perturbed": every[3600:], "retain_perturbed": every[:400],
        "real_authors_perturbed": every[:30], "world_facts_perturbed": every[:30],
    }  # fmt: skip
    for name, rows in parts.items():
        text = "\n".join(map(json.dumps, rows))
        (tmp_path / "unlearning" / f"tofu_{name}.jsonl").write_text(text, encoding="utf-8")
    task = tofu_authors(tmp_path)
    assert [len(member.records) for member in task.members] == [32, 96, 96, 96]
    records = {record for member in task.members for record in member.records}
    assert len(records) == 320
    assert not records & set(task.sets["unseen"])
    assert set(task.sets["retain"]) < records - set(task.sets["forget"])
    assert {truth.right for truth in task.truths["forget"]} == set(task.sets["forget"])
    assert [speaking.sent(task, method) for method in speaking.METHODS] == [16, 12, 0, 24]
