"""Changes of members: signed by all whom they take, each opening a generation that the ledger knows."""

from collections.abc import Iterator

from chain.audit.files import Files
from chain.audit.generations import GenerationAudit
from chain.audit.ledger import LedgerAudit
from chain.audit.report import Findings, What
from core.genesis import Genesis
from core.membership import MembershipRecord
from core.signed import Signed
from core.storage.run_folder import membership_name


def amended(genesis: Genesis, files: Files, findings: Findings) -> Genesis:
    """The genesis with every change of members that holds; one that does not is a failure, and is not counted."""
    known: list[Signed[MembershipRecord]] = []
    for name in files.memberships():
        want = "a change that coordinator, newcomers and a quorum of members, or those who leave, have signed"
        with findings.guard(What.MEMBERSHIP, name, want):
            signed = files.read_signed(name, MembershipRecord)
            genesis.amended([*known, signed])
            known.append(signed)
            place = signed.value.proposal.lane, signed.value.proposal.generation
            findings.expect(What.FILE_NAME, name, membership_name(*place), name)
            findings.checked["memberships"] += 1
    return genesis.amended(known)


def check_changes(generations: GenerationAudit, ledger: LedgerAudit) -> None:
    """Each change has opened its generation, but for the last one of a run in progress, and the ledger knows it."""
    for record, where in _changes(generations.genesis):
        opened = generations.opened.get(record.proposal.lane, {}).get(record.proposal.generation)
        if opened is None and ledger.complete:
            generations.findings.fail(What.GENERATION, where, "nothing", f"generation {record.proposal.generation}")
        elif opened and opened.value.membership != record.digest:
            generations.findings.fail(What.MEMBERSHIP, where, "another generation in its place", "the one it opens")
        ledger.check_change(record, where)


def _changes(genesis: Genesis) -> Iterator[tuple[MembershipRecord, str]]:
    for record in (signed.value for signed in genesis.memberships):
        yield record, membership_name(record.proposal.lane, record.proposal.generation)
