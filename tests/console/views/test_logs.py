"""A log in JSON: one object a line, whoever wrote the line, and a file that is rotated."""

import json
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from console.views import logs
from console.views.logs import Structured

STARTED = "from console.views.logs import *; from pathlib import Path; import os, sys; "


def logged(code: str, expected: int = 0) -> list[str]:
    """What a process of its own has on stderr."""
    done = subprocess.run([sys.executable, "-c", STARTED + code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (expected, ""), done.stderr
    return done.stderr.splitlines()


def objects(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def test_whatever_a_process_and_its_children_write_is_an_object_a_line() -> None:
    code = (
        "start_log(LogFormat.json, part='node', organisation='medical'); print('ready', file=sys.stderr); "
        "os.system('echo INFO :      a child >&2'); raise SystemExit('foedus: expected a, got b')"
    )
    found = objects(logged(code, 1))
    assert [(o["level"], o["message"]) for o in found] == [
        ("info", "ready"), ("info", "a child"), ("error", "foedus: expected a, got b"),
    ]  # fmt: skip
    assert {(o["part"], o["organisation"]) for o in found} == {("node", "medical")}
    now = datetime.now(UTC)
    assert all(0 <= (now - datetime.fromisoformat(o["time"])).total_seconds() < 60 for o in found)


def test_text_without_a_file_is_left_as_it_is() -> None:
    assert logged("start_log(LogFormat.text); print('INFO: ready', file=sys.stderr)") == ["INFO: ready"]


def test_an_event_has_its_fields_and_foreign_text_cannot_pass_for_one() -> None:
    code = (
        "start_log(LogFormat.json, part='run'); tell('late', 'medical: late', 'warning', run='r', round=3, "
        'organisation=\'medical\'); print(\'{"level": "info", "event": "finished", "message": "x"}\', '
        "file=sys.stderr)"
    )
    event, foreign = objects(logged(code))
    assert {name: event[name] for name in ("level", "event", "run", "round", "organisation", "message")} == {
        "level": "warning", "event": "late", "run": "r", "round": 3, "organisation": "medical",
        "message": "medical: late",
    }  # fmt: skip
    assert "event" not in foreign
    assert foreign["message"].startswith('{"level"')


def test_an_event_without_a_log_is_not_written() -> None:
    assert logged("assert not tell('late', 'medical: late')") == []


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ("\x1b[92mINFO \x1b[0m:      Starting", "info", "Starting"),
        ("WARNING :   late", "warning", "late"),
        (
            '2026-11-29T15:51:53.354Z WARNING [uvicorn.access] "POST / HTTP/1.1" 500',
            "warning",
            '[uvicorn.access] "POST / HTTP/1.1" 500',
        ),
        ("ERROR:root:gone", "error", "root:gone"),
        ("2026/11/29 15:12:40 [emerg] 7#7: no port", "critical", "7#7: no port"),
        ("2026/11/29 15:12:40 [error] 7#7: refused", "error", "7#7: refused"),
        ("Information: none", "info", "Information: none"),
        ("a \x1b] bell", "info", "a �] bell"),
    ],
)
def test_a_line_has_the_level_that_its_program_gave_it(line: str, level: str, message: str) -> None:
    found = json.loads(Structured({})(line))
    assert (found["level"], found["message"]) == (level, message)


def test_a_traceback_is_an_error_to_its_last_line() -> None:
    structured = Structured({})
    lines = ["INFO: on", "Traceback (most recent call last):", '  File "a.py", line 1', "core.errors.RunError: x", "on"]
    assert [json.loads(structured(line))["level"] for line in lines] == ["info", "error", "error", "error", "info"]


def test_a_file_is_rotated_and_is_its_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "node.log"
    code = (
        f"import console.views.logs as l; l.MOST_BYTES = 1000; start_log(LogFormat.json, Path({str(path)!r})); "
        "[print('x' * 100, file=sys.stderr) for _ in range(100)]"
    )
    assert logged(code) == []
    names = sorted(found.name for found in path.parent.iterdir())
    assert names == ["node.log", *(f"node.log.{n}" for n in range(1, logs.MOST_FILES + 1))]
    for name in names:
        found = path.with_name(name)
        assert found.stat().st_size <= 1000
        assert stat.S_IMODE(found.stat().st_mode) == 0o600
        assert objects(found.read_text().splitlines())


def test_a_file_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "node.log"
    arguments = ["signer", str(tmp_path), "--log-file", str(path)]
    code = f"import console.cli as c; sys.exit(c.run_command({arguments}))"
    (tmp_path / "signer.toml").write_text(
        f'coordinator = "0x{"1" * 40}"\nchain-id = 1\ncontract = "0x{"2" * 40}"\n', encoding="utf-8"
    )
    (line,) = logged(code, 2)
    assert line.startswith(f"foedus: --log-file {path}: expected a file to write, got ")


def test_a_command_that_fails_says_so_as_an_object(tmp_path: Path) -> None:
    code = f"import console.cli as c; sys.exit(c.run_command(['node', {str(tmp_path)!r}, '--log-format', 'json']))"
    (tmp_path / "node.toml").write_text('organisation = "a"\nsuperlink = "b:1"\ndata = "c"\nsigner = "none.sock"\n')
    (found,) = objects(logged(code, 2))
    (tmp_path / "node.toml").unlink()
    (missing,) = objects(logged(code, 2))
    assert "node.toml: expected a settings file" in missing["message"]
    assert found["level"] == missing["level"] == "error"
    assert "is `foedus signer` up?" in found["message"]
    assert found["organisation"] == "a"


def test_a_run_writes_its_events_as_objects_and_nothing_else(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "foedus"
    options = ["--rounds", "1", "--base", "foedus-tiny", "--organisations", "2", "--backend", "inline"]
    sets = ("local-steps=1", "batch-size=1", "max-length=32", "rank=2", "evaluate-limit=1", "calibration=0")
    done = subprocess.run(
        [sys.executable, script, "run", *options, *(x for s in sets for x in ("--set", s)), "--chain", "embedded",
         "--quantisation", "none", "--state", tmp_path, "--log-format", "json", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = objects(done.stderr.splitlines())
    assert all({"time", "level", "message"} <= o.keys() for o in found)
    events = [o for o in found if "event" in o]
    assert {"round-started", "admitted", "round-closed", "evaluated", "finished"} <= {o["event"] for o in events}
    admitted = next(o for o in events if o["event"] == "admitted")
    assert admitted["run"] == json.loads(done.stdout)["run"]
    assert admitted["round"] == 1
    assert admitted["organisation"] in json.loads(done.stdout)["organisations"]
