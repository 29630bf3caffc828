"""An erasure, carried out: the steps of `strategy.unlearn`, in order.

    plan        from the records (unlearning/plan.py), which refuses a request that cannot be carried out
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from core.canonical import Address, Digest
from core.erasures import ErasureRequest, hidden
from core.errors import UsageError
from core.genesis import Genesis
from core.keys import Key
from core.signed import Signed
from server_app.erasure import steps
from server_app.erasure.records import check_held, request_record_erasure
from server_app.erasure.steps import ErasureContext, attestations_of
from unlearning.certificate import ErasureCertificate
from unlearning.plan import Lanes, Plan, plans
from unlearning.records import shards_of


@dataclass(frozen=True)
class ErasureTarget:
    """The target of an erasure: an organisation, or these records of it (digests, each once, in order)."""

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

    def request(self, genesis: Genesis, key: Key, basis: str) -> Signed[ErasureRequest]:
        """A new request, signed with the organisation's key; it hides which records it is about."""
        nonce = Digest("0x" + secrets.token_hex(32))
        records, count = hidden(key, nonce, self.records), len(self.records)
        plain = ErasureRequest(genesis.digest, self.organisation, self.method, records, count, basis, nonce)
        return plain.sign(key, genesis.chain)

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
    late = steps.anchor_certificates(run, context.ledger)
    done = next((request for request in late if target.asked_by(request.value, context.requester)), None)
    if done and not run.unfinished():
        return steps.report(context, done)  # the anchor of its certificate was all that was missing
    history = Lanes.read(run)  # every signature of the history is verified here, once
    request, to_attest = _begin(context, target, history)
    metrics: dict[str, Mapping[str, float]] = {}
    if to_attest:
        rounds.events.write("step", doing="auditing the run, before anything is erased")
        metrics["before"] = dict(context.validate(rounds.served))
        steps.attest(context, request, to_attest)
    attested = attestations_of(run, request)
    for signed in attested:
        steps.open_generation(context, signed.value)
    if target.records:
        node = context.bindings.nodes.get(target.organisation)
        request_record_erasure(run.genesis, request, target.records, node, context.send)
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


def _begin(
    context: ErasureContext, target: ErasureTarget, history: Lanes
) -> tuple[Signed[ErasureRequest], tuple[Plan, ...]]:
    """The organisation's signed request, and the plans of the lanes that are still to be attested.

    Those of an erasure that has begun, or of a new one. Raises UsageError when another erasure has begun.
    """
    run, shards = context.rounds.run, target.shards(history.genesis)
    if begun := run.unfinished():
        request = begun.value.request
        if not target.asked_by(request.value, context.requester):
            name, count = run.genesis.names[begun.value.organisation], request.value.count
            other = f"{count} records of {name}" if count else name
            raise UsageError(f"the erasure of {other} by {begun.value.method} is not finished: ask for that one again")
        known = {signed.value.lane for signed in attestations_of(run, request)}
        if known >= target.lanes(run.genesis):
            return request, ()
        # Killed between two attestations: no lane is opened before all are attested, so the plan is still the same.
        planned = plans(history, target.organisation, target.method, shards)
        return request, tuple(plan for plan in planned if plan.lane not in known)
    planned = plans(history, target.organisation, target.method, shards)
    request = target.request(run.genesis, context.requester(target.organisation), context.basis)
    if target.records:
        node = context.bindings.nodes.get(target.organisation)
        check_held(run.genesis, request, target.records, node, context.send)
    return request, planned
