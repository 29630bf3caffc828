"""Records by themselves: every check, with a record that passes it and one that does not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chain.audit.files import RecordFile
from chain.audit.records import Head, RecordAudit
from chain.audit.report import Findings, What
from core import keys
from core.canonical import ZERO_DIGEST, Digest
from core.genesis import Genesis, Privacy
from core.keys import Key
from core.privacy import PrivacyPlan
from core.rounds import Admitted, Best, Rejection, RoundRecord
from core.update import Bid, UpdateManifest
from tests.behaviours.ledger import some_digest
from tests.behaviours.runs import COORDINATOR, SEED, Federation, build

OUTSIDER = keys.derive(SEED, "outsider")
HEAD = some_digest()
FILE = RecordFile(0, 0, 1, 1, "records/L0000-G0000-R00001-A01.json")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return build(tmp_path_factory.mktemp("records") / "run", rounds=2, organisations=3, lanes=1)


@pytest.fixture
def record(federation: Federation) -> RoundRecord:
    return next(federation.run.records()).value


@pytest.fixture
def audit(federation: Federation) -> RecordAudit:
    return RecordAudit(federation.genesis, Findings())


def start(genesis: Genesis) -> Head:
    """The head before round 1."""
    return Head(genesis.digest, None, some_digest(), genesis.digest, genesis.lanes[0])


def kinds(audit: RecordAudit) -> list[str]:
    return [failure.what for failure in audit.findings.failures]


# Order


def test_a_record_that_continues_the_lane_passes_every_check(
    federation: Federation, audit: RecordAudit, record: RoundRecord
) -> None:
    head = start(federation.genesis)
    audit.check_signature(record.sign(COORDINATOR, federation.genesis.chain), FILE)
    assert audit.follows(record, head, "here")
    audit.check_content(record, head, "here")
    weights = audit.check_admitted(record, head, "here")
    assert kinds(audit) == []
    assert weights == {admitted.organisation: admitted.weight for admitted in record.admitted}
    assert (audit.findings.checked["records"], audit.findings.checked["manifests"]) == (1, 3)
    head.advance(record, None)
    assert (head.round, head.attempt, head.parent, head.previous) == (1, 0, record.digest, record.digest)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"round": 2}, What.GAP),
        ({"attempt": 2}, What.ATTEMPT),
        ({"parent": ZERO_DIGEST}, What.PARENT),
        ({"previous": ZERO_DIGEST}, What.PREVIOUS),
    ],
)
def test_a_record_that_does_not_follow_is_named(
    federation: Federation, audit: RecordAudit, record: RoundRecord, changes: dict[str, Any], what: What
) -> None:
    assert audit.follows(replace(record, **changes), start(federation.genesis), "here")
    assert kinds(audit) == [what]


def test_a_round_that_is_recorded_already_is_a_fork(
    federation: Federation, audit: RecordAudit, record: RoundRecord
) -> None:
    head = start(federation.genesis)
    head.advance(record, None)
    assert not audit.follows(record, head, "here")
    assert kinds(audit) == [What.FORK]


def test_behind_a_hole_nothing_is_compared_with_it(audit: RecordAudit, record: RoundRecord) -> None:
    head = Head(some_digest(), None, some_digest(), some_digest(), record_members(record))
    head.lose(FILE)
    assert audit.follows(replace(record, round=2), head, "here")
    audit.check_content(replace(record, round=2), head, "here")
    assert kinds(audit) == []


def record_members(record: RoundRecord) -> tuple[Any, ...]:
    return tuple(admitted.organisation for admitted in record.admitted)


def test_an_empty_round_counts_an_attempt_and_keeps_the_parent(
    federation: Federation, audit: RecordAudit, record: RoundRecord
) -> None:
    head = start(federation.genesis)
    assert head.aggregate is not None
    empty = replace(record, admitted=(), aggregate=head.aggregate)
    audit.check_content(empty, head, "here")
    assert kinds(audit) == []
    head.advance(empty, None)
    assert (head.round, head.attempt, head.parent, head.previous) == (0, 1, record.parent, empty.digest)
    audit.check_content(replace(empty, aggregate=some_digest(), residual=0.5), head, "here")
    assert kinds(audit) == [What.RESIDUAL, What.AGGREGATE]


@pytest.mark.parametrize("signer", [COORDINATOR, OUTSIDER])
def test_a_record_is_the_coordinator_s(
    federation: Federation, audit: RecordAudit, record: RoundRecord, signer: Key
) -> None:
    audit.check_signature(record.sign(signer, federation.genesis.chain), FILE)
    assert kinds(audit) == [What.SIGNATURE] * (signer is OUTSIDER)


def test_a_record_lies_under_its_name(federation: Federation, audit: RecordAudit, record: RoundRecord) -> None:
    audit.check_signature(record.sign(COORDINATOR, federation.genesis.chain), replace(FILE, attempt=2))
    assert kinds(audit) == [What.FILE_NAME]


# Rounds that are compared


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda r: r, []),
        (lambda r: replace(r, best=Best(3, r.aggregate, 4.0)), [What.BEST]),
        (lambda r: replace(r, validation_loss=1.0), [What.BEST]),
        (lambda r: replace(r, validation_loss=None, best=None), [What.LOSS]),
        (lambda r: replace(r, validation_loss=None), [What.LOSS, What.BEST]),
        (lambda r: replace(r, admitted=(), validation_loss=None, best=None, aggregate=HEAD), []),
        (lambda r: replace(r, admitted=(), aggregate=HEAD), [What.LOSS]),
    ],
)
def test_a_best_round_is_computed_again(
    federation: Federation, record: RoundRecord, change: Callable[[RoundRecord], RoundRecord], what: list[What]
) -> None:
    audit = RecordAudit(replace(federation.genesis, serve="best"), Findings())
    head = replace(start(federation.genesis), aggregate=HEAD, round=2, best=Best(2, HEAD, 2.0))
    audit.check_content(change(replace(record, round=3, validation_loss=4.0, best=head.best)), head, "here")
    assert kinds(audit) == what


def test_no_round_is_recorded_behind_an_early_end(federation: Federation, record: RoundRecord) -> None:
    genesis = replace(federation.genesis, patience=2, training=replace(federation.genesis.training, rounds=9))
    audit, best = RecordAudit(genesis, Findings()), Best(2, HEAD, 2.0)
    for number in (4, 5):
        head = replace(start(genesis), round=number - 1, best=best)
        audit.check_content(replace(record, round=number, validation_loss=4.0, best=best), head, "here")
    assert [str(failure) for failure in audit.findings.failures] == [
        "last round at here: expected an early end with round 4, got round 5"
    ]


def test_rounds_that_are_not_compared_have_no_loss(
    federation: Federation, audit: RecordAudit, record: RoundRecord
) -> None:
    compared = replace(record, validation_loss=4.0, best=Best(1, record.aggregate, 4.0))
    audit.check_content(compared, start(federation.genesis), "here")
    assert kinds(audit) == [What.LOSS]


# Content


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda r: replace(r, generation=1), What.GENERATION),
        (lambda r: replace(r, rule="svd"), What.RULE),
        (lambda r: replace(r, rejected=(Rejection(OUTSIDER.address, "late", ""),)), What.REJECTED),
    ],
)
def test_content_that_the_genesis_does_not_allow_is_named(
    federation: Federation,
    audit: RecordAudit,
    record: RoundRecord,
    change: Callable[[RoundRecord], RoundRecord],
    what: What,
) -> None:
    audit.check_content(change(record), start(federation.genesis), "here")
    assert kinds(audit) == [what]


def with_participation(audit: RecordAudit, **changes: Any) -> RecordAudit:
    genesis = audit.genesis
    return RecordAudit(replace(genesis, participation=replace(genesis.participation, **changes)), Findings())


def test_a_round_below_its_quorum_admits_nobody(audit: RecordAudit, record: RoundRecord) -> None:
    strict = with_participation(audit, quorum=4)
    strict.check_content(record, start(strict.genesis), "here")
    assert [(f.what, f.got, f.want) for f in strict.findings.failures] == [("quorum", "3 admitted", "at least 4")]


# Manifests


def readmitted(federation: Federation, record: RoundRecord, **changes: Any) -> RoundRecord:
    """The record with the first manifest changed, and signed by its organisation."""
    first, *others = record.admitted
    manifest = replace(first.signed.value, **changes)
    key = next((key for key in federation.members.values() if key.address == manifest.organisation), OUTSIDER)
    signed = manifest.sign(key, federation.genesis.chain)
    return replace(record, admitted=(Admitted(signed, first.weight), *others))


@pytest.mark.parametrize(
    ("changes", "whats"),
    [
        ({"genesis": ZERO_DIGEST}, [What.MANIFEST_GENESIS]),
        ({"lane": 1}, [What.MANIFEST_PLACE]),
        ({"round": 2}, [What.MANIFEST_PLACE]),
        ({"parent": ZERO_DIGEST}, [What.MANIFEST_PARENT]),
        ({"examples": 10**6}, [What.EXAMPLES]),
        ({"bid": Bid(6, 2)}, [What.BID]),
        ({"bid": Bid(5, 3)}, [What.BID]),
    ],
)
def test_a_manifest_that_says_too_much_is_named(
    federation: Federation, audit: RecordAudit, record: RoundRecord, changes: dict[str, Any], whats: list[What]
) -> None:
    audit.check_admitted(readmitted(federation, record, **changes), start(federation.genesis), "here")
    assert kinds(audit) == whats


def test_a_manifest_is_its_organisation_s(federation: Federation, audit: RecordAudit, record: RoundRecord) -> None:
    first, *others = record.admitted
    stolen = first.signed.value.sign(OUTSIDER, federation.genesis.chain)
    forged = replace(record, admitted=(Admitted(stolen, first.weight), *others))
    audit.check_admitted(forged, start(federation.genesis), "here")
    assert kinds(audit) == [What.MANIFEST_SIGNATURE]


def test_an_outsider_and_its_weight_are_named(federation: Federation, audit: RecordAudit, record: RoundRecord) -> None:
    changed = readmitted(federation, record, organisation=OUTSIDER.address)
    audit.check_admitted(changed, start(federation.genesis), "here")
    assert {What.MEMBER, What.WEIGHT} <= set(kinds(audit))


def test_a_nonce_is_used_once(federation: Federation, audit: RecordAudit, record: RoundRecord) -> None:
    second: UpdateManifest = record.admitted[1].signed.value
    audit.check_admitted(readmitted(federation, record, nonce=second.nonce), start(federation.genesis), "here")
    assert kinds(audit) == [What.NONCE]


def test_organisations_stand_in_the_order_of_their_addresses_with_their_weights(
    federation: Federation, audit: RecordAudit, record: RoundRecord
) -> None:
    backwards = replace(record, admitted=record.admitted[::-1])
    audit.check_admitted(backwards, start(federation.genesis), "here")
    assert kinds(audit) == [What.ORDER]
    first, *others = record.admitted
    audit.findings.failures.clear()
    audit.nonces.clear()
    audit.check_admitted(replace(record, admitted=(replace(first, weight=0.9), *others)), start(audit.genesis), "here")
    assert kinds(audit) == [What.WEIGHT]


def test_a_re_aggregated_round_has_the_updates_of_the_remaining_members(
    audit: RecordAudit, record: RoundRecord
) -> None:
    gone = record.admitted[0].organisation
    again = replace(record, generation=1, admitted=record.admitted[1:])
    assert again.reaggregated
    audit.check_reaggregated(again, {gone}, [record], "here")
    assert kinds(audit) == []
    audit.check_reaggregated(replace(record, generation=1), {gone}, [record], "here")
    audit.check_reaggregated(replace(again, rejected=(Rejection(gone, "late", ""),)), {gone}, [record], "here")
    assert kinds(audit) == [What.REAGGREGATED, What.REJECTED]


def test_names_in_findings_are_those_of_the_genesis(audit: RecordAudit) -> None:
    assert audit.name(keys.derive(SEED, "medical").address) != "medical"
    assert audit.name(keys.derive(SEED, "coding").address) == "coding"
    assert audit.digest == Digest(audit.genesis.digest)


# Privacy


def test_a_privacy_loss_is_counted_over_rounds_and_a_changed_one_is_found(federation: Federation) -> None:
    genesis = replace(federation.genesis, privacy=Privacy(3.0, 1e-5, 1.0))
    records = [signed.value for signed in federation.run.records()]
    plan = PrivacyPlan.of(genesis, records[0].admitted[0].organisation)
    assert plan
    one, both = plan.spent(5), plan.spent(10)

    def found(*claims: float) -> list[bool]:
        audit, told = RecordAudit(genesis, Findings()), []
        for record, epsilon in zip(records, claims, strict=True):
            own = record.admitted[0]
            changed = replace(own, signed=replace(own.signed, value=replace(own.signed.value, epsilon=epsilon)))
            audit.findings = Findings()
            audit.check_manifest(changed, record, start(genesis), "here")
            told.append(What.EPSILON in kinds(audit))
        return told

    assert found(one, both) == [False, False]
    assert found(one, one) == [False, True]  # two rounds have spent more than one
    assert found(0.9 * one, both) == [True, False]
    assert found(both, 3.3) == [False, True]
    assert found(0.0, 0.0) == [True, True]


def test_a_privacy_loss_that_nobody_counts_is_found(federation: Federation, audit: RecordAudit) -> None:
    own = next(federation.run.records()).value.admitted[0]
    claimed = replace(own, signed=replace(own.signed, value=replace(own.signed.value, epsilon=1.0)))
    audit.check_manifest(claimed, next(federation.run.records()).value, start(federation.genesis), "here")
    assert What.EPSILON in kinds(audit)
