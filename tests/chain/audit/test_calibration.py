"""The audit of a calibration: who signed it, for what, and whose records it names."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chain.audit.report import AuditReport, What
from chain.audit.run import verify
from core.calibration import Calibration, CalibrationRecord, in_order
from core.composition import compose
from core.keys import derive
from core.signed import Signed
from core.storage.run_folder import CALIBRATION
from tests.behaviours.ledger import some_digest
from tests.behaviours.runs import COORDINATOR, Federation, advance, build, found


def calibration(federation: Federation) -> Calibration:
    """One of what the federation serves now."""
    served = compose(federation.genesis, [(lane.members, lane.state) for lane in federation.lanes]).digest
    members = {member for lane in federation.lanes for member in lane.members}
    records = in_order(CalibrationRecord(member, some_digest()) for member in members)
    return Calibration(federation.genesis.digest, served, "gradient", 0.4, 0.4, 50.0, 0.02, records)


def calibrated(
    federation: Federation, change: Callable[[Calibration], Calibration] = lambda plain: plain
) -> AuditReport:
    federation.run.calibrate(change(calibration(federation)).sign(COORDINATOR, federation.genesis.chain))
    return verify(federation.run, federation.ledger)


def kinds(report: AuditReport) -> list[tuple[str, str]]:
    return [(failure.what, failure.where) for failure in report.failures]


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "run", rounds=2, organisations=3)


def test_a_run_holds_with_a_calibration_and_with_another_in_its_place(federation: Federation) -> None:
    report = calibrated(federation)
    assert report.failures == ()
    assert report.checked["calibrations"] == 1
    assert calibrated(federation, lambda plain: replace(plain, noise=0.5)).ok


@pytest.mark.parametrize("composition", ["sum", "ensemble"])
def test_a_calibration_of_several_lanes_holds(tmp_path: Path, composition: str) -> None:
    made = build(tmp_path / "run", rounds=2, organisations=3, lanes=3, composition=composition)
    assert calibrated(made).failures == ()
    made.fork(0, 0, made.names(0)[0])
    assert made.run.calibration is None
    assert CALIBRATION not in {failure.where for failure in calibrated(made).failures}


def test_a_calibration_of_an_earlier_round_holds_when_a_run_goes_on(tmp_path: Path) -> None:
    federation = found(tmp_path / "run", rounds=2)
    advance(federation, 1)
    assert calibrated(federation).ok
    advance(federation, 2)
    assert verify(federation.run, federation.ledger).ok


LIES: dict[str, Callable[[Calibration], Calibration]] = {
    "what was never served": lambda plain: replace(plain, aggregate=some_digest()),
    "another federation": lambda plain: replace(plain, genesis=some_digest()),
    "a stranger's record": lambda plain: replace(
        plain, records=(CalibrationRecord(derive(7, "stranger").address, some_digest()),)
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_calibration_that_was_signed_for_something_else_is_found(federation: Federation, lie: str) -> None:
    assert kinds(calibrated(federation, LIES[lie])) == [(What.CALIBRATION, CALIBRATION)]


def test_a_calibration_that_a_member_signed_is_found(federation: Federation) -> None:
    federation.run.calibrate(calibration(federation).sign(federation.members["coding"], federation.genesis.chain))
    assert kinds(verify(federation.run, federation.ledger)) == [(What.CALIBRATION, CALIBRATION)]


def test_a_changed_calibration_is_found(federation: Federation) -> None:
    calibrated(federation)
    path = federation.run.folder / CALIBRATION
    path.write_bytes(path.read_bytes().replace(b'"noise":0.4', b'"noise":0.9'))
    assert (What.CALIBRATION, CALIBRATION) in kinds(verify(federation.run, federation.ledger))


def test_a_calibration_in_another_form_is_found(federation: Federation) -> None:
    calibrated(federation)
    path = federation.run.folder / CALIBRATION
    path.write_bytes(path.read_bytes() + b"\n")
    assert (What.CALIBRATION, CALIBRATION) in kinds(verify(federation.run, federation.ledger))


def test_a_calibration_of_another_run_is_found(federation: Federation, tmp_path: Path) -> None:
    other = build(tmp_path / "other", rounds=2, organisations=3)
    calibrated(other)
    (federation.run.folder / CALIBRATION).write_bytes((other.run.folder / CALIBRATION).read_bytes())
    assert (What.CALIBRATION, CALIBRATION) in kinds(verify(federation.run, federation.ledger))


def test_a_second_calibration_is_a_file_that_nothing_asks_for(federation: Federation) -> None:
    calibrated(federation)
    data = (federation.run.folder / CALIBRATION).read_bytes()
    (federation.run.folder / "calibration-2.json").write_bytes(data)
    assert kinds(verify(federation.run, federation.ledger)) == [(What.UNEXPECTED_FILE, "calibration-2.json")]


def test_a_record_of_an_erased_organisation_is_found(federation: Federation) -> None:
    before = calibration(federation)
    federation.fork(0, 1, "coding")
    kept = calibration(federation).aggregate  # that of round 1, where the new generation begins
    signed = replace(before, aggregate=kept).sign(COORDINATOR, federation.genesis.chain)
    federation.run.calibrate(signed)
    (failure,) = (x for x in verify(federation.run, federation.ledger).failures if x.what == What.CALIBRATION)
    assert "no member any more" in failure.got
    assert isinstance(federation.run.calibration, Signed)
