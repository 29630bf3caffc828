"""Who may read: the keys behind a genesis's addresses, in its order."""

from dataclasses import replace
from typing import Any

import pytest

from core.canonical import from_json, to_json
from core.errors import FormatError, IntegrityError
from core.keys import derive
from core.storage.readers import Readers
from tests import federation as f

AUDITOR, STRANGER = derive(1, "auditor"), derive(1, "stranger")
GENESIS = f.genesis(auditors=(AUDITOR.address,))
READERS = replace(f.readers(GENESIS), auditors=(AUDITOR.public,))


def test_what_is_stored_is_for_coordinator_members_and_auditors() -> None:
    members = tuple(f.key(member.name).public for member in GENESIS.organisations)
    assert READERS.of() == (f.COORDINATOR.public, *members, AUDITOR.public)
    assert READERS.of([f.address("coding")]) == (f.COORDINATOR.public, f.key("coding").public, AUDITOR.public)
    assert READERS.of([]) == (f.COORDINATOR.public, AUDITOR.public)


def test_nobody_is_named_twice() -> None:
    both = replace(READERS, coordinator=f.key("coding").public, auditors=(f.key("coding").public,))
    assert both.of([f.address("coding")]) == (f.key("coding").public,)


def test_readers_come_back_from_their_canonical_json() -> None:
    assert Readers.from_dict(from_json(to_json(READERS.to_dict()))) == READERS


def test_the_readers_of_a_genesis_are_its_own() -> None:
    READERS.check(GENESIS)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (replace(READERS, auditors=()), AUDITOR.address),
        (replace(READERS, organisations=READERS.organisations[:-1]), GENESIS.organisations[-1].address),
        (replace(READERS, auditors=(AUDITOR.public, STRANGER.public)), STRANGER.address),
        (replace(READERS, coordinator=STRANGER.public), f"{STRANGER.address}|{f.COORDINATOR.address}"),
        (replace(READERS, organisations=READERS.organisations[::-1]), "order"),
    ],
)
def test_other_readers_are_refused(changed: Readers, named: str) -> None:
    with pytest.raises(IntegrityError, match=named):
        changed.check(GENESIS)


@pytest.mark.parametrize(
    "changes",
    [
        {"coordinator": f.COORDINATOR.address},
        {"coordinator": None},
        {"organisations": [f.COORDINATOR.address]},
        {"organisations": 5},
        {"auditors": None},
        {"more": []},
    ],
)
def test_malformed_readers_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        Readers.from_dict(READERS.to_dict() | changes)
