"""Which node speaks for whom: only who signs the challenge."""

import resource
import time as clock
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from core.canonical import Digest
from core.errors import ConfigError, RunError
from core.keys import derive
from core.messages.queries import BIND, Bind, Bound
from core.messages.refusal import Cause, Refusal, Refused
from core.signed import Signed
from core.update import Organisation, Registration
from server_app.binding import Bindings
from tests import federation as f
from tests.server_app.clients import Clients, TestGrid, Time

NAMES = tuple(f.EXAMPLES)


def bound(clients: Clients) -> Bindings:
    bindings = Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN)
    bindings.refresh(TestGrid(clients))
    return bindings


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 7])
def test_any_number_of_nodes_hosts_every_organisation_once(nodes: int) -> None:
    bindings = bound(Clients(NAMES, nodes))
    assert bindings.nodes == {f.address(name): 1 + index % nodes for index, name in enumerate(NAMES)}
    assert set(bindings.organisations.values()) == set(f.members())
    assert bindings.known == 4


def forged_by_another_key(signed: Signed[Registration]) -> Signed[Registration]:
    challenge, organisation = signed.value.challenge, signed.value.organisation
    return f.registration(organisation, challenge, derive(1, "mallory"), f.CHAIN)


def with_more_examples(signed: Signed[Registration]) -> Signed[Registration]:
    member = replace(signed.value.organisation, examples=10**6)
    return replace(signed, value=replace(signed.value, organisation=member))


def for_another_challenge(signed: Signed[Registration]) -> Signed[Registration]:
    key = f.key(signed.value.organisation.name)
    return f.registration(signed.value.organisation, f.other("old challenge"), key, f.CHAIN)


def for_another_chain(signed: Signed[Registration]) -> Signed[Registration]:
    key = f.key(signed.value.organisation.name)
    return f.registration(signed.value.organisation, signed.value.challenge, key, replace(f.CHAIN, chain_id=1))


def under_no_address(signed: Signed[Registration]) -> Signed[Registration]:
    nobody = Organisation("nobody", "nobody", 1)  # type: ignore[arg-type] # hostile
    return replace(signed, value=replace(signed.value, organisation=nobody))


FORGED = [forged_by_another_key, with_more_examples, for_another_challenge, for_another_chain, under_no_address]


@pytest.mark.parametrize("forge", FORGED, ids=lambda forge: forge.__name__)
def test_a_forged_registration_is_ignored(forge: object) -> None:
    def register(signed: Signed[Registration]) -> Signed[Registration]:
        return forge(signed) if signed.value.organisation.name == "medical" else signed  # type: ignore[operator]

    bindings = bound(Clients(NAMES, 4, register=register))
    assert set(bindings.nodes) == {f.address(name) for name in NAMES if name != "medical"}


def test_a_node_that_lies_about_one_organisation_loses_all_of_them() -> None:
    def register(signed: Signed[Registration]) -> Signed[Registration]:
        return forged_by_another_key(signed) if signed.value.organisation.name == "medical" else signed

    bindings = bound(Clients(NAMES, 2, register=register))
    assert set(bindings.nodes) == {f.address("financial"), f.address("coding")}


class Answering(Clients):
    """Node 1 answers the challenge with something else."""

    content: RecordDict | None = RecordDict()
    asked = 0
    both = False

    def __call__(self, message: Message, context: Context) -> Message:
        if (self.both or context.node_id == 1) and message.metadata.message_type == BIND:
            self.asked += 1
            if self.content is None:
                raise RuntimeError("down")
            return Message(self.content, reply_to=message)
        return super().__call__(message, context)


@pytest.mark.parametrize(
    "content",
    [
        None,
        RecordDict(),
        RecordDict({"bound": ConfigRecord({"json": b"[" * 10**5})}),
        RecordDict({"bound": ConfigRecord({"json": b'{"known":-1,"organisations":[]}'})}),
    ],
    ids=["an error", "nothing", "deep JSON", "a negative count"],
)
def test_a_node_that_answers_with_anything_else_is_ignored(content: RecordDict | None) -> None:
    clients = Answering(NAMES, 2)
    clients.content = content
    assert set(bound(clients).nodes) == {f.address("financial"), f.address("coding")}


def test_a_huge_answer_costs_next_to_nothing() -> None:
    clients = Answering(NAMES, 2)
    brackets = b'{"a":[' + b"[]," * 3_300_000 + b"[]]}"
    clients.content = RecordDict({"bound": ConfigRecord({"json": brackets})})
    bindings, grid = Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN), TestGrid(clients)
    began, before = clock.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bindings.refresh(grid)
    assert clock.process_time() - began < 0.5  # of which signing and verifying honest answers takes the most
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 * 2**10
    assert set(bindings.nodes) == {f.address("financial"), f.address("coding")}


class Claiming(Clients):
    """Node 1 speaks for an organisation with a key of its own, and says that it knows of very many."""

    def __call__(self, message: Message, context: Context) -> Message:
        if context.node_id != 1:
            return super().__call__(message, context)
        asked, member = Bind.from_content(message.content).asked, Organisation(f.address("medical"), "medical", 9)
        plain = Registration(member, asked.coordinator, asked.run, asked.challenge, nonce=f.other("nonce"))
        signed = plain.sign(f.key("medical"), f.CHAIN)
        return Message(Bound((signed,), 2**53 - 1).to_content(), reply_to=message)


def test_an_organisation_with_a_key_of_its_own_has_nobody_else_waited_for() -> None:
    bindings = bound(Claiming(NAMES, 2))
    assert bindings.nodes[f.address("medical")] == 1
    assert bindings.known == 4


def test_a_node_that_failed_is_asked_again_after_a_while() -> None:
    clients, time = Answering(NAMES, 2), Time()
    clients.content = None
    bindings, grid = Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN, clock=time.clock), TestGrid(clients)
    bindings.refresh(grid)
    clients.__class__ = Clients  # it is up again
    bindings.refresh(grid)
    assert len(bindings.nodes) == 2
    time.pass_by(10.0)
    bindings.refresh(grid)
    assert len(bindings.nodes) == 4


def test_an_objection_to_the_question_is_not_asked_for_again_until_the_node_is_back() -> None:
    def answers(cause: Cause) -> tuple[int, int]:
        """How often node 1 is asked in a minute; and then, once it has been away."""
        clients, time = Answering(NAMES, 2), Time()
        clients.content = Refusal(Refused.OBJECTED, cause, "coordinator: expected 0x1, got 0x2").to_content()
        bindings, grid = Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN, clock=time.clock), TestGrid(clients)
        for _ in range(6):
            bindings.refresh(grid)
            time.pass_by(10.0)
        often = clients.asked
        for gone in ({1}, set[int]()):
            grid.gone = gone
            bindings.refresh(grid)
        return often, clients.asked - often

    assert answers(Cause.MESSAGE) == (1, 1)
    assert answers(Cause.LEDGER_UNREACHABLE) == (6, 1)


def test_a_node_that_fails_is_told_of_once_with_its_reason() -> None:
    clients, time, told = Answering(NAMES, 2), Time(), list[tuple[int, str]]()
    clients.content = Refusal(Refused.FAILED, Cause.SETTINGS, "").to_content()
    bindings = Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN, clock=time.clock, note=lambda *what: told.append(what))
    for _ in range(3):
        bindings.refresh(TestGrid(clients))
        time.pass_by(10.0)
    assert told == [(1, "settings")]
    assert bindings.failure == "settings"


def test_a_node_that_does_not_answer_holds_nobody_and_may_answer_later() -> None:
    time = Time()
    grid = Later(Clients(NAMES, 2), time)
    bindings = Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN, clock=time.clock)
    bindings.refresh(grid)
    assert (set(bindings.nodes.values()), time.seconds) == ({2}, 0.0)
    time.pass_by(300.0)
    bindings.refresh(grid)
    assert set(bindings.nodes.values()) == {1, 2}
    assert grid.pushed == 2, "an answer that takes long is one to the first question"


def test_whoever_has_still_to_answer_is_waited_for_until_the_deadline() -> None:
    def waited(timeout: float) -> tuple[set[int], float]:
        """The nodes that are known then, of which one answers after 300 seconds, and the seconds."""
        time = Time()
        grid = Later(Clients(NAMES, 2), time)
        bindings = Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN, clock=time.clock)
        bindings.wait(grid, 2, timeout)
        assert time.seconds == 0.0
        bindings.wait_for_answers(grid)
        return set(bindings.nodes.values()), time.seconds

    assert waited(600.0) == ({1, 2}, 300.0)
    assert waited(60.0) == ({2}, 60.5)


class Later(TestGrid):
    """Node 1 takes five minutes to answer."""

    def __init__(self, clients: Clients, time: Time) -> None:
        super().__init__(clients)
        self.time, self.pushed, self.late = time, 0, set[str]()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        (message,) = messages
        names = super().push_messages([message])
        self.pushed += 1
        if message.metadata.dst_node_id == 1:
            self.late |= set(names)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        early = self.time.seconds < 300.0
        return super().pull_messages([name for name in message_ids if not (early and name in self.late)])


def test_an_organisation_stays_with_the_node_that_claimed_it_first() -> None:
    """The same signed answer from a second node does not move it."""
    everywhere = Clients(NAMES, 2)
    everywhere._hosted = lambda context: NAMES  # type: ignore[method-assign] # both nodes host all
    assert set(bound(everywhere).nodes.values()) == {1}


def test_a_node_that_vanished_speaks_for_nobody_until_it_is_back() -> None:
    bindings, grid = Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN), TestGrid(Clients(NAMES, 2))
    bindings.refresh(grid)
    grid.gone = {2}
    bindings.refresh(grid)
    assert set(bindings.nodes.values()) == {1}
    assert len(bindings.organisations) == 4
    grid.gone = set()
    bindings.refresh(grid)
    assert len(bindings.nodes) == 4


def test_every_question_is_a_new_challenge() -> None:
    seen: list[Digest] = []

    def register(signed: Signed[Registration]) -> Signed[Registration]:
        seen.append(signed.value.challenge)
        return signed

    for _ in range(2):
        bound(Clients(("medical",), 1, register=register))
    assert len(set(seen)) == 2


def test_waiting_ends_when_those_wanted_are_there() -> None:
    bindings = Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN)
    bindings.wait(TestGrid(Clients(NAMES, 2)), expected=0, timeout=0.0)
    assert len(bindings.nodes) == 4


@pytest.mark.parametrize(("wanted", "message"), [(5, "4 of 5 organisations answered in 0 s")])
def test_waiting_in_vain_ends_with_an_error(wanted: int, message: str) -> None:
    with pytest.raises(RunError, match=message):
        Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN).wait(TestGrid(Clients(NAMES, 2)), wanted, timeout=0.0)


def test_waiting_in_vain_says_why_a_node_failed() -> None:
    clients = Answering(NAMES, 2)
    clients.content = None
    with pytest.raises(RunError, match="2 of 4 organisations answered in 0 s; a node failed: RuntimeError: down"):
        Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN).wait(TestGrid(clients), 4, timeout=0.0)


def test_nodes_that_object_for_good_are_not_waited_for_where_nobody_else_is_there() -> None:
    def seconds(cause: Cause, expected: int) -> float:
        """How long two nodes are waited for that both refuse."""
        clients, time = Answering(NAMES, 2), Time()
        clients.both, clients.content = True, Refusal(Refused.OBJECTED, cause, "chain: expected 0x1").to_content()
        bindings = Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN, clock=time.clock)
        with pytest.raises(RunError, match=f"0 of {expected} organisations .*; a node failed: chain: expected 0x1"):
            bindings.wait(TestGrid(clients), expected, timeout=60.0)
        return time.seconds

    assert seconds(Cause.MESSAGE, 2) == 0.0
    assert seconds(Cause.MESSAGE, 3) >= 60.0, "a third may still come"
    assert seconds(Cause.LEDGER_UNREACHABLE, 2) >= 60.0


def test_nodes_with_keys_of_their_own_are_not_waited_for_where_nobody_says_how_many() -> None:
    time = Time()
    bindings = Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN, clock=time.clock)
    with pytest.raises(
        ConfigError, match="organisations: expected the number to wait for, got 0, and nodes of medical"
    ):
        bindings.wait(TestGrid(Claiming(("medical",), 1)), 0, timeout=120.0)
    assert time.seconds == 0.0


def test_no_node_at_all_ends_with_an_error(tmp_path: Path) -> None:
    grid = TestGrid(Clients(NAMES, 2))
    grid.gone = {1, 2}
    with pytest.raises(
        RunError, match="0 of at least 1 organisations answered in 0 s; nodes that are not up, or a busy"
    ):
        Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN).wait(grid, 0, timeout=0.0)


# --- versions --------------------------------------------------------------------------------------------------------


def test_a_node_that_speaks_other_formats_is_refused_and_both_versions_are_named() -> None:
    def later(signed: Signed[Registration]) -> Signed[Registration]:
        return replace(signed, value=replace(signed.value, formats=2))

    bindings = bound(Clients(("medical",), 1, register=later))
    assert not bindings.nodes
    assert bindings.failure.startswith("its answer does not hold: formats: expected version 1, as here, got 2")


def test_another_version_of_the_software_is_flagged_and_not_refused() -> None:
    def later(signed: Signed[Registration]) -> Signed[Registration]:
        other = signed.value.organisation.name == "medical"
        value = replace(signed.value, product="foedus 9.9.9" if other else "foedus 1.0.0")
        return value.sign(f.key(signed.value.organisation.name), f.CHAIN)

    told: list[tuple[str, str]] = []
    bindings = Bindings(
        f.CHAIN, f.COORDINATOR.address, f.RUN, product="foedus 1.0.0", differs=lambda *which: told.append(which)
    )
    bindings.refresh(TestGrid(Clients(("medical", "coding"), 2, register=later)))
    assert set(bindings.nodes) == {f.address("medical"), f.address("coding")}
    assert told == [(f.address("medical"), "foedus 9.9.9")]
