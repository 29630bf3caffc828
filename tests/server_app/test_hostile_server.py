"""A coordinator that cheats in a real run: an honest organisation catches it, or whoever audits the run afterwards."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

import server_app.app
from chain.audit.run import verify
from client_app import oversight
from console.views.report import report
from core import keys
from core.adapter import AdapterState
from core.canonical import Address
from core.composition import Composition
from core.errors import LedgerUnreachableError, QuorumError
from core.ledger import Anchor, MemoryLedger, RoundCommitment
from core.messages.training import Reply, Task
from core.round_key import RoundKey
from core.rounds import Admitted, Rejection, Salts
from core.storage.run_folder import RunFolder
from server_app.admission import AdmissionContext
from server_app.rounds import OpenRound, Recipient, Rounds
from server_app.strategy import Foedus
from tests.server_app.worlds import World

VICTIM = keys.derive(7, "medical").address


class TwoFaced(Rounds):
    """Shows one organisation a history of its own: another round 1, signed all the same, and what comes of it."""

    def task(self, recipient: Recipient, to_send: Composition, *, measure: bool = False) -> Task:
        task = super().task(recipient, to_send, measure=measure)
        number = task.round
        if recipient.organisation != VICTIM or number < 2 or task.parent is None:
            return task
        other = self._other(number, task.parent.value.aggregate)
        record = replace(
            task.parent.value, aggregate=other.digest, parent=self._parents.get(number - 1, self.genesis.digest)
        )
        signed = record.sign(self.key, self.genesis.chain)
        self._parents[number] = record.digest
        self._salts.setdefault(number, Salts.draw(record))
        face = {"earlier": (), "parent": signed, "salts": self._salts[number]}  # the other face has no true record
        return replace(task, served=Composition.of(other), **face)

    def _other(self, number: int, name: Any) -> AdapterState:
        state = self.run.artifacts.open(name)
        return AdapterState({n: array + number for n, array in state.arrays.items()})

    def admission(self, recipient: Recipient, delay: int = 0) -> AdmissionContext:
        context = super().admission(recipient, delay)
        number = context.key.round
        if recipient.organisation != VICTIM or number < 2:
            return context
        return replace(context, parent=self._parents[number])

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._parents: dict[int, Any] = {}
        self._salts: dict[int, Salts] = {}


class Dropping(Rounds):
    """Leaves out what one organisation sent, from the round on that is given."""

    since = 1

    def admit(self, recipient: Recipient, reply: Reply, *when: Any) -> None:
        if recipient.organisation != VICTIM or self.lanes[recipient.lane].round + 1 < self.since:
            super().admit(recipient, reply, *when)


class DroppingLast(Dropping):
    since = 3


class Swapping(Rounds):
    """Puts the update of another into the mouth of one organisation, with the best signature that it can make."""

    def weigh(self, open_round: OpenRound) -> tuple[Admitted, ...]:
        manifests = {signed.value.organisation: signed for signed in open_round.admitted}
        if VICTIM in manifests:
            other = next(signed.value for address, signed in manifests.items() if address != VICTIM)
            swapped = replace(manifests[VICTIM].value, update=other.update)
            open_round.admitted = [
                swapped.sign(self.key, self.genesis.chain) if address == VICTIM else signed
                for address, signed in manifests.items()
            ]
        return super().weigh(open_round)


class Reweighing(Rounds):
    """Gives one organisation half of its weight, and another the rest."""

    def weigh(self, open_round: OpenRound) -> tuple[Admitted, ...]:
        admitted = super().weigh(open_round)
        taken = next((a.weight / 2 for a in admitted if a.organisation == VICTIM), 0.0)
        favoured = next((a.organisation for a in admitted if a.organisation != VICTIM), None)
        shift: Mapping[Address | None, float] = {VICTIM: -taken, favoured: taken}
        return tuple(replace(a, weight=a.weight + shift.get(a.organisation, 0.0)) for a in admitted)


def cheated(world: World, monkeypatch: pytest.MonkeyPatch, server: type[Any], **changes: Any) -> RunFolder:
    """A run of a coordinator with a strategy, or rounds, of its own."""
    honest = Rounds if issubclass(server, Rounds) else Foedus
    monkeypatch.setattr(server_app.app, honest.__name__, server)
    return world.run("cheated", **{"rounds": 3, "retries": 0} | changes)


def objections(world: World) -> list[tuple[int, Rejection]]:
    records = (signed.value for signed in world.state.run("cheated").records())
    return [(record.round, r) for record in records for r in record.rejected if r.reason == "objected"]


def test_a_server_with_two_faces_is_caught_by_whom_it_shows_the_second(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cheated(world, monkeypatch, TwoFaced, rounds=4, wire="fp32")
    caught = objections(world)
    assert [(number, r.organisation) for number, r in caught] == [(3, VICTIM), (4, VICTIM)]
    assert caught[0][1].detail.startswith("round 1 of lane 0, generation 0: the ledger has aggregate")
    told = [e for e in world.events("cheated", "rejected") if e["organisation"] == VICTIM]
    assert [event["reason"] for event in told] == ["objected", "objected"]
    assert "manifest's parent at round 2, lane 0, medical" in str(verify(run, world.ledger).failures[0])


def test_a_server_that_drops_an_update_is_caught_by_its_owner(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = cheated(world, monkeypatch, Dropping)
    failure = verify(run, world.ledger).failures[0]
    assert (failure.what, failure.got) == ("organisations asked", "coding, financial")
    assert failure.where.startswith("round 1, lane 0")
    caught = objections(world)
    assert [(number, rejection.organisation) for number, rejection in caught] == [(2, VICTIM), (3, VICTIM)]
    assert caught[0][1].detail == f"round 1 of lane 0, generation 0: leaves out the update that {VICTIM} sent"
    # The last round is measured apart.
    (told,) = world.events("cheated", "objected")
    assert (told["round"], told["organisation"]) == (3, VICTIM)


def test_an_update_that_is_dropped_in_the_last_round_is_missed_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheated(world, monkeypatch, DroppingLast)
    (told,) = world.events("cheated", "objected")
    assert (told["round"], told["organisation"]) == (3, VICTIM)
    assert "round 3 of lane 0, generation 0: leaves out the update" in told["detail"]


def test_a_server_that_swaps_an_update_is_caught_by_its_owner_and_by_the_audit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cheated(world, monkeypatch, Swapping)
    caught = objections(world)
    assert [(number, r.organisation) for number, r in caught] == [(2, VICTIM), (3, VICTIM)]
    assert f"update manifest: expected the signature of {VICTIM}, got that of" in caught[0][1].detail
    failure = verify(run, world.ledger).failures[0]
    assert failure.what == "manifest's signature"
    assert failure.where == "round 1, lane 0, medical"


def test_a_server_that_changes_weights_is_caught_by_everyone_and_by_the_audit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(QuorumError, match="lane 0, round 2"):
        cheated(world, monkeypatch, Reweighing)
    caught = objections(world)
    assert [number for number, _ in caught] == [2, 2, 2]
    assert all("round 1 of lane 0, generation 0: the weight of 0x" in r.detail for _, r in caught)
    failures = verify(world.state.run("cheated"), world.ledger).failures
    assert failures[0].what == "weight"
    assert failures[0].where.startswith("round 1, lane 0, ")


# --- a chain that is late ------------------------------------------------------------------------------------------


class Empty(MemoryLedger):
    """A chain on which nothing arrives: an organisation's view of one that is down for the coordinator."""

    def read(self, key: RoundKey) -> tuple[RoundCommitment, Anchor] | None:
        return None


class Down(MemoryLedger):
    """A chain that does not answer."""

    def members(self, run: object) -> frozenset[Address]:
        raise LedgerUnreachableError("nothing answers")


@pytest.mark.parametrize("ledger", [Empty, Down])
def test_organisations_flag_a_late_chain_and_train(
    world: World, monkeypatch: pytest.MonkeyPatch, ledger: type[MemoryLedger]
) -> None:
    run = _watched(world, monkeypatch, ledger())
    flags = [
        (signed.value.round, a.signed.value.metrics.get("behind"))
        for signed in run.records()
        for a in signed.value.admitted
    ]
    assert flags == [(1, None)] * 3 + [(2, None)] * 3 + [(3, 1)] * 3
    assert [event.get("behind") for event in world.events("late", "admitted")] == [None] * 6 + [1] * 3
    *calm, last = report(world.state, run)["rounds"]
    assert [entry["flagged"] for entry in calm] == [[], []]
    assert [flag["behind"] for flag in last["flagged"]] == [1, 1, 1]
    assert verify(run, world.ledger).ok


def test_organisations_abstain_from_a_late_chain_when_they_were_told_to(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(QuorumError, match="lane 0, round 3"):
        _watched(world, monkeypatch, Down(), **{"chain-lag-policy": "abstain", "retries": 0})
    *_, last = world.state.run("late").records()
    assert last.value.round == 3
    assert {(r.reason, r.detail) for r in last.value.rejected} == {
        ("abstained", "not on the ledger: round 1 of lane 0, generation 0")
    }
    assert world.run("late", resume=True, **{"rounds": 3, "retries": 0, "chain-lag-policy": "flag"})


def _watched(world: World, monkeypatch: pytest.MonkeyPatch, ledger: MemoryLedger, **changes: Any) -> RunFolder:
    real = world.ledger

    def view(chain: str, state: Path, contract: Address) -> MemoryLedger:
        ledger._members = real._members
        return ledger

    monkeypatch.setattr(oversight, "_ledger", view)
    return world.run("late", **{"rounds": 3} | changes)


# --- a revoked organisation ----------------------------------------------------------------------------------------


class Lenient(Foedus):
    """Does not care who was revoked."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.revoked = frozenset


class RevokingInRound2(Foedus):
    """The administrator revokes an organisation while round 2 trains; nobody is slow to hear of it."""

    def _admit(self, recipient: Recipient, key: RoundKey, reply: Message | None) -> None:
        if self.rounds.lanes[0].round == 1 and recipient.organisation != VICTIM:
            self.revoked = lambda: frozenset({VICTIM})
        super()._admit(recipient, key, reply)


def test_a_revoked_organisation_is_not_asked_and_its_rejection_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ledger.revoke(VICTIM)
    run = cheated(world, monkeypatch, Foedus)
    rejected = [(s.value.round, r.organisation, r.reason) for s in run.records() for r in s.value.rejected]
    assert rejected == [(number, VICTIM, "revoked") for number in (1, 2, 3)]
    assert verify(run, world.ledger).failures == ()


def test_an_organisation_that_is_revoked_during_a_round_is_in_none_from_then_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cheated(world, monkeypatch, RevokingInRound2)
    admitted = {s.value.round: VICTIM in [a.organisation for a in s.value.admitted] for s in run.records()}
    assert admitted[1]
    assert not admitted[3]


def test_the_audit_finds_who_admits_a_revoked_organisation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.ledger.revoke(VICTIM)
    run = cheated(world, monkeypatch, Lenient)
    found = [failure for failure in verify(run, world.ledger).failures if failure.what == "revoked organisation"]
    assert [failure.where for failure in found] == [f"round {number}, lane 0, {VICTIM}" for number in (2, 3)]
    assert found[0].got == "revoked in block 1"
