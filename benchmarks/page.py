"""Puts what the result files say into docs/results.md: `python -m benchmarks.page`.

The page keeps its text; between `<!-- NAME -->` and `<!-- end -->` stand command, hardware and figures of
results/NAME.json, or "not measured" when there is no such file. So no figure on the page was typed by anybody.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "results.md"
_SHARE = {"percent", "low", "high"}
"""A share in percent with its interval."""
_BLOCK = re.compile(r"(<!-- ([a-z_0-9]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(page: str, results: Path = RESULTS) -> str:
    """The page with every block as the files in `results` have it."""
    return _BLOCK.sub(lambda match: match[1] + _block(results / f"{match[2]}.json") + match[3], page)


def blocks(page: str) -> list[str]:
    """The names of the page's blocks."""
    return [name for _, name, _ in _BLOCK.findall(page)]


def _block(path: Path) -> str:
    if not path.exists():
        return "not measured\n"
    report = json.loads(path.read_text(encoding="utf-8"))
    flat = list(_flat(report["figures"]))
    rows = [f"| {name} | {_cell(value)} |" for name, value in flat if not isinstance(value, list)]
    lines = [f"`{report['command']}`", "", _machine(report)]
    lines += ["", "| figure | value |", "|---|---:|", *rows] if rows else []
    for name, value in flat:
        lines += ["", f"{name[0].upper()}{name[1:]}:", "", *_table(value)] if isinstance(value, list) and value else []
    return "".join(f"{line}\n" for line in lines)


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A list of rows as a table with a column for each key that occurs."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    yield f"| {' | '.join(name.replace('_', ' ') for name in names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield f"| {' | '.join(_cell(row.get(name)) for name in names)} |"


def _machine(report: Mapping[str, Any]) -> str:
    hardware, versions = report["hardware"], report["versions"]
    accelerator = hardware["accelerator"] or "no accelerator"
    used = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch") if name in versions)
    return (
        f"{hardware['processor']} ({hardware['instruction_set']}), {hardware['cores']} cores, "
        f"{hardware['memory_gib']} GiB, {accelerator}; load {hardware['load_average']}; {used}; seed {report['seed']}"
    )


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping) and not value.keys() >= _SHARE:
            yield from _flat(value, f"{label} · ")
        else:
            yield label, value


def _cell(value: Any) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, Mapping):
        return f"{value['percent']:.1f} ({value['low']:.1f} to {value['high']:.1f})"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return f"{value:,}" if type(value) is int else str(value)


def main() -> None:
    """Write the page."""
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
