"""An erasure, carried out: what `strategy.unlearn` does with a plan.

    plan        from the records (unlearning/plan.py); whatever is wrong with the request is found here
    audit       everything must hold before anything is destroyed
    attest      signed by coordinator and organisation, written down, anchored: from here on there is no way back
    open        the lane's new generation, on the ledger and in the records
    rebuild     rounds are summed again, or trained again by the ordinary loop
    destroy     keys of states, and salts
    receipts    every holder is asked to delete what it keeps, and signs for it (server_app/receipts.py)
    certify     signed by both, written down, anchored

Every step may be repeated. Whoever is killed before the attestation is written has changed nothing; after it, the same
erasure has to be asked for again, and goes on where it stopped.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chain.audit_report import AuditReport
from core.canonical import ZERO_DIGEST, Address, Digest, to_json
from core.erasures import Attestation, ErasureRequest, Receipt, SignedAttestation
from core.errors import LedgerUnreachableError, RunError, UsageError
from core.generations import GenerationRecord
from core.keys import Key
from core.ledger import Ledger
from core.rounds import RoundRecord
from core.store import RunFolder
from server_app.receipts import Ask, gather
from unlearning.certificate import ErasureCertificate, SignedCertificate
from unlearning.check import root
from unlearning.lineage import Lineage
from unlearning.plan import Lanes, Plan, plan

if TYPE_CHECKING:
    from server_app.strategy import Covenant

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


def erase(strategy: "Covenant", erasing: Erasing, organisation: Address, method: str) -> SignedCertificate:
    """Erase an organisation, or go on with that.

    Raises what `plan` raises; UsageError while another erasure is unfinished; RunError when the run does not hold;
    LedgerUnreachableError when the chain is down, with everything as it was or ready to go on.
    """
    run = strategy.run
    for late in _anchor_certificates(run, erasing.ledger):
        attestation = late.certificate.attestation.attestation
        if (attestation.organisation, attestation.method) == (organisation, method):
            return late  # all that was missing
    metrics: dict[str, dict[str, float]] = {}
    if (begun := run.unfinished()) is None:
        made = plan(Lanes.read(run), organisation, method)
        requester = erasing.requester(organisation)
        attestation = _attestation(run, made, requester, erasing)
        metrics["before"] = dict(strategy.validate(strategy.served))
        begun = attestation.sign(strategy.key, requester, strategy.genesis.chain)
        run.attest(begun)
    attestation = begun.attestation
    if (attestation.organisation, attestation.method) != (organisation, method):
        name = _name(run, attestation.organisation)
        raise UsageError(f"the erasure of {name} by {attestation.method} is not finished: ask for that one again")
    _open(strategy, erasing.ledger, attestation)
    _rebuild(strategy, erasing, attestation)
    metrics["after"] = dict(strategy.validate(strategy.served))
    _wait_for_anchors(run, erasing.ledger, attestation.lane)
    _destroy(run, attestation)
    receipts = gather(run.genesis, begun, strategy.bindings.nodes, erasing.ask, strategy.events)
    return _certify(strategy, erasing, begun, metrics, receipts)


def _name(run: RunFolder, organisation: Address) -> str:
    member = run.genesis.organisation(organisation)
    return member.name if member else organisation


def _attestation(run: RunFolder, made: Plan, requester: Key, erasing: Erasing) -> Attestation:
    """What is about to happen to a run that holds; raises RunError when it does not."""
    report = erasing.audit()
    if not report.ok:
        raise RunError(f"nothing was erased, since the run does not hold: {report.failures[0]}")
    nonce = Digest("0x" + secrets.token_hex(32))
    request = ErasureRequest(run.genesis.digest, made.organisation, made.method, erasing.basis, nonce)
    return Attestation(
        request=request.sign(requester, run.genesis.chain),
        lane=made.lane,
        generation=len(run.generations(made.lane)) + 1,
        parent_generation=made.parent.generation if made.parent else 0,
        parent_round=made.start,
        carried=made.carried,
        rounds=made.rounds,
        erased=tuple(sorted(made.erased)),
        destroyed=tuple(sorted(made.doomed)),
        unsalted=tuple(sorted(record.digest for record in made.unsalted)),
        holders=made.holders,
        recomputed=report.recomputed,
        attested=report.attested,
        salt=secrets.token_hex(32),
    )


def _open(strategy: "Covenant", ledger: Ledger, attestation: Attestation) -> None:
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
    line = (signed.record for signed in run.lineage(lane))
    parent = next((record for record in line if record.round == attestation.parent_round), None)
    own = [s.record for s in run.records() if (s.record.lane, s.record.generation) == (lane, last)]
    begun = run.generations(lane)[last].record.digest if last else run.genesis.digest
    return GenerationRecord(
        genesis=run.genesis.digest,
        lane=lane,
        generation=attestation.generation,
        parent_generation=attestation.parent_generation,
        parent_round=attestation.parent_round,
        parent=parent.digest if parent else run.genesis.digest,
        previous=own[-1].digest if own else begun,
        erasure=attestation.erasure,
        members=tuple(member for member in run.members(lane, last) if member not in attestation.erased),
    )


def _rebuild(strategy: "Covenant", erasing: Erasing, attestation: Attestation) -> None:
    """Sum the rounds again that are carried over, and train those that are not."""
    strategy.carry(attestation.lane, _summed(strategy.run, attestation))
    erasing.train()


def _summed(run: RunFolder, attestation: Attestation) -> list[RoundRecord]:
    """The records of the line before the erasure that are summed again."""
    line = (signed.record for signed in run.lineage(attestation.lane, attestation.generation - 1))
    return [record for record in line if attestation.parent_round < record.round <= attestation.carried]


def _wait_for_anchors(run: RunFolder, ledger: Ledger, lane: int) -> None:
    """Wait until every round of the lane's line stands on the ledger; raises LedgerUnreachableError."""
    deadline = time.monotonic() + _ANCHOR_SECONDS
    for signed in run.lineage(lane):
        while ledger.read(signed.record.key) is None:
            if time.monotonic() > deadline:
                raise LedgerUnreachableError(
                    f"round {signed.record.round} is not on the chain yet: ask for the erasure again to go on"
                )
            time.sleep(0.05)


def _destroy(run: RunFolder, attestation: Attestation) -> None:
    """Make everything unreadable that the attestation lists, unless what is served is made of it."""
    lines = (run.lineage(lane) for lane in range(len(run.genesis.lanes)))
    served = {state for line in lines for signed in line for state in signed.record.states}
    for name in attestation.destroyed:
        if name not in served:
            run.artifacts.destroy(name)
    unsalted = set(attestation.unsalted)
    for signed in run.records():
        if signed.record.digest in unsalted:
            run.destroy_salts(signed.record)


def _certify(
    strategy: "Covenant",
    erasing: Erasing,
    attested: SignedAttestation,
    metrics: dict[str, dict[str, float]],
    receipts: tuple[Receipt, ...],
) -> SignedCertificate:
    run, attestation = strategy.run, attested.attestation
    lineage = Lineage.of(run.genesis, run.records())
    heads = tuple(lane.parent(run.genesis) for lane in strategy.lanes if lane.members)
    trained = attestation.carried < attestation.rounds
    given = {receipt.organisation for receipt in receipts}
    certificate = ErasureCertificate(
        attestation=attested,
        label=lineage.label(heads, attestation.erased, trained=trained).value,
        before=root(run, attestation.lane, attestation.generation - 1),
        after=root(run, attestation.lane, attestation.generation),
        heads=heads,
        aggregate=strategy.served.digest,
        seed=run.genesis.seed,
        versions=run.genesis.environment,
        metrics=metrics,
        receipts=receipts,
        outstanding=tuple(holder for holder in attestation.holders if holder not in given),
    )
    signed = certificate.sign(strategy.key, erasing.requester(attestation.organisation), run.genesis.chain)
    path = run.certify(attestation, to_json(signed.to_dict()))
    erasing.ledger.certify(run.genesis.digest, attestation.erasure, certificate.committed)
    strategy.events.write(
        "erased",
        organisation=attestation.organisation,
        method=attestation.method,
        label=certificate.label,
        aggregate=certificate.aggregate,
        certificate=str(path),
    )
    return signed


def _anchor_certificates(run: RunFolder, ledger: Ledger) -> list[SignedCertificate]:
    """Anchor what was certified when the chain was down, or the process died; returns those certificates."""
    found = []
    for attestation in (signed.attestation for signed in run.erasures()):
        known = ledger.erasure(run.genesis.digest, attestation.erasure)
        if known and known.certificate == ZERO_DIGEST and (path := run.certificate(attestation)):
            signed = SignedCertificate.from_bytes(path.read_bytes())
            ledger.certify(run.genesis.digest, attestation.erasure, signed.certificate.committed)
            found.append(signed)
    return found
