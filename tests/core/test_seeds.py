"""Randomness that depends on nobody else."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from core import seeds
from core.canonical import Address
from tests import federation as f

SEEDS = st.integers(0, 2**53 - 1)
MEDICAL, CODING = f.address("medical"), f.address("coding")


def test_a_seed_is_sha256_of_who_and_when() -> None:
    parts = b"foedus/seed/v1\x007\x00" + MEDICAL.lower().encode() + b"\x003"
    assert seeds.local(7, MEDICAL, 3) == hashlib.sha256(parts).digest()


def test_seeds_differ_by_federation_organisation_round_and_purpose() -> None:
    drawn = [seeds.local(s, a, r) for s in (1, 2) for a in (MEDICAL, CODING) for r in (1, 2)]
    drawn += [seeds.shared(1), seeds.shared(2)]
    assert len(set(drawn)) == len(drawn)


def test_every_shard_has_seeds_of_its_own_and_the_first_has_those_of_an_organisation_without_shards() -> None:
    drawn = [seeds.local(7, MEDICAL, 3, part) for part in range(4)]
    assert len({*drawn, *(seeds.local(7, MEDICAL, number) for number in (4, 5))}) == 6
    assert drawn[0] == seeds.local(7, MEDICAL, 3)
    parts = b"foedus/seed/v1\x007\x00" + MEDICAL.lower().encode() + b"\x003\x00shard-2"
    assert drawn[2] == hashlib.sha256(parts).digest()


def test_shards_are_even_and_known_by_content() -> None:
    records = [f.other(f"{number}") for number in range(4000)]
    shards = [seeds.shard_of(record, 4) for record in records]
    assert set(shards) == {0, 1, 2, 3}
    assert all(abs(shards.count(part) / 4000 - 0.25) < 0.03 for part in range(4))
    hashed = hashlib.sha256(b"foedus/shard/v1\0" + bytes.fromhex(records[0][2:])).digest()
    assert shards[0] == int.from_bytes(hashed[:8], "big") % 4
    assert {seeds.shard_of(record, 1) for record in records} == {0}


def test_the_spelling_of_an_address_does_not_matter() -> None:
    lower = Address(MEDICAL.lower())
    assert seeds.local(1, lower, 1) == seeds.local(1, MEDICAL, 1)
    assert seeds.ticket(1, lower, 1) == seeds.ticket(1, MEDICAL, 1)


@given(SEEDS, st.integers(1, 10**6))
def test_a_ticket_is_a_share(seed: int, number: int) -> None:
    assert 0 <= seeds.ticket(seed, MEDICAL, number) < 1


def test_tickets_are_even() -> None:
    drawn = [seeds.ticket(1, MEDICAL, number) for number in range(4000)]
    assert abs(sum(t < 0.25 for t in drawn) / 4000 - 0.25) < 0.03
    assert abs(sum(drawn) / 4000 - 0.5) < 0.02


@given(st.binary(min_size=32, max_size=32))
def test_a_seed_as_an_integer_fits_63_bits(seed: bytes) -> None:
    assert 0 <= seeds.as_int(seed) < 2**53
