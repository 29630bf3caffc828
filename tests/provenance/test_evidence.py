from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.calibration import Calibration, CalibrationRecord
from core.canonical import Address, Digest, from_json, to_json
from core.composition import compose
from core.errors import FoedusError, ForgeryError, FormatError, IntegrityError, UsageError
from core.keys import Key, derive
from core.ledger import MemoryLedger
from core.rounds import Best
from core.signed import Signed
from provenance.confidence import WEIGHTS, judge, weights_of
from provenance.evidence import Evidence
from provenance.trace import ResponseScores, TokenScores, TokenTrace
from tests.behaviours.ledger import some_digest
from tests.behaviours.runs import COORDINATOR, Federation, build, compared


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return build(tmp_path_factory.mktemp("evidence") / "run", rounds=3, organisations=3)


@pytest.fixture
def bundle(federation: Federation) -> Evidence:
    return Evidence.of(federation.run, trace(federation, "financial"))


def trace(federation: Federation, name: str | None) -> TokenTrace:
    organisations = tuple(o.address for o in federation.genesis.organisations)
    who = federation.members[name].address if name else None
    scores = tuple(1.0 if address == who else -0.5 for address in organisations)
    numbers = torch.tensor(scores, dtype=torch.float64)
    confidence, _ = judge(WEIGHTS["gradient"], organisations, numbers.unsqueeze(0), numbers, numbers)
    response = ResponseScores(scores, scores, -3.0, 0.5, confidence, who, False)
    genesis, lanes = federation.genesis, federation.lanes
    served = compose(genesis, [(lane.members, lane.state) for lane in lanes]).digest
    tokens = (TokenScores("Two", 5, -1.5, scores, -3.0, 0.5),)
    return TokenTrace("run", served, "gradient", organisations, "How many?", tokens, response, 0.1)


def test_a_bundle_is_checked_from_its_file_alone(federation: Federation, bundle: Evidence, tmp_path: Path) -> None:
    (tmp_path / "evidence.json").write_bytes(bundle.to_bytes())
    again = Evidence.from_bytes((tmp_path / "evidence.json").read_bytes())
    assert again == bundle
    assert again.digest == bundle.digest
    assert again.verified() == federation.members["financial"].address
    assert len(again.proofs) == 3


def test_evidence_of_the_best_round_proves_the_updates_up_to_it(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=3, organisations=3, lies=compared(3.0, 2.0, 4.0, serve="best"))
    best = federation.run.served_line(0)[-1].value
    assert best.round == 2
    bundle = Evidence.of(federation.run, replace(trace(federation, "financial"), aggregate=best.aggregate))
    assert bundle.verified() == federation.members["financial"].address
    assert (len(bundle.records), len(bundle.proofs)) == (3, 2)
    last = bundle.records[2].value
    with pytest.raises(IntegrityError, match=f"expected records that end with {last.aggregate}, as the trace"):
        traced(bundle, aggregate=last.aggregate).verified()
    lying = replace(last, best=Best(3, last.aggregate, 1.0)).sign(COORDINATOR, federation.genesis.chain)
    with pytest.raises(IntegrityError, match="round 3: expected best round"):
        replace(bundle, records=(*bundle.records[:2], lying)).verified()


def test_there_is_no_evidence_of_what_was_served_before(federation: Federation) -> None:
    """An answer's evidence is gathered later: a round or a calibration may have come between."""
    found = trace(federation, "financial")
    before = replace(found, aggregate=federation.run.lineage(0)[-2].value.aggregate)
    calibrated = replace(found, response=replace(found.response, calibrated=True))
    for other in (before, calibrated):
        with pytest.raises(UsageError, match="serves another state than this answer was traced with: ask again"):
            Evidence.of(federation.run, other)


def test_a_ledger_shows_where_the_proved_rounds_stand(federation: Federation, bundle: Evidence) -> None:
    assert [anchor.block for anchor in bundle.anchored(federation.ledger)] == [1, 2, 3]
    with pytest.raises(IntegrityError):
        bundle.anchored(MemoryLedger())


def traced(bundle: Evidence, **changes: Any) -> Evidence:
    return replace(bundle, trace=replace(bundle.trace, **changes))


def response(bundle: Evidence, **changes: Any) -> Evidence:
    return traced(bundle, response=replace(bundle.trace.response, **changes))


def calibrated(federation: Federation, trace: TokenTrace, key: Key = COORDINATOR, **changes: Any) -> Evidence:
    """The bundle of a verdict by the weights of a calibration, which is changed before it is signed."""
    records = (CalibrationRecord(trace.organisations[0], some_digest()),)
    fitted = Calibration(federation.genesis.digest, trace.aggregate, "gradient", 0.1, 0.2, 3.0, 0.01, records)
    signed = replace(fitted, **changes).sign(key, federation.genesis.chain)
    scores = torch.tensor(trace.response.scores, dtype=torch.float64)
    confidence, _ = judge(weights_of(fitted), trace.organisations, scores.unsqueeze(0), scores, scores)
    response = replace(trace.response, confidence=confidence, calibrated=True)
    return replace(Evidence.of(federation.run, trace), trace=replace(trace, response=response), calibration=signed)


def test_a_calibrated_verdict_is_computed_again_by_its_signed_weights(federation: Federation) -> None:
    bundle = calibrated(federation, trace(federation, "financial"))
    assert Evidence.from_bytes(bundle.to_bytes()) == bundle
    assert bundle.verified() == federation.members["financial"].address
    assert bundle.trace.response.confidence < trace(federation, "financial").response.confidence
    with pytest.raises(IntegrityError, match="got a verdict calibrated"):
        replace(bundle, calibration=None).verified()
    with pytest.raises(IntegrityError, match="got a verdict by the constants"):
        response(bundle, calibrated=False).verified()


LIES: dict[str, tuple[type[FoedusError], str, dict[str, Any]]] = {
    "other weights": (IntegrityError, "follows from the scores", {"familiarity": 4.0}),
    "another state": (IntegrityError, "expected a calibration of gradient for", {"aggregate": some_digest()}),
    "another method": (IntegrityError, "got one of ablation for", {"method": "ablation"}),
    "another federation": (ForgeryError, "expected federation", {"genesis": some_digest()}),
    "another signer": (ForgeryError, "expected the signature of", {"key": derive(7, "coding")}),
}


@pytest.mark.parametrize("lie", LIES)
def test_weights_that_the_coordinator_did_not_sign_for_this_state_are_refused(federation: Federation, lie: str) -> None:
    error, message, changes = LIES[lie]
    with pytest.raises(error, match=message):
        calibrated(federation, trace(federation, "financial"), **changes).verified()


def test_a_bundle_of_a_calibrated_trace_has_the_calibration_of_the_run(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=1, organisations=3)
    bundle = calibrated(federation, trace(federation, "financial"))
    assert bundle.calibration is not None
    federation.run.calibrate(bundle.calibration)
    assert Evidence.of(federation.run, bundle.trace) == bundle
    assert Evidence.of(federation.run, trace(federation, "financial")).calibration is None


def swapped(bundle: Evidence, name: str) -> Evidence:
    return response(bundle, verdict=derive(7, name).address)


def without_one(bundle: Evidence) -> Evidence:
    """The trace as if one of the contributors that it does not name had never been scored."""
    trace, left = bundle.trace, next(i for i, s in enumerate(bundle.trace.response.scores) if s < 0)
    keep = [i for i in range(3) if i != left]
    scores = tuple(trace.response.scores[i] for i in keep)
    numbers, organisations = torch.tensor(scores, dtype=torch.float64), tuple(trace.organisations[i] for i in keep)
    confidence, _ = judge(WEIGHTS["gradient"], organisations, numbers.unsqueeze(0), numbers, numbers)
    changed = replace(trace.response, scores=scores, familiarity=scores, confidence=confidence)
    tokens = tuple(replace(token, scores=scores) for token in trace.tokens)
    return traced(bundle, organisations=organisations, response=changed, tokens=tokens)


def resigned(bundle: Evidence, key: str) -> Evidence:
    last = bundle.records[-1].value
    record = replace(last, aggregate=some_digest())
    changed = bundle.records[-1] if key == "nobody" else record.sign(derive(7, key), bundle.genesis.chain)
    changed = Signed(record, changed.signatures)
    return replace(bundle, records=(*bundle.records[:-1], changed))


TAMPERINGS: dict[str, tuple[type[FoedusError], str, Callable[[Evidence], Evidence]]] = {
    "another verdict": (IntegrityError, "follows from the scores", lambda e: swapped(e, "coding")),
    "another confidence": (IntegrityError, "follows from the scores", lambda e: response(e, confidence=0.99)),
    "another method": (IntegrityError, "by one of", lambda e: traced(e, method="guessing")),
    "no tokens": (IntegrityError, "at least one token", lambda e: traced(e, tokens=())),
    "an organisation left out": (IntegrityError, "all 3 contributors", without_one),
    "a stranger": (IntegrityError, "expected a verdict on a member", lambda e: swapped(e, "stranger")),
    "another run": (IntegrityError, "of run other", lambda e: replace(e, trace=replace(e.trace, run="other"))),
    "another aggregate": (
        IntegrityError, "records that end with", lambda e: replace(e, trace=replace(e.trace, aggregate=some_digest()))
    ),
    "another genesis": (ForgeryError, "federation", lambda e: replace(e, genesis=replace(e.genesis, seed=8))),
    "a record changed": (ForgeryError, "expected the signature of", lambda e: resigned(e, "nobody")),
    "a record by another": (ForgeryError, "expected the signature of", lambda e: resigned(e, "coding")),
    "a record left out": (
        IntegrityError, "expected parent", lambda e: replace(e, records=e.records[:1] + e.records[2:])
    ),
    "no records": (IntegrityError, "expected the records", lambda e: replace(e, records=())),
    "a proof left out": (
        IntegrityError, "updates of", lambda e: replace(e, proofs=e.proofs[:2], roots=e.roots[:2])
    ),
    "a root left out": (IntegrityError, "got 2 roots", lambda e: replace(e, roots=e.roots[:2])),
    "another root": (IntegrityError, "leads to", lambda e: replace(e, roots=(some_digest(), *e.roots[1:]))),
    "another salt": (
        IntegrityError, "leads to", lambda e: replace(e, proofs=(replace(e.proofs[0], salt=bytes(32)), *e.proofs[1:]))
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(TAMPERINGS))
def test_tampering_is_found(bundle: Evidence, what: str) -> None:
    error, message, tamper = TAMPERINGS[what]
    with pytest.raises(error, match=message):
        tamper(bundle).verified()


def test_a_manifest_signed_by_another_is_found(bundle: Evidence) -> None:
    first = bundle.proofs[0]
    forged = first.signed.value.sign(COORDINATOR, bundle.genesis.chain)
    with pytest.raises(ForgeryError):
        replace(bundle, proofs=(replace(first, signed=forged), *bundle.proofs[1:])).verified()


def test_a_verdict_is_not_always_the_highest_score(federation: Federation, bundle: Evidence) -> None:
    # Familiarity outweighs a small lead: the rule that made the verdict is the one that checks it.
    organisations, scores = bundle.trace.organisations, (0.02, 0.01, 0.0)
    familiar = (-0.4, 0.6, -0.2)
    tokens = torch.tensor([scores], dtype=torch.float64)
    whole = [torch.tensor(row, dtype=torch.float64) for row in (scores, familiar)]
    confidence, named = judge(WEIGHTS["gradient"], organisations, tokens, *whole)
    assert named == organisations[1]
    answered = ResponseScores(scores, familiar, -3.0, 0.5, confidence, named, False)
    found = replace(bundle.trace, response=answered, tokens=(TokenScores("Two", 5, -1.5, scores, -3.0, 0.5),))
    assert Evidence.of(federation.run, found).verified() == named


@pytest.mark.parametrize("composition", ["sum", "ensemble"])
def test_the_records_of_several_lanes_bind_what_is_served(tmp_path: Path, composition: str) -> None:
    federation = build(tmp_path / "run", rounds=2, organisations=3, lanes=3, composition=composition)
    bundle = Evidence.of(federation.run, trace(federation, "financial"))
    assert bundle.verified() == federation.members["financial"].address
    assert {signed.value.lane for signed in bundle.records} == {0, 1, 2}
    with pytest.raises(IntegrityError, match="records that end with"):
        traced(bundle, aggregate=some_digest()).verified()
    with pytest.raises(IntegrityError, match="lane 2: expected records"):
        replace(bundle, records=tuple(s for s in bundle.records if s.value.lane != 2)).verified()


def test_who_answers_a_routed_prompt_is_scored_alone(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=2, organisations=3, lanes=3, composition="routing")
    whole = trace(federation, "financial")
    who = federation.members["financial"].address
    tokens = (replace(whole.tokens[0], scores=(1.0,)),)
    one = replace(whole.response, scores=(1.0,), familiarity=(0.0,), confidence=1.0)
    bundle = Evidence.of(federation.run, replace(whole, organisations=(who,), tokens=tokens, response=one))
    assert bundle.verified() == who


def test_an_erased_lane_is_not_asked_for(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=2, organisations=3, lanes=3)
    lane = federation.genesis.lanes_of(federation.members["coding"].address)[0]
    federation.fork(lane, 0, "coding")
    left = [o.address for o in federation.genesis.organisations if o.name != "coding"]
    scores = tuple(1.0 if a == federation.members["financial"].address else -0.5 for a in left)
    numbers = torch.tensor(scores, dtype=torch.float64)
    confidence, named = judge(WEIGHTS["gradient"], tuple(left), numbers.unsqueeze(0), numbers, numbers)
    served = compose(federation.genesis, [(lane.members, lane.state) for lane in federation.lanes]).digest
    tokens = (TokenScores("Two", 5, -1.5, scores, -3.0, 0.5),)
    found = ResponseScores(scores, scores, -3.0, 0.5, confidence, named, False)
    traced_ = TokenTrace("run", served, "gradient", tuple(left), "How many?", tokens, found, 0.1)
    bundle = Evidence.of(federation.run, traced_)
    assert Evidence.from_bytes(bundle.to_bytes()).verified() == named
    with pytest.raises(IntegrityError, match="records"):
        replace(bundle, openings=()).verified()


def test_a_run_that_another_coordinator_opened_is_found(tmp_path: Path) -> None:
    other = derive(9, "another coordinator").address
    federation = build(tmp_path / "run", rounds=1, organisations=3, ledger=MemoryLedger(other))
    bundle = Evidence.of(federation.run, trace(federation, "financial"))
    assert bundle.verified()
    with pytest.raises(IntegrityError, match=f"expected coordinator {COORDINATOR.address}, got {other}"):
        bundle.anchored(federation.ledger)


def test_a_bundle_with_an_unknown_field_is_refused(bundle: Evidence) -> None:
    plain = from_json(bundle.to_bytes())
    for place in (plain, plain["proofs"][0], plain["trace"], plain["trace"]["tokens"][0], plain["records"][0]):
        place["note"] = "trust me"
        with pytest.raises(FormatError):
            Evidence.from_bytes(to_json(plain))
        del place["note"]


def test_a_bundle_has_one_spelling(bundle: Evidence) -> None:
    for name in ("auditors", "late", "bids"):
        plain = from_json(bundle.to_bytes())
        inner = plain["genesis"]["founded"] if name == "auditors" else plain["records"][0]["value"]
        assert inner[name] == []
        inner[name] = ""
        with pytest.raises(FormatError, match="expected the fields as"):
            Evidence.from_bytes(to_json(plain))


def test_bad_input(federation: Federation, bundle: Evidence) -> None:
    with pytest.raises(UsageError, match="abstained"):
        Evidence.of(federation.run, trace(federation, None))
    with pytest.raises(UsageError, match=r"expected a trace of run run .*, got run other"):
        Evidence.of(federation.run, replace(bundle.trace, run="other"))
    for broken in (b"{}", b"[]", bundle.to_bytes().replace(b'"proofs"', b'"roofs"'), bundle.to_bytes()[:-1]):
        with pytest.raises(FormatError):
            Evidence.from_bytes(broken)
    wrong: dict[str, Digest | Address] = {"root": Digest("0x12")}
    with pytest.raises(FormatError):
        Evidence.from_bytes(bundle.to_bytes().replace(bundle.roots[0].encode(), wrong["root"].encode()))
