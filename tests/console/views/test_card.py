"""The model card of an exported adapter: what it is, who made it, and from which rounds."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from console.views.card import model_card
from tests import federation as f
from tests.behaviours.runs import Federation, build

AGGREGATE = f.other("aggregate")


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "run", rounds=2)


def test_a_hub_reads_its_metadata(federation: Federation) -> None:
    _, metadata, _ = model_card(federation.run, AGGREGATE).split("---\n", 2)
    assert yaml.safe_load(metadata) == {
        "base_model": "none",
        "library_name": "peft",
        "tags": ["lora", "federated-learning", "foedus"],
    }


def test_a_base_with_a_name_of_ours_goes_by_the_published_one(federation: Federation) -> None:
    genesis = federation.run.genesis
    named = replace(genesis, base=replace(genesis.base, name="smollm2"))
    federation.run.__dict__["genesis"] = named
    card = model_card(federation.run, AGGREGATE)
    assert 'base_model: "HuggingFaceTB/SmolLM2-135M-Instruct"\n' in card
    assert "| base model | smollm2, " in card


def test_it_names_what_was_exported_and_everything_that_fixes_it(federation: Federation) -> None:
    card, genesis = model_card(federation.run, AGGREGATE), federation.genesis
    for fact in (AGGREGATE, genesis.digest, genesis.base.digest, genesis.coordinator, genesis.chain.contract):
        assert f"`{fact}`" in card
    assert "| rank, alpha | 2, 4 in every round |" in card
    assert "| seed | 7 |" in card


def test_it_has_a_row_for_every_organisation_and_round(federation: Federation) -> None:
    card = model_card(federation.run, AGGREGATE)
    for member in federation.genesis.organisations:
        assert f"| {member.name} | `{member.address}` | {member.examples} | derived: a simulation |" in card
    for signed in federation.run.records():
        record = signed.value
        assert f"| {record.round} | 0 | 2 | 0 | `{record.aggregate}` | `{record.digest}` |" in card


@pytest.mark.parametrize(
    ("composition", "words"),
    [
        ("sum", ""),
        ("ensemble", "one of 2 independently trained lanes: the run mixes their next-token probabilities"),
        ("routing", "one of 2 independently trained lanes: the run answers each prompt with one of them"),
    ],
)
def test_it_says_how_the_adapters_of_lanes_are_used(tmp_path: Path, composition: str, words: str) -> None:
    card = model_card(build(tmp_path / "run", lanes=2, composition=composition, rounds=1).run, AGGREGATE)
    assert ("independently trained lanes" in card) is bool(words)
    assert words in card
