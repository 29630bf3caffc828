"""The Grid in this process: every message is answered once, and a client's exception is an error reply."""

from typing import cast

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from console.backends.inline import InlineGrid, run_inline


def echo(message: Message, context: Context) -> Message:
    if message.metadata.message_type == "query.fail":
        raise RuntimeError(f"node {context.node_id} of {context.node_config['num-partitions']}")
    return Message(message.content, reply_to=message)


def grid(watched: list[str] | None = None) -> InlineGrid:
    seen = [] if watched is None else watched
    return InlineGrid(cast(ClientApp, echo), 2, {}, lambda: seen.append("called"))


def message(on: InlineGrid, node: int, kind: str = "query.echo") -> Message:
    return on.create_message(RecordDict(), kind, node, "group")


def test_a_reply_is_pulled_once() -> None:
    on = grid()
    first, second = on.push_messages([message(on, node) for node in on.get_node_ids()])
    assert first != second
    assert [reply.metadata.src_node_id for reply in on.pull_messages([second])] == [2]
    assert on.pull_messages([second, "unknown"]) == []
    assert len(on.pull_messages([first])) == 1


def test_a_clients_exception_is_an_error_reply_that_names_it() -> None:
    on = grid()
    good, bad = on.send_and_receive([message(on, 1), message(on, 2, "query.fail")])
    assert not good.has_error()
    assert bad.has_error()
    assert bad.error.reason == "RuntimeError: node 2 of 2"


def test_a_run_is_watched_before_every_message_and_at_its_end() -> None:
    calls: list[str] = []

    def server(on: Grid, context: Context) -> None:
        inline = cast(InlineGrid, on)
        inline.push_messages([message(inline, 1), message(inline, 2)])
        assert calls == ["called", "called"]

    run_inline(cast(ServerApp, server), cast(ClientApp, echo), 2, {}, lambda: calls.append("called"))
    assert calls == ["called"] * 3


def test_the_server_apps_error_is_raised() -> None:
    def server(on: Grid, context: Context) -> None:
        raise RuntimeError("of the server")

    with pytest.raises(RuntimeError, match="of the server"):
        run_inline(cast(ServerApp, server), cast(ClientApp, echo), 1, {})
