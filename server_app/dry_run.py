"""A dry run of a deployment: every connected node tries what a federation would ask of it, and nothing is founded."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from flwr.app import Message
from flwr.serverapp import Grid

from core.canonical import Address
from core.escape import one_line
from core.messages.queries import CHECK, DryRunAnswer, DryRunQuery
from server_app.admission import RejectedError, read_reply
from server_app.exchange import ask, exchange
from server_app.founders import Founders

_ARRIVAL_SECONDS = 90.0
"""In which nodes connect: those that were up come back one by one after a SuperLink's start, a new one has imports."""
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class CheckedNode:
    """What one node came to; `organisation` and `name` are None where it did not say whose it is.

    `seconds` are those of one step, `memory` the most bytes that it took; 0 where there was none.
    """

    organisation: Address | None = None
    name: str | None = None
    seconds: float = 0.0
    memory: int = 0
    problems: tuple[str, ...] = ()


def dry_run(grid: Grid, query: DryRunQuery, founders: Founders, expected: int, timeout: float) -> Iterator[CheckedNode]:
    """Ask the nodes that are connected, once `expected` are or a minute and a half has passed; yield their answers."""
    deadline = time.monotonic() + min(timeout, _ARRIVAL_SECONDS)
    while len(nodes := list(grid.get_node_ids())) < expected and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    messages = ((node, Message(query.to_content(), node, CHECK, group_id="check")) for node in nodes)
    taken: list[str] = []
    for _, reply in ask(messages, partial(exchange, grid, timeout=timeout)):
        found = checked(reply, founders, taken, f"expected an answer within {timeout:g} s, got none")
        taken += [found.name] if found.name else []
        yield found


def checked(reply: Message | None, founders: Founders, taken: list[str], silence: str) -> CheckedNode:
    """What a reply says, and whether its organisation could found a federation; `taken` are names before it."""
    try:
        answer = read_reply(reply, DryRunAnswer.from_content, silence)
    except RejectedError as error:
        return CheckedNode(problems=(one_line(error.detail),))
    problems = list(map(one_line, answer.problems))
    if (registration := answer.registration) is None:
        return CheckedNode(problems=tuple(problems))
    # A dry run draws no nonce: it is the one thing that a founder has and this registration lacks.
    if fault := founders.fault(replace(registration, nonce=registration.challenge), taken):
        problems.append(one_line(fault))
    member = registration.organisation
    return CheckedNode(member.address, str(member.name), answer.seconds, answer.memory, tuple(problems))
