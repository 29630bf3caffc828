"""Which node speaks for whom: only who signs the challenge."""

import resource
import time
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from core.canonical import Digest
from core.errors import RunError
from core.keys import derive
from core.messages.queries import BIND, Bind, Bound
from core.signed import Signed
from core.update import Organisation, Registration
from server_app.binding import Bindings
from tests import federation as f
from tests.server_app.clients import Clients, TestGrid

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

    def __call__(self, message: Message, context: Context) -> Message:
        if context.node_id == 1 and message.metadata.message_type == BIND:
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
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bindings.refresh(grid)
    assert time.process_time() - began < 0.5  # of which signing and verifying honest answers takes the most
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


def test_a_node_that_failed_is_asked_again() -> None:
    clients = Answering(NAMES, 2)
    clients.content = None
    bindings, grid = Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN), TestGrid(clients)
    bindings.refresh(grid)
    clients.__class__ = Clients  # it is up again
    bindings.refresh(grid)
    assert len(bindings.nodes) == 4


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


def test_no_node_at_all_ends_with_an_error(tmp_path: Path) -> None:
    grid = TestGrid(Clients(NAMES, 2))
    grid.gone = {1, 2}
    with pytest.raises(
        RunError, match="0 of at least 1 organisations answered in 0 s; nodes that are not up, or a busy"
    ):
        Bindings(f.CHAIN, f.COORDINATOR.address, f.RUN).wait(grid, 0, timeout=0.0)
