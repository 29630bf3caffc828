"""What every benchmark reports: one JSON file in benchmarks/results, and one table on the terminal.

What single seeds gave lies in benchmarks/measured where it took long: other machines add seeds to those, at any time.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from core.storage import blobs

RESULTS = Path(__file__).parent / "results"
MEASURED = Path(__file__).parent / "measured"
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "flwr", "numpy", "web3", "py-evm")


def write(
    name: str, figures: Mapping[str, Any], command: str, seed: int, folder: Path | None = None, kept_as: str = ""
) -> Path:
    """Write NAME.json, into RESULTS unless told: figures with seed, command, versions and hardware; return its path.

    They are this machine's, or where the figures are of seeds that were `kept_as` a name, those that measured them.
    """
    folder = RESULTS if folder is None else folder
    report = {
        "benchmark": name,
        "command": command,
        "seed": seed,
        "machines": machines(kept_as) if kept_as else [{"hardware": hardware(), "versions": versions()}],
        "figures": dict(figures),
    }
    path = folder / f"{name}.json"
    # A NaN is a mistake of the benchmark, and no JSON.
    blobs.write(path, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    return path


def figures(name: str) -> dict[str, Any]:
    """The figures of NAME.json in RESULTS."""
    found: dict[str, Any] = read(RESULTS / f"{name}.json")["figures"]
    return found


def read(path: Path) -> dict[str, Any]:
    """What `write` or `kept` wrote; ends the process for a file of anything else."""
    found = loaded(path, "a benchmark's result")
    if not isinstance(found, dict) or "figures" not in found:
        raise SystemExit(f"{path}: expected a benchmark's result, got no figures: restore or remove it")
    return found


def loaded(path: Path, expected: str = "JSON") -> Any:
    """The JSON of a file; ends the process, with the file's name, where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SystemExit(f"{path}: expected {expected}, got {error}: restore or remove it") from error


def kept(name: str, key: str, measure: Callable[[], Any]) -> Any:
    """What a seed gave: `known`, or else measured, and kept with its hardware.

    What is measured is told on stderr, with the time.
    """
    if known(name, key) is None:
        found = {"hardware": hardware(), "versions": versions(), "figures": measure()}
        path = MEASURED / name / f"{key}.json"
        blobs.write(path, (json.dumps(found, allow_nan=False) + "\n").encode())
        sys.stderr.write(f"{time.strftime('%X')} {name} {key}\n")
    return known(name, key)


def known(name: str, key: str) -> Any:
    """What was kept in KEY.json of MEASURED/NAME; None where nothing was."""
    path = MEASURED / name / f"{key}.json"
    return read(path)["figures"] if path.exists() else None


def machines(name: str) -> list[dict[str, Any]]:
    """Hardware and versions of each machine that measured some of MEASURED/NAME, at the greatest of its loads."""
    found: dict[str, dict[str, Any]] = {}
    for path in (MEASURED / name).glob("*.json"):
        found_there = read(path)
        one = {of: found_there[of] for of in ("hardware", "versions")}
        machine = json.dumps(one | {"hardware": one["hardware"] | {"load_average": None}}, sort_keys=True)
        if one["hardware"]["load_average"] >= found.get(machine, one)["hardware"]["load_average"]:
            found[machine] = one
    return [found[machine] for machine in sorted(found)]


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print rows in columns, the first to the left, the others to the right; floats with three digits."""
    table = Table(*header[:1], title=title, title_justify="left", box=box.SIMPLE)
    for name in header[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(number(value) if isinstance(value, float) else str(value) for value in row))
    Console().print(table)


def hardware() -> dict[str, Any]:
    """Processor, cores, memory in GiB, accelerator, and how busy the machine was in the last minute."""
    return {
        "processor": _processor(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of those of PACKAGES that are installed."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    # platform.processor() is empty on most Linux systems.
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def number(value: float) -> str:
    """A number for readers: three digits, and whole ones from a thousand on."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
