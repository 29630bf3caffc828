"""An organisation that is told of an erasure: what it deletes, what it signs, and whom it does not believe."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.agent import Agent, Prices, Terms
from agents.notebook import Notebook
from agents.q_function import Learning, QFunction
from client_app import oversight
from client_app.agency import Agency
from client_app.deletion import delete_derived_state
from client_app.feedback import Feedback
from client_app.hosting import Host, Node
from client_app.oversight import Oversight
from core.erasures import Attestation
from core.errors import IntegrityError, LedgerUnreachableError, ObjectionError
from core.ledger import Erasure, MemoryLedger
from core.messages.queries import Deletion
from core.signed import Signed
from core.storage.state_folder import State
from llm.records import OrganisationData, Record
from tests import federation as f
from tests.erasures import attestation, attested

GENESIS = f.genesis()
NAME = "medical"
PLACES = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
"""(generation, round) of the states that its agent has saved; generation 1 is the one that the erasure opens."""


class Ledger(MemoryLedger):
    """The organisation's own; it knows the erasure, unless `known` is changed."""

    known: Any = attestation(GENESIS)

    def erasure(self, run: Any, erasure: Any) -> Erasure | None:
        found = self.known
        if found is None or found.erasure != erasure:
            return None
        return Erasure(0, found.hide(found.digest), f.other("none"), 1, 1)


class Home:
    """The organisation medical, with a node, a state folder and a ledger of its own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, chain: str = "embedded") -> None:
        self.state, self.ledger = State(folder), Ledger()
        patch.setattr(oversight, "_ledger", lambda chain, state, contract: self.ledger)
        data = OrganisationData(NAME, (Record((), "x"),) * f.EXAMPLES[NAME], ())
        self.host = Host(f.key(NAME), data)
        agency = Agency(self.state, 0.0, Prices(0.0, 0.0), 1.0)
        seeing = Oversight(chain, self.state, 1, "flag")
        self.node = Node({self.host.key.address: self.host}, 1, seeing, agency, "foedus-tiny")
        for generation, number in PLACES:
            self.feedback.save(generation, number, b"left out")
        terms = Terms(4.0, 4, 3, 10, 1.0, 100.0)
        for place in PLACES:
            self.notebook.note(*place, Agent(terms, 1, QFunction.untaught(Learning())))
        self.hold(0, 3)

    def hold(self, generation: int, number: int) -> None:
        """Keep an update of lane 0, as one that a person is to look at."""
        update = f.update_of(GENESIS, NAME)
        plain = replace(f.manifest(GENESIS), generation=generation, round=number, update=update.digest)
        self.node.held_updates(self.host, GENESIS).keep(plain, update)

    @property
    def holds(self) -> bool:
        return any(self.state.held(GENESIS.digest, self.host.key.address).glob("*"))

    @property
    def notebook(self) -> Notebook:
        return Notebook(self.state.agent(GENESIS.digest, self.host.key.address))

    @property
    def feedback(self) -> Feedback:
        return Feedback(self.state.feedback(GENESIS.digest, self.host.key.address, 0), "sparse")

    def told(self, signed: Signed[Attestation], **changes: Any) -> Any:
        query = replace(Deletion(GENESIS, self.host.key.address, signed), **changes)
        return delete_derived_state(query, self.host, self.node)

    @property
    def kept(self) -> list[tuple[int, int]]:
        kept = sorted(self.notebook.saved())
        assert sorted(self.feedback.saved()) == kept
        return kept


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(tmp_path, monkeypatch)


def test_states_that_knew_the_erased_go_and_a_receipt_says_so(home: Home) -> None:
    for _ in range(2):  # once more changes nothing
        receipt = home.told(attested(GENESIS))
        assert receipt.verified(GENESIS).erasure == attestation(GENESIS).erasure
        assert receipt.value.organisation == f.address(NAME)
        assert home.kept == [(0, 0), (0, 1), (1, 2), (1, 3)]
        assert not home.holds


@pytest.mark.parametrize("place", [(0, 1), (1, 3)])
def test_an_update_that_waits_and_knows_nothing_of_the_erased_stays(home: Home, place: tuple[int, int]) -> None:
    home.hold(*place)
    home.told(attested(GENESIS))
    assert home.holds


def test_states_of_another_lane_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = f.genesis(lanes=tuple((o.address,) for o in f.members()))
    lane = next(i for i, members in enumerate(alone.lanes) if f.address("coding") in members)
    home = Home(tmp_path, monkeypatch)
    home.ledger.known = attestation(alone, lane=lane)
    home.notebook.folder.rename(home.state.agent(alone.digest, f.address(NAME)).parent.parent / "kept")
    home.told(attested(alone, lane=lane), genesis=alone)
    assert not home.state.agent(alone.digest, f.address(NAME)).exists()
    assert len(list((home.state.folder / "agents" / "kept").iterdir())) == len(PLACES)


STOLEN = attestation(GENESIS).request.value.sign(f.key(NAME), GENESIS.chain)
"""Another's request, which this organisation signed."""


@pytest.mark.parametrize(
    ("signed", "error"),
    [
        (attested(GENESIS, coordinator=NAME), "expected the signature of"),
        (
            attested(GENESIS, request=STOLEN),
            "signature of",
        ),
        (attested(f.genesis(seed=8)), "expected federation"),
        (attested(GENESIS, holders=(f.address("coding"),)), "does not list"),
        (attested(GENESIS, parent_round=0), "the ledger on erasure .* got 0x"),
        (attested(GENESIS, salt="00" * 32), "the ledger on erasure .* got nothing"),
    ],
    ids=["coordinator", "requester", "federation", "holders", "other attestation", "unknown erasure"],
)
def test_nothing_goes_when_what_is_asked_does_not_hold(home: Home, signed: Signed[Attestation], error: str) -> None:
    with pytest.raises(IntegrityError, match=error):
        home.told(signed)
    assert home.kept == PLACES
    assert home.holds


def test_it_deletes_for_its_own_federation_only(home: Home) -> None:
    others = f.genesis(organisations=tuple(replace(o, examples=o.examples + 1) for o in f.members()))
    home.ledger.known = attestation(others)
    with pytest.raises(IntegrityError, match=f"expected .*examples={f.EXAMPLES[NAME]},"):
        home.told(attested(others), genesis=others)


def test_a_ledger_that_does_not_answer_is_waited_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any) -> None:
        raise LedgerUnreachableError("nothing answered")

    monkeypatch.setattr(Ledger, "erasure", down)
    with pytest.raises(LedgerUnreachableError):
        home.told(attested(GENESIS))
    assert home.kept == PLACES


def test_without_a_ledger_both_signatures_must_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path, monkeypatch, chain="")
    home.ledger.known = None
    assert home.told(attested(GENESIS)).verified(GENESIS).erasure == attestation(GENESIS).erasure
    assert home.kept != PLACES


def test_nothing_is_signed_for_a_federation_that_it_did_not_agree_to(home: Home) -> None:
    # With a key of its own; whoever invents a federation is its coordinator, its requester and all other members.
    home.host = replace(home.host, key=replace(f.key(NAME), derived=False))
    home.node = replace(home.node, hosts={home.host.key.address: home.host})
    with pytest.raises(ObjectionError, match="expected one that this organisation has agreed to found"):
        home.told(attested(GENESIS))
    assert home.kept == PLACES
