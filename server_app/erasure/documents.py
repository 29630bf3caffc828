"""The documents of an erasure: attestation, generation record and certificate, made of a plan and of the records."""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime

from chain.audit.report import AuditReport
from core.erasures import Attestation, ErasureRequest, Receipt
from core.generations import GenerationRecord
from core.signed import Signed
from core.storage.run_folder import RunFolder
from server_app.rounds import Rounds
from unlearning.certificate import LIMITS, LIMITS_OF_RECORDS, ErasureCertificate
from unlearning.check import root, spent_in
from unlearning.lineage import Lineage
from unlearning.plan import Plan


def attestation_of(run: RunFolder, plan: Plan, request: Signed[ErasureRequest], report: AuditReport) -> Attestation:
    """The attestation of one lane's erasure: its plan, and the counts of the audit just before."""
    return Attestation(
        request=request,
        lane=plan.lane,
        generation=len(run.generations(plan.lane)) + 1,
        parent_generation=plan.parent.generation if plan.parent else 0,
        parent_round=plan.start,
        reaggregated=plan.reaggregated,
        rounds=plan.rounds,
        erased=tuple(sorted(plan.erased)),
        destroyed=tuple(sorted(plan.to_destroy)),
        salts_destroyed=tuple(sorted(record.digest for record in plan.salts_to_destroy)),
        holders=plan.holders,
        recomputed=report.recomputed,
        attested=report.attested,
        date=datetime.now(UTC).date().isoformat(),
        salt=secrets.token_hex(32),
    )


def generation_of(run: RunFolder, attestation: Attestation) -> GenerationRecord:
    """The record that opens the lane's new generation, behind the last round that does not know the erased."""
    lane, last = attestation.lane, attestation.generation - 1
    line = (signed.value for signed in run.lineage(lane))
    parent = next((record for record in line if record.round == attestation.parent_round), None)
    own = [s.value for s in run.records(lane) if s.value.generation == last]
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


def certificate_of(
    rounds: Rounds,
    attested: Signed[Attestation],
    lineage: Lineage,
    metrics: Mapping[str, Mapping[str, float]],
    receipts: tuple[Signed[Receipt], ...],
) -> ErasureCertificate:
    """The certificate of a lane's erasure that is done; its label is computed from the `lineage` of all records."""
    run, attestation = rounds.run, attested.value
    heads = tuple(
        lane.served.value.digest if lane.served else run.genesis.digest for lane in rounds.lanes if lane.members
    )
    own = rounds.lanes[attestation.lane].served
    trained = own is not None and own.value.round > attestation.reaggregated
    private = run.genesis.privacy is not None
    given = {receipt.value.organisation for receipt in receipts}
    return ErasureCertificate(
        attestation=attested,
        label=lineage.label(heads, lineage.erased(attestation), trained=trained, private=private).value,
        before=root(run, attestation.lane, attestation.generation - 1),
        after=root(run, attestation.lane, attestation.generation),
        heads=heads,
        aggregate=rounds.served.digest,
        seed=run.genesis.seed,
        versions=run.genesis.environment,
        metrics=metrics,
        receipts=receipts,
        outstanding=tuple(holder for holder in attestation.holders if holder not in given),
        limits=LIMITS if attestation.whole else LIMITS + LIMITS_OF_RECORDS,
        epsilon=spent_in(run, attestation),
    )
