"""The steps of an erasure behind its plan; each may be repeated after a crash (server_app/erasure/run.py)."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from chain.audit.report import AuditReport
from chain.queue import read_anchors
from core.canonical import ZERO_DIGEST, to_json
from core.composition import Composition
from core.erasures import Attestation, ErasureRequest
from core.errors import LedgerUnreachableError, RunError
from core.ledger import Ledger
from core.signed import Signed
from core.storage.run_folder import RunFolder
from server_app.binding import Bindings
from server_app.erasure.documents import attestation_of, certificate_of, generation_of
from server_app.erasure.receipts import gather
from server_app.exchange import Send
from server_app.rounds import Rounds
from unlearning.certificate import ErasureCertificate, read_certificate
from unlearning.lineage import Lineage
from unlearning.plan import Plan

_ANCHOR_SECONDS = 120.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class ErasureContext:
    """The federation that an erasure changes, and its surroundings.

    `audit` checks the whole run, `train` runs the rounds that are missing and evaluates, `validate` measures a
    composition on the shared validation set, and `send` takes messages to the organisations.
    """

    rounds: Rounds
    bindings: Bindings
    ledger: Ledger
    audit: Callable[[], AuditReport]
    train: Callable[[], object]
    validate: Callable[[Composition], Mapping[str, float]]
    send: Send


def attestations_of(run: RunFolder, request: Signed[ErasureRequest]) -> list[Signed[Attestation]]:
    """The attestations of a request, by lane."""
    # By what is asked: on another day, or with a hardware token, the same question has another signature.
    asked = request.value.question
    return [signed for signed in run.erasures() if signed.value.request.value.question == asked]


def attest(context: ErasureContext, request: Signed[ErasureRequest], planned: Iterable[Plan]) -> None:
    """Audit the run, and write an attestation for every plan; raises RunError when the run does not hold."""
    run, audited = context.rounds.run, context.audit()
    if not audited.ok:
        raise RunError(f"nothing was erased, since the run does not hold: {audited.failures[0]}")
    # Asked again on another day, it goes on as it was asked first: all lanes attest one request.
    first = next((begun.value.request for begun in attestations_of(run, request)), request)
    # All of them are made before any is written: the first one written is the point of no return.
    for attestation in [attestation_of(run, plan, first, audited) for plan in planned]:
        run.attest(attestation.sign(context.rounds.key, run.genesis.chain))


def open_generation(context: ErasureContext, attestation: Attestation) -> None:
    """Anchor the attestation and open the generation, on the ledger first."""
    rounds, run, lane = context.rounds, context.rounds.run, attestation.lane
    context.ledger.attest(run.genesis.digest, attestation.erasure, lane, attestation.hide(attestation.digest))
    if attestation.generation in run.generations(lane):
        return
    record = generation_of(run, attestation)
    context.ledger.open_generation(record.opening)
    run.open_generation(record.sign(rounds.key, run.genesis.chain))
    rounds.restore(lane)


def reaggregate(rounds: Rounds, attestation: Attestation) -> None:
    """Re-aggregate the rounds of the lane's line before the erasure, as far as the attestation says."""
    line = (signed.value for signed in rounds.run.lineage(attestation.lane, attestation.generation - 1))
    first, last = attestation.parent_round + 1, attestation.reaggregated
    rounds.reaggregate(attestation.lane, [r for r in line if first <= r.round <= last], attestation.erased)


def wait_for_anchors(run: RunFolder, ledger: Ledger, lane: int) -> None:
    """Wait until every round of the lane's line stands on the ledger, and on the members' own.

    Raises LedgerUnreachableError.
    """
    deadline = time.monotonic() + _ANCHOR_SECONDS
    waiting = [signed.value.key for signed in run.lineage(lane)]
    while True:
        own = read_anchors(run.private_queue) if run.genesis.private else None
        waiting = [key for key in waiting if ledger.read(key) is None or (own is not None and key not in own)]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise LedgerUnreachableError(
                f"round {waiting[0].round} is not on the chain yet: ask for the erasure again to go on"
            )
        time.sleep(_POLL_SECONDS)


def destroy(run: RunFolder, attestation: Attestation) -> None:
    """Make everything unreadable that the attestation lists, but for states that the served adapters are made of."""
    lines = (run.lineage(lane) for lane in range(len(run.genesis.lanes)))
    # A state is named by its content: the new generation may have computed one of the old again.
    served = {state for line in lines for signed in line for state in signed.value.states}
    for name in attestation.destroyed:
        if name not in served:
            run.artifacts.destroy(name)
    salts_destroyed = set(attestation.salts_destroyed)
    for signed in run.records():
        if signed.value.digest in salts_destroyed:
            run.destroy_salts(signed.value)


def certify(
    context: ErasureContext,
    attested: Signed[Attestation],
    lineage: Lineage,
    metrics: Mapping[str, Mapping[str, float]],
) -> None:
    """Gather the receipts of a lane's erasure; sign, write down and anchor its certificate."""
    rounds, genesis, attestation = context.rounds, context.rounds.genesis, attested.value
    receipts = gather(genesis, attested, context.bindings.nodes, context.send, rounds.events)
    certificate = certificate_of(rounds, attested, lineage, metrics, receipts)
    rounds.run.certify(attestation, to_json(certificate.sign(rounds.key, genesis.chain).to_dict()))
    context.ledger.certify(genesis.digest, attestation.erasure, certificate.committed)


def anchor_certificates(run: RunFolder, ledger: Ledger) -> None:
    """Anchor certificates that the ledger was not told of, as it was down or the process died."""
    for attestation in (signed.value for signed in run.erasures()):
        known = ledger.erasure(run.genesis.digest, attestation.erasure)
        if known and known.certificate == ZERO_DIGEST and (path := run.certificate(attestation)):
            signed = read_certificate(path.read_bytes())
            ledger.certify(run.genesis.digest, attestation.erasure, signed.value.committed)


def report(context: ErasureContext, request: Signed[ErasureRequest]) -> tuple[Signed[ErasureCertificate], ...]:
    """The certificates of a request of which everything is done, by lane; the event `erased` names their files."""
    run = context.rounds.run
    paths = [path for signed in attestations_of(run, request) if (path := run.certificate(signed.value))]
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
