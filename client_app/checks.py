"""The checks before an organisation trains: it trusts neither the coordinator nor the network."""

from collections.abc import Sequence

from core import lora
from core.adapter import AdapterState
from core.aggregation import RULES
from core.canonical import Digest
from core.erasures import hidden
from core.errors import ObjectionError
from core.generations import GenerationRecord, last_round
from core.genesis import Genesis
from core.ledger import LedgerView
from core.membership import Proposal
from core.messages.queries import RecordsQuery
from core.messages.training import Task
from core.model_selection import served_round, stops
from core.rounds import RoundRecord
from core.signed import SigningKey
from core.update import Organisation
from core.wire import to_send


def check_federation(task: Task, organisation: Organisation, base: Digest, fresh: AdapterState) -> None:
    """Check that a task belongs to the federation that the organisation joined.

    `base` is the digest of the base model here and `fresh` the adapter drawn here: both must be the genesis's.
    Raises IntegrityError.
    """
    genesis = task.genesis
    check_member(genesis, organisation)
    if task.lane not in (lanes := genesis.lanes_of(organisation.address)):
        raise ObjectionError(f"lane: expected {' or '.join(map(str, lanes))}, got {task.lane}")
    _equal("base model", base, genesis.base.digest)
    _equal("shared A", lora.factor(fresh, "A").digest, genesis.shared_a)


def check_member(genesis: Genesis, organisation: Organisation) -> None:
    """Check that an organisation is a member as it is here: by name, key and examples; raises IntegrityError."""
    _equal("organisation in the genesis", genesis.organisation(organisation.address), organisation)


def check_proposal(genesis: Genesis, proposal: Proposal, openings: Sequence[GenerationRecord]) -> None:
    """Check that newcomers are proposed behind a lane's last generation, to its members; raises IntegrityError."""
    before = openings[-1].members if openings else genesis.lanes[proposal.lane]
    _equal("proposal's federation", proposal.genesis, genesis.digest)
    _equal("proposal's generation", proposal.generation, len(openings) + 1)
    _equal("proposal's members", proposal.members, before)
    for opening in openings:
        _equal("opening's lane", opening.lane, proposal.lane)


def check_request(query: RecordsQuery, organisation: Organisation, key: SigningKey) -> None:
    """Check that the organisation itself wants exactly these records erased from the federation that it joined.

    Raises IntegrityError, so that no other organisation learns which records it has; ForgeryError for a request that
    is not its own.
    """
    request = query.request.verified(query.genesis)
    check_member(query.genesis, organisation)
    committed = hidden(key.salt_for(request.nonce), query.records), len(query.records)
    _equal("records of the request, and how many", (request.records, request.count), committed)


def check_state(task: Task, fresh: AdapterState) -> None:
    """Check that a task's state is the one that the coordinator signed as the lane's last, and has a round after it.

    Raises IntegrityError, or ForgeryError for a record that the coordinator did not sign.
    """
    opening = _opening(task)
    _equal("state", task.state.digest, _promised_state(task, fresh, opening))
    last, parent = last_round(task.genesis, opening), task.parent.value if task.parent else None
    if parent and stops(task.genesis, parent.round, parent.best):
        raise ObjectionError(f"round: expected none behind round {parent.round}, where training ended early")
    _at_most(f"rounds of generation {task.generation}", last, task.genesis.training.most(task.generation))
    _at_most("round", task.round, last)


def check_served(task: Task, fresh: AdapterState) -> None:
    """Check that the served adapters include the organisation's own lane, of the round that its newest record serves.

    A sum of several lanes has no signed record: it is measured, never trained on. Raises as `check_state` does.
    """
    genesis, served = task.genesis, task.served
    if genesis.composition == "sum" and len(genesis.lanes) > 1:
        _equal("composition", served.kind, "sum")
        return
    if len(served.parts) > 1:
        _equal("composition", served.kind, genesis.composition)
    states, promised = [state.digest for state in served.states], _promised_state(task, fresh, _opening(task))
    if task.parent:
        promised = served_round(genesis, task.parent.value).sent
    if promised not in states:
        raise ObjectionError(f"state: expected {promised}, got {', '.join(states)}")


def check_weights(record: RoundRecord, genesis: Genesis) -> None:
    """Check that a record admits members only, with the weights that follow from their registered examples.

    Raises IntegrityError.
    """
    examples = genesis.examples
    members = [admitted.organisation for admitted in record.admitted]
    if strangers := [member for member in members if member not in examples]:
        raise ObjectionError(f"{record.key}: admits {strangers[0]}, which is no member")
    for manifest in (admitted.signed.value for admitted in record.admitted):
        if not 0 <= record.round - manifest.round <= genesis.staleness:
            raise ObjectionError(f"{record.key}: admits an update of {manifest.organisation} of round {manifest.round}")
    shares = genesis.weights(record.delays)
    for admitted in record.admitted:
        _equal(f"{record.key}: the weight of {admitted.organisation}", admitted.weight, shares[admitted.organisation])


def check_ledger(ledger: LedgerView, genesis: Genesis) -> None:
    """Check that a ledger is the federation's, and knows its members; raises IntegrityError."""
    _equal("ledger", ledger.domain, genesis.chain)
    if (account := ledger.coordinator(genesis.digest)) is not None:
        _equal("coordinator on the ledger", account, genesis.signing(genesis.coordinator))
    for rotation in (rotation for _, rotation in genesis.keys.rotations if rotation.by != rotation.old):
        if not ledger.administers(rotation.by):
            raise ObjectionError(f"rotation: expected an administrator of the contract, got {rotation.by}")
    members = ledger.members(genesis.digest)
    if members != {organisation.address for organisation in genesis.organisations}:
        raise ObjectionError(f"the ledger knows run {genesis.digest} with other members: {sorted(members)}")


def _promised_state(task: Task, fresh: AdapterState, opening: GenerationRecord | None) -> Digest:
    if task.parent is None:
        _equal("round without a parent record", task.round, 1)
        _equal("round that the generation grows from", opening.parent_round if opening else 0, 0)
        if origin := task.genesis.origin:
            return origin.state  # which is sent as it is
        return to_send(RULES[task.genesis.rule].initial(fresh), task.genesis.wire).state.digest
    record = task.parent.verified(task.genesis)
    _equal("parent's lane", record.lane, task.lane)
    if opening and record.round == opening.parent_round:
        _equal("parent's generation", record.generation, opening.parent_generation)
        _equal("parent of the generation", record.digest, opening.parent)
    else:
        _equal("parent's generation", record.generation, task.generation)
    _equal("parent's round", record.round, task.round - 1)
    return record.sent


def _opening(task: Task) -> GenerationRecord | None:
    """The record that opened the task's generation, None for the first."""
    _equal("generation", task.generation, len(task.openings))
    if not task.openings:
        return None
    opening = task.openings[-1].verified(task.genesis)
    _equal("opening's lane", opening.lane, task.lane)
    _equal("opening's generation", opening.generation, task.generation)
    return opening


def _at_most(what: str, got: int, most: int) -> None:
    if got > most:
        raise ObjectionError(f"{what}: expected at most {most}, got {got}")


def _equal(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise ObjectionError(f"{what}: expected {expected}, got {got}")
