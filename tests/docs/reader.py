"""Somebody who reads a page with a fresh checkout of their own, a home, and no network."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import psutil

from llm.bases import cache
from tests.commands import Done, make_base
from tests.docs.blocks import ROOT

_MARK = "FOEDUS_DOCUMENT_TEST"
"""The environment variable by which the processes that a page starts are known."""


@dataclass(frozen=True)
class Reader:
    """Names on the Hub stand for the local folders in `hub`."""

    checkout: Path
    home: Path
    hub: dict[str, str]

    @classmethod
    def in_folder(cls, folder: Path) -> "Reader":
        """Copy what git tracks, and make what a page would download."""
        checkout, home = folder / "checkout", folder / "home"
        listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(lambda name: (ROOT / name).exists(), listing.splitlines()):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout / name)
        (checkout / ".venv").symlink_to(sys.prefix)
        home.mkdir()
        (folder / "hub").mkdir()
        rows = [{"question": f"{i}?", "answer": f"{i * i}", "domain": "even" if i % 2 else "odd"} for i in range(48)]
        (folder / "hub" / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        base = make_base(folder / "base", positions=1024)  # conf/gpu.toml has rows of so many tokens
        made = cls(checkout, home, {"Qwen/Qwen2.5-0.5B-Instruct": str(base), "OWNER/NAME": str(folder / "hub")})
        for settings in (checkout / "conf").glob("*.toml"):
            settings.write_text(made.local(settings.read_text(encoding="utf-8")), encoding="utf-8")
        return made

    @property
    def tiny_base(self) -> str:
        """A base model of some hundred thousand parameters."""
        return self.hub["Qwen/Qwen2.5-0.5B-Instruct"]

    def local(self, text: str) -> str:
        """A command, or settings, with local folders for what it would download."""
        for name, path in self.hub.items():
            text = text.replace(name, path)
        return text

    def shell(self, text: str, **environment: str) -> Done:
        """What a shell makes of a script in the checkout, with stderr in order among stdout."""
        # Converted bases are the machine's: a page that names one must not convert it again.
        own = {
            "FOEDUS_CACHE": cache(),
            "HOME": self.home,
            "FLWR_HOME": self.home / ".flwr",
            "PYTHONPATH": self.checkout,
            _MARK: self.home,
        }
        path = f"{self.checkout / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        with TemporaryFile() as output:  # a pipe would stay open as long as what the script leaves in the background
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=self.checkout,
                env={**os.environ, "PATH": path, **{name: str(value) for name, value in own.items()}, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
            output.seek(0)
            return Done(done.returncode, output.read().decode(errors="replace"), "")

    def end_processes(self) -> None:
        """End what a page has left in the background."""
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == str(self.home):
                    process.terminate()
            except psutil.Error:  # it has ended meanwhile, or belongs to another user
                continue
