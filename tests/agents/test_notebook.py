"""Saved agents: they go on as if nothing had happened, from the round that is repeated, and forget erased rounds."""

from pathlib import Path

import pytest

from agents.notebook import Notebook
from agents.table import Action
from core.errors import FormatError
from tests.agents.lives import PRICES, TERMS, agent, live


def test_what_is_saved_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    pays = {a: 2.0 * a.effort for a in Action}
    whole = agent(5)
    expected = live(whole, pays)
    first = agent(5)
    notebook = Notebook(tmp_path)
    live(first, pays, 1, 20)
    notebook.note(0, 20, first)
    again = notebook.agent_before(0, 21, TERMS)
    assert again is not None
    assert live(again, pays, 21) == expected[20:]
    assert again.to_bytes() == whole.to_bytes()


def test_a_round_that_is_repeated_starts_from_the_round_before_it(tmp_path: Path) -> None:
    notebook = Notebook(tmp_path)
    player = agent()
    for number in range(1, 4):
        player.decide(number, PRICES)
        notebook.note(0, number, player)
    found = notebook.agent_before(0, 3, TERMS)
    assert found is not None
    assert found.decisions == 2
    assert notebook.agent_before(0, 1, TERMS) is None
    newest = notebook.newest(TERMS)
    assert newest is not None
    assert newest.decisions == 3


def test_a_saved_agent_that_is_damaged_is_refused(tmp_path: Path) -> None:
    notebook = Notebook(tmp_path)
    notebook.note(0, 1, agent())
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError):
        notebook.newest(TERMS)
