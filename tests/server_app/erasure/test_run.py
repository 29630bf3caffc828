"""Erasures without a model: the real strategy, records and certificates, a ledger in memory, nodes that answer."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict

import server_app.erasure.run
from chain.audit.report import AuditReport
from chain.audit.run import verify
from core import keys, lora
from core.canonical import ZERO_DIGEST, Digest
from core.erasures import OpenedRequest, Receipt
from core.errors import DestroyedError, ForgeryError, LedgerUnreachableError, RunError, UsageError
from core.ledger import MemoryLedger
from core.messages import queries
from core.messages.queries import Deletion
from core.messages.training import Task
from core.robust import Robust
from core.signed import Signed
from core.storage.run_folder import RunFolder
from server_app.erasure import steps
from server_app.erasure.run import erase
from server_app.erasure.steps import ErasureContext
from server_app.strategy import Foedus
from tests import erasures as e
from tests import federation as f
from tests.server_app.clients import Federation, TestGrid, answer, fail, large, name_of, sequence
from unlearning.check import check
from unlearning.plan import Lanes

NAMES = ("medical", "coding", "financial")


def fresh_nonce(task: Task) -> RecordDict:
    """An honest reply whose nonce no other lane or generation has."""
    return answer(task, nonce=f.other(f"{task.organisation} {task.lane} {task.generation} {task.round}"))


@dataclass
class Erasable:
    """A run that is complete, and everything that an erasure of it needs."""

    federation: Federation
    told: list[str] = field(default_factory=list)
    audited: int = 0

    @classmethod
    def of(cls, folder: Path, **changes: Any) -> "Erasable":
        erasable = cls(Federation.create(folder, NAMES, **{"rounds": 3} | changes))
        erasable.federation.clients.behave = dict.fromkeys(NAMES, fresh_nonce)
        erasable.run.artifacts.put(lora.factor(f.fresh(), "A"))
        erasable.federation.start()
        return erasable

    @property
    def run(self) -> RunFolder:
        return self.federation.run

    def context(self, **changes: Any) -> ErasureContext:
        """In a process of its own: the run is restored from its folder."""
        strategy = self.federation.strategy()
        grid = TestGrid(self.federation.clients)
        strategy.bindings.refresh(grid)
        return replace(self._context(strategy, grid), **changes)

    def _context(self, strategy: Foedus, grid: TestGrid) -> ErasureContext:
        return ErasureContext(
            rounds=strategy.rounds,
            bindings=strategy.bindings,
            ledger=self.federation.ledger,
            audit=self.audit,
            train=lambda: strategy.start(grid),
            validate=lambda served: {"all": 0.5},
            send=self.send,
        )

    def audit(self) -> AuditReport:
        self.audited += 1
        return verify(self.run, self.federation.ledger, strict=True)

    def send(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Every holder signs that it has deleted its derived state."""
        for number, message in enumerate(messages):
            query = Deletion.from_content(message.content)
            name = name_of(query.organisation)
            self.told.append(name)
            message.metadata.__dict__["_message_id"] = str(number)
            receipt = Receipt(query.genesis.digest, query.organisation, query.attested.value.erasure)
            yield Message(queries.deleted(receipt.sign(f.key(name), query.genesis.chain)), reply_to=message)

    def events(self, name: str) -> list[dict[str, Any]]:
        return self.federation.events_named(name)


def asked(
    erasable: Erasable, name: str, method: str, basis: str = "GDPR Art. 17", day: date = e.TODAY
) -> OpenedRequest:
    return OpenedRequest.of(f.key(name), erasable.run.genesis, method, (), basis, day)


@pytest.mark.parametrize(("method", "label"), [("remove", "interim"), ("repair", "approximate"), ("replay", "exact")])
def test_an_erasure_reaches_the_label_of_its_method(tmp_path: Path, method: str, label: str) -> None:
    erasable = Erasable.of(tmp_path)
    before = [signed.value for signed in erasable.run.lineage(0)]
    context = erasable.context()
    (signed,) = erase(context, asked(erasable, "coding", method))
    certificate = signed.verified(erasable.run.genesis)
    assert certificate.label == label
    assert certificate.aggregate == context.rounds.served.digest
    assert sorted(erasable.told) == sorted(NAMES)
    assert not certificate.outstanding
    assert certificate.metrics == {"before": {"all": 0.5}, "after": {"all": 0.5}}
    for record in before:
        with pytest.raises(DestroyedError):
            erasable.run.artifacts.open(record.aggregate)
    assert verify(erasable.run, erasable.federation.ledger, strict=True).failures == ()


@pytest.mark.parametrize("method", ["remove", "repair", "replay"])
def test_after_an_erasure_norms_are_clipped_by_the_votes_of_those_who_remain(tmp_path: Path, method: str) -> None:
    """A large update is the measure of none that is left, and an auditor computes every factor again."""
    federation = Federation.create(tmp_path, NAMES, rounds=3, robust=Robust("clip", 1.5), norm_bound=1e6)
    erasable = Erasable(federation)
    federation.clients.behave = {"medical": large(3.0), "coding": large(40.0), "financial": large(1.0)}
    erasable.run.artifacts.put(lora.factor(f.fresh(), "A"))
    federation.start()
    medical = f.address("medical")
    # Of three the median is medical's own; of two it is the smaller.
    assert [s.value.factors[medical] for s in erasable.run.lineage(0)] == [1.0] * 3
    erase(erasable.context(), asked(erasable, "coding", method))
    left = [s.value for s in erasable.run.lineage(0)]
    assert {record.generation for record in left} == {1}
    assert all(record.factors[medical] < 0.9 for record in left if record.round <= 3)
    assert verify(erasable.run, federation.ledger, strict=True).failures == ()


def test_an_erasure_is_planned_once_and_every_signature_of_the_history_verified_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Besides the audit, which believes nothing that the coordinator has found before."""
    erasable = Erasable.of(tmp_path)
    history = {s.value.digest for s in erasable.run.records()}
    history |= {a.signed.value.digest for s in erasable.run.records() for a in s.value.admitted}
    report = verify(erasable.run, erasable.federation.ledger)
    context = erasable.context(audit=lambda: report)
    planned, read, verified = list[str](), list[str](), Counter[Digest]()
    plans, of, check = server_app.erasure.run.plans, Lanes.read, Signed.verified

    def counted(signed: Any, federation: Any) -> Any:
        verified[signed.value.digest if hasattr(signed.value, "digest") else ZERO_DIGEST] += 1
        return check(signed, federation)

    monkeypatch.setattr(server_app.erasure.run, "plans", lambda *a: [planned.append("plan"), plans(*a)][1])
    monkeypatch.setattr(Lanes, "read", lambda run: [read.append("history"), of(run)][1])
    monkeypatch.setattr(Signed, "verified", counted)
    erase(context, asked(erasable, "coding", "remove"))
    assert (planned, read) == (["plan"], ["history"])
    assert {digest: verified[digest] for digest in history} == dict.fromkeys(history, 1)


def test_the_event_log_says_where_every_lanes_certificate_lies(tmp_path: Path) -> None:
    erasable = Erasable.of(tmp_path, lanes=tuple((m.address,) for m in f.members(NAMES) for _ in range(2)))
    certificates = erase(erasable.context(), asked(erasable, "coding", "remove"))
    lanes = erasable.run.genesis.lanes_of(f.address("coding"))
    assert [signed.value.attestation.value.lane for signed in certificates] == list(lanes)
    (event,) = erasable.events("erased")
    assert event["certificates"] == [
        str(erasable.run.certificate(signed.value.attestation.value)) for signed in certificates
    ]
    assert (event["organisation"], event["method"], event["records"]) == (f.address("coding"), "remove", 0)
    assert (event["label"], event["aggregate"]) == ("exact", certificates[-1].value.aggregate)


def test_a_run_that_does_not_hold_is_left_alone(tmp_path: Path) -> None:
    erasable = Erasable.of(tmp_path)
    update = next(iter(erasable.run.records())).value.admitted[0].signed.value.update
    path = erasable.run.folder / "artifacts" / f"{erasable.run.artifacts.place(update)}.sealed"
    first, *rest = path.read_bytes()
    path.write_bytes(bytes((first ^ 1, *rest)))
    with pytest.raises(RunError, match="nothing was erased, since the run does not hold"):
        erase(erasable.context(), asked(erasable, "coding", "remove"))
    assert erasable.run.erasures() == []


def test_an_erasure_without_a_plan_is_not_audited(tmp_path: Path) -> None:
    erasable = Erasable.of(tmp_path)
    with pytest.raises(UsageError, match=r"expected one of .*, got 'forgive'"):
        erase(erasable.context(), asked(erasable, "coding", "forgive"))
    assert erasable.audited == 0


class KilledError(BaseException):
    """As kill -9: nothing of ours may catch it."""


def killed(*_: Any, **__: Any) -> Any:
    raise KilledError


def test_an_erasure_that_has_begun_goes_on_with_the_request_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    erasable = Erasable.of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "destroy", killed)
        with pytest.raises(KilledError):
            erase(erasable.context(), asked(erasable, "coding", "replay"))
    (attested,) = erasable.run.erasures()
    with pytest.raises(UsageError, match="the erasure of coding by replay is not finished: ask for that one again"):
        erase(erasable.context(), asked(erasable, "medical", "replay"))
    (signed,) = erase(erasable.context(), asked(erasable, "coding", "replay"))
    assert signed.value.attestation == attested
    assert erasable.audited == 1
    assert "before" not in signed.value.metrics  # it was measured by the process that died


def test_asked_again_on_another_day_an_erasure_goes_on_and_keeps_the_first_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one of two lanes is attested: both certificates hold one request."""
    lanes = tuple((member.address,) for member in f.members(NAMES) for _ in range(2))
    erasable = Erasable.of(tmp_path, lanes=lanes)
    attest = RunFolder.attest
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "attest", lambda *a: [attest(*a), killed()])
        with pytest.raises(KilledError):
            erase(erasable.context(), asked(erasable, "coding", "remove"))
    later = asked(erasable, "coding", "remove", day=e.TODAY + timedelta(days=40))
    certificates = erase(erasable.context(), later)
    requests = [signed.value.attestation.value.request.value for signed in certificates]
    assert [request.date for request in requests] == [e.DAY, e.DAY]
    assert check(certificates[-1], erasable.run, erasable.federation.ledger) == ()
    assert erase(erasable.context(), later) == certificates


def test_a_certificate_that_the_ledger_was_not_told_of_is_anchored_when_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any) -> None:
        raise LedgerUnreachableError("nothing answers")

    erasable = Erasable.of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryLedger, "certify", down)
        with pytest.raises(LedgerUnreachableError):
            erase(erasable.context(), asked(erasable, "coding", "replay"))
    assert erasable.run.unfinished() is None
    (signed,) = erase(erasable.context(), asked(erasable, "coding", "replay"))
    known = erasable.federation.ledger.erasure(erasable.run.genesis.digest, signed.value.attestation.value.erasure)
    assert known is not None
    assert known.certificate == signed.value.committed
    assert (erasable.audited, len(erasable.events("erased"))) == (1, 1)


def test_a_request_is_carried_out_once_however_often_it_is_given(tmp_path: Path) -> None:
    erasable = Erasable.of(tmp_path)
    first = erase(erasable.context(), asked(erasable, "coding", "remove"))
    assert erase(erasable.context(), asked(erasable, "coding", "remove")) == first
    assert (len(erasable.run.erasures()), erasable.audited) == (1, 1)
    # Another question is another request: what is served still descends from what coding taught.
    (second,) = erase(erasable.context(), asked(erasable, "coding", "replay"))
    assert second.value.label == "exact"
    assert verify(erasable.run, erasable.federation.ledger, strict=True).failures == ()


def test_a_request_takes_back_no_round_that_does_not_know_the_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator with a request in its hand could train rounds again that it did not like."""
    labels = {}
    for further in (False, True):
        erasable = Erasable(Federation.create(tmp_path / str(further), NAMES, rounds=3))
        late = {"coding": sequence(fail, fresh_nonce)}  # first admitted in round 2
        erasable.federation.clients.behave = dict.fromkeys(NAMES, fresh_nonce) | late
        erasable.run.artifacts.put(lora.factor(f.fresh(), "A"))
        erasable.federation.start()
        with monkeypatch.context() as patch:
            if further:
                made = server_app.erasure.run.plans
                patch.setattr(
                    server_app.erasure.run,
                    "plans",
                    lambda *a, made=made: tuple(replace(plan, parent=None, reaggregated=0) for plan in made(*a)),
                )
            (signed,) = erase(erasable.context(), asked(erasable, "coding", "replay"))
        found = check(signed, erasable.run, erasable.federation.ledger)
        labels[further] = [(failure.what, failure.got, failure.want) for failure in found]
    assert labels == {False: [], True: [("method, parent round", "0", "1")]}


def test_nobody_is_erased_at_the_request_of_another_or_of_another_run(tmp_path: Path) -> None:
    erasable = Erasable.of(tmp_path)
    own = asked(erasable, "coding", "remove")
    stolen = replace(own, request=own.request.value.sign(f.key("medical"), erasable.run.genesis.chain))
    other = OpenedRequest.of(f.key("coding"), f.genesis(seed=8), "remove", (), "GDPR Art. 17", e.TODAY)
    stranger = OpenedRequest.of(keys.derive(1, "stranger"), erasable.run.genesis, "remove", (), "GDPR Art. 17", e.TODAY)
    for request, error in ((stolen, "signature of"), (other, "expected federation"), (stranger, "one of the members")):
        with pytest.raises((ForgeryError, UsageError), match=error):
            erase(erasable.context(), request)
    assert erasable.run.erasures() == []


def test_holders_without_a_node_are_outstanding(tmp_path: Path) -> None:
    erasable = Erasable.of(tmp_path)
    context = erasable.context()

    def gone() -> None:
        context.bindings.nodes.pop(f.address("financial"))

    (signed,) = erase(replace(context, train=gone), asked(erasable, "coding", "remove"))
    assert signed.value.outstanding == (f.address("financial"),)
    (missing,) = erasable.events("receipt-missing")
    assert missing["reason"] == "not-connected"
