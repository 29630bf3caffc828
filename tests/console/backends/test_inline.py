"""A Grid in this process: messages are answered while they are pushed, and each reply is pulled once."""

import logging
from collections.abc import Iterable

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from console.backends.inline import InlineGrid, run_inline


@pytest.fixture
def client() -> ClientApp:
    """Replies with its own partition and with what it was asked; fails when it is asked for it."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        asked = message.content.config_records["ask"]
        if asked["word"] == "fail":
            raise ValueError("told to")
        seen = context.state.config_records.setdefault("seen", ConfigRecord({"count": 0}))
        seen["count"] = int(seen["count"]) + 1  # type: ignore[call-overload]  # an int
        answer = {"word": asked["word"], "node": context.node_config["partition-id"], "count": seen["count"]}
        return Message(RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)

    return app


def ask(grid: Grid, node: int, word: str) -> Message:
    return grid.create_message(RecordDict({"ask": ConfigRecord({"word": word})}), "query", node, "1")


def words(replies: Iterable[Message]) -> list[object]:
    return [reply.content.config_records["answer"]["word"] for reply in replies]


def test_every_node_has_a_partition_and_a_state_of_its_own(client: ClientApp) -> None:
    grid = InlineGrid(client, 2, {})
    assert grid.get_node_ids() == [1, 2]
    for count in (1, 2):
        for node, reply in zip((1, 2), grid.send_and_receive([ask(grid, n, "hi") for n in (1, 2)]), strict=True):
            answer = reply.content.config_records["answer"]
            assert (answer["node"], answer["count"]) == (node - 1, count)


def test_a_reply_belongs_to_its_message_and_is_pulled_once(client: ClientApp) -> None:
    grid = InlineGrid(client, 1, {})
    names = list(grid.push_messages([ask(grid, 1, "one"), ask(grid, 1, "two")]))
    assert words(grid.pull_messages(names[1:])) == ["two"]
    assert words(grid.pull_messages(names)) == ["one"]
    assert list(grid.pull_messages(names)) == []


def test_a_client_that_fails_is_an_error_reply(client: ClientApp) -> None:
    grid = InlineGrid(client, 1, {})
    failed, fine = grid.send_and_receive([ask(grid, 1, "fail"), ask(grid, 1, "hi")])
    assert failed.has_error()
    assert failed.error.reason is not None
    assert "told to" in failed.error.reason
    assert not fine.has_error()


def test_whoever_watches_is_called_before_every_message_and_at_the_end(client: ClientApp) -> None:
    server, calls = ServerApp(), []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        calls.append(context.run_config["word"])
        grid.push_messages([ask(grid, 1, "hi"), ask(grid, 2, "hi")])

    run_inline(server, client, 2, {"word": "main"}, lambda: calls.append("watched"))
    assert calls == ["main", "watched", "watched", "watched"]


def test_flower_s_news_stay_out_of_the_terminal_and_its_warnings_do_not(client: ClientApp) -> None:
    server, told, handler = ServerApp(), list[str](), logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]

    @server.main()
    def main(_grid: Grid, _context: Context) -> None:
        log(logging.INFO, "news")
        log(logging.WARNING, "a warning")

    logger = logging.getLogger("flwr")
    logger.addHandler(handler)
    try:
        run_inline(server, client, 1, {})
        log(logging.INFO, "news again")
    finally:
        logger.removeHandler(handler)
    assert told == ["a warning", "news again"]


def test_the_server_app_s_error_is_raised(client: ClientApp) -> None:
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        raise ZeroDivisionError("of the server")

    with pytest.raises(ZeroDivisionError, match="of the server"):
        run_inline(server, client, 1, {})
