"""The model card of an exported adapter: every digest that leads back to its run, and no licence."""

from pathlib import Path

import pytest

from console.views.card import model_card
from tests import federation as f
from tests.server_app.clients import Federation


def test_a_card_has_the_digests_organisations_and_rounds_of_its_run(tmp_path: Path) -> None:
    federation = Federation.found(tmp_path)
    federation.start()
    (first, last) = (signed.value for signed in federation.run.records())
    card = model_card(federation.run, last.aggregate)
    genesis = federation.genesis
    for fact in (genesis.digest, genesis.base.digest, genesis.coordinator, first.digest, last.digest, last.aggregate):
        assert f"`{fact}`" in card
    for name in f.EXAMPLES:
        assert f"| {name} | `{f.address(name)}` | {f.EXAMPLES[name]} | derived: a simulation |" in card
    assert card.startswith("---\nbase_model: tiny\nlibrary_name: peft\n")
    assert "None is granted here." in card
    assert "lanes" not in card


@pytest.mark.parametrize(("composition", "way"), [("ensemble", "mixes"), ("routing", "answers each prompt with one")])
def test_the_card_of_one_lane_says_how_the_run_uses_it(tmp_path: Path, composition: str, way: str) -> None:
    lanes = tuple((member.address,) for member in f.members())
    federation = Federation.found(tmp_path, lanes=lanes, composition=composition)
    card = model_card(federation.run, f.fresh().digest)
    assert f"one of {len(lanes)} independently trained lanes: the run {way}" in card
