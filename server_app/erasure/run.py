"""An erasure, carried out: what `strategy.unlearn` does with a plan.

    plan        from the records (unlearning/plan.py); whatever is wrong with the request is found here
    ask         the organisation, when only records are erased: does it train on them (server_app/erasure/records.py)
    audit       everything must hold before anything is destroyed
    attest      signed by coordinator and organisation, written down, anchored: from here on there is no way back
    open        the lane's new generation, on the ledger and in the records
    forget      the organisation trains without the records from here on
    rebuild     rounds are summed again, or trained again by the ordinary loop
    destroy     keys of states, and salts
    receipts    every holder is asked to delete what it keeps, and signs for it (server_app/erasure/receipts.py)
    certify     signed by both, written down, anchored

Every step may be repeated. Whoever is killed before the attestation is written has changed nothing; after it, the same
erasure has to be asked for again, and goes on where it stopped. An organisation that learns in several lanes, one for
each shard of its records, is attested in all of them before any is opened, and certified when all are done.
"""

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chain.audit.report import AuditReport
from chain.queue import read_anchors
from core.canonical import ZERO_DIGEST, Address, Digest, to_json
from core.erasures import Attestation, ErasureRequest, Receipt, hidden
from core.errors import LedgerUnreachableError, RunError, UsageError
from core.generations import GenerationRecord
from core.genesis import Genesis
from core.keys import Key
from core.ledger import Ledger
from core.round_key import RoundKey
from core.rounds import RoundRecord
from core.signed import Signed
from core.storage.run_folder import RunFolder
from server_app.erasure.receipts import Ask, gather
from server_app.erasure.records import check_held, forget
from unlearning.certificate import LIMITS, LIMITS_OF_RECORDS, ErasureCertificate, read_certificate
from unlearning.check import root
from unlearning.lineage import Lineage
from unlearning.plan import Lanes, Plan, plans
from unlearning.records import shards_of

if TYPE_CHECKING:
    from server_app.strategy import Foedus

_ANCHOR_SECONDS = 120.0


@dataclass(frozen=True)
class Erasing:
    """What an erasure needs besides a federation.

    `audit` checks the whole run, `requester` is the key of the organisation that asks, `basis` its legal basis,
    `train` runs the rounds that are missing and evaluates, and `ask` sends messages to organisations, each with the
    reply that comes in time.
    """

    ledger: Ledger
    audit: Callable[[], AuditReport]
    requester: Callable[[Address], Key]
    basis: str
    train: Callable[[], object]
    ask: Ask


@dataclass(frozen=True)
class ErasureTarget:
    """What is to be erased: an organisation, or these records of it (digests, each once, in order)."""

    organisation: Address
    method: str
    records: tuple[Digest, ...] = ()

    def shards(self, genesis: Genesis) -> frozenset[int] | None:
        """The shards of the organisation that the records are in; None for the whole organisation."""
        return shards_of(genesis, self.organisation, self.records) if self.records else None

    def asked_by(self, request: ErasureRequest, requester: Callable[[Address], Key]) -> bool:
        """Whether a request is about exactly this."""
        place = self.organisation, self.method, len(self.records)
        if (request.organisation, request.method, request.count) != place:
            return False
        return request.whole or request.records == hidden(requester(self.organisation), request.nonce, self.records)


def erase(strategy: "Foedus", erasing: Erasing, wanted: ErasureTarget) -> tuple[Signed[ErasureCertificate], ...]:
    """Erase an organisation or some of its records, or go on with that; returns one certificate for each lane.

    Raises what `plans` raises; UsageError while another erasure is unfinished, and for records that the organisation
    does not train on; RunError when the run does not hold, or the organisation does not answer about its records;
    LedgerUnreachableError when the chain is down, with everything as it was or ready to go on.
    """
    run = strategy.run
    late = _anchor_certificates(run, erasing.ledger)
    metrics: dict[str, dict[str, float]] = {}
    if begun := run.unfinished():
        request = begun.value.request
        _check_same(run, erasing, wanted, request.value)
    elif done := next((r for r in late if wanted.asked_by(r.value, erasing.requester)), None):
        return _certificates(run, done)  # all that was missing
    else:
        request = _request(strategy, erasing, wanted)
    if made := _missing(run, wanted, request):
        attestations = _attestations(run, made, request, erasing)
        metrics["before"] = dict(strategy.validate(strategy.served))
        requester = erasing.requester(wanted.organisation)
        for attestation in attestations:
            run.attest(attestation.sign(strategy.key, strategy.genesis.chain, requester))
    attested = _attested(run, request)
    for signed in attested:
        _open(strategy, erasing.ledger, signed.value)
    if wanted.records:
        node = strategy.bindings.nodes.get(wanted.organisation)
        forget(run.genesis, request, wanted.records, node, erasing.ask)
    _rebuild(strategy, erasing, attested)
    metrics["after"] = dict(strategy.validate(strategy.served))
    for signed in attested:
        _wait_for_anchors(run, erasing.ledger, signed.value.lane)
        _destroy(run, signed.value)
    for signed in attested:
        if run.certificate(signed.value) is None:
            receipts = gather(run.genesis, signed, strategy.bindings.nodes, erasing.ask, strategy.events)
            _certify(strategy, erasing, signed, metrics, receipts)
    return _certificates(run, request)


def _check_same(run: RunFolder, erasing: Erasing, wanted: ErasureTarget, begun: ErasureRequest) -> None:
    """An erasure that has begun goes on before any other; raises UsageError when another one is wanted."""
    if not wanted.asked_by(begun, erasing.requester):
        name = run.genesis.names[begun.organisation]
        what = name if begun.whole else f"{begun.count} records of {name}"
        raise UsageError(f"the erasure of {what} by {begun.method} is not finished: ask for that one again")


def _request(strategy: "Foedus", erasing: Erasing, wanted: ErasureTarget) -> Signed[ErasureRequest]:
    """The organisation's signed request, once there are plans for it and it trains on the records."""
    run, nonce = strategy.run, Digest("0x" + secrets.token_hex(32))
    plans(Lanes.read(run), wanted.organisation, wanted.method, wanted.shards(run.genesis))
    key = erasing.requester(wanted.organisation)
    records, count = hidden(key, nonce, wanted.records), len(wanted.records)
    plain = ErasureRequest(run.genesis.digest, wanted.organisation, wanted.method, records, count, erasing.basis, nonce)
    request = plain.sign(key, run.genesis.chain)
    if wanted.records:
        node = strategy.bindings.nodes.get(wanted.organisation)
        check_held(run.genesis, request, wanted.records, node, erasing.ask)
    return request


def _attested(run: RunFolder, request: Signed[ErasureRequest]) -> list[Signed[Attestation]]:
    """What was attested for a request, by lane."""
    return [signed for signed in run.erasures() if signed.value.request == request]


def _certificates(run: RunFolder, request: Signed[ErasureRequest]) -> tuple[Signed[ErasureCertificate], ...]:
    """The certificates of a request of which everything is done, by lane."""
    paths = (run.certificate(signed.value) for signed in _attested(run, request))
    return tuple(read_certificate(path.read_bytes()) for path in paths if path)


def _missing(run: RunFolder, wanted: ErasureTarget, request: Signed[ErasureRequest]) -> tuple[Plan, ...]:
    """The plans of the lanes that nothing was attested of: no lane is opened before all of them are."""
    lanes, shards = run.genesis.lanes_of(wanted.organisation), wanted.shards(run.genesis)
    known = {signed.value.lane for signed in _attested(run, request)}
    if known >= {lane for place, lane in enumerate(lanes) if shards is None or place in shards}:
        return ()
    made = plans(Lanes.read(run), wanted.organisation, wanted.method, shards)
    return tuple(one for one in made if one.lane not in known)


def _attestations(
    run: RunFolder, made: tuple[Plan, ...], request: Signed[ErasureRequest], erasing: Erasing
) -> tuple[Attestation, ...]:
    """What is about to happen to a run that holds; raises RunError when it does not."""
    report = erasing.audit()
    if not report.ok:
        raise RunError(f"nothing was erased, since the run does not hold: {report.failures[0]}")
    return tuple(_attestation(run, one, request, report) for one in made)


def _attestation(run: RunFolder, made: Plan, request: Signed[ErasureRequest], report: AuditReport) -> Attestation:
    return Attestation(
        request=request,
        lane=made.lane,
        generation=len(run.generations(made.lane)) + 1,
        parent_generation=made.parent.generation if made.parent else 0,
        parent_round=made.start,
        reaggregated=made.carried,
        rounds=made.rounds,
        erased=tuple(sorted(made.erased)),
        destroyed=tuple(sorted(made.doomed)),
        salts_destroyed=tuple(sorted(record.digest for record in made.unsalted)),
        holders=made.holders,
        recomputed=report.recomputed,
        attested=report.attested,
        salt=secrets.token_hex(32),
    )


def _open(strategy: "Foedus", ledger: Ledger, attestation: Attestation) -> None:
    """Anchor the attestation and open the generation, on the ledger first."""
    run, lane = strategy.run, attestation.lane
    genesis = run.genesis.digest
    ledger.attest(genesis, attestation.erasure, lane, attestation.hide(attestation.digest))
    if attestation.generation in run.generations(lane):
        return
    record = _opening(run, attestation)
    ledger.open_generation(record.opening)
    run.open_generation(record.sign(strategy.key, run.genesis.chain))
    strategy.restore(lane)


def _opening(run: RunFolder, attestation: Attestation) -> GenerationRecord:
    lane, last = attestation.lane, attestation.generation - 1
    line = (signed.value for signed in run.lineage(lane))
    parent = next((record for record in line if record.round == attestation.parent_round), None)
    own = [s.value for s in run.records() if (s.value.lane, s.value.generation) == (lane, last)]
    begun = run.generations(lane)[last].value.digest if last else run.genesis.digest
    return GenerationRecord(
        genesis=run.genesis.digest,
        lane=lane,
        generation=attestation.generation,
        parent_generation=attestation.parent_generation,
        parent_round=attestation.parent_round,
        parent=parent.digest if parent else run.genesis.digest,
        previous=own[-1].digest if own else begun,
        rounds=attestation.rounds,
        erasure=attestation.erasure,
        members=tuple(member for member in run.members(lane, last) if member not in attestation.erased),
    )


def _rebuild(strategy: "Foedus", erasing: Erasing, attested: Iterable[Signed[Attestation]]) -> None:
    """Sum the rounds again that are carried over, and train those that are not."""
    for signed in attested:
        strategy.carry(signed.value.lane, _summed(strategy.run, signed.value))
    erasing.train()


def _summed(run: RunFolder, attestation: Attestation) -> list[RoundRecord]:
    """The records of the line before the erasure that are summed again."""
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
    unsalted = set(attestation.salts_destroyed)
    for signed in run.records():
        if signed.value.digest in unsalted:
            run.destroy_salts(signed.value)


def _certify(
    strategy: "Foedus",
    erasing: Erasing,
    attested: Signed[Attestation],
    metrics: dict[str, dict[str, float]],
    receipts: tuple[Signed[Receipt], ...],
) -> Signed[ErasureCertificate]:
    run, attestation = strategy.run, attested.value
    lineage = Lineage.of(run.genesis, run.records())
    heads = tuple(lane.parent(run.genesis) for lane in strategy.lanes if lane.members)
    trained = attestation.reaggregated < attestation.rounds
    given = {receipt.value.organisation for receipt in receipts}
    certificate = ErasureCertificate(
        attestation=attested,
        label=lineage.label(heads, lineage.erased(attestation), trained=trained).value,
        before=root(run, attestation.lane, attestation.generation - 1),
        after=root(run, attestation.lane, attestation.generation),
        heads=heads,
        aggregate=strategy.served.digest,
        seed=run.genesis.seed,
        versions=run.genesis.environment,
        metrics=metrics,
        receipts=receipts,
        outstanding=tuple(holder for holder in attestation.holders if holder not in given),
        limits=LIMITS if attestation.whole else LIMITS + LIMITS_OF_RECORDS,
    )
    signed = certificate.sign(strategy.key, run.genesis.chain, erasing.requester(attestation.organisation))
    path = run.certify(attestation, to_json(signed.to_dict()))
    erasing.ledger.certify(run.genesis.digest, attestation.erasure, certificate.committed)
    strategy.events.write(
        "erased",
        organisation=attestation.organisation,
        records=attestation.request.value.count,
        method=attestation.method,
        label=certificate.label,
        aggregate=certificate.aggregate,
        certificate=str(path),
    )
    return signed


def _anchor_certificates(run: RunFolder, ledger: Ledger) -> list[Signed[ErasureRequest]]:
    """Anchor what was certified when the chain was down, or the process died; returns what was asked for there."""
    found = []
    for attestation in (signed.value for signed in run.erasures()):
        known = ledger.erasure(run.genesis.digest, attestation.erasure)
        if known and known.certificate == ZERO_DIGEST and (path := run.certificate(attestation)):
            signed = read_certificate(path.read_bytes())
            ledger.certify(run.genesis.digest, attestation.erasure, signed.value.committed)
            found.append(attestation.request)
    return found
