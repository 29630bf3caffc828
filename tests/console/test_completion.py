"""Completion in shells: a real one where it is installed, and what each asks of the command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import foedus

SCRIPT = Path(sys.executable).parent / "foedus"
# How each shell hands over the words before the cursor.
ASKED = {
    "bash": {"COMP_WORDS": "foedus {words}", "COMP_CWORD": "{last}"},
    "zsh": {"_TYPER_COMPLETE_ARGS": "foedus {words}"},
    "fish": {"_TYPER_COMPLETE_ARGS": "foedus {words}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


def completed(shell: str, words: str, **environment: str) -> str:
    """What the command line answers to a shell."""
    asked = {name: value.format(words=words, last=len(words.split())) for name, value in ASKED[shell].items()}
    done = subprocess.run(
        [SCRIPT], env=os.environ | environment | asked | {"_FOEDUS_COMPLETE": f"complete_{shell}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("shell", ASKED)
def test_a_shell_is_told_commands_options_and_runs(shell: str, tmp_path: Path) -> None:
    (tmp_path / "runs" / "20260101-run").mkdir(parents=True)
    assert "export" in completed(shell, "exp")
    assert "verify" not in completed(shell, "exp")
    assert "--merge" in completed(shell, "export --me")
    assert "20260101-run" in completed(shell, "status 2026", FOEDUS_HOME=str(tmp_path))


@pytest.mark.parametrize("shell", ASKED)
def test_the_script_is_one_that_the_shell_parses(shell: str, tmp_path: Path) -> None:
    script = foedus("completion", shell).out
    assert "_FOEDUS_COMPLETE=complete_" + shell in script
    if program := shutil.which(shell):  # the others are checked where they are installed
        (file := tmp_path / "script").write_text(script, encoding="utf-8")
        assert subprocess.run([program, "-n", file], capture_output=True, check=True).stderr == b""


def test_bash_completes_a_command(tmp_path: Path) -> None:
    typed = 'eval "$(foedus completion bash)"; COMP_WORDS=(foedus exp); COMP_CWORD=1; _foedus_completion foedus'
    done = subprocess.run(
        ["bash", "--norc", "-c", f'{typed}; echo "${{COMPREPLY[@]}}"'],
        env=os.environ | {"PATH": f"{SCRIPT.parent}:{os.environ['PATH']}"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["export"]


def test_another_shell_is_refused() -> None:
    done = foedus("completion", "tcsh")
    assert (done.code, "'tcsh' is not one of" in done.error) == (2, True)
