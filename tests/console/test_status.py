"""`foedus status`: every field that scripts rely on, and tables for people."""

import pytest

from tests.commands import ORGANISATIONS, World

pytestmark = pytest.mark.chain


def test_a_run_reports_every_field_that_scripts_rely_on(finished: World) -> None:
    result = finished.command("status").json
    assert result["status"] == "completed"
    assert set(result["organisations"]) == set(ORGANISATIONS)
    assert set(result["base_loss"]) == set(result["final_loss"]) == set(ORGANISATIONS)
    assert [entry["round"] for entry in result["rounds"]] == [1, 2]
    for entry in result["rounds"]:
        assert {"round", "admitted", "rejected", "aggregate", "transaction", "loss"} <= set(entry)
        assert sorted(entry["admitted"]) == list(ORGANISATIONS)
        assert entry["transaction"].startswith("0x")
        assert set(entry["records"]) == set(ORGANISATIONS)
        for records in entry["records"].values():
            assert 0 < records["used"] <= records["read"] <= records["registered"]
