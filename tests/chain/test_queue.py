import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chain.queue import CommitQueue, read_anchors
from core.canonical import ZERO_DIGEST, Digest, to_json
from core.errors import IntegrityError, LedgerConflictError, LedgerUnreachableError, RunLockedError
from core.ledger import Anchor, LaneHead, MemoryLedger, RoundCommitment
from core.round_key import RoundKey
from tests.behaviours.ledger import MEMBERS, a_round, some_digest
from tests.waiting import PATIENCE_SECONDS, until


class FaultyLedger(MemoryLedger):
    """A ledger that can be down, and that counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.commits = 0
        self.on_commit: Callable[[], None] = lambda: None

    def commit(self, commitment: RoundCommitment) -> Anchor:
        self._check_is_up()
        self.commits += 1
        anchor = super().commit(commitment)
        self.on_commit()
        return anchor

    def read(self, key: RoundKey) -> tuple[RoundCommitment, Anchor] | None:
        self._check_is_up()
        return super().read(key)

    def roll_back(self, rounds: int) -> None:
        """Forget the newest rounds of the only lane there is."""
        for key in sorted(self._rounds)[-rounds:]:
            del self._rounds[key]
        self._heads.clear()
        for commitment, _ in self._rounds.values():
            key = commitment.key
            self._heads[key.genesis, key.lane] = LaneHead(key.generation, key.round, commitment.aggregate)

    def _check_is_up(self) -> None:
        if self.down:
            raise LedgerUnreachableError("nothing answers")


@pytest.fixture
def ledger() -> FaultyLedger:
    return FaultyLedger()


@pytest.fixture
def run(ledger: FaultyLedger) -> Digest:
    run = some_digest()
    ledger.open_run(run, MEMBERS)
    return run


def chain_of(run: Digest, length: int) -> list[RoundCommitment]:
    rounds: list[RoundCommitment] = []
    for number in range(1, length + 1):
        rounds.append(a_round(run, number, rounds[-1].aggregate if rounds else ZERO_DIGEST))
    return rounds


def test_every_round_that_was_put_is_anchored_once_closed(tmp_path: Path, ledger: FaultyLedger, run: Digest) -> None:
    rounds = chain_of(run, 5)
    queue = CommitQueue(tmp_path / "queue", ledger)
    for commitment in rounds:
        queue.put(commitment)
    assert queue.close(PATIENCE_SECONDS) == 0
    assert queue.anchors() == {item.key: ledger.commit(item) for item in rounds}
    assert read_anchors(tmp_path / "queue") == queue.anchors()


def test_putting_a_round_again_commits_it_once(tmp_path: Path, ledger: FaultyLedger, run: Digest) -> None:
    (only,) = chain_of(run, 1)
    queue = CommitQueue(tmp_path / "queue", ledger)
    queue.put(only)
    queue.put(only)
    queue.close(PATIENCE_SECONDS)
    assert ledger.commits == 1


def test_a_round_cannot_be_queued_with_two_values(tmp_path: Path, ledger: FaultyLedger, run: Digest) -> None:
    queue = CommitQueue(tmp_path / "queue", ledger)
    queue.put(a_round(run))
    with pytest.raises(LedgerConflictError, match=r"round 1\b.* already queued"):
        queue.put(a_round(run))
    queue.close(PATIENCE_SECONDS)


def test_putting_does_not_wait_for_a_chain_that_is_down(
    tmp_path: Path, ledger: FaultyLedger, run: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, told, answers = threading.Event(), threading.Event(), list[int]()

    def say_nothing() -> None:
        asked.set()
        assert told.wait(PATIENCE_SECONDS)
        answers.append(1)
        raise LedgerUnreachableError("nothing answers")

    monkeypatch.setattr(ledger, "_check_is_up", say_nothing)
    queue = CommitQueue(tmp_path / "queue", ledger)
    for commitment in chain_of(run, 3):
        queue.put(commitment)
        assert asked.wait(PATIENCE_SECONDS)
    assert not answers
    told.set()
    assert queue.close(0) == 3


def test_what_the_chain_is_being_asked_is_answered_before_the_queue_is_closed(
    tmp_path: Path, ledger: FaultyLedger, run: Digest
) -> None:
    """Else it would start the chain again that is ended behind it."""
    asked, answered = threading.Event(), threading.Event()

    def slowly() -> None:
        asked.set()
        time.sleep(0.3)
        answered.set()

    ledger.on_commit = slowly
    queue = CommitQueue(tmp_path / "queue", ledger)
    queue.put(chain_of(run, 1)[0])
    assert asked.wait(PATIENCE_SECONDS)
    assert queue.close(0) == 1
    assert answered.is_set()


def test_rounds_are_anchored_when_the_chain_comes_back(tmp_path: Path, ledger: FaultyLedger, run: Digest) -> None:
    ledger.down = True
    queue = CommitQueue(tmp_path / "queue", ledger)
    for commitment in chain_of(run, 3):
        queue.put(commitment)
    ledger.down = False
    assert queue.close(PATIENCE_SECONDS) == 0


def test_what_was_not_anchored_is_anchored_by_the_next_process(
    tmp_path: Path, ledger: FaultyLedger, run: Digest
) -> None:
    rounds = chain_of(run, 3)
    ledger.down = True
    queue = CommitQueue(tmp_path / "queue", ledger)
    for commitment in rounds:
        queue.put(commitment)
    queue.close(0)
    ledger.down = False
    again = CommitQueue(tmp_path / "queue", ledger)
    assert again.close(PATIENCE_SECONDS) == 0
    assert set(again.anchors()) == {item.key for item in rounds}


@pytest.mark.parametrize("fault", [LedgerUnreachableError("connection reset"), ValueError("no number")])
def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    tmp_path: Path, ledger: FaultyLedger, run: Digest, fault: Exception
) -> None:
    def lose_the_answer() -> None:
        ledger.on_commit = lambda: None
        raise fault

    ledger.on_commit = lose_the_answer
    (only,) = chain_of(run, 1)
    queue = CommitQueue(tmp_path / "queue", ledger)
    queue.put(only)
    assert queue.close(PATIENCE_SECONDS) == 0
    assert queue.anchors()[only.key].block == 1


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_rounds_that_a_reorganisation_took_are_committed_again(
    tmp_path: Path, ledger: FaultyLedger, run: Digest, depth: int
) -> None:
    *before, last = chain_of(run, 5)
    queue = CommitQueue(tmp_path / "queue", ledger)
    for commitment in before:
        queue.put(commitment)
    until(lambda: queue.pending() == 0)
    ledger.roll_back(depth)
    queue.put(last)
    assert queue.close(PATIENCE_SECONDS) == 0
    assert queue.anchors() == {item.key: ledger.commit(item) for item in [*before, last]}


def test_a_reorganisation_after_the_last_round_is_seen_on_closing(
    tmp_path: Path, ledger: FaultyLedger, run: Digest
) -> None:
    rounds = chain_of(run, 3)
    queue = CommitQueue(tmp_path / "queue", ledger)
    for commitment in rounds:
        queue.put(commitment)
    until(lambda: queue.pending() == 0)
    ledger.roll_back(2)
    assert queue.close(PATIENCE_SECONDS) == 0
    assert all(ledger.read(item.key) for item in rounds)


def test_a_refused_round_stops_the_run(tmp_path: Path, ledger: FaultyLedger, run: Digest) -> None:
    queue = CommitQueue(tmp_path / "queue", ledger)
    queue.put(a_round(run, parent=some_digest()))
    until(lambda: not queue._thread.is_alive())
    with pytest.raises(LedgerConflictError, match="is not the head"):
        queue.put(a_round(run, 2))
    with pytest.raises(LedgerConflictError, match="is not the head"):
        queue.close(PATIENCE_SECONDS)


def test_a_queue_has_one_writer(tmp_path: Path, ledger: FaultyLedger) -> None:
    queue = CommitQueue(tmp_path / "queue", ledger)
    with pytest.raises(RunLockedError):
        CommitQueue(tmp_path / "queue", ledger)
    queue.close(PATIENCE_SECONDS)


def test_a_torn_last_line_is_cut_off(tmp_path: Path, ledger: FaultyLedger, run: Digest) -> None:
    path = tmp_path / "queue"
    rounds = chain_of(run, 2)
    queue = CommitQueue(path, ledger)
    queue.put(rounds[0])
    queue.close(PATIENCE_SECONDS)
    path.write_bytes(path.read_bytes() + b'{"commitment":{"key"')
    assert len(read_anchors(path)) == 1
    again = CommitQueue(path, ledger)
    again.put(rounds[1])
    assert again.close(PATIENCE_SECONDS) == 0
    assert len(read_anchors(path)) == 2


def test_a_damaged_line_is_named(tmp_path: Path, ledger: FaultyLedger, run: Digest) -> None:
    path = tmp_path / "queue"
    queue = CommitQueue(path, ledger)
    queue.put(a_round(run))
    queue.close(PATIENCE_SECONDS)
    path.write_bytes(path.read_bytes().replace(b'"count":4', b'"count":x'))
    with pytest.raises(IntegrityError, match="line 1 of"):
        read_anchors(path)
    with pytest.raises(IntegrityError, match="line 1 of") as first:
        CommitQueue(path, ledger)
    with pytest.raises(IntegrityError, match="line 1 of") as second:  # and not the lock of the first one's error
        CommitQueue(path, ledger)
    assert first.value is not second.value


def test_a_line_that_is_neither_a_commitment_nor_an_anchor_is_named_and_said_in_words(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    for odd in ({"anchor": {}, "key": {}}, {"commitment": {}}, {"commitment": []}, {"other": {}}, [], 1):
        path.write_bytes(to_json(odd) + b"\n")
        with pytest.raises(IntegrityError, match=r"line 1 of .* is damaged") as found:
            read_anchors(path)
        assert "__init__" not in str(found.value)


def test_a_missing_file_has_no_anchors(tmp_path: Path) -> None:
    assert read_anchors(tmp_path / "none") == {}


KILLED = """
import sys
from pathlib import Path
from chain.queue import CommitQueue
from core.ledger import Anchor, RoundCommitment
from core.round_key import RoundKey
from tests.chain.test_queue import FaultyLedger, chain_of
ledger = FaultyLedger()
ledger.down = True
queue = CommitQueue(Path(sys.argv[1]), ledger)
for commitment in chain_of(sys.argv[2], 50):
    queue.put(commitment)
    print(commitment.aggregate, flush=True)
"""


@pytest.mark.parametrize("after", [1, 20])
def test_kill_9_loses_nothing_that_put_returned_from(
    tmp_path: Path, ledger: FaultyLedger, run: Digest, after: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "queue"), run],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    put = [process.stdout.readline().strip() for _ in range(after)]
    os.kill(process.pid, signal.SIGKILL)
    put += process.stdout.read().split()
    process.stdout.close()
    process.wait()
    queue = CommitQueue(tmp_path / "queue", ledger)
    assert queue.close(PATIENCE_SECONDS) == 0
    found = [ledger.read(RoundKey(run, 0, 0, number + 1)) for number in range(len(put))]
    assert [item and item[0].aggregate for item in found] == put
