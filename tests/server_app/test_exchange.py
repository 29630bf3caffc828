"""Messages out, replies in, one at a time."""

import time
from collections.abc import Iterable
from typing import Any, cast

import pytest
from flwr.app import Message
from flwr.serverapp import Grid

from server_app.exchange import exchange


class Post:
    """A grid whose replies come when a test says so; a message is known by its number."""

    def __init__(self, ready: dict[int, float], lost: frozenset[int] = frozenset()) -> None:
        self.ready, self.lost = ready, lost
        self.began = time.monotonic()
        self.pulled: list[list[str]] = []

    def push_messages(self, messages: Iterable[Any]) -> list[str | None]:
        (number,) = messages
        return [] if number in self.lost else [str(number)]

    def pull_messages(self, message_ids: Iterable[str]) -> list[str]:
        asked = list(message_ids)
        self.pulled.append(asked)
        return [f"reply {m}" for m in asked if self.ready.get(int(m), 1e9) <= time.monotonic() - self.began]


def run(post: Post, count: int, timeout: float = 0.3) -> list[tuple[str, object]]:
    messages = ((f"key {number}", cast(Message, number)) for number in range(count))
    return list(exchange(cast(Grid, post), messages, timeout))


def test_replies_come_under_the_key_of_their_message_as_they_arrive() -> None:
    post = Post({0: 0.1, 1: 0.0, 2: 0.0})
    assert run(post, 3) == [("key 1", "reply 1"), ("key 2", "reply 2"), ("key 0", "reply 0")]


def test_replies_are_pulled_one_by_one() -> None:
    post = Post({0: 0.0, 1: 0.0})
    run(post, 2)
    assert all(len(asked) == 1 for asked in post.pulled)


def test_whoever_is_silent_comes_with_none_after_the_timeout() -> None:
    post = Post({0: 0.0})
    assert run(post, 2, timeout=0.1) == [("key 0", "reply 0"), ("key 1", None)]


@pytest.mark.parametrize("lost", [{0}, {1}, {0, 1, 2}])
def test_a_message_that_cannot_be_sent_comes_with_none(lost: set[int]) -> None:
    post = Post(dict.fromkeys(range(3), 0.0), frozenset(lost))
    got = dict(run(post, 3))
    assert got == {f"key {n}": None if n in lost else f"reply {n}" for n in range(3)}


def test_no_messages_have_no_replies() -> None:
    assert run(Post({}), 0) == []
