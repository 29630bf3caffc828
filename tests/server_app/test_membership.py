"""Members come and go behind a run's newest round: real apps, a small model, a ledger in memory."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flwr.app import Context, Message

from chain.audit.run import verify
from client_app.app import app as client
from core import keys
from core.canonical import Address
from core.errors import FoedusError, LedgerUnreachableError, ObjectionError, QuorumError, RunError, UsageError
from core.membership import Admission, Leave
from core.messages.queries import ADMISSION
from core.messages.training import TRAIN, Task
from core.storage.run_folder import RunFolder
from server_app.exchange import Clock
from server_app.membership import (
    carry_out,
    change,
    check_leaving,
    check_newcomer,
    opening_of,
    propose,
    signed_change,
    wait_for_newcomer,
)
from tests import federation as f
from tests.server_app.worlds import World

COORDINATOR = keys.derive(7, "coordinator")


def key(name: str) -> keys.Key:
    return keys.derive(7, name)


def until(last: int) -> Callable[[Message, Context], Message]:
    """The client, but nobody trains behind round `last`."""

    def answer(message: Message, context: Context) -> Message:
        if message.metadata.message_type == TRAIN and Task.from_content(message.content).round > last:
            raise RuntimeError("stopped here")
        return client(message, context)

    return answer


@pytest.fixture
def small(world: World, data: Path, tmp_path: Path) -> World:
    """A world in which coding has no data yet."""
    own = tmp_path / "data"
    shutil.copytree(data, own)
    for path in own.glob("coding*"):
        path.rename(tmp_path / path.name)
    world.settings |= {"data": str(own), "rounds": 3, "retries": 0, "quorum": 1}
    return world


def begin(world: World, tmp_path: Path, rounds: int = 1) -> RunFolder:
    """A run of two that stopped behind a round, and a third that has come since."""
    with pytest.raises(QuorumError):
        world.run("one", through=until(rounds))
    for path in tmp_path.glob("coding*"):
        path.rename(tmp_path / "data" / path.name)
    return world.state.run("one")


def members(run: RunFolder) -> list[str]:
    return sorted(run.genesis.names[member] for member in run.members(0))


def admitted(run: RunFolder) -> list[tuple[int, int, list[str]]]:
    names = run.genesis.names
    return [
        (s.value.generation, s.value.round, sorted(names[a.organisation] for a in s.value.admitted))
        for s in run.lineage(0)
    ]


def test_a_newcomer_joins_behind_the_newest_round_and_weighs_from_then_on(small: World, tmp_path: Path) -> None:
    run = begin(small, tmp_path)
    before = [s.value.digest for s in run.records()]
    run = small.run("one", mode="join", organisation="coding")
    assert members(run) == ["coding", "financial", "medical"]
    assert [s.value.digest for s in run.records()] == before, "nothing is run again"
    assert verify(run, small.ledger).failures == ()
    run = small.run("one", resume=True)
    everyone = ["coding", "financial", "medical"]
    assert admitted(run) == [(0, 1, ["financial", "medical"]), (1, 2, everyone), (1, 3, everyone)]
    last = run.lineage(0)[-1].value
    assert {a.organisation: a.weight for a in last.admitted} == pytest.approx(
        run.genesis.weights(dict.fromkeys(last.delays, 0))
    )
    report = verify(run, small.ledger, strict=True)
    assert report.failures == ()
    assert (report.checked["memberships"], report.checked["generations"]) == (1, 1)
    assert not small.events("one", "objected")


def test_who_leaves_is_asked_no_more_and_what_it_taught_stays(small: World, tmp_path: Path) -> None:
    run = begin(small, tmp_path)
    taught = run.lineage(0)[-1].value.aggregate
    run = small.run("one", mode="leave", organisation="medical")
    assert members(run) == ["financial"]
    assert run.lineage(0)[-1].value.aggregate == taught
    run = small.run("one", resume=True)
    assert admitted(run) == [(0, 1, ["financial", "medical"]), (1, 2, ["financial"]), (1, 3, ["financial"])]
    assert verify(run, small.ledger, strict=True).failures == ()


def test_an_erasure_after_joining_and_leaving_is_exact(small: World, tmp_path: Path) -> None:
    begin(small, tmp_path)
    small.run("one", mode="join", organisation="coding")
    run = small.run("one", resume=True)
    # The newcomer first: its replay keeps the round before it came.
    run = small.run("one", mode="unlearn", organisation="coding", method="replay")
    assert admitted(run)[0] == (0, 1, ["financial", "medical"])
    assert all("coding" not in names for _, _, names in admitted(run))
    assert small.events("one", "erased")[-1]["label"] == "exact"
    run = small.run("one", mode="leave", organisation="medical")
    run = small.run("one", mode="unlearn", organisation="medical", method="replay")
    assert small.events("one", "erased")[-1]["label"] == "exact"
    assert {name for _, _, names in admitted(run) for name in names} == {"financial"}
    assert verify(run, small.ledger, strict=True).failures == ()


def test_taking_a_member_out_keeps_what_one_that_left_has_taught(small: World, tmp_path: Path) -> None:
    begin(small, tmp_path)
    small.run("one", mode="join", organisation="coding")
    small.run("one", mode="leave", organisation="medical")
    run = small.run("one", resume=True)
    assert members(run) == ["coding", "financial"]
    run = small.run("one", mode="unlearn", organisation="coding", method="remove")
    assert [names for _, _, names in admitted(run)] == [["financial", "medical"], ["financial"], ["financial"]]
    assert verify(run, small.ledger, strict=True).failures == ()


def test_a_member_that_does_not_agree_keeps_a_newcomer_out(small: World, tmp_path: Path) -> None:
    begin(small, tmp_path)

    def one_refuses(message: Message, context: Context) -> Message:
        if message.metadata.message_type == ADMISSION and context.node_config["partition-id"] == 1:
            raise RuntimeError("no")
        return client(message, context)

    with pytest.raises(ObjectionError, match=r"expected 2 of 2 members to agree, got 1|signature of the newcomer"):
        small.run("one", through=one_refuses, mode="join", organisation="coding")
    run = small.state.run("one")
    assert members(run) == ["financial", "medical"]
    assert not run.memberships()


def test_a_newcomer_whose_node_is_not_there_is_said(small: World, tmp_path: Path) -> None:
    begin(small, tmp_path)
    with pytest.raises(
        RunError, match="expected nobody and 2 members to be connected, got 2 of 2 members, without nobody"
    ):
        small.run("one", mode="join", organisation="nobody", **{"bind-timeout": 0.2})


def test_what_was_written_before_a_crash_is_carried_out_at_the_next_start(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(small, tmp_path)
    ledger = small.ledger

    def down(*_: Any) -> Any:
        raise LedgerUnreachableError("down")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "attest", down)
        with pytest.raises(LedgerUnreachableError):
            small.run("one", mode="join", organisation="coding")
    assert len(small.state.run("one").memberships()) == 1
    run = small.run("one", resume=True)
    assert len(admitted(run)[-1][2]) == 3
    assert verify(run, ledger, strict=True).failures == ()


# --- what cannot be changed ------------------------------------------------------------------------------------------


def test_nothing_is_written_that_nobody_would_believe(small: World, tmp_path: Path) -> None:
    run = begin(small, tmp_path)
    newcomer = replace(run.genesis.organisations[0], address=key("coding").address, name="coding")
    proposal = propose(run, 0, [newcomer])
    own = Admission(run.genesis.digest, newcomer.address, proposal.digest).sign(key("coding"), run.genesis.chain)
    with pytest.raises(ObjectionError, match="expected 2 of 2 members to agree, got 0"):
        signed_change(run, COORDINATOR, proposal, admissions=[own])
    forged = Leave(run.genesis.digest, key("medical").address).sign(COORDINATOR, run.genesis.chain)
    with pytest.raises(FoedusError, match="expected the signature of"):
        signed_change(run, COORDINATOR, propose(run, 0), leaves=[forged])
    assert not run.memberships()
    carry_out(run, COORDINATOR, small.ledger)
    assert not run.generations(0)


def test_who_may_not_join_or_leave_is_told_why(small: World, tmp_path: Path) -> None:
    run = begin(small, tmp_path)
    member, newcomer = run.genesis.organisations[0], f.members(["coding"])[0]
    for wrong, reason in (
        (member, "expected an organisation that never was a member"),
        (replace(newcomer, name=member.name), "expected an organisation that never was a member"),
        (replace(newcomer, derived=False), "expected keys of one kind"),
    ):
        with pytest.raises(UsageError, match=reason):
            check_newcomer(run, wrong)
    check_newcomer(run, newcomer)
    run = small.run("one", resume=True)
    with pytest.raises(UsageError, match="expected rounds to go, got a run that is complete"):
        check_newcomer(run, newcomer)
    small.run("one", mode="leave", organisation="medical")
    run = small.state.run("one")
    for who, reason in ((key("medical"), "one that has left"), (key("financial"), "expected 1 members to stay, got 0")):
        with pytest.raises(UsageError, match=reason):
            check_leaving(run, Address(who.address))


def test_a_change_goes_on_from_the_head_to_the_same_last_round(small: World, tmp_path: Path) -> None:
    run = begin(small, tmp_path)
    head = run.lineage(0)[-1].value
    leave = Leave(run.genesis.digest, key("medical").address).sign(key("medical"), run.genesis.chain)
    signed = signed_change(run, COORDINATOR, propose(run, 0), leaves=[leave])
    record = change(run, COORDINATOR, small.ledger, signed)
    opened = run.generations(0)[1].value
    assert opened == replace(opening_of(run, record), previous=opened.previous)
    assert (opened.parent, opened.parent_round, opened.rounds) == (head.digest, 1, 3)
    # The attempt at round 2 that nobody answered comes after the head, and is bound, too.
    assert opened.previous == list(run.records())[-1].value.digest != head.digest


@pytest.mark.parametrize(("bound_at", "asked_at"), [(0.0, 0.0), (5.0, 5.0), (60.0, 15.0)])
def test_members_that_bind_a_little_later_are_waited_for(bound_at: float, asked_at: float) -> None:
    """Two of three members must agree, and one of those that are there first may object."""
    time = [0.0]
    three = [f.address(name) for name in ("medical", "financial", "coding")]
    newcomer = f.genesis().named("mathematical")
    bindings = SimpleNamespace(
        clock=Clock(lambda: time[0], lambda seconds: time.append(time.pop() + seconds)),
        organisations={newcomer.address: newcomer},
        nodes={newcomer.address: 1, three[0]: 2, three[1]: 3},
        failure="",
    )
    bindings.refresh = lambda _: bindings.nodes.update({three[2]: 4} if time[0] >= bound_at else {})
    assert wait_for_newcomer(cast(Any, bindings), cast(Any, None), newcomer.name, three, 100.0) == newcomer
    assert time == [asked_at]
