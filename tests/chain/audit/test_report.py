"""What an audit notes, and in which order."""

import json

import pytest

from chain.audit.report import AuditReport, Failure, Findings, What
from core.errors import FormatError


def test_findings_keep_failures_in_order_and_count_what_was_checked() -> None:
    findings = Findings()
    findings.checked["records"] += 2
    assert findings.expect(What.RULE, "round 1", "svd", "svd")
    assert not findings.expect(What.WEIGHT, "round 1", 0.25, 0.5)
    findings.fail(What.GAP, "round 3", "round 3", "round 2")
    findings.recomputed, findings.attested = 1, 2
    report = findings.report()
    assert (report.checked, report.recomputed, report.attested, report.ok) == ({"records": 2}, 1, 2, False)
    assert [(f.what, f.got, f.want) for f in report.failures] == [
        ("weight", "0.25", "0.5"),
        ("missing round", "round 3", "round 2"),
    ]


@pytest.mark.parametrize("error", [FormatError("damaged"), FileNotFoundError("gone")])
def test_a_guard_turns_an_error_into_a_failure_and_goes_on(error: Exception) -> None:
    findings = Findings()
    with findings.guard(What.SALTS, "salts/1", "a salt"):
        raise error
    (failure,) = findings.report().failures
    assert failure == Failure("salts", "salts/1", str(error), "a salt")


def test_a_guard_lets_our_own_faults_through() -> None:
    with pytest.raises(ZeroDivisionError), Findings().guard(What.SALTS, "salts/1", "a salt"):
        _ = 1 / 0


def test_a_report_does_not_change_with_later_findings() -> None:
    findings = Findings()
    report = findings.report()
    findings.fail(What.GAP, "round 3", "round 3", "round 2")
    findings.checked["records"] += 1
    assert (report.ok, report.checked) == (True, {})


def test_a_failure_says_where_what_was_expected_and_what_was_got() -> None:
    assert str(Failure("weight", "round 1, lane 0", "0.25", "0.5")) == (
        "weight at round 1, lane 0: expected 0.5, got 0.25"
    )


def test_a_report_is_plain_data() -> None:
    report = AuditReport({"records": 1}, 1, 0, (Failure("weight", "round 1", "0.25", "0.5"),))
    assert json.loads(json.dumps(report.to_dict())) == {
        "ok": False,
        "checked": {"records": 1},
        "recomputed": 1,
        "attested": 0,
        "failures": [{"what": "weight", "where": "round 1", "got": "0.25", "want": "0.5"}],
    }


def test_every_kind_of_failure_has_words_of_its_own() -> None:
    assert len({what.value for what in What}) == len(What)
    assert not any("want" in what.value for what in What)
