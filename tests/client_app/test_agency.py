"""An organisation's agent at home: what it bids, spends and saves, and what it does with bad tables."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from agents.notebook import Notebook
from agents.table import Action
from client_app.agency import Agency, AgentSession
from core.canonical import to_json
from core.config import RunConfig
from core.errors import ConfigError, FormatError, UsageError
from core.round_key import RoundKey
from core.storage.state_folder import State
from core.update import ABSTAIN, Bid
from tests import federation as f

GENESIS = f.genesis(training=replace(f.genesis().training, rounds=6, local_steps=10))
ME = f.address("medical")


def agency(folder: Path, **own: object) -> Agency:
    return Agency.of(RunConfig(pool=4.0), State(folder), own)  # type: ignore[arg-type]


def session(folder: Path, number: int, generation: int = 0, **own: object) -> AgentSession:
    return agency(folder, **own).open_session(GENESIS, ME, RoundKey(GENESIS.digest, 0, generation, number), 10, 1.0)


def live(folder: Path, first: int, last: int, pays: float) -> list[Bid]:
    """Rounds as a ClientApp does them: settle, begin, end."""
    bids = []
    for number in range(first, last + 1):
        now = session(folder, number)
        now.settle(dict.fromkeys(range(1, number), pays))
        now.begin()
        bids.append(now.end())
    return bids


def test_an_offer_is_a_bid_in_range_and_the_same_when_asked_again(tmp_path: Path) -> None:
    bids = {session(tmp_path, 1).offer() for _ in range(3)}
    assert len(bids) == 1
    (bid,) = bids
    assert 1 <= bid.steps <= 10
    assert 1 <= bid.rank <= GENESIS.rank


def test_the_last_round_bids_for_none(tmp_path: Path) -> None:
    assert live(tmp_path, 1, 6, 2.0)[-1] == ABSTAIN


def test_after_a_crash_an_agent_goes_on_from_its_saved_table(tmp_path: Path) -> None:
    """kill -9 while round 4 trains: the round is sent again, to a process that knows only what is on disk."""
    whole = live(tmp_path / "one", 1, 6, 2.0)
    live(tmp_path / "two", 1, 3, 2.0)
    torn = session(tmp_path / "two", 4)
    torn.settle(dict.fromkeys(range(1, 4), 2.0))
    torn.begin()  # and nothing was saved
    assert live(tmp_path / "two", 4, 6, 2.0) == whole[3:]
    saved = [
        (folder / f"agents/{GENESIS.digest[2:]}/{ME}/G00000-R00006.json").read_bytes()
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    assert saved[0] == saved[1]


def test_a_new_generation_goes_on_from_the_round_it_forks_from(tmp_path: Path) -> None:
    live(tmp_path, 1, 6, 2.0)
    notebook = Notebook(State(tmp_path).agent(GENESIS.digest, ME))
    then, now = notebook.agent_before(0, 3, session(tmp_path, 3).agent.terms), session(tmp_path, 3, generation=1).agent
    assert then is not None
    assert now.to_bytes() == then.to_bytes()


def test_a_budget_is_not_overrun_and_then_it_abstains(tmp_path: Path) -> None:
    own = {"budget": 1.0, "step-price": 0.1, "traffic-price": 0.0}
    for number in range(1, 7):
        now = session(tmp_path, number, **own)
        now.settle(dict.fromkeys(range(1, number), 9.0))
        now.begin()
        now.end()
        assert now.agent.spent <= 1.0
    assert session(tmp_path, 7, **own).agent.left < 0.2 * 10


def test_whoever_abstained_can_be_drafted(tmp_path: Path) -> None:
    now = session(tmp_path, 1)
    now.agent.take(1, 0, Action.ABSTAIN)
    assert now.begin() == Action.LOW.bid(10, GENESIS.rank)
    assert now.agent.spent > 0


@pytest.mark.parametrize(("name", "value"), [("budget", -1.0), ("step-price", math.nan), ("traffic-price", math.inf)])
def test_a_price_or_budget_that_is_none_is_refused(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        agency(tmp_path, **{name: value})


def test_a_saved_table_of_another_version_is_refused(tmp_path: Path) -> None:
    live(tmp_path, 1, 1, 2.0)
    path = State(tmp_path).agent(GENESIS.digest, ME) / "G00000-R00001.json"
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))
    with pytest.raises(FormatError, match="expected version 1, got 2"):
        session(tmp_path, 2)


def test_an_agent_can_begin_with_a_table_and_refuses_another(tmp_path: Path) -> None:
    live(tmp_path / "taught", 1, 6, 4.0)
    table = tmp_path / "table.json"
    table.write_bytes(to_json(session(tmp_path / "taught", 7).agent.table.to_data()))
    begun = session(tmp_path / "new", 1, **{"q-table": str(table)})
    assert begun.agent.table.to_data() == session(tmp_path / "taught", 7).agent.table.to_data()
    table.write_bytes(b"{}")
    with pytest.raises(UsageError, match="malformed Q-table"):
        session(tmp_path / "other", 1, **{"q-table": str(table)})
