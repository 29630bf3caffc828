"""Calibrations: one form, one digest, one signer; sizes and numbers have bounds."""

from dataclasses import replace
from typing import Any

import pytest

from core.calibration import MOST_RECORDS, Calibration, CalibrationRecord, in_order, verified_calibration
from core.canonical import from_json, to_json
from core.errors import ForgeryError, FormatError, IntegrityError
from core.signed import Signed
from tests import federation as f

GENESIS = f.genesis()
MEMBERS = [organisation.address for organisation in GENESIS.organisations]
RECORDS = in_order(CalibrationRecord(member, f.other(name)) for member in MEMBERS for name in ("one", "two"))
CALIBRATION = Calibration(GENESIS.digest, f.other("served"), "gradient", 0.5, 0.25, 40.0, 0.1, RECORDS)
SIGNED = CALIBRATION.sign(f.COORDINATOR, GENESIS.chain)


def test_a_calibration_is_read_back_as_it_was_written() -> None:
    assert Signed.parse(Calibration, from_json(to_json(SIGNED.to_dict()))) == SIGNED
    assert verified_calibration(SIGNED, GENESIS) == CALIBRATION


CHANGES: dict[str, Any] = {
    "genesis": f.other("genesis"),
    "aggregate": f.other("another"),
    "method": "ablation",
    "noise": 0.6,
    "score": 0.0,
    "familiarity": 41.0,
    "certainty": 0.2,
    "records": RECORDS[1:],
}


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_of_a_calibration_is_signed_and_in_the_digest(field: str) -> None:
    assert set(CHANGES) == set(CALIBRATION.to_dict())
    changed = replace(CALIBRATION, **{field: CHANGES[field]})
    assert changed.digest != CALIBRATION.digest
    with pytest.raises(ForgeryError):
        verified_calibration(Signed(changed, SIGNED.signatures), GENESIS)


def plain(*records: CalibrationRecord) -> list[dict[str, str]]:
    return [record._asdict() for record in records]


@pytest.mark.parametrize(
    "changes",
    [
        {"noise": -0.1},
        {"score": 1e7},
        {"familiarity": "50"},
        {"certainty": 1.1},
        {"method": ""},
        {"method": "m" * 33},
        {"aggregate": "0x"},
        {"records": []},
        {"records": "all"},
        {"records": ["one"]},
        {"records": [{"organisation": MEMBERS[0]}]},
        {"records": [{"organisation": "me", "record": f.other("one")}]},
        {"records": [{"organisation": MEMBERS[0], "record": "0x12"}]},
        {"records": plain(*RECORDS, RECORDS[0])},
        {"records": plain(*reversed(RECORDS))},
        {"records": plain(RECORDS[0]) * (MOST_RECORDS + 1)},
        {"x": 1},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_a_malformed_calibration_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        Calibration.from_dict(CALIBRATION.to_dict() | changes)


def test_a_calibration_by_another_is_refused() -> None:
    with pytest.raises(ForgeryError, match="expected the signature of"):
        verified_calibration(CALIBRATION.sign(f.key("medical"), GENESIS.chain), GENESIS)


def test_a_record_of_no_member_is_refused() -> None:
    stranger = replace(CALIBRATION, records=(CalibrationRecord(f.key("stranger").address, f.other("one")),))
    with pytest.raises(IntegrityError, match="expected records of members"):
        verified_calibration(stranger.sign(f.COORDINATOR, GENESIS.chain), GENESIS)
