"""The model card of an export: what it is, who taught it, what it can do, and its limits."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from console.papers.card import model_card
from console.papers.origin import Origin
from core.genesis import Privacy
from core.storage.run_folder import RunFolder
from tests import federation as f
from tests.behaviours.runs import Federation, build
from tests.console.papers.test_origin import continuing, origin_of

AGGREGATE = f.other("aggregate")


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "state" / "runs" / "run", rounds=2)


@pytest.fixture
def origin(federation: Federation) -> Origin:
    return replace(origin_of(federation), aggregate=AGGREGATE)


def test_a_hub_reads_its_metadata(origin: Origin) -> None:
    expected = {
        "base_model": "none", "library_name": "peft", "pipeline_tag": "text-generation",
        "tags": ["lora", "federated-learning", "foedus"],
    }  # fmt: skip
    for licence, rank, more in (
        ("", 4, {}),
        ("Apache-2.0", 4, {"license": "apache-2.0"}),
        ("", 0, {"library_name": "transformers"}),
    ):
        _, metadata, _ = model_card(replace(origin, licence=licence), rank).split("---\n", 2)
        assert yaml.safe_load(metadata) == expected | more


def test_a_base_with_a_name_of_ours_goes_by_the_published_one(origin: Origin) -> None:
    genesis = origin.run.genesis
    origin.run.__dict__["genesis"] = replace(genesis, base=replace(genesis.base, name="smollm2"))
    card = model_card(origin, 4)
    assert 'base_model: "HuggingFaceTB/SmolLM2-135M-Instruct"\n' in card
    assert "| base model | smollm2, " in card
    assert "the base model (Apache-2.0)" in card


def test_a_loss_beyond_any_perplexity_is_told(origin: Origin) -> None:
    name = next(iter(origin.run.genesis.names.values()))
    origin.__dict__["report"] = origin.report | {"base_loss": {name: 3.0}, "final_loss": {name: 1000.0}}
    assert "| 20.1 | inf |" in model_card(origin, 4)


def test_it_names_what_was_exported_and_everything_that_fixes_it(origin: Origin, federation: Federation) -> None:
    card, genesis = model_card(origin, 4), federation.genesis
    for fact in (AGGREGATE, genesis.digest, genesis.base.digest, genesis.coordinator, genesis.chain.contract):
        assert f"`{fact}`" in card
    assert "| rank, alpha | 2, 4 in every round |" in card


def test_it_has_a_row_for_every_organisation_and_the_served_round(origin: Origin, federation: Federation) -> None:
    card = model_card(origin, 4)
    for member in federation.genesis.organisations:
        assert f"| {member.address} | {member.examples} | 2 | derived: a simulation |" in card
        assert member.name not in card
        assert member.name in model_card(replace(origin, named=True), 4)
    *_, last = federation.run.records()
    assert f"| 0 | 0 | 2 | `{last.value.digest}` |" in card


def test_it_tells_losses_as_organisations_measured_them(origin: Origin) -> None:
    assert "Nobody has measured what is served." in model_card(origin, 4)
    name = next(iter(origin.run.genesis.names.values()))
    origin.__dict__["report"] = origin.report | {"base_loss": {name: 3.0}, "final_loss": {name: 2.0}}
    assert f"| {origin.report['organisations'][name]} | 3.000 | 2.000 | 20.1 | 7.4 |" in model_card(origin, 4)


def test_its_limits_are_those_of_the_run(origin: Origin) -> None:
    assert "- No noise was added" in model_card(origin, 4)
    assert "- It is a simulation" in model_card(origin, 4)
    origin.run.__dict__["genesis"] = replace(origin.run.genesis, privacy=Privacy(8.0, 1e-5, 1.0))
    card = model_card(origin, 4)
    assert "- No noise was added" not in card
    assert "ε 8, δ 1e-05" in card


@pytest.mark.parametrize(("rank", "told"), [(4, 8), (16, 16), (33, 64), (1000, 1000)])
def test_vllm_is_told_a_rank_that_it_takes(origin: Origin, rank: int, told: int) -> None:
    assert f"--max-lora-rank {told} " in model_card(origin, rank)


@pytest.mark.parametrize(
    ("composition", "words"),
    [
        ("sum", ""),
        ("ensemble", "one of 2 independently trained lanes: the run mixes their next-token probabilities"),
        ("routing", "one of 2 independently trained lanes: the run answers each prompt with one of them"),
    ],
)
def test_it_says_how_the_adapters_of_lanes_are_used(tmp_path: Path, composition: str, words: str) -> None:
    run = build(tmp_path / "state" / "runs" / "run", lanes=2, composition=composition, rounds=1)
    card = model_card(origin_of(run), 4)
    assert ("independently trained lanes" in card) is bool(words)
    assert words in card


def test_it_names_the_run_that_it_continues_and_who_was_erased_there_since(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "It continues" not in model_card(origin, 4)
    former = continuing(origin)
    card = model_card(origin, 4)
    assert f"It continues run before (genesis `{former.genesis}`), whose adapter `{former.state}`" in card
    assert "Erased there since" not in card
    name, address = f.genesis().organisations[0].name, f.genesis().organisations[0].address
    there = SimpleNamespace(genesis=f.genesis(), erased_since={former.record: [name]}.get)
    monkeypatch.setattr(RunFolder, "former", there)
    assert f"Erased there since, and still in this one: {address}." in model_card(origin, 4)
    assert f"Erased there since, and still in this one: {name}." in model_card(replace(origin, named=True), 4)
