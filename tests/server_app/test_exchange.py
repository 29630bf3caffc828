"""Messages out, replies in, one at a time, each matched with its recipient."""

from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import httpx
import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from server_app.exchange import Clock, Recipients, ask, exchange

NEVER = 1e9


@pytest.fixture(autouse=True)
def _task() -> None:
    """Messages are made within a task of Flower's."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


def message(number: int) -> Message:
    return Message(RecordDict(), number, "query.test", group_id=str(number))


class Post(Grid):
    """A grid whose replies come after so many seconds of its own clock; a message is known by its node, from 1."""

    def __init__(self, ready: dict[int, float], lost: frozenset[int] = frozenset()) -> None:
        self.ready, self.lost = ready, lost
        self.seconds = 0.0
        self.clock = Clock(lambda: self.seconds, self.sleep)
        self.pushed: dict[str, Message] = {}
        self.pulled: list[list[str]] = []
        self.out_when_pushed: list[int] = []

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def push_messages(self, messages: Iterable[Message]) -> list[str | None]:  # type: ignore[override] # as Flower does
        (one,) = messages
        number = one.metadata.dst_node_id
        if number in self.lost:
            return [None] if number % 2 else []
        name = one.metadata.__dict__["_message_id"] = f"message {number}"
        self.pushed[name] = one
        return [name]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        asked = list(message_ids)
        self.pulled.append(asked)
        due = [name for name in asked if self._arrived(self.pushed[name])]
        return [Message(RecordDict(), reply_to=self.pushed[name]) for name in due]

    def _arrived(self, sent: Message) -> bool:
        return self.ready.get(sent.metadata.dst_node_id, NEVER) <= self.seconds

    set_run = run = create_message = get_node_ids = send_and_receive = cast(Any, None)


def answered(post: Post, count: int, timeout: float = 0.3) -> list[tuple[str, int | None]]:
    """The recipients in the order of their replies, with the node that each reply came from."""
    messages = ((f"recipient {number}", message(number)) for number in range(1, count + 1))
    found = ask(messages, partial(exchange, post, timeout=timeout, clock=post.clock))
    return [(recipient, reply.metadata.src_node_id if reply else None) for recipient, reply in found]


def test_replies_come_with_their_recipients_as_they_arrive() -> None:
    post = Post({1: 0.1, 2: 0.0, 3: 0.0})
    assert answered(post, 3) == [("recipient 2", 2), ("recipient 3", 3), ("recipient 1", 1)]


@pytest.mark.parametrize("fault", [RecursionError(), ValueError("not JSON"), TypeError(), KeyError("x"), MemoryError()])
def test_a_reply_that_cannot_be_read_is_that_nodes_error(fault: Exception) -> None:
    class Unreadable(Post):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            (name,) = message_ids
            if name == "message 1":
                raise fault
            return super().pull_messages([name])

    messages = ((f"recipient {number}", message(number)) for number in (1, 2))
    post = Unreadable({1: 0.0, 2: 0.0})
    found = dict(ask(messages, partial(exchange, post, timeout=5.0, clock=post.clock)))
    reply, other = found["recipient 1"], found["recipient 2"]
    assert reply is not None
    assert type(fault).__name__ in reply.error.reason
    assert reply.metadata.src_node_id == 1
    assert other is not None
    assert other.has_content()


def test_a_superlink_that_is_gone_is_nobodys_fault() -> None:
    class Gone(Post):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            raise httpx.ConnectError("refused")

    with pytest.raises(httpx.ConnectError):
        answered(Gone({1: 0.0}), 1)


def test_replies_are_pulled_one_by_one() -> None:
    post = Post({1: 0.0, 2: 0.0})
    answered(post, 2)
    assert all(len(asked) == 1 for asked in post.pulled)


def test_a_recipient_that_is_silent_comes_with_none_after_the_timeout() -> None:
    assert answered(Post({1: 0.0}), 2, timeout=0.1) == [("recipient 1", 1), ("recipient 2", None)]


@pytest.mark.parametrize("lost", [{1}, {2}, {1, 2, 3}])
def test_a_message_that_cannot_be_sent_has_no_reply(lost: set[int]) -> None:
    post = Post(dict.fromkeys(range(1, 4), 0.0), frozenset(lost))
    expected = {f"recipient {n}": None if n in lost else n for n in range(1, 4)}
    assert dict(answered(post, 3)) == expected


def test_no_messages_have_no_replies() -> None:
    assert answered(Post({}), 0) == []


def test_messages_are_made_when_they_are_sent_and_their_contents_not_kept() -> None:
    post, made = Post({1: 0.0, 2: 0.0}), list[int]()

    def messages() -> Iterable[tuple[int, Message]]:
        for number in (1, 2):
            assert len(post.pushed) == len(made)
            made.append(number)
            yield number, message(number)

    recipients = Recipients[int]()
    replies = exchange(post, recipients.register(messages()), 0.3, clock=post.clock)
    assert made == []
    assert [recipient for recipient, _ in recipients.match(replies)] == [1, 2]


def test_replies_at_hand_are_matched_whatever_their_order_and_strange_ones_are_left_out() -> None:
    post, recipients = Post({1: 0.0, 2: 0.0}), Recipients[str]()
    sent = list(recipients.register([("one", message(1)), ("two", message(2))]))
    for one in sent:
        post.push_messages([one])
    stranger = message(3)
    stranger.metadata.__dict__["_message_id"] = "message of somebody else"
    replies = [Message(RecordDict(), reply_to=one) for one in (sent[1], stranger, sent[1])]
    assert [(name, reply is not None) for name, reply in recipients.match(replies)] == [("two", True), ("one", False)]
