"""RoundKey: where a round stands, in order, as a file name, and within a signature."""

import pytest

from core.canonical import Digest
from core.errors import FormatError
from core.round_key import FIELDS, RoundKey

GENESIS = Digest("0x" + "ab" * 32)
KEY = RoundKey(GENESIS, 2, 1, 34)


def test_keys_are_in_order_of_lane_generation_and_round() -> None:
    mixed = [RoundKey(GENESIS, *place) for place in ((1, 0, 1), (0, 1, 1), (0, 0, 2), (0, 0, 1))]
    assert sorted(mixed) == mixed[::-1]


def test_file_names_sort_as_their_keys_do() -> None:
    assert KEY.file_name == "L0002-G0001-R00034"
    keys = [RoundKey(GENESIS, 0, 0, number) for number in (1, 9, 10, 99_999)]
    assert sorted(key.file_name for key in keys) == [key.file_name for key in keys]


def test_people_read_it_in_words() -> None:
    assert str(KEY) == "round 34 of lane 2, generation 1"


def test_its_part_of_a_signature_has_the_fields_that_are_declared() -> None:
    assert KEY.message() == {"genesis": b"\xab" * 32, "lane": 2, "generation": 1, "round": 34}
    assert list(KEY.message()) == [name for name, _ in FIELDS]
    with pytest.raises(FormatError):
        RoundKey(Digest("0x12"), 0, 0, 1).message()
