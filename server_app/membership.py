"""Members that join or leave behind a run's last round: agreed to, signed, written down, anchored, and in force.

    propose     the lane's head, its members, and the newcomers
    agree       the newcomers and more than half of the members sign that, each on its own node; who leaves has signed
    write       the membership record is on disk: from here on it will be carried out
    anchor      the ledger is told of it, once it has every round before
    open        the lane's next generation grows from its head, with the members that it has now

Nothing is run again. Killed before the record is written, nothing has changed; after it, the next start goes on.
"""

import math
import secrets
from collections.abc import Iterable, Mapping, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from core.aggregation import by_address
from core.canonical import Address
from core.errors import RunError, UsageError
from core.generations import GenerationRecord, last_round
from core.keys import Key
from core.ledger import Ledger
from core.membership import Admission, Leave, MembershipRecord, Proposal, quorum
from core.messages.queries import ADMISSION, AdmissionQuery, admission_of
from core.rotations import Rotation
from core.signed import Signed
from core.storage.run_folder import RunFolder
from core.update import Organisation
from server_app.binding import Bindings
from server_app.erasure.steps import wait_for_anchors
from server_app.exchange import Send
from server_app.founders import answers

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 15.0
"""For the other members, once a newcomer and as many as must agree are connected."""


def propose(run: RunFolder, lane: int, joins: Sequence[Organisation] = ()) -> Proposal:
    """A change of a lane's members behind its newest round; raises UsageError while an erasure is unfinished."""
    run.check_settled()
    line, members = run.lineage(lane), run.members(lane)
    parent = line[-1].value.digest if line else run.genesis.digest
    return Proposal(run.genesis.digest, lane, len(run.generations(lane)) + 1, parent, members, tuple(joins))


def check_newcomer(run: RunFolder, newcomer: Organisation) -> None:
    """Raise UsageError for an organisation that cannot join a run, now or ever."""
    genesis, line = run.genesis, run.lineage(0)
    complete = bool(line) and line[-1].value.round >= run.last_round(0, line)
    known = any(newcomer.address == o.address or newcomer.name == o.name for o in genesis.everyone)
    others = genesis.organisations[0].derived
    faults = {
        f"expected an organisation that never was a member, got {newcomer.name}": known,
        f"expected one lane that all learn in, got {len(genesis.lanes)}": len(genesis.lanes) > 1,
        "expected a rule whose adapter does not grow with its members, got stack": genesis.rule == "stack",
        "expected rounds to go, got a run that is complete: start another from it": complete,
        "expected keys of one kind, derived or their own, got both": newcomer.derived != others,
    }
    if fault := next((fault for fault, there in faults.items() if there), ""):
        raise UsageError(f"{newcomer.name} cannot join run {run.name}: {fault}")
    if genesis.privacy and (wrong := genesis.privacy.fault(genesis.rule, newcomer.examples)):
        raise UsageError(f"{newcomer.name} cannot join run {run.name}: dp-delta: {wrong}")


def check_leaving(run: RunFolder, organisation: Address) -> None:
    """Raise UsageError for an organisation that is no member, or without which the others could not go on."""
    genesis, needed = run.genesis, run.genesis.participation.quorum
    name, lanes = genesis.named(organisation).name, genesis.lanes_of(organisation)
    for lane in lanes:
        members = run.members(lane)
        if organisation not in members:
            raise UsageError(f"{name}: expected a member of run {run.name}, got one that has left or was erased")
        # Of a lane without members nothing is served: what it taught would be lost.
        if (left := len(members) - 1) < max(needed, 1):
            raise UsageError(f"{name} cannot leave: lane {lane}: expected {max(needed, 1)} members to stay, got {left}")


def gather(
    run: RunFolder, proposal: Proposal, nodes: Mapping[Address, int], send: Send
) -> tuple[tuple[Signed[Admission], ...], Mapping[Address, str]]:
    """The signatures under a proposal, by address, and why others did not sign."""
    genesis, openings = run.genesis, tuple(run.generations(proposal.lane).values())
    asked = (*proposal.members, *(newcomer.address for newcomer in proposal.joins))
    queries = (
        (
            who,
            Message(
                AdmissionQuery(who, genesis, proposal, openings).to_content(), nodes[who], ADMISSION, group_id="bind"
            ),
        )
        for who in asked
        if who in nodes
    )

    def holds(who: Address, signed: Signed[Admission]) -> bool:
        admission = signed.verified(genesis)
        return (admission.organisation, admission.proposal) == (who, proposal.digest)

    refusals: dict[Address, str] = {}
    found = answers(queries, send, admission_of, holds, refusals)
    return tuple(found[who] for who in sorted(found, key=by_address)), refusals


def wait_for_newcomer(
    bindings: Bindings, grid: Grid, name: str, members: Sequence[Address], timeout: float
) -> Organisation:
    """Ask until a newcomer and all members are bound, or for some seconds more than as many as must agree to it are.

    Raises RunError when they are not.
    """
    deadline, enough = bindings.clock.now() + timeout, math.inf
    while True:
        bindings.refresh(grid)
        newcomer = next((o for o in bindings.organisations.values() if name in (o.name, o.address)), None)
        present, now = len(set(members) & set(bindings.nodes)), bindings.clock.now()
        if newcomer and newcomer.address in bindings.nodes and present >= quorum(len(members)):
            enough = min(enough, now)
            # One of those that are there may object: whoever binds a little later is asked, too.
            if present == len(members) or now >= min(enough + _GRACE_SECONDS, deadline):
                return newcomer
        if now > deadline:
            who = f"{present} of {len(members)} members, {'and' if newcomer else 'without'} {name}"
            reason = f": {bindings.failure}" if bindings.failure else ""
            raise RunError(f"expected {name} and {quorum(len(members))} members to be connected, got {who}{reason}")
        bindings.clock.sleep(_POLL_SECONDS)


def signed_change(
    run: RunFolder,
    key: Key,
    proposal: Proposal,
    *,
    admissions: Iterable[Signed[Admission]] = (),
    leaves: Iterable[Signed[Leave]] = (),
    rotations: Iterable[Signed[Rotation]] = (),
    beside: Sequence[Signed[MembershipRecord]] = (),
) -> Signed[MembershipRecord]:
    """A change that holds beside others not written yet; raises ObjectionError without the signatures that it needs."""
    parts = tuple(admissions), tuple(leaves), secrets.token_hex(32), tuple(rotations)
    signed = MembershipRecord(run.genesis.digest, proposal, *parts).sign(key, run.genesis.chain)
    # As everyone will check it: nothing is written that nobody would believe.
    run.genesis.amended((*run.genesis.memberships, *beside, signed))
    return signed


def change(run: RunFolder, key: Key, ledger: Ledger, signed: Signed[MembershipRecord]) -> MembershipRecord:
    """Write a change down and carry it out."""
    run.change_members(signed)
    carry_out(run, key, ledger)
    return signed.value


def carry_out(run: RunFolder, key: Key, ledger: Ledger) -> None:
    """Anchor changes that are written down, and open their generations; once more changes nothing.

    Raises LedgerUnreachableError; then it goes on when the run is started again.
    """
    genesis = run.genesis
    for record in (signed.value for signed in run.memberships()):
        lane, generation = record.proposal.lane, record.proposal.generation
        if generation in run.generations(lane):
            continue
        wait_for_anchors(run, ledger, lane)
        ledger.attest(genesis.digest, record.change, lane, record.committed)
        opening = opening_of(run, record)
        ledger.open_generation(opening.opening)
        run.open_generation(opening.sign(key, genesis.chain))


def opening_of(run: RunFolder, record: MembershipRecord) -> GenerationRecord:
    """The record that opens a lane's generation at its head, with the members that it has from here on."""
    genesis, lane, last = run.genesis, record.proposal.lane, record.proposal.generation - 1
    line, opened = run.lineage(lane), run.generations(lane)
    begun = opened[last].value if last else None
    newest = [
        signed.value.digest for signed in run.records() if (signed.value.lane, signed.value.generation) == (lane, last)
    ]
    head = line[-1].value if line else None
    return GenerationRecord(
        genesis=genesis.digest,
        lane=lane,
        generation=record.proposal.generation,
        parent_generation=head.generation if head else 0,
        parent_round=head.round if head else 0,
        parent=record.proposal.parent,
        previous=newest[-1] if newest else begun.digest if begun else genesis.digest,
        rounds=last_round(genesis, begun),
        erasure=record.change,
        members=record.members,
        membership=record.digest,
    )
