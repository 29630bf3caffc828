"""The command line on a world small enough to run it often: a random base model and a dozen records each."""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama import LlamaConfig

from console.cli import run_command
from tests.llm.conftest import byte_tokenizer
from tests.schemas import check_printed
from tests.waiting import PATIENCE_SECONDS

ORGANISATIONS = ("coding", "financial", "medical")

_SETTINGS = {"local-steps": 2, "batch-size": 2, "max-length": 64, "rank": 4, "alpha": 8.0, "evaluate-limit": 4}
_SETTINGS |= {"calibration": 1, "sample-answers": 1}


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Its one JSON object; anything else on stdout is an error."""
        assert self.code in (0, 1), self.err
        result: dict[str, Any] = json.loads(self.out)
        return result

    @property
    def error(self) -> str:
        """The one line that it failed with."""
        lines = [line for line in self.err.splitlines() if line.startswith("foedus: ")]
        assert len(lines) == 1, self.err
        assert not self.out
        assert "Traceback" not in self.err
        return lines[0].removeprefix("foedus: ")


def foedus(*arguments: object) -> Done:
    """Run a command in this process."""
    words, out, err = [str(argument) for argument in arguments], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(words)
    check_printed(words, out.getvalue())
    return Done(code, out.getvalue(), err.getvalue())


def started(*arguments: object, **environment: str) -> "subprocess.Popen[str]":
    """Start a command as a process of its own."""
    script = Path(sys.executable).parent / "foedus"
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: "subprocess.Popen[str]") -> Done:
    """Wait for a command."""
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    check_printed(process.args[2:], out)
    return Done(process.returncode, out, err)


@dataclass(frozen=True)
class World:
    """Folders of a base model, of data, and of a state."""

    base: Path
    data: Path
    state: Path

    def run(self, *options: object, rounds: int = 1) -> tuple[object, ...]:
        """The arguments of a run that takes a second in one process."""
        settings = [word for name, value in _SETTINGS.items() for word in ("--set", f"{name}={value}")]
        places = ("--base", self.base, "--quantisation", "none", "--data", self.data, "--state", self.state)
        return ("run", *places, "--rounds", rounds, "--participation", "all", *settings, "--json", *options)

    def inline(self, *options: object, rounds: int = 1) -> Done:
        """Run a federation in this process."""
        return foedus(*self.run("--backend", "inline", *options, rounds=rounds))

    def resume(self, run: str, backend: str = "inline") -> Done:
        """Go on with a run, by default in this process."""
        return foedus("run", "--resume", run, "--backend", backend, "--state", self.state, "--json")

    def command(self, name: str, *arguments: object) -> Done:
        """Run another command on the state, for its JSON."""
        return foedus(*name.split(), *arguments, "--state", self.state, "--json")


def make_base(folder: Path, positions: int = 128) -> Path:
    """A random Llama of four layers with a byte tokenizer, for texts of so many bytes."""
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        bos_token_id=257,
        eos_token_id=258,
        pad_token_id=256,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def make_data(folder: Path, organisations: tuple[str, ...] = ORGANISATIONS) -> Path:
    """Questions whose answers only one organisation knows, and a validation set of all of them."""
    folder.mkdir(parents=True)
    for name in organisations:
        records = [{"question": f"{name} {i}?", "answer": f"{name[:3]} {i * i}"} for i in range(12)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    mixed = [{"question": f"{name} 12?", "answer": f"{name[:3]} 144", "domain": name} for name in organisations]
    (folder / "validation.jsonl").write_text("".join(json.dumps(r) + "\n" for r in mixed), encoding="utf-8")
    return folder
