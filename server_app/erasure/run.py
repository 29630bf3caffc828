"""An erasure, carried out: the steps of `strategy.unlearn`.

    plan        from the records (unlearning/plan.py); whatever is wrong with the request is found here
    request     signed by the organisation; for records, it says that it trains on them (server_app/erasure/records.py)
    audit       everything must hold before anything is destroyed
    attest      signed by coordinator and organisation, written down, anchored: from here on there is no way back
    open        the lane's new generation, on the ledger and in the records
    erase       for records, the organisation trains without them from here on
    rebuild     rounds are re-aggregated, or trained again by the ordinary loop
    destroy     keys of states, and salts
    receipts    every holder deletes its derived state, and signs for it (server_app/erasure/receipts.py)
    certify     signed by both, written down, anchored

Every step may be repeated. Killed before the attestation is written, an erasure has changed nothing; after it, the same
erasure has to be asked for again, and goes on where it stopped. An organisation that learns in several lanes, one for
each shard of its records, is attested in all of them before any is opened, and certified when all are done.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from chain.audit.report import AuditReport
from chain.queue import read_anchors
from core.canonical import ZERO_DIGEST, Address, Digest, to_json
from core.composition import Composition
from core.erasures import Attestation, ErasureRequest, hidden
from core.errors import LedgerUnreachableError, RunError, UsageError
from core.genesis import Genesis
from core.keys import Key
from core.ledger import Ledger
from core.round_key import RoundKey
from core.rounds import RoundRecord
from core.signed import Signed
from core.storage.run_folder import RunFolder
from server_app.binding import Bindings
from server_app.erasure.documents import attestation_of, certificate_of, generation_of
from server_app.erasure.receipts import gather
from server_app.erasure.records import check_held, request_record_erasure
from server_app.exchange import Send
from server_app.rounds import Rounds
from unlearning.certificate import ErasureCertificate, read_certificate
from unlearning.lineage import Lineage
from unlearning.plan import Lanes, Plan, plans
from unlearning.records import shards_of

_ANCHOR_SECONDS = 120.0


@dataclass(frozen=True)
class ErasureContext:
    """The federation that an erasure changes, and its surroundings.

    `audit` checks the whole run, `requester` is the key of the organisation that asks, `basis` its legal basis,
    `train` runs the rounds that are missing and evaluates, `validate` measures a composition on the shared validation
    set, and `send` takes messages to the organisations.
    """

    rounds: Rounds
    bindings: Bindings
    ledger: Ledger
    audit: Callable[[], AuditReport]
    requester: Callable[[Address], Key]
    basis: str
    train: Callable[[], object]
    validate: Callable[[Composition], Mapping[str, float]]
    send: Send


@dataclass(frozen=True)
class ErasureTarget:
    """What is to be erased: an organisation, or these records of it (digests, each once, in order)."""

    organisation: Address
    method: str
    records: tuple[Digest, ...] = ()

    def shards(self, genesis: Genesis) -> frozenset[int] | None:
        """The shards of the organisation that the records are in; None for the whole organisation."""
        return shards_of(genesis, self.organisation, self.records) if self.records else None

    def lanes(self, genesis: Genesis) -> frozenset[int]:
        """The lanes that the erasure changes."""
        shards = self.shards(genesis)
        lanes = enumerate(genesis.lanes_of(self.organisation))
        return frozenset(lane for shard, lane in lanes if shards is None or shard in shards)

    def asked_by(self, request: ErasureRequest, requester: Callable[[Address], Key]) -> bool:
        """Whether a request is about exactly this."""
        asked = request.organisation, request.method, request.count
        if asked != (self.organisation, self.method, len(self.records)):
            return False
        return request.whole or request.records == hidden(requester(self.organisation), request.nonce, self.records)


def erase(context: ErasureContext, target: ErasureTarget) -> tuple[Signed[ErasureCertificate], ...]:
    """Erase an organisation or some of its records, or go on with that; returns one certificate for each lane.

    Raises what `plans` raises; UsageError while another erasure is unfinished, and for records that the organisation
    does not train on; RunError when the run does not hold, or the organisation does not answer about its records;
    LedgerUnreachableError when the chain is down, with everything as it was or ready to go on.
    """
    rounds, run = context.rounds, context.rounds.run
    late = _anchor_certificates(run, context.ledger)
    done = next((request for request in late if target.asked_by(request.value, context.requester)), None)
    if done and not run.unfinished():
        return _finish(context, done)  # the anchor of its certificate was all that was missing
    history = Lanes.read(run)  # every signature of the history is verified here, once
    request, to_attest = _begin(context, target, history)
    metrics: dict[str, Mapping[str, float]] = {}
    if to_attest:
        metrics["before"] = dict(context.validate(rounds.served))
        _attest(context, request, to_attest)
    attested = _attested(run, request)
    for signed in attested:
        _open_generation(context, signed.value)
    if target.records:
        node = context.bindings.nodes.get(target.organisation)
        request_record_erasure(run.genesis, request, target.records, node, context.send)
    for signed in attested:
        rounds.reaggregate(signed.value.lane, _to_reaggregate(run, signed.value))
    context.train()
    metrics["after"] = dict(context.validate(rounds.served))
    for signed in attested:
        _wait_for_anchors(run, context.ledger, signed.value.lane)
        _destroy(run, signed.value)
    lineage = history.lineage.extended(run.genesis, run.records())
    for signed in attested:
        if run.certificate(signed.value) is None:
            _certify(context, signed, lineage, metrics)
    return _finish(context, request)


def _begin(
    context: ErasureContext, target: ErasureTarget, history: Lanes
) -> tuple[Signed[ErasureRequest], tuple[Plan, ...]]:
    """The organisation's signed request, and the plans of the lanes that are still to be attested.

    Those of an erasure that has begun, or of a new one. Raises UsageError when another erasure has begun.
    """
    run, shards = context.rounds.run, target.shards(history.genesis)
    begun = run.unfinished()
    if begun is None:
        planned = plans(history, target.organisation, target.method, shards)
        return _request(context, target), planned
    request = begun.value.request
    if not target.asked_by(request.value, context.requester):
        name, count = run.genesis.names[begun.value.organisation], request.value.count
        what = f"{count} records of {name}" if count else name
        method = begun.value.method
        raise UsageError(f"the erasure of {what} by {method} is not finished: ask for that one again")
    known = {signed.value.lane for signed in _attested(run, request)}
    if known >= target.lanes(run.genesis):
        return request, ()
    # Killed between two attestations: no lane is opened before all are attested, so the plan is still the same.
    planned = plans(history, target.organisation, target.method, shards)
    return request, tuple(plan for plan in planned if plan.lane not in known)


def _request(context: ErasureContext, target: ErasureTarget) -> Signed[ErasureRequest]:
    """The organisation's signed request, once it trains on the records that it wants erased."""
    genesis, nonce = context.rounds.genesis, Digest("0x" + secrets.token_hex(32))
    key = context.requester(target.organisation)
    records, count = hidden(key, nonce, target.records), len(target.records)
    plain = ErasureRequest(genesis.digest, target.organisation, target.method, records, count, context.basis, nonce)
    request = plain.sign(key, genesis.chain)
    if target.records:
        node = context.bindings.nodes.get(target.organisation)
        check_held(genesis, request, target.records, node, context.send)
    return request


def _attested(run: RunFolder, request: Signed[ErasureRequest]) -> list[Signed[Attestation]]:
    """The attestations of a request, by lane."""
    return [signed for signed in run.erasures() if signed.value.request == request]


def _attest(context: ErasureContext, request: Signed[ErasureRequest], planned: Iterable[Plan]) -> None:
    """Audit the run, and write down what the plans will do to it; raises RunError when it does not hold."""
    run, report = context.rounds.run, context.audit()
    if not report.ok:
        raise RunError(f"nothing was erased, since the run does not hold: {report.failures[0]}")
    requester = context.requester(request.value.organisation)
    for attestation in [attestation_of(run, plan, request, report) for plan in planned]:
        run.attest(attestation.sign(context.rounds.key, run.genesis.chain, requester))


def _open_generation(context: ErasureContext, attestation: Attestation) -> None:
    """Anchor the attestation and open the generation, on the ledger first."""
    rounds, run, lane = context.rounds, context.rounds.run, attestation.lane
    context.ledger.attest(run.genesis.digest, attestation.erasure, lane, attestation.hide(attestation.digest))
    if attestation.generation in run.generations(lane):
        return
    record = generation_of(run, attestation)
    context.ledger.open_generation(record.opening)
    run.open_generation(record.sign(rounds.key, run.genesis.chain))
    rounds.restore(lane)


def _to_reaggregate(run: RunFolder, attestation: Attestation) -> list[RoundRecord]:
    """The records of the line before the erasure that are re-aggregated."""
    line = (signed.value for signed in run.lineage(attestation.lane, attestation.generation - 1))
    return [record for record in line if attestation.parent_round < record.round <= attestation.reaggregated]


def _wait_for_anchors(run: RunFolder, ledger: Ledger, lane: int) -> None:
    """Wait until every round of the lane's line stands on the ledger, and on the members' own.

    Raises LedgerUnreachableError.
    """
    deadline = time.monotonic() + _ANCHOR_SECONDS
    waiting = [signed.value.key for signed in run.lineage(lane)]
    while waiting := _unanchored(run, ledger, waiting):
        if time.monotonic() > deadline:
            raise LedgerUnreachableError(
                f"round {waiting[0].round} is not on the chain yet: ask for the erasure again to go on"
            )
        time.sleep(0.05)


def _unanchored(run: RunFolder, ledger: Ledger, keys: Iterable[RoundKey]) -> list[RoundKey]:
    own = read_anchors(run.private_queue) if run.genesis.private else None
    return [key for key in keys if ledger.read(key) is None or (own is not None and key not in own)]


def _destroy(run: RunFolder, attestation: Attestation) -> None:
    """Make everything unreadable that the attestation lists, unless what is served is made of it."""
    lines = (run.lineage(lane) for lane in range(len(run.genesis.lanes)))
    served = {state for line in lines for signed in line for state in signed.value.states}
    for name in attestation.destroyed:
        if name not in served:
            run.artifacts.destroy(name)
    salts_destroyed = set(attestation.salts_destroyed)
    for signed in run.records():
        if signed.value.digest in salts_destroyed:
            run.destroy_salts(signed.value)


def _certify(
    context: ErasureContext, attested: Signed[Attestation], lineage: Lineage, metrics: Mapping[str, Mapping[str, float]]
) -> None:
    """Gather the receipts of a lane's erasure; sign, write down and anchor its certificate."""
    rounds, genesis, attestation = context.rounds, context.rounds.genesis, attested.value
    receipts = gather(genesis, attested, context.bindings.nodes, context.send, rounds.events)
    certificate = certificate_of(rounds, attested, lineage, metrics, receipts)
    signed = certificate.sign(rounds.key, genesis.chain, context.requester(attestation.organisation))
    rounds.run.certify(attestation, to_json(signed.to_dict()))
    context.ledger.certify(genesis.digest, attestation.erasure, certificate.committed)


def _anchor_certificates(run: RunFolder, ledger: Ledger) -> list[Signed[ErasureRequest]]:
    """Anchor certificates of which the ledger was not told, as it was down or the process died; their requests."""
    requests = []
    for attestation in (signed.value for signed in run.erasures()):
        known = ledger.erasure(run.genesis.digest, attestation.erasure)
        if known and known.certificate == ZERO_DIGEST and (path := run.certificate(attestation)):
            signed = read_certificate(path.read_bytes())
            ledger.certify(run.genesis.digest, attestation.erasure, signed.value.committed)
            requests.append(attestation.request)
    return requests


def _finish(context: ErasureContext, request: Signed[ErasureRequest]) -> tuple[Signed[ErasureCertificate], ...]:
    """Tell the event log of an erasure that is done; returns its certificates, by lane."""
    run = context.rounds.run
    paths = [path for signed in _attested(run, request) if (path := run.certificate(signed.value))]
    certificates = tuple(read_certificate(path.read_bytes()) for path in paths)
    last = certificates[-1].value
    context.rounds.events.write(
        "erased",
        organisation=request.value.organisation,
        records=request.value.count,
        method=request.value.method,
        label=last.label,
        aggregate=last.aggregate,
        certificates=[str(path) for path in paths],
    )
    return certificates
