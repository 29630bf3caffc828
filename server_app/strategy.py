"""The Flower strategy: one federation, round by round.

    collect bids → send each lane's state with its signed record → admit each reply → store → close: order, aggregate,
    write the RoundRecord, queue its commitment → evaluate

It implements Flower's hooks and overrides `start` with a loop through them: Flower's own always counts from one, and
knows no resumed run, no lanes, no quorum, and no replies one by one. In a ServerApp it is used as any other strategy:
``strategy.start(grid)``. The state of the lanes is `server_app.rounds`; everything else reads their records.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from logging import INFO
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.constant import ErrorCode
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from core.canonical import Address
from core.composition import Composition
from core.erasures import OpenedRequest
from core.errors import RunError, UsageError
from core.escape import one_line
from core.messages import codec
from core.messages.training import EVALUATE, TRAIN, Reply
from core.rejections import Reason
from core.round_key import RoundKey
from server_app.admission import RejectedError, read_reply
from server_app.bids import Offers, collect
from server_app.binding import Bindings
from server_app.erasure.run import erase
from server_app.erasure.steps import ErasureContext
from server_app.evaluation import RoundEvaluation, curves, goes_with_task, means
from server_app.exchange import Recipients, exchange, last_line
from server_app.rounds import Recipient, Rounds
from server_app.tasks import Tasks, Waiting
from unlearning.certificate import ErasureCertificate

if TYPE_CHECKING:
    from provenance.trace import TokenTrace
    from server_app.sample_answers import SampleAnswers

_LONGEST_PAUSE = 60.0


class Foedus(Strategy):
    """Signed, admitted, recorded and anchored federated averaging of LoRA updates.

    `validate` measures a composition on the shared validation set, `track` is told the losses of a round. `revoked` are
    the organisations that the chain no longer lets take part; it must answer at once.
    """

    retry_pause = 1.0
    """Seconds before a round below its quorum is tried again; doubled with every attempt."""
    erasure: ErasureContext | None = None
    """The ledger, keys and callbacks that `unlearn` needs; the composition root sets it."""
    samples: "SampleAnswers | None" = None
    """What is asked after each round, likewise."""

    def __init__(
        self,
        rounds: Rounds,
        bindings: Bindings,
        validate: Callable[[Composition], Mapping[str, float]],
        waiting: Waiting = Waiting(),  # noqa: B008 - a frozen value
        track: Callable[[Mapping[str, float], int], None] = lambda _values, _round: None,
        revoked: Callable[[], Set[Address]] = frozenset,
    ) -> None:
        self.rounds, self.bindings, self.validate = rounds, bindings, validate
        self.track, self.revoked = track, revoked
        self.tasks = Tasks(rounds, waiting)
        self._evaluation = RoundEvaluation(rounds, 0)
        self._recipients = Recipients[Recipient]()

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,  # noqa: ARG002 - the genesis and the records fix them
        num_rounds: int = 0,  # noqa: ARG002
        timeout: float | None = None,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the rounds that are still missing; raises QuorumError when a round stays below its quorum."""
        self.tasks.waiting = replace(self.tasks.waiting, timeout=timeout or self.tasks.waiting.timeout)
        self.summary()
        result, rounds = Result(), self.rounds
        arrays = codec.pack(rounds.served)
        # A resumed run evaluates its last round again: it may have died before it did.
        number = max(rounds.round, 1) - 1
        # Counted by hand: a lane whose training ends early brings the last round nearer.
        while (number := number + 1) <= rounds.last:
            while rounds.round < number:
                messages = self.configure_train(number, arrays, train_config or ConfigRecord(), grid)
                again = partial(self._again, measure=goes_with_task(rounds, number))
                replies = self._checked(self.tasks.exchange(grid, messages, again))
                arrays, losses = self.aggregate_train(number, replies)
                if losses is not None:
                    result.evaluate_metrics_clientapp[number - 1] = losses
            if rounds.genesis.training.calibrates(number) and number < rounds.last:
                continue  # a calibration is judged by its end
            if not goes_with_task(rounds, number + 1):
                messages = self.configure_evaluate(number, arrays, evaluate_config or ConfigRecord(), grid)
                replies = self._checked(exchange(grid, messages, self.tasks.waiting.evaluate_timeout))
                if (losses := self.aggregate_evaluate(number, replies)) is not None:
                    result.evaluate_metrics_clientapp[number] = losses
            if self.samples:
                self.samples.tell(number, rounds.served)
            if evaluate_fn and (metrics := evaluate_fn(number, arrays)) is not None:
                result.evaluate_metrics_serverapp[number] = metrics
        result.arrays = arrays
        return result

    def summary(self) -> None:
        """Log the run, its genesis, rule and base."""
        genesis = self.rounds.genesis
        log(INFO, "Run %s: %d organisations in %d lanes", genesis.run, len(genesis.organisations), len(genesis.lanes))
        log(INFO, "Genesis %s, rule %s, base %s", genesis.digest, genesis.rule, genesis.base.name)

    def configure_train(
        self,
        server_round: int,
        arrays: ArrayRecord,  # noqa: ARG002 - every lane has its own state
        config: ConfigRecord,  # noqa: ARG002 - the genesis fixes it
        grid: Grid,
    ) -> Iterable[Message]:
        """One message for every organisation that the policy asks, in the lanes that lack this round."""
        if attempts := max(lane.attempts for lane in self.rounds.lanes):
            # Organisations that were missing get time to come back, twice as long each time.
            time.sleep(min(_LONGEST_PAUSE, self.retry_pause * 2 ** (attempts - 1)))
        self.bindings.refresh(grid)
        offers: Offers = {}
        if self.rounds.genesis.policy(server_round) == "q-learning":
            nodes = {o: node for o, node in self.bindings.nodes.items() if o not in self.revoked()}
            # A round waits for no agent any longer than for losses.
            ask = partial(exchange, grid, timeout=self.tasks.waiting.evaluate_timeout)
            offers = collect(self.rounds, server_round, nodes, lambda messages: self._checked(ask(messages)))
        lanes = self.rounds.begin(server_round, offers)
        if measure := goes_with_task(self.rounds, server_round):
            evaluation = RoundEvaluation(self.rounds, server_round - 1)
            # At another attempt it goes on; behind an erasure the same round serves something else.
            self._evaluation = self._evaluation if self._evaluation.of == evaluation.of else evaluation
        asked = [recipient for lane in lanes for recipient in self.rounds.select(lane)]
        organisations = [recipient.organisation for recipient in asked]
        events = self.rounds.events
        events.write("round-started", round=server_round, rounds=self.rounds.last, asked=organisations)
        return self.tasks.register(self._messages(self.tasks.begin(asked), measure=measure))

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord | None]:
        """Admit the replies one by one as they come, then close the round; no reply is kept.

        Returns the served adapters, and the mean losses of those before, where this round measured them.
        """
        measure = goes_with_task(self.rounds, server_round)
        for recipient, key, reply in self.tasks.match(replies):
            open_now = key == self.rounds.next_key(recipient)
            try:
                self._admit(recipient, key, reply)
                self.bindings.note_holder(recipient.organisation, holds=True)
            except RejectedError as error:
                self.bindings.note_holder(recipient.organisation, holds=False)
                if error.held and reply and open_now and self.tasks.hold(recipient, reply):
                    continue
                if open_now:
                    rejection = self.rounds.reject(recipient, error.reason, error.detail, lasting=error.lasting)
                    self.rounds.events.write("rejected", **asdict(rejection))
                else:  # nothing that this round asked for
                    late = {"round": key.round, "organisation": recipient.organisation}
                    self.rounds.events.write("uncounted", **late, detail=one_line(str(error)))
            self.tasks.settle(recipient)
            if measure and key == self.rounds.next_key(recipient):
                with suppress(RejectedError):  # an objection to the task is in the record
                    self._evaluation.take(recipient.organisation, reply)
            if reply is not None and reply.has_content():
                codec.release(reply.content)
        losses = self._report(self._evaluation) if measure else None
        self.tasks.note_silence(self.rounds.close(server_round))
        return codec.pack(self.rounds.served), losses

    def configure_evaluate(
        self,
        server_round: int,
        arrays: ArrayRecord,  # noqa: ARG002 - the lanes have it
        config: ConfigRecord,  # noqa: ARG002 - the genesis fixes it
        grid: Grid,  # noqa: ARG002
    ) -> Iterable[Message]:
        """One message, with the served adapters, for every connected organisation that is to measure them."""
        self._evaluation, self._recipients = RoundEvaluation(self.rounds, server_round), Recipients()
        return self._recipients.register(self._evaluations(self._evaluation))

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The mean of the organisations' losses; None without any."""
        for (_, organisation), reply in self._recipients.match(replies):
            try:
                self._evaluation.take(organisation, reply)
                self.bindings.note_holder(organisation, holds=True)
            except RejectedError as error:
                self.bindings.note_holder(organisation, holds=False)
                if error.reason in (Reason.ABSTAINED, Reason.OBJECTED):
                    detail, events = one_line(error.detail), self.rounds.events
                    events.write("objected", round=server_round, organisation=organisation, detail=detail)
        return self._report(self._evaluation)

    def _report(self, evaluation: RoundEvaluation) -> MetricRecord | None:
        number, served, losses = evaluation.number, evaluation.served, evaluation.losses
        # Where rounds ask a part, the shared set would cost more than all that their organisations measure.
        validation = dict(self.validate(served)) if evaluation.everyone else {}
        plain = {"round": number, "aggregate": served.digest, "losses": losses, "validation": validation}
        self.rounds.events.write("evaluated", **plain)
        self.track(curves(self.rounds.genesis.names, losses, validation), number)
        return means(list(losses.values())) if losses else None

    def unlearn(self, opened: OpenedRequest) -> ErasureCertificate:
        """Carry out an organisation's signed request that it, or records of it, be erased.

        Returns the certificate; the last one, where the organisation learns in several lanes. Raises UsageError for bad
        input, ForgeryError for a request of another, RunError when the run does not hold or has another writer; see
        `server_app.erasure.run.erase`.
        """
        if self.erasure is None:
            raise UsageError("this strategy was given no ledger to erase on")
        return erase(self.erasure, opened)[-1].value

    def attribute(self, prompt: str, response: str | None, method: str) -> "TokenTrace":
        """Trace every token of a response, or of the model's own when it is None, to the organisations that taught it.

        Raises UsageError for bad input; see `provenance.served.trace`.
        """
        from provenance.served import trace  # noqa: PLC0415 - the base model's libraries, which a round does not need

        return trace(self.rounds.run, prompt, response, method)

    def _checked(self, replies: Iterable[Message]) -> Iterator[Message]:
        """Yield the replies.

        Raises RunError when a worker of a simulation has died: Flower would go on giving it messages, all in vain, and
        organisations without fault would be rejected. In a deployment it is one organisation that fails.
        """
        simulated = all(member.derived for member in self.rounds.genesis.organisations)
        for reply in replies:
            # A ClientApp's own failure has a code of its own; unknown is what Ray's dead actor leaves.
            if simulated and reply.has_error() and reply.error.code == ErrorCode.UNKNOWN:
                raise RunError(f"a worker of the simulation died: resume the run ({last_line(reply.error.reason)})")
            yield reply

    def _admit(self, recipient: Recipient, key: RoundKey, reply: Message | None) -> None:
        delay = self.rounds.next_key(recipient).round - key.round
        if key != self.rounds.next_key(recipient) and not self.tasks.counts_late(recipient, key):
            raise RejectedError(Reason.WRONG_ROUND, f"{key} is closed")
        if recipient.organisation in self.revoked():
            raise RejectedError(Reason.REVOKED, "its registration ended during the round")
        trained = read_reply(reply, Reply.from_content, f"nothing came within {self.tasks.waiting.timeout:g} s")
        self.rounds.admit(recipient, trained, self.tasks.seconds(recipient), delay)

    def _messages(self, asked: Iterable[Recipient], *, measure: bool) -> Iterator[tuple[Recipient, Message]]:
        """The tasks to train, each made when it is to be sent; organisations that cannot be asked are rejected."""
        for recipient in asked:
            if recipient.organisation in self.revoked():
                self.rounds.reject(recipient, Reason.REVOKED, "its registration has ended")
            elif recipient.organisation not in self.bindings.nodes:
                self.rounds.reject(recipient, Reason.NOT_CONNECTED, "no node speaks for it")
            else:
                yield from self._again([recipient], measure=measure)

    def _again(self, asked: Iterable[Recipient], *, measure: bool) -> Iterator[tuple[Recipient, Message]]:
        """The tasks of those that can be asked."""
        for recipient in asked:
            lane, node = self.rounds.lanes[recipient.lane], self.bindings.nodes.get(recipient.organisation)
            if node is not None:
                task = self.rounds.task(recipient, Composition.of(lane.state), measure=measure)
                content = task.to_content(whole=node not in self.bindings.holders)
                yield recipient, Message(content, node, TRAIN, group_id=str(lane.round + 1))

    def _evaluations(self, evaluation: RoundEvaluation) -> Iterator[tuple[Recipient, Message]]:
        """The tasks to evaluate."""
        busy = {recipient.organisation for recipient in self.tasks.out}
        for recipient in evaluation.asked:
            if recipient.organisation in busy:
                continue  # it would answer behind its task
            if (node := self.bindings.nodes.get(recipient.organisation)) is not None:
                task = self.rounds.task(recipient, evaluation.served)
                content = task.to_content(whole=node not in self.bindings.holders)
                yield recipient, Message(content, node, EVALUATE, group_id=str(evaluation.number + 1))
