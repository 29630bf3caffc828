"""The documents of an erasure: each follows from the plan, the records and what was done, and from nothing else."""

from pathlib import Path

import pytest

from chain.audit.report import AuditReport
from core.canonical import ZERO_DIGEST, commitment, digest
from core.erasures import Attestation, ErasureRequest
from core.generations import GenerationRecord
from core.signed import Signed
from server_app.erasure import steps
from server_app.erasure.documents import attestation_of, certificate_of, generation_of
from tests import erasures as e
from tests import federation as f
from tests.erasures import signed_receipt
from tests.server_app.clients import Federation
from unlearning.certificate import LIMITS
from unlearning.plan import Lanes, Plan, plans

NAMES = ("medical", "coding", "financial")
REPORT = AuditReport({}, 2, 1, ())


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    federation = Federation.create(tmp_path, NAMES, rounds=2)
    federation.start()
    return federation


def plan_of(federation: Federation, method: str) -> Plan:
    (plan,) = plans(Lanes.read(federation.run), f.address("coding"), method)
    return plan


def request_of(federation: Federation, method: str) -> Signed[ErasureRequest]:
    nonce = digest("nonce", method.encode())
    genesis = federation.run.genesis
    coding, basis = f.address("coding"), "GDPR Art. 17"
    request = ErasureRequest(genesis.digest, coding, method, (0,), ZERO_DIGEST, 0, basis, e.DAY, nonce)
    return request.sign(f.key("coding"), genesis.chain)


def attestation(federation: Federation, method: str) -> Attestation:
    request = request_of(federation, method)
    return attestation_of(federation.run, plan_of(federation, method), request, REPORT)


@pytest.mark.parametrize(("method", "reaggregated", "rounds"), [("remove", 2, 2), ("replay", 0, 2), ("repair", 2, 6)])
def test_an_attestation_says_what_the_plan_does_and_what_the_audit_found(
    federation: Federation, method: str, reaggregated: int, rounds: int
) -> None:
    made, plan = attestation(federation, method), plan_of(federation, method)
    assert (made.lane, made.generation, made.parent_generation, made.parent_round) == (0, 1, 0, 0)
    assert (made.reaggregated, made.rounds) == (reaggregated, rounds)
    assert made.erased == (f.address("coding"),)
    assert set(made.destroyed) == plan.to_destroy
    assert made.destroyed == tuple(sorted(made.destroyed))
    assert set(made.salts_destroyed) == {record.digest for record in plan.salts_to_destroy}
    assert (made.recomputed, made.attested) == (2, 1)
    assert Attestation.from_dict(made.to_dict()) == made


def test_two_attestations_hide_the_same_request_differently(federation: Federation) -> None:
    one, two = attestation(federation, "remove"), attestation(federation, "remove")
    assert one.request == two.request
    assert one.erasure != two.erasure
    assert one.erasure == commitment(bytes.fromhex(one.salt), one.request.value.digest)


def test_a_generation_opens_behind_the_last_round_without_the_erased(federation: Federation) -> None:
    attested, run = attestation(federation, "remove"), federation.run
    *_, last = (signed.value for signed in run.records())
    assert generation_of(run, attested) == GenerationRecord(
        genesis=run.genesis.digest,
        lane=0,
        generation=1,
        parent_generation=0,
        parent_round=0,
        parent=run.genesis.digest,
        previous=last.digest,
        rounds=2,
        erasure=attested.erasure,
        members=tuple(member for member in run.genesis.lanes[0] if member != f.address("coding")),
    )


@pytest.mark.parametrize("method", ["remove", "repair"])
def test_a_certificate_s_label_is_computed_and_its_roots_are_the_lane_s(federation: Federation, method: str) -> None:
    run, genesis = federation.run, federation.run.genesis
    before = run.lineage(0)[-1].value
    attested = attestation(federation, method).sign(f.COORDINATOR, genesis.chain)
    run.attest(attested)
    run.open_generation(generation_of(run, attested.value).sign(f.COORDINATOR, genesis.chain))
    # Nothing is on the ledger of the new generation: these documents do not look there.
    rounds = federation.rounds(commit=lambda record: None)
    steps.reaggregate(rounds, attested.value)
    receipts = (signed_receipt(genesis, attested.value.erasure, f.key("medical")),)
    made = certificate_of(rounds, attested, Lanes.read(run).lineage, {"math": {"before": 1.0, "after": 2.0}}, receipts)
    # What is served decides: the calibration of a repair, which is not trained here, would make it approximate.
    assert made.label == "interim"
    assert (made.before.record, made.before.aggregate) == (before.digest, before.aggregate)
    after = run.lineage(0)[-1].value
    assert (made.after.record, made.after.generation) == (after.digest, 1)
    assert made.heads == (after.digest,)
    assert made.aggregate == rounds.served.digest == after.aggregate
    assert made.outstanding == tuple(a for a in attested.value.holders if a != f.address("medical"))
    assert made.limits == LIMITS
    assert made.sign(f.COORDINATOR, genesis.chain).verified(genesis) == made
