"""A ledger that is only looked at: found when it runs, never started, and never waited for."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from chain.ledger import EthereumLedger, open_ledger
from chain.nodes import TIMEOUT_SECONDS, embedded_service
from chain.observer import Observer, observe
from core.canonical import Address, Digest
from core.errors import IntegrityError, LedgerUnreachableError
from core.keys import Domain, derive
from core.ledger import MemoryLedger
from tests.behaviours.ledger import MEMBERS, a_round, some_digest

CONTRACT = MemoryLedger.domain.contract


class Down:
    """A ledger that cannot be opened until it is up."""

    def __init__(self) -> None:
        self.up = False
        self.opened = 0

    def __call__(self) -> MemoryLedger:
        self.opened += 1
        if not self.up:
            raise LedgerUnreachableError("down")
        return MemoryLedger()


def test_a_ledger_that_did_not_answer_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    down, now = Down(), [100.0]
    monkeypatch.setattr("chain.observer.time", SimpleNamespace(monotonic=lambda: now[0]))
    observer = Observer(down, quiet=30.0)
    for _ in range(5):
        with pytest.raises(LedgerUnreachableError):
            observer.members(some_digest())
    assert down.opened == 1
    down.up = True
    now[0] += 30.0
    assert observer.members(some_digest()) == frozenset()
    assert observer.domain == Domain(0, CONTRACT)
    assert down.opened == 2


def test_the_members_of_a_run_are_asked_once_and_again_where_the_ledger_was_lost() -> None:
    ledger, asked = MemoryLedger(), []

    class Counting(MemoryLedger):
        def members(self, run: Digest) -> frozenset[Address]:
            asked.append(run)
            if len(asked) == 3:
                raise LedgerUnreachableError("down")
            return ledger.members(run)

    observer, run = Observer(Counting, quiet=0.0), some_digest()
    assert observer.members(run) == frozenset()
    ledger.open_run(run, MEMBERS)
    assert observer.members(run) == observer.members(run) == frozenset(MEMBERS)
    assert len(asked) == 2, "of one that is not open yet, an answer is not the last word"
    with pytest.raises(LedgerUnreachableError):
        observer.members(some_digest())
    assert observer.members(run) == frozenset(MEMBERS)
    assert len(asked) == 4


def test_a_node_that_never_answers_is_waited_for_once_and_not_as_long_as_a_writer_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        observer, started = observe(url, Path(), CONTRACT), time.monotonic()
        for _ in range(4):
            with pytest.raises(LedgerUnreachableError):
                observer.members(some_digest())
        assert time.monotonic() - started < TIMEOUT_SECONDS
        deaf.setblocking(False)
        asked = 0
        with suppress(BlockingIOError):
            while True:
                deaf.accept()[0].close()
                asked += 1
    assert asked == 1


def test_a_chain_that_does_not_run_is_not_started(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnreachableError, match="does not run"):
        observe("embedded", tmp_path, CONTRACT).members(some_digest())
    assert embedded_service(tmp_path).url() is None


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    state = tmp_path_factory.mktemp("observed")
    yield state
    embedded_service(state).stop()


@pytest.fixture(scope="module")
def ledger(state: Path) -> EthereumLedger:
    return open_ledger("embedded", state, derive(1, "coordinator"))


@pytest.mark.chain
@pytest.mark.parametrize("by_url", [False, True])
def test_what_the_coordinator_commits_is_seen(state: Path, ledger: EthereumLedger, by_url: bool) -> None:
    chain = f"{embedded_service(state).url()}/public" if by_url else "embedded"
    observer, commitment = observe(chain, state, ledger.domain.contract), a_round(some_digest())
    ledger.open_run(commitment.key.genesis, MEMBERS)
    assert observer.read(commitment.key) is None
    anchor = ledger.commit(commitment)
    assert observer.members(commitment.key.genesis) == MEMBERS
    assert observer.read(commitment.key) == (commitment, anchor)
    assert observer.domain == ledger.domain


@pytest.mark.chain
def test_a_contract_that_is_not_there_is_a_finding(state: Path, ledger: EthereumLedger) -> None:
    with pytest.raises(IntegrityError, match=f"{CONTRACT} on chain {ledger.domain.chain_id}"):
        observe("embedded", state, CONTRACT).members(some_digest())
    assert ledger.domain.chain_id
