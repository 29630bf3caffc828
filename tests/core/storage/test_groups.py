"""Groups: one key for many readers, the same for a writer that comes back, opened by its readers alone."""

from dataclasses import replace

import pytest

from core import keys
from core.errors import IntegrityError
from core.storage.groups import Group, key_of, label
from core.storage.sealing import Wraps

COORDINATOR = keys.derive(1, "coordinator")
READERS = [COORDINATOR, *(keys.derive(1, f"organisation {number}") for number in range(3))]
PUBLIC = tuple(reader.public for reader in READERS)
KEY = key_of(COORDINATOR, "11" * 32, PUBLIC)
WRAPS = Wraps.of(KEY.secret, label(KEY.address), PUBLIC)


def test_a_groups_key_follows_from_coordinator_federation_and_readers() -> None:
    assert key_of(COORDINATOR, "11" * 32, PUBLIC[::-1]) == KEY
    others = (
        key_of(READERS[1], "11" * 32, PUBLIC),
        key_of(COORDINATOR, "22" * 32, PUBLIC),
        key_of(COORDINATOR, "11" * 32, PUBLIC[1:]),
    )
    assert len({KEY.address, *(other.address for other in others)}) == 4


@pytest.mark.parametrize("reader", READERS)
def test_each_of_its_readers_opens_it_and_finds_that_all_can(reader: keys.Key) -> None:
    group = Group.opened(KEY.address, WRAPS, reader, PUBLIC)
    assert group.key.secret == KEY.secret
    assert group.readers == {reader.address for reader in READERS}


def test_a_stranger_does_not_open_it() -> None:
    with pytest.raises(IntegrityError, match="expected the key of a reader"):
        Group.opened(KEY.address, WRAPS, keys.derive(1, "stranger"), PUBLIC)


def test_the_key_of_another_group_in_its_place_is_found() -> None:
    other = key_of(COORDINATOR, "22" * 32, PUBLIC)
    wraps = Wraps.of(other.secret, label(KEY.address), PUBLIC)
    with pytest.raises(IntegrityError, match=f"expected its key, got that of {other.address}"):
        Group.opened(KEY.address, wraps, READERS[1], PUBLIC)


def test_a_wrap_that_does_not_open_and_one_for_a_stranger_are_found() -> None:
    broken = replace(WRAPS, wraps={**WRAPS.wraps, READERS[2].address: "00" * 48})
    with pytest.raises(IntegrityError, match=f"has a wrap for {READERS[2].address} that does not open"):
        _ = Group.opened(KEY.address, broken, READERS[1], PUBLIC).readers
    with pytest.raises(IntegrityError, match=f"has a wrap for {READERS[3].address} that does not open"):
        _ = Group.opened(KEY.address, WRAPS, READERS[1], PUBLIC[:-1]).readers
