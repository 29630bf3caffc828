"""Flower's command line, asked in JSON: with a home that says which SuperLink it talks to."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console.backends.children import script
from core.canonical import parse_json
from core.config import RunConfig
from core.errors import FormatError, RunError


@dataclass(frozen=True)
class FlowerCommand:
    """`flwr` with a home and an environment."""

    home: Path
    environment: Mapping[str, str]

    def flwr(self, *arguments: str) -> dict[str, Any]:
        """Ask Flower's CLI, which answers in JSON; raises RunError with its last line when it does not."""
        done = self.said(*arguments, "--format", "json")
        try:
            answer: dict[str, Any] = parse_json(done.stdout[done.stdout.index("{") :].encode())
        except (ValueError, FormatError) as error:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
            raise RunError(f"flwr {arguments[0]}: expected JSON, got {lines[-1]}") from error
        if not answer.get("success", True):
            raise RunError(f"flwr {arguments[0]} failed: {answer.get('error-message', answer)}")
        return answer

    def said(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What it says, whatever that is."""
        return subprocess.run(  # noqa: S603 - Flower's own script with our arguments
            [*script("flwr"), *arguments],
            cwd=self.home,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
        )


def write_overrides(config: RunConfig, path: Path) -> Path:
    """Write the settings of a run as `flwr run --run-config` reads them, and return the path."""
    path.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in config.to_flat().items()), encoding="utf-8")
    return path
