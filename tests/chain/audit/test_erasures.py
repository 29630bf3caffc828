"""Attestations by themselves: asked for, signed, opened by the generation they name, done once they are certified."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.audit.erasures import ErasureAudit
from chain.audit.files import ErasureFile, Files
from chain.audit.ledger import LedgerAudit
from chain.audit.queue import QueueAudit
from chain.audit.report import Findings, What
from core.canonical import ZERO_DIGEST, digest, from_json, to_json
from core.erasures import Attestation
from core.generations import GenerationRecord
from core.keys import Key
from core.ledger import RoundCommitment
from core.signed import Signed
from tests.behaviours.ledger import some_digest
from tests.behaviours.runs import COORDINATOR, NAMES, Federation, build
from tests.behaviours.runs import attest as attest_fork

ERASED = NAMES[0]
FILE, CERTIFICATE = "erasures/L0000-G0001.json", "certificates/L0000-G0001.json"


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """Three organisations, of whom one was erased from round 2 on."""
    federation = build(tmp_path / "run", rounds=2, organisations=3)
    federation.fork(0, 1, without=ERASED)
    return federation


def audit_of(federation: Federation) -> ErasureAudit:
    return ErasureAudit.read(federation.genesis, Files(federation.run), Findings())


def check(federation: Federation, change: Callable[[GenerationRecord], GenerationRecord] | None = None) -> ErasureAudit:
    """The audit of what is there, with the generation's record changed."""
    audit = audit_of(federation)
    opened: dict[int, dict[int, Signed[GenerationRecord]]] = {0: dict(federation.run.generations(0))}
    if change:
        opened[0][1] = change(opened[0][1].value).sign(COORDINATOR, federation.genesis.chain)
    queue = QueueAudit.read(federation.run.queue, RoundCommitment, Findings())
    ledger = LedgerAudit(federation.ledger, federation.genesis, audit.files, audit.findings, queue, complete=True)
    audit.check(opened, ledger)
    return audit


def kinds(audit: ErasureAudit) -> list[str]:
    return [failure.what for failure in audit.findings.failures]


def attested(federation: Federation) -> Attestation:
    return federation.run.erasures()[0].value


def attest(federation: Federation, by: Key = COORDINATOR, **changes: Any) -> None:
    changed = replace(attested(federation), **changes).sign(by, federation.genesis.chain)
    (federation.run.folder / FILE).write_bytes(to_json(changed.to_dict()))


def certify(federation: Federation) -> None:
    """A certificate, of which the ledger has the salted digest."""
    content = {"value": {"done": True}, "signatures": []}
    path = federation.run.folder / CERTIFICATE
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(to_json(content))
    hidden = attested(federation).hide(digest("certificate", to_json(content["value"])))
    federation.ledger.certify(federation.genesis.digest, attested(federation).erasure, hidden)


def test_an_erasure_that_goes_on_holds(federation: Federation) -> None:
    audit = check(federation)
    assert kinds(audit) == []
    assert (audit.findings.checked["attestations"], audit.findings.checked["unfinished erasures"]) == (1, 1)
    assert (audit.last(0), audit.last(1)) == (1, 0)


def test_an_erasure_that_is_done_has_its_certificate_on_the_ledger(federation: Federation) -> None:
    certify(federation)
    audit = check(federation)
    assert (kinds(audit), audit.findings.checked["certificates"]) == ([], 1)
    (federation.run.folder / CERTIFICATE).write_bytes(to_json({"value": {"done": False}, "signatures": []}))
    assert kinds(check(federation)) == [What.CERTIFICATE]


@pytest.mark.parametrize("content", [b"{}", b"[]", b"{", b'{"value": 1}'])
def test_a_certificate_that_is_none_is_named(federation: Federation, content: bytes) -> None:
    certify(federation)
    (federation.run.folder / CERTIFICATE).write_bytes(content)
    assert What.CERTIFICATE in kinds(check(federation))


def test_what_is_listed_may_be_gone_and_must_be_when_it_is_done(federation: Federation) -> None:
    state, record = some_digest(), some_digest()
    attest(federation, destroyed=(state,), salts_destroyed=(record,))
    begun = audit_of(federation)
    assert (begun.listed, begun.salts_listed) == (frozenset({state}), frozenset({record}))
    assert (begun.destroyed, begun.salts_destroyed) == (frozenset(), frozenset())
    (federation.run.folder / CERTIFICATE).parent.mkdir()
    (federation.run.folder / CERTIFICATE).write_bytes(b"{}")
    done = audit_of(federation)
    assert (done.destroyed, done.salts_destroyed) == (frozenset({state}), frozenset({record}))


def test_a_destroyed_state_is_counted_once(federation: Federation) -> None:
    state = some_digest()
    attest(federation, destroyed=(state,))
    audit = audit_of(federation)
    assert [audit.excuses(state), audit.excuses(state), audit.excuses(some_digest())] == [True, True, False]
    assert audit.findings.checked["destroyed states"] == 1


@pytest.mark.parametrize("side", ["coordinator", "organisation"])
def test_an_attestation_that_one_side_did_not_sign_lists_nothing(federation: Federation, side: str) -> None:
    other, request = federation.members[NAMES[1]], attested(federation).request.value
    stolen = request.sign(other, federation.genesis.chain)
    changes = {"by": other} if side == "coordinator" else {"request": stolen}
    attest(federation, **changes, destroyed=(some_digest(),))
    audit = audit_of(federation)
    assert kinds(audit) == [What.ATTESTATION]
    assert (audit.listed, audit.attested) == (frozenset(), [])


def test_an_attestation_under_another_name_is_named(federation: Federation) -> None:
    (federation.run.folder / FILE).rename(federation.run.folder / FILE.replace("G0001", "G0002"))
    assert kinds(audit_of(federation)) == [What.FILE_NAME]


def test_a_generation_without_an_erasure_is_named(federation: Federation) -> None:
    (federation.run.folder / FILE).unlink()
    audit = check(federation)
    assert [(f.what, f.where) for f in audit.findings.failures] == [(What.ATTESTATION, FILE)]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda r: replace(r, erasure=ZERO_DIGEST), What.GENERATION),
        (lambda r: replace(r, parent_round=0), What.GENERATION),
        (lambda r: replace(r, rounds=9), What.GENERATION),
    ],
)
def test_a_generation_that_is_not_the_attested_one_is_named(
    federation: Federation, change: Callable[[GenerationRecord], GenerationRecord], what: What
) -> None:
    assert kinds(check(federation, change)) == [what]


def test_an_erased_organisation_among_the_members_is_named(federation: Federation) -> None:
    erased = federation.members[ERASED].address
    audit = check(federation, lambda record: replace(record, members=(erased, *record.members)))
    (failure,) = audit.findings.failures
    assert (failure.what, failure.where) == (What.MEMBERS, FILE)


def test_a_member_that_leaves_with_the_erased_is_named(federation: Federation) -> None:
    audit = check(federation, lambda record: replace(record, members=record.members[1:]))
    (failure,) = audit.findings.failures
    assert (failure.what, failure.where) == (What.MEMBERS, FILE)


def test_an_organisation_that_is_erased_and_has_not_asked_is_named(federation: Federation) -> None:
    """Its own signed request is nowhere, though the coordinator attests its erasure with that of another."""
    erased = tuple(sorted(federation.members[name].address for name in NAMES[:2]))
    attest(federation, erased=erased)
    audit = check(federation, lambda record: replace(record, members=(federation.members[NAMES[2]].address,)))
    found = [failure for failure in audit.findings.failures if failure.what == What.MEMBERS]
    assert [failure.got for failure in found] == [f"{federation.members[NAMES[1]].address} among the erased"]


def test_a_request_that_is_carried_out_twice_is_named(federation: Federation) -> None:
    """An organisation asked once: nobody rewinds the lane again with what it signed."""
    assert kinds(check(federation)) == []
    request = attested(federation).request
    federation.fork(0, 1, without=NAMES[1])
    (path,) = federation.run.folder.glob("erasures/*G0002.json")
    again = Signed.parse(Attestation, from_json(path.read_bytes())).value
    again = replace(again, request=request, erased=(request.value.organisation,))
    path.write_bytes(to_json(again.sign(COORDINATOR, federation.genesis.chain).to_dict()))
    twice = [f for f in check(federation).findings.failures if f.where == "erasures of lane 0"]
    asked = f"what {request.value.organisation} asked, 2 times"
    assert [(f.what, f.got) for f in twice] == [(What.ATTESTATION, asked)]
    # The same question of another day is no second one.
    later = replace(request.value, date="2026-04-01").sign(federation.members[ERASED], federation.genesis.chain)
    path.write_bytes(to_json(replace(again, request=later).sign(COORDINATOR, federation.genesis.chain).to_dict()))
    twice = [f for f in check(federation).findings.failures if f.where == "erasures of lane 0"]
    assert [(f.what, f.got) for f in twice] == [(What.ATTESTATION, asked)]


def test_a_request_that_is_carried_out_in_one_of_its_lanes_alone_is_named(tmp_path: Path) -> None:
    """Of two shards the second still knows what was to be forgotten, and a certificate speaks of its own lane."""
    federation = build(tmp_path / "run", rounds=1, organisations=2, lanes=2)
    own, other = (member.address for member in federation.genesis.organisations)
    genesis = replace(federation.genesis, lanes=((own,), (own,), (other,)))
    key = next(key for key in federation.members.values() if key.address == own)
    base = attest_fork(genesis, key, 0, 1, None).value
    records = replace(base.request.value, records=some_digest(), count=3)
    for lanes, missing in (((0, 1), ["none for lane 1"]), ((0,), []), ((0, 2), ["[0, 2]", "none for lane 2"])):
        request = replace(records, lanes=lanes).sign(key, genesis.chain)
        attested_ = replace(base, request=request, erased=()).sign(COORDINATOR, genesis.chain)
        audit = ErasureAudit(
            genesis, Files(federation.run), Findings(), [(ErasureFile.of(0, 1), attested_)], *[frozenset()] * 5
        )
        audit.check_lanes(attested_.value, FILE)
        assert [str(failure.got) for failure in audit.findings.failures] == missing
