"""Every command in README and on the pages to start with is executed, page by page, as a reader would.

Quick: `foedus` in this process, on a tiny base, with two organisations and one step; `make` as a dry run; Flower's
scripts are parsed; everything else in a shell. Slow: one shell executes a page to the letter. What needs a second
machine or Docker is parsed in both.
"""

import io
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from itertools import dropwhile, pairwise
from pathlib import Path

import pytest
import typer.main

from console.backends.children import free_port
from console.cli import app
from tests.commands import Done, foedus
from tests.docs.blocks import DOCUMENTS, PAGES, ROOT, Command, commands
from tests.docs.reader import Reader

ELSEWHERE = {
    ("several-machines.md", "On several machines"): "needs certificates and a second machine",
    ("gpu.md", "In a container"): "needs Docker",
    ("your-data.md", "Thousands of organisations"): "needs a data set of as many rows; benchmarks/scale.py runs it",
    ("gpu.md", "What it brings on your GPU"): "tests/benchmarks/test_gpu.py runs it in its smallest form",
}
"""Sections whose commands are only parsed, and why; tests/integration/test_deployment.py runs real SuperNodes."""
SLOW = {("several-machines.md", "Start the parts"): "needs Flower's processes, and what they leave"}
"""Sections whose commands are only parsed in the quick test, and why."""
FLOWER = ("flwr", "flower-superlink", "flower-supernode")
_QUICK = {"rounds": 2, "local-steps": 1, "local-epochs": 0, "batch-size": 1, "max-length": 32}
_QUICK |= {"rank": 2, "evaluate-limit": 1, "calibration": 1, "gradient-checkpointing": "false"}


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader.in_folder(tmp_path)


@pytest.mark.chain
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_works(page: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reader.checkout)
    monkeypatch.setenv("HOME", str(reader.home))
    monkeypatch.setenv("COLUMNS", "100")
    try:
        for command in commands(page):
            done = _execute(command, page, reader, monkeypatch)
            assert done.code == 0, f"{command.text}\n{done.out}{done.err}"
            printed = _plain(done.out + done.err)
            assert not [label for label in _labels(command.output) if label not in printed], (
                f"{command.text}\n{printed}"
            )
    finally:
        foedus("chain", "stop", "--json")


def _execute(command: Command, page: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Done:
    """A command in its quick form."""
    text = reader.local(command.text)
    typed, _, last = text.rpartition(" | ")
    words = shlex.split(last.replace("\\\n", " "))
    if (page.name, command.heading) in ELSEWHERE | SLOW or words[0] in FLOWER:
        return _parsed(words)
    if words[0] == "source":
        return Done(0, "", "")  # a reader's own shell; the commands here find their scripts anyhow
    if words[0] == "make":
        planned = reader.shell(shlex.join([*words, "--dry-run"]))
        return foedus("run", *_quick(["run"], reader)) if words[1] == "run" and planned.code == 0 else planned
    if words[0] != "foedus":
        return reader.shell(text)
    if typed:
        monkeypatch.setattr("sys.stdin", io.StringIO(reader.shell(typed).out))
    arguments = [found for word in words[1:] for found in _expanded(word)]
    return foedus(*arguments, *_quick(arguments, reader))


def _expanded(word: str) -> list[str]:
    """What a shell makes of a word: a pattern becomes the files that match, a ~ the home."""
    return sorted(str(path) for path in Path().glob(word)) if "*" in word else [str(Path(word).expanduser())]


def _quick(arguments: list[str], reader: Reader) -> list[str]:
    """The options that make a command quick."""
    few = {"organisations": 2} if "--data" in arguments else {}  # the samples' four are asked for by name
    settings = [word for name, value in (_QUICK | few).items() for word in ("--set", f"{name}={value}")]
    tiny = [] if "--base" in arguments else ["--base", reader.tiny_base, "--set", "quantisation=none"]
    return {"run": ["--backend", "inline", *tiny, *settings], "forget": ["--backend", "inline"]}.get(arguments[0], [])


def _parsed(words: list[str]) -> Done:
    """Check a program's long options, or the files that it names, without executing it."""
    program, *rest = dropwhile(lambda word: re.match("[A-Z_]+=", word), words)
    if program in FLOWER:
        subcommand = rest[: 2 if rest[0] == "supernode" else 1] if program == "flwr" else []
        help_text = _help(program, *subcommand)
        unknown = [word for word in rest if word.startswith("--") and word not in help_text]
        return Done(len(unknown), "", f"{program} knows no {unknown}")
    assert program in (
        "foedus",
        "docker",
        "ssh-keygen",
        "until",
        "benchmarks/gpu.sh",
    )  # options of foedus: the last test of this file
    missing = [word for word in rest if word.startswith(("conf/", "docker/")) and not (ROOT / word).exists()]
    return Done(len(missing), "", f"no such files: {missing}")


@cache
def _help(program: str, *subcommand: str) -> str:
    script = Path(sys.executable).parent / program
    wide = {**os.environ, "COLUMNS": "200", "TERM": "dumb"}  # so that no option's name is broken or coloured
    done = subprocess.run([script, *subcommand, "--help"], capture_output=True, text=True, check=True, env=wide)
    return done.stdout


def _labels(output: tuple[str, ...]) -> list[str]:
    """What is the same whatever a run computes: lines without figures or lists, and the first words of the others.

    A line above a row of organisations' letters and the base's dots is what a model said.
    """
    said = {line for line, below in pairwise(output) if re.fullmatch("[A-Za-z]*·[A-Za-z·]*", below)}
    lines = [_plain(line) for line in output if "…" not in line and line not in said]
    whole = [line for line in lines if line and not re.search(r"[\d█·,]", line)]
    return whole + [line.split()[0] for line in lines if re.match(r"[A-Z][a-z]+ .*[\d,]", line)]


def _plain(text: str) -> str:
    """Text with single spaces and without rules: columns are as wide as what stands in them."""
    return "\n".join(" ".join(re.sub("[━─┏┳┓┡╇┩└┴┘]", "", line).split()) for line in text.splitlines())


@pytest.mark.slow
@pytest.mark.chain
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_works_as_it_is_written(page: Path, reader: Reader) -> None:
    script = [reader.local(c.text) for c in commands(page) if (page.name, c.heading) not in ELSEWHERE]
    text = "\n".join(script).replace("127.0.0.1:8000", f"127.0.0.1:{(port := free_port())}")
    text = text.replace("flower-superlink ", f"flower-superlink --port {port} ")
    here = (
        "make --old-file=.venv/.installed --old-file=.venv/.developed "  # the environment is there: it is not made anew
    )
    text = re.sub(r"^make ", here, text, flags=re.MULTILINE)
    ports = ("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT", "FLWR_LOCAL_CONTROL_API_PORT")
    try:
        done = reader.shell(text, **{name: str(free_port()) for name in ports})
        assert done.code == 0, done.out[-4000:]
    finally:
        reader.end_processes()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_of_foedus_that_a_document_names_exists(path: Path) -> None:
    for command in commands(path):
        words = [] if "<<" in command.text else shlex.split(command.text.replace("\\\n", " "), comments=True)
        if "foedus" not in words[:1]:
            continue
        found, rest = typer.main.get_command(app), words[1:]
        while inner := getattr(found, "commands", {}):
            assert set(rest[:1]) & set(inner), f"foedus has no such command: {command.text}"
            found, rest = inner[rest[0]], rest[1:]
        known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
        assert not [word for word in rest if word.startswith("--") and word not in known], command.text
