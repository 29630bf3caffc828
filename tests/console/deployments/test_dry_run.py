"""The answers of a dry run, and who did not answer."""

from pathlib import Path

from console.deployments.dry_run import SILENT, tried
from core.storage.events import EventLog


def test_whoever_was_admitted_and_did_not_answer_is_named_last(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write("step", doing="waiting")
    log.write(
        "checked", organisation="0x1", name="medical", seconds=9.0, memory=1, problems=["of a ServerApp that was lost"]
    )
    log.write("step", doing="waiting")
    log.write("checked", organisation="0x1", name="medical", seconds=1.23456, memory=2**30, problems=[])
    log.write("checked", organisation=None, name=None, seconds=0.0, memory=0, problems=["app: expected another"])
    log.write("finished")
    assert [node.to_dict() for node in tried(log.path, ["medical", "financial", "coding"])] == [
        {"organisation": "medical", "ok": True, "seconds": 1.235, "memory": 2**30, "problems": []},
        {"organisation": None, "ok": False, "seconds": 0.0, "memory": 0, "problems": ["app: expected another"]},
        {"organisation": "coding", "ok": False, "seconds": 0.0, "memory": 0, "problems": [SILENT]},
        {"organisation": "financial", "ok": False, "seconds": 0.0, "memory": 0, "problems": [SILENT]},
    ]
