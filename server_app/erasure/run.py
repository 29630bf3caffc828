"""An erasure, carried out: the steps of `strategy.unlearn`, in order.

    request     signed by the organisation, for this run, and about these records
    plan        from the records (unlearning/plan.py), which refuses a request that cannot be carried out
    hold        for data records, the organisation says that it trains on them (server_app/erasure/records.py)
    audit       everything must hold before anything is destroyed
    attest      signed by the coordinator, written down, anchored: from here on there is no way back
    open        the lane's new generation, on the ledger and in the records
    erase       for records, the organisation trains without them from here on
    rebuild     rounds are re-aggregated, or trained again by the ordinary loop
    destroy     keys of states, and salts
    receipts    every holder deletes its derived state, and signs for it (server_app/erasure/receipts.py)
    certify     signed by the coordinator, written down, anchored

Every step may be repeated. Killed before the attestation is written, an erasure has changed nothing; after it, the same
erasure has to be asked for again, and goes on where it stopped. An organisation that learns in several lanes, one for
each shard of its records, is attested in all of them before any is opened, and certified when all are done.
"""

from collections.abc import Mapping

from core.erasures import OpenedRequest
from core.signed import Signed
from server_app.erasure import steps
from server_app.erasure.records import check_held, request_record_erasure
from server_app.erasure.steps import ErasureContext, attestations_of
from unlearning.certificate import ErasureCertificate
from unlearning.plan import Lanes, Plan, plans
from unlearning.requests import shards_of


def erase(context: ErasureContext, opened: OpenedRequest) -> tuple[Signed[ErasureCertificate], ...]:
    """Carry out an organisation's request, or go on with that; returns one certificate for each lane.

    A request that is carried out already has its certificates. Raises ForgeryError for one that is not the
    organisation's own, for this run; what `plans` raises; UsageError while another erasure is unfinished, and for
    records that the organisation does not train on; RunError when the run does not hold, or the organisation does not
    answer about its records; LedgerUnreachableError when the chain is down, with everything as it was or ready to go
    on.
    """
    rounds, run = context.rounds, context.rounds.run
    request = opened.verified(run.genesis)
    steps.anchor_certificates(run, context.ledger)
    if attestations_of(run, request) and not run.unfinished():
        return steps.report(context, request)  # the anchor of its certificate may have been all that was missing
    history = Lanes.read(run)  # every signature of the history is verified here, once
    to_attest = _begin(context, opened, history)
    metrics: dict[str, Mapping[str, float]] = {}
    if to_attest:
        rounds.events.write("step", doing="auditing the run, before anything is erased")
        metrics["before"] = dict(context.validate(rounds.served))
        steps.attest(context, request, to_attest)
    attested = attestations_of(run, request)
    for signed in attested:
        steps.open_generation(context, signed.value)
    if opened.records:
        node = context.bindings.nodes.get(request.value.organisation)
        request_record_erasure(run.genesis, request, opened.records, node, context.send)
    rounds.events.write("step", doing="making the adapter anew")
    for signed in attested:
        steps.reaggregate(rounds, signed.value)
    context.train()
    metrics["after"] = dict(context.validate(rounds.served))
    for signed in attested:
        steps.wait_for_anchors(run, context.ledger, signed.value.lane)
        steps.destroy(run, signed.value)
    lineage = history.lineage.extended(run.genesis, run.records())
    for signed in attested:
        if run.certificate(signed.value) is None:
            steps.certify(context, signed, lineage, metrics)
    return steps.report(context, request)


def _begin(context: ErasureContext, opened: OpenedRequest, history: Lanes) -> tuple[Plan, ...]:
    """The plans of the lanes that are still to be attested: all of a new request, or the rest of one that has begun.

    Raises UsageError when another erasure has begun.
    """
    run, asked = context.rounds.run, opened.request.value
    own = attestations_of(run, opened.request)
    if run.unfinished() not in own:
        run.check_settled()
    known = {signed.value.lane for signed in own}
    shards = shards_of(run.genesis, asked.organisation, opened.records)
    if known.issuperset(asked.lanes):
        return ()
    # Killed between two attestations: no lane is opened before all are attested, so the plan is still the same.
    planned = plans(history, asked.organisation, asked.method, shards)
    if opened.records and not known:
        node = context.bindings.nodes.get(asked.organisation)
        check_held(run.genesis, opened.request, opened.records, node, context.send)
    return tuple(plan for plan in planned if plan.lane not in known)
