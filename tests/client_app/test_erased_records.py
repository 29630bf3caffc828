"""An organisation that erases records: who may ask which it holds, and what it trains on afterwards."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict

from agents.agent import Prices
from client_app import app as application
from client_app.agency import Agency
from client_app.erased_records import ErasedRecords
from client_app.hosting import Host, Node
from client_app.oversight import Oversight
from console.backends.inline import InlineGrid
from core import seeds
from core.canonical import Digest
from core.erasures import ErasureRequest, hidden
from core.errors import FormatError, IntegrityError
from core.genesis import Genesis
from core.messages import queries
from core.messages.queries import RecordsAnswer, RecordsQuery
from core.messages.refusal import Refusal, Refused
from core.storage.state_folder import State
from llm.records import OrganisationData, Record
from tests import erasures as e
from tests import federation as f

NAME, KEY = "medical", f.key("medical")
RECORDS = tuple(Record((), f"answer {number}") for number in range(f.EXAMPLES[NAME] - 1))
TRAIN = (*RECORDS, RECORDS[0])
"""As many as it registered; one of them twice."""
GENESIS = f.genesis(lanes=tuple((member.address,) for member in f.members() for _ in range(2)))
NONCE = f.other("nonce")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """The organisation medical at home, which answers `replied`."""
    state = State(tmp_path)
    host = Host(KEY, OrganisationData(NAME, TRAIN, ()))
    agency = Agency(state, 0.0, Prices(0.0, 0.0), 1.0)
    node = Node({KEY.address: host}, 1, Oversight("", state, 1, "flag"), agency, "foedus-tiny")
    monkeypatch.setattr(application, "node_of", lambda _context: node)
    return node


def host(node: Node) -> Host:
    return node.host(KEY.address)


def query(*records: Record, forget: bool, genesis: Genesis = GENESIS, **changes: Any) -> RecordsQuery:
    digests = tuple(sorted({record.digest for record in records}))
    plain = ErasureRequest(
        genesis.digest,
        KEY.address,
        "shards",
        (0,),
        hidden(KEY.salt_for(NONCE), digests),
        len(digests),
        "a test",
        e.DAY,
        NONCE,
    )
    return replace(RecordsQuery(genesis, plain.sign(KEY, genesis.chain), digests, forget), **changes)


def replied(asked: RecordsQuery) -> RecordDict:
    grid = InlineGrid(application.app, 1, {})
    (reply,) = grid.send_and_receive([Message(asked.to_content(), 1, queries.RECORDS)])
    return reply.content


def answered(asked: RecordsQuery) -> tuple[set[Digest], set[Digest]]:
    found = RecordsAnswer.from_content(replied(asked), 10)
    return set(found.held), set(found.forgotten)


def test_it_says_which_it_trains_on_and_forgets_when_told(home: Node) -> None:
    one, two, other = RECORDS[0], RECORDS[1], Record((), "of nobody")
    asked = query(one, two, other, forget=False)
    assert answered(asked) == ({one.digest, two.digest}, set())
    assert home.erased_records(host(home), GENESIS).counts() == {}
    for _ in range(2):  # once more changes nothing
        assert answered(replace(asked, forget=True)) == (set(), {one.digest, two.digest})
    assert answered(asked) == (set(), {one.digest, two.digest})
    assert home.erased_records(host(home), GENESIS).counts() == {one.digest: 2, two.digest: 1}


def test_an_update_that_waits_and_was_trained_on_what_is_forgotten_goes_once(home: Node) -> None:
    """Also of an organisation that never let one go, of which nobody else has anything to delete."""
    kept, update, asked = (
        home.held_updates(host(home), GENESIS),
        f.update_of(GENESIS, NAME),
        query(*RECORDS[:2], forget=True),
    )
    made = [replace(f.manifest(GENESIS), lane=lane, update=update.digest) for lane in (0, 1)]
    for manifest in made:
        kept.keep(manifest, update)
    replied(replace(asked, forget=False))
    assert all(kept.of(manifest.key, manifest.parent) for manifest in made)
    replied(asked)
    assert [bool(kept.of(manifest.key, manifest.parent)) for manifest in made] == [False, True]
    kept.keep(made[0], update)  # trained without them
    replied(asked)
    assert kept.of(made[0].key, made[0].parent)


def test_what_is_forgotten_is_trained_on_no_more_and_nothing_else_moves(home: Node) -> None:
    first, second = GENESIS.lanes_of(KEY.address)
    before = {lane: home.records(host(home), GENESIS, lane) for lane in (first, second)}
    assert sorted([*before[first], *before[second]], key=repr) == sorted(TRAIN, key=repr)
    assert all(seeds.shard_of(record.digest, 2) == 1 for record in before[second])
    gone = before[second][3]
    replied(query(gone, forget=True))
    assert home.records(host(home), GENESIS, first) == before[first]
    left = tuple(record for record in before[second] if record != gone)
    assert home.records(host(home), GENESIS, second) == left
    with pytest.raises(IntegrityError, match=f"expected lane {first} or {second}, got 99"):
        home.records(host(home), GENESIS, 99)


def test_it_is_forgotten_by_this_federation_only(home: Node) -> None:
    other = f.genesis(seed=8)
    replied(query(RECORDS[0], forget=True))
    assert home.records(host(home), other, 0) == TRAIN


def test_it_stays_who_it_registered_as_with_or_without_the_records_in_its_files(home: Node) -> None:
    replied(query(RECORDS[0], RECORDS[5], forget=True))
    assert home.member(host(home), GENESIS) == GENESIS.organisation(KEY.address)
    kept = tuple(record for record in TRAIN if record not in (RECORDS[0], RECORDS[5]))
    cleaned = replace(host(home), data=OrganisationData(NAME, kept, ()))
    assert home.member(cleaned, GENESIS) == GENESIS.organisation(KEY.address)
    assert len(cleaned.data.train) == f.EXAMPLES[NAME] - 3


OTHER = f.genesis(seed=8)
REFUSED = {
    "signed by another": query(
        RECORDS[0],
        forget=True,
        request=replace(query(RECORDS[0], forget=True).request.value).sign(f.key("coding"), GENESIS.chain),
    ),
    "about other records": replace(query(RECORDS[0], forget=True), records=(RECORDS[1].digest,)),
    "about fewer records": replace(query(RECORDS[0], RECORDS[1], forget=True), records=(RECORDS[0].digest,)),
    "of another federation": replace(query(RECORDS[0], forget=True), genesis=OTHER),
    "of a federation with other members": query(
        RECORDS[0],
        forget=True,
        genesis=f.genesis(organisations=tuple(replace(m, examples=m.examples + 1) for m in f.members())),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_nobody_but_itself_learns_what_it_holds(home: Node, kind: str) -> None:
    refusal = Refusal.from_content(replied(REFUSED[kind]))
    assert refusal is not None
    assert refusal.reason is Refused.OBJECTED
    assert home.erased_records(host(home), GENESIS).counts() == {}


@pytest.mark.parametrize("data", [b"[]", b'{"0x":1}', b"{", b'{"' + RECORDS[0].digest.encode() + b'":0}'])
def test_a_damaged_note_is_told(tmp_path: Path, data: bytes) -> None:
    (path := tmp_path / "note.json").write_bytes(data)
    with pytest.raises(FormatError):
        ErasedRecords(path).counts()
