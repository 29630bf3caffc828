from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.canonical import Address, Digest
from core.errors import FoedusError, ForgeryError, FormatError, IntegrityError, UsageError
from core.keys import derive
from core.ledger import MemoryLedger
from core.signed import Signed
from provenance.evidence import Evidence
from provenance.trace import ResponseScores, TokenScores, TokenTrace
from tests.behaviours.ledger import some_digest
from tests.behaviours.runs import COORDINATOR, Federation, build


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
    response = ResponseScores(scores, scores, -3.0, 0.5, 0.9, who)
    aggregate = federation.run.lineage(0)[-1].value.aggregate
    tokens = (TokenScores("Two", 5, -1.5, scores, -3.0, 0.5),)
    return TokenTrace("run", aggregate, "gradient", organisations, "How many?", tokens, response, 0.1)


def test_a_bundle_is_checked_from_its_file_alone(federation: Federation, bundle: Evidence, tmp_path: Path) -> None:
    (tmp_path / "evidence.json").write_bytes(bundle.to_bytes())
    again = Evidence.from_bytes((tmp_path / "evidence.json").read_bytes())
    assert again == bundle
    assert again.digest == bundle.digest
    assert again.verified() == federation.members["financial"].address
    assert len(again.proofs) == 3


def test_a_ledger_shows_where_the_proved_rounds_stand(federation: Federation, bundle: Evidence) -> None:
    assert [anchor.block for anchor in bundle.anchored(federation.ledger)] == [1, 2, 3]
    with pytest.raises(IntegrityError):
        bundle.anchored(MemoryLedger())


def swapped(bundle: Evidence, name: str) -> Evidence:
    who = derive(7, name).address
    return replace(bundle, trace=replace(bundle.trace, response=replace(bundle.trace.response, verdict=who)))


def resigned(bundle: Evidence, key: str) -> Evidence:
    last = bundle.records[-1].value
    record = replace(last, aggregate=some_digest())
    changed = bundle.records[-1] if key == "nobody" else record.sign(derive(7, key), bundle.genesis.chain)
    changed = Signed(record, changed.signatures)
    return replace(bundle, records=(*bundle.records[:-1], changed))


TAMPERINGS: dict[str, tuple[type[FoedusError], str, Callable[[Evidence], Evidence]]] = {
    "another verdict": (IntegrityError, "highest score", lambda e: swapped(e, "coding")),
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
    "no records": (IntegrityError, "no records", lambda e: replace(e, records=())),
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


def test_isolated_lanes_need_only_their_own_records(tmp_path: Path) -> None:
    federation = build(tmp_path / "run", rounds=2, organisations=3, lanes=3)
    bundle = Evidence.of(federation.run, trace(federation, "financial"))
    assert bundle.verified() == federation.members["financial"].address
    own = federation.genesis.lanes_of(federation.members["financial"].address)
    assert {signed.value.lane for signed in bundle.records} == set(own)


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
