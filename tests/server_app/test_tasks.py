"""How long a round waits, who is late, and what becomes of a late update: on a clock that the tests turn."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict

from chain.audit.report import AuditReport, What
from chain.audit.run import verify
from core import lora
from core.aggregation import weights
from core.messages.refusal import Cause, Refusal, Refused
from core.messages.training import TRAIN, Task
from core.rejections import Reason
from core.robust import Robust
from core.round_key import RoundKey
from core.rounds import Admitted, RoundRecord
from server_app.rounds import OpenRound, Recipient, Rounds
from server_app.strategy import Foedus
from server_app.tasks import Tasks, Waiting
from tests import federation as f
from tests.server_app.clients import (
    Behaviour,
    Clients,
    Federation,
    TestGrid,
    Time,
    answer,
    fail,
    large,
    name_of,
    sequence,
)

NAMES = ("medical", "coding", "financial")
NEVER = 1e9


@dataclass
class Slow:
    """By organisation, how many seconds its next answers take; the last for ever."""

    time: Time
    takes: Mapping[str, list[float]]
    due: dict[str, float] = field(default_factory=dict)

    def of(self, name: str) -> float:
        left = self.takes.get(name, [1.0])
        return left.pop(0) if len(left) > 1 else left[0]


class SlowGrid(TestGrid):
    """A grid on which organisations take their time to train."""

    def __init__(self, clients: Clients, slow: Slow) -> None:
        super().__init__(clients)
        self.slow = slow

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        (message,) = messages
        names = super().push_messages([message])
        trains = message.metadata.message_type == TRAIN
        takes = self.slow.of(name_of(Task.from_content(message.content).organisation)) if trains else 0.0
        self.slow.due |= dict.fromkeys(filter(None, names), self.slow.time.seconds + takes)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        there = [name for name in message_ids if self.slow.due.get(name, 0.0) <= self.slow.time.seconds]
        return super().pull_messages(there)


@dataclass
class Run:
    """A federation whose organisations are slow, and what came of it."""

    federation: Federation
    slow: Slow
    waiting: Waiting
    kind: type[Rounds] = Rounds
    tasks: type[Tasks] = Tasks

    @classmethod
    def create(cls, folder: Path, takes: Mapping[str, list[float]], waiting: Waiting, **changes: Any) -> "Run":
        """Three organisations; the other arguments are of the federation."""
        federation = Federation.create(folder, NAMES, **{"rounds": 3, "quorum": 2} | changes)
        federation.run.artifacts.put(lora.factor(f.fresh(), "A"))
        return cls(federation, Slow(Time(), takes), waiting)

    def start(self) -> Foedus:
        strategy = self.federation.strategy(kind=self.kind)
        strategy.tasks = self.tasks(strategy.rounds, self.waiting, self.slow.time.clock)
        strategy.start(SlowGrid(self.federation.clients, self.slow))
        return strategy

    @property
    def records(self) -> list[RoundRecord]:
        return [signed.value for signed in self.federation.run.records()]

    @property
    def late(self) -> list[list[str]]:
        return [[name_of(organisation) for organisation in record.late] for record in self.records]

    @property
    def admitted(self) -> list[dict[str, int]]:
        """For every record, by how many rounds each admitted update is late."""
        return [{name_of(who): delay for who, delay in record.delays.items()} for record in self.records]

    def trained(self, name: str) -> list[int]:
        """The rounds that an organisation was sent a task for."""
        return [task.round for task in self.federation.clients.trained if name_of(task.organisation) == name]

    def audit(self) -> AuditReport:
        return verify(self.federation.run.read_with(f.COORDINATOR), self.federation.ledger)


GRACE = Waiting(timeout=1000.0, grace=2.0)


def test_a_round_with_its_quorum_waits_the_grace_and_not_the_timeout(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {"medical": [2.0], "coding": [4.0], "financial": [NEVER]}, GRACE, rounds=1)
    run.start()
    (record,) = run.records
    assert run.late == [["financial"]]
    assert set(run.admitted[0]) == {"medical", "coding"}
    # The quorum was there after 4 seconds, and the median of 2 and 4 is 3: 6 seconds more, up to a poll.
    assert record.grace == pytest.approx(6.0, abs=0.2)
    assert run.slow.time.seconds == pytest.approx(10.0, abs=0.4)
    assert run.audit().failures == ()


def test_an_answer_within_the_grace_is_in_time(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {"financial": [2.5]}, GRACE, rounds=1)
    run.start()
    assert (run.late, run.records[0].grace) == ([[]], 0.0)
    assert len(run.admitted[0]) == 3


@pytest.mark.parametrize("quorum", [2, 3])
def test_without_grace_or_without_a_quorum_a_round_waits_for_everyone(tmp_path: Path, quorum: int) -> None:
    waiting = GRACE if quorum == 3 else replace(GRACE, grace=0.0)
    run = Run.create(tmp_path, {"financial": [900.0]}, waiting, rounds=1, quorum=quorum)
    run.start()
    assert run.late == [[]]
    assert len(run.admitted[0]) == 3


def test_a_round_without_its_quorum_waits_no_longer_than_the_timeout(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {"financial": [NEVER, 1.0]}, GRACE, rounds=1, quorum=3)
    numbers = itertools.count()
    again = {name: lambda task: answer(task, nonce=f.other(f"try {next(numbers)}")) for name in NAMES}
    run.federation.clients.behave = again
    run.start()
    assert [(r.attempt, len(r.admitted)) for r in run.records] == [(1, 0), (2, 3)]
    assert ("financial", "no-reply") in {(name_of(r.organisation), r.reason) for r in run.records[0].rejected}
    assert run.late == [[], []]
    assert 1000.0 <= run.slow.time.seconds < 1010.0


def test_who_is_late_stands_in_record_and_event(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {"financial": [NEVER]}, GRACE, rounds=1)
    run.start()
    (late,) = run.federation.events_named("late")
    assert [late["organisation"]] == list(run.records[0].late) == [f.address("financial")]
    assert late["detail"] == "no answer 2 s after the quorum of round 1"
    assert run.federation.rejections() == []


def test_an_organisation_has_one_task_at_a_time(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {"financial": [4.5, 1.0]}, GRACE, rounds=5)
    run.start()
    # The first round takes a second and two of grace, the next a second: it answers in the third.
    assert run.trained("financial") == [1, 4, 5]
    assert run.late == [["financial"]] * 3 + [[], []]
    assert [event["round"] for event in run.federation.events_named("uncounted")] == [1]
    assert run.audit().failures == ()


def test_a_task_that_is_older_than_a_round_may_take_is_lost(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {"financial": [NEVER]}, replace(GRACE, timeout=3.5), rounds=5)
    run.start()
    assert run.trained("financial") == [1, 3, 5]


def test_an_organisation_that_was_silent_some_times_is_asked_and_holds_nobody(tmp_path: Path) -> None:
    waiting = replace(GRACE, grace=0.0, timeout=100.0, silent_rounds=2)
    run = Run.create(
        tmp_path, {"financial": [NEVER, NEVER, 3.0, 1.0], "coding": [2.0, 2.0, 2.0, 4.0]}, waiting, rounds=4
    )
    run.start()
    assert run.trained("financial") == [1, 2, 3]
    assert run.federation.rejections() == [(n, 1, "financial", "no-reply") for n in (1, 2)]
    # The third round waits for the others alone. In the fourth it answers what it was asked in the third.
    assert run.late == [[], [], ["financial"], ["financial"]]
    assert run.slow.time.seconds == pytest.approx(206.0, abs=2.0)


def test_whoever_answers_again_is_waited_for_again(tmp_path: Path) -> None:
    waiting = replace(GRACE, grace=0.0, timeout=100.0, silent_rounds=1)
    run = Run.create(tmp_path, {"financial": [NEVER, 1.0, 50.0], "coding": [2.0]}, waiting, rounds=3)
    run.start()
    assert run.late == [[], [], []]
    assert [set(admitted) for admitted in run.admitted] == [{"medical", "coding"}, set(NAMES), set(NAMES)]


def test_silence_is_counted_on_when_a_run_is_resumed(tmp_path: Path) -> None:
    waiting = replace(GRACE, grace=0.0, timeout=100.0, silent_rounds=2)
    run = Run.create(tmp_path, {"financial": [NEVER]}, waiting, rounds=3)
    run.start()
    silence = Tasks(run.federation.rounds(), waiting).silence
    assert [silence[Recipient(0, f.address(name))] for name in ("financial", "coding")] == [3, 0]


def test_a_late_organisation_is_not_asked_to_measure_behind_its_task(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {"financial": [NEVER]}, GRACE, rounds=1)
    run.start()
    assert {name_of(task.organisation) for task in run.federation.clients.evaluated} == {"medical", "coding"}


# --- a late update that counts ---------------------------------------------------------------------------------------


def stale(folder: Path, kind: type[Rounds] = Rounds, tasks: type[Tasks] = Tasks, **changes: Any) -> Run:
    """Financial takes five seconds, others one: a round ends after three, and the next before its next answer."""
    run = Run.create(folder, {"financial": [5.0, 1.0]}, GRACE, **{"staleness": 1, "rounds": 3} | changes)
    run.kind, run.tasks = kind, tasks
    run.start()
    return run


def test_a_late_update_counts_in_the_next_round_at_a_lower_weight(tmp_path: Path) -> None:
    run = stale(tmp_path)
    assert run.late == [["financial"], ["financial"], []]
    assert run.admitted[1] == {"medical": 0, "coding": 0, "financial": 1}
    assert run.admitted[2] == dict.fromkeys(NAMES, 0)
    admitted = {name_of(a.organisation): a for a in run.records[1].admitted}
    late = admitted["financial"]
    assert (late.signed.value.round, late.signed.value.parent) == (1, run.federation.genesis.digest)
    shares = weights({f.address(name): f.EXAMPLES[name] for name in NAMES}, run.federation.genesis.server_rate)
    discounts = {"medical": 1.0, "coding": 1.0, "financial": 2**0.5}
    assert {n: a.weight for n, a in admitted.items()} == {n: shares[f.address(n)] / d for n, d in discounts.items()}
    (event,) = [e for e in run.federation.events_named("admitted") if e.get("delay")]
    assert (event["organisation"], event["delay"]) == (f.address("financial"), 1)


def test_an_audit_computes_a_round_with_a_late_update_again(tmp_path: Path) -> None:
    run = stale(tmp_path)
    report = run.audit()
    assert report.failures == ()
    assert (report.recomputed, report.checked["late updates"]) == (3, 1)


def test_a_late_update_is_clipped_as_one_in_time(tmp_path: Path) -> None:
    run = Run.create(
        tmp_path, {"financial": [5.0, 1.0]}, GRACE, staleness=1, rounds=3, robust=Robust("clip", 1.5), norm_bound=1e6
    )

    run.federation.clients.behave = {"financial": large(40.0)}
    run.start()
    assert run.admitted[1]["financial"] == 1
    assert [run.records[n].factors[f.address("financial")] < 0.1 for n in (1, 2)] == [True, True]
    assert run.audit().failures == ()


def test_without_staleness_a_late_update_does_not_count(tmp_path: Path) -> None:
    run = stale(tmp_path, staleness=0)
    assert run.admitted[1] == {"medical": 0, "coding": 0}
    assert run.audit().failures == ()


def test_an_update_of_two_rounds_ago_does_not_count(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {"financial": [6.5]}, GRACE, staleness=1, rounds=4)
    run.start()
    assert all(not delay for admitted in run.admitted for delay in admitted.values())
    assert [event["round"] for event in run.federation.events_named("uncounted")] == [1]


def test_a_late_answer_that_fails_is_no_rejection_of_the_round_that_it_comes_in(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {"financial": [5.0, 1.0]}, GRACE, staleness=1, rounds=3)
    run.federation.clients.behave = {"financial": sequence(fail, answer)}
    run.start()
    assert run.federation.rejections() == []
    (event,) = run.federation.events_named("uncounted")
    assert (event["round"], event["organisation"]) == (1, f.address("financial"))
    assert run.audit().failures == ()


def test_a_run_with_late_updates_is_resumed_where_it_stopped(tmp_path: Path) -> None:
    run = stale(tmp_path)
    rounds = run.federation.rounds()
    assert rounds.served.digest == run.federation.strategy().rounds.served.digest
    assert rounds.lanes[0].state.digest == run.records[-1].aggregate
    # What it has certainly been shown: the records up to the one that its newest update grows from.
    assert rounds._seen[0][f.address("financial")] == 2


class Lying(Rounds):
    """Does something to the second round's late update before the record is signed."""

    def lie(self, open_round: OpenRound, admitted: tuple[Admitted, ...]) -> tuple[Admitted, ...]:
        raise NotImplementedError

    def weigh(self, open_round: OpenRound) -> tuple[Admitted, ...]:
        admitted = super().weigh(open_round)
        return self.lie(open_round, admitted) if any(open_round.delays.values()) else admitted


class FullWeight(Lying):
    """Counts a late update as one in time."""

    def lie(self, open_round: OpenRound, admitted: tuple[Admitted, ...]) -> tuple[Admitted, ...]:
        late = {who for who, delay in open_round.delays.items() if delay}
        return tuple(replace(a, weight=a.weight * 2**0.5) if a.organisation in late else a for a in admitted)


class Hiding(Tasks):
    """Says of whoever is late that it was rejected."""

    def note_late(self, recipient: Recipient) -> None:
        self.rounds.reject(recipient, Reason.NO_REPLY, "nothing came")

    def counts_late(self, recipient: Recipient, key: RoundKey) -> bool:
        return self.rounds.lanes[0].round == 1 and key.round == 1


@pytest.mark.parametrize(
    ("lie", "what"), [({"kind": FullWeight}, What.WEIGHT), ({"tasks": Hiding}, What.MANIFEST_PLACE)]
)
def test_an_audit_finds_a_lie_about_a_late_update(tmp_path: Path, lie: Mapping[str, Any], what: What) -> None:
    report = stale(tmp_path, **lie).audit()
    assert report.failures[0].what == what
    assert report.failures[0].where.startswith("round 2, lane 0")


def test_an_audit_finds_late_updates_that_the_genesis_does_not_allow(tmp_path: Path) -> None:
    class Generous(Tasks):
        def counts_late(self, recipient: Recipient, key: RoundKey) -> bool:
            return self.rounds.next_key(recipient).round - key.round == 1

    failures = stale(tmp_path, tasks=Generous, staleness=0).audit().failures
    assert What.MANIFEST_PLACE in {failure.what for failure in failures}


def test_the_same_update_does_not_count_in_time_and_late(tmp_path: Path) -> None:
    class Twice(Rounds):
        def weigh(self, open_round: OpenRound) -> tuple[Admitted, ...]:
            if self.lanes[0].round == 1:
                first = self.lanes[0].head.value.admitted[0].signed  # type: ignore[union-attr] # round 1 is closed
                open_round.admitted = [
                    s for s in open_round.admitted if s.value.organisation != first.value.organisation
                ]
                open_round.admitted.append(first)
                open_round.delays[first.value.organisation] = 1
            return super().weigh(open_round)

    failures = stale(tmp_path, Twice).audit().failures
    assert {What.NONCE, What.MANIFEST_PLACE} <= {failure.what for failure in failures}


# --- an update that is held for a person -----------------------------------------------------------------------------


def hold(_task: Task) -> RecordDict:
    return Refusal(Refused.ABSTAINED, Cause.HELD, "held for approval by a person of its organisation").to_content()


def holding(folder: Path, waiting: Waiting, *financial: Behaviour, quorum: int = 2) -> Run:
    run = Run.create(folder, {}, waiting, rounds=1, quorum=quorum)
    numbers = itertools.count()
    again = {name: lambda task: answer(task, nonce=f.other(f"try {next(numbers)}")) for name in NAMES}
    run.federation.clients.behave = again | {"financial": sequence(*financial)}
    run.start()
    return run


def test_a_round_waits_for_an_update_that_is_held_and_asks_again_until_it_is_let_go(tmp_path: Path) -> None:
    run = holding(tmp_path, replace(GRACE, grace=0.0), hold, hold, answer)
    assert run.admitted == [dict.fromkeys(NAMES, 0)]
    assert run.trained("financial") == [1, 1, 1]
    assert 60.0 <= run.slow.time.seconds < 70.0
    (told,) = run.federation.events_named("held")
    assert (told["organisation"], told["round"]) == (f.address("financial"), 1)
    assert run.federation.rejections() == []
    assert run.audit().failures == ()


def test_with_grace_nobody_waits_for_a_person(tmp_path: Path) -> None:
    run = holding(tmp_path, GRACE, hold)
    assert set(run.admitted[0]) == {"medical", "coding"}
    assert run.federation.rejections() == [(1, 1, "financial", "abstained")]
    assert run.records[0].rejected[0].detail == "held for approval by a person of its organisation"
    assert run.late == [[]]
    assert run.slow.time.seconds < 10.0
    assert run.audit().failures == ()


def test_below_the_quorum_a_round_waits_for_a_person_until_its_timeout_and_is_tried_again(tmp_path: Path) -> None:
    run = holding(tmp_path, replace(GRACE, timeout=100.0), hold, hold, hold, hold, answer, quorum=3)
    assert [len(record.admitted) for record in run.records] == [0, 3]
    assert (1, 1, "financial", "abstained") in run.federation.rejections()
    assert run.slow.time.seconds == pytest.approx(102.0, abs=3.0)
    assert run.audit().failures == ()


def test_a_node_that_goes_while_its_update_is_held_is_no_part_of_the_round_and_is_told_once(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {}, replace(GRACE, timeout=100.0, grace=0.0), rounds=1)

    def leave(task: Task) -> RecordDict:
        strategy.bindings.nodes.pop(task.organisation)
        return hold(task)

    run.federation.clients.behave = {"financial": leave}
    strategy = run.federation.strategy(kind=run.kind)
    strategy.tasks = Tasks(strategy.rounds, run.waiting, run.slow.time.clock)
    strategy.start(SlowGrid(run.federation.clients, run.slow))
    assert run.federation.rejections() == [(1, 1, "financial", "abstained")]
    assert run.trained("financial") == [1]
    assert run.audit().failures == ()
