"""A conversation is traced by the method that was chosen, and of what is served."""

import pytest

from core.canonical import Address
from core.storage.state_folder import State
from provenance.trace import TokenTrace
from tests.commands import ORGANISATIONS, World
from tests.console.test_chat import talk

pytestmark = pytest.mark.chain


def test_a_chat_can_change_the_method(finished: World, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def noting(trace: TokenTrace, names: dict[Address, str]) -> str:
        used.append(trace.method)
        return ""

    monkeypatch.setattr("console.views.conversation.summary", noting)
    assert talk(finished, monkeypatch, "coding 3?", "/method gradient", "coding 3?")[0] == 0
    assert used == ["direct-logit", "gradient"]


def test_a_chat_says_what_is_served_and_who_taught_it(composed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = State(composed.state).existing().genesis.composition
    seen: list[tuple[str, tuple[int, ...], int]] = []

    def noting(trace: TokenTrace, names: dict[Address, str]) -> str:
        tokens = tuple(token.token for token in trace.tokens)
        seen.append((trace.method, tokens, len(trace.organisations)))
        return ""

    monkeypatch.setattr("console.views.conversation.summary", noting)
    code, text = talk(composed, monkeypatch, "coding 3?")
    assert code == 0, text
    ((method, tokens, organisations),) = seen
    method_of, organisations_of = {"ensemble": ("marginal", len(ORGANISATIONS)), "routing": ("direct-logit", 1)}[kind]
    assert (method, organisations) == (method_of, organisations_of)
    asked = composed.command("attribute", "--prompt", "coding 3?", "--max-new-tokens", 6).json
    assert tokens == tuple(token["token"] for token in asked["tokens"])
