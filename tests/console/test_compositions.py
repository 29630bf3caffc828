"""Commands on runs whose lanes learned apart and are not summed."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from core.canonical import Address
from core.storage.state_folder import State
from llm.served import serving
from provenance.trace import TokenTrace
from tests.commands import ORGANISATIONS, World
from tests.console.test_provenance import talk

pytestmark = pytest.mark.chain


def test_an_export_has_a_folder_for_every_lane(composed: World, tmp_path: Path) -> None:
    kind = State(composed.state).existing().genesis.composition
    result = composed.command("export", "--out", tmp_path / "adapters").json
    assert result["composition"] == kind
    assert sum(one["share"] for one in result["adapters"]) == pytest.approx(1)
    folders = [Path(one["path"]) for one in result["adapters"]]
    assert folders == [tmp_path / "adapters" / f"lane-{lane}" for lane in range(len(ORGANISATIONS))]
    weights = [(folder / "adapter_model.safetensors").read_bytes() for folder in folders]
    assert len(set(weights)) == len(ORGANISATIONS)
    assert all(load_file(folder / "adapter_model.safetensors") for folder in folders)
    way = {"ensemble": "mixes their next-token probabilities", "routing": "answers each prompt with one of them"}[kind]
    assert all(way in (folder / "README.md").read_text(encoding="utf-8") for folder in folders)


def test_a_chat_says_what_is_served_and_who_taught_it(composed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = State(composed.state).existing().genesis.composition
    seen: list[tuple[str, tuple[int, ...], int]] = []

    def noting(trace: TokenTrace, names: dict[Address, str]) -> str:
        tokens = tuple(token.token for token in trace.tokens)
        seen.append((trace.method, tokens, len(trace.organisations)))
        return ""

    monkeypatch.setattr("console.provenance.summary", noting)
    code, text = talk(composed, monkeypatch, "coding 3?")
    assert code == 0, text
    ((method, tokens, organisations),) = seen
    method_of, organisations_of = {"ensemble": ("gradient", len(ORGANISATIONS)), "routing": ("direct-logit", 1)}[kind]
    assert (method, organisations) == (method_of, organisations_of)
    asked = composed.command("attribute", "--prompt", "coding 3?", "--max-new-tokens", 6).json
    assert tokens == tuple(token["token"] for token in asked["tokens"])


def test_a_chat_with_an_ensemble_refuses_methods_of_one_network(
    composed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = State(composed.state).existing().genesis.composition
    code, text = talk(composed, monkeypatch, "coding 3?", options=("--method", "direct-logit"))
    assert (code, "direct-logit" in text and "ensemble" in text) == ((2, True) if kind == "ensemble" else (0, False))


def test_a_certificate_names_what_is_served_without_the_erased(base: Path, data: Path, tmp_path: Path) -> None:
    world = World(base, data, tmp_path / "state")
    assert world.inline("--lane-size", 1, "--composition", "routing").code == 0
    forgotten = world.command("forget", "--organisation", "medical", "--method", "remove", "--backend", "inline").json
    served = serving(State(world.state).existing())
    assert (served.state.kind, len(served.state.parts)) == ("routing", len(ORGANISATIONS) - 1)
    assert forgotten["aggregate"] == served.state.digest
    checked = world.command("check", forgotten["certificate"])
    assert (checked.code, checked.json["ok"]) == (0, True)
    assert world.command("verify").json["ok"]
