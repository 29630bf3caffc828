"""Copies the result files into the pages of docs/results: `python -m benchmarks.page`.

A page keeps its text. Between `<!-- NAME -->` and `<!-- end -->` stands what results/NAME.json says: command, hardware
and figures, folded, or "not measured" when there is no such file. `<!-- targets -->` marks the table of the targets of
the page's topic, which is the page's name; on index.md it holds those of every topic that were measured on a base that
speaks, and on small-bases.md the others. So no figure there is typed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import targets
from benchmarks.report import RESULTS, read

FOLDER = Path(__file__).parent.parent / "docs" / "results"
_SHARE = {"percent", "low", "high"}
"""The keys of a share in percent with its interval."""
_BLOCK = re.compile(r"(<!-- ([a-z_0-9]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """The pages with results."""
    return sorted(FOLDER.glob("*.md"))


def rendered(page: str, topic: str, results: Path = RESULTS) -> str:
    """The page of a topic with every block as the files in `results` have it."""

    def block(match: re.Match[str]) -> str:
        name = match[2]
        lines = _targets(topic, results) if name == "targets" else _result(results / f"{name}.json")
        return match[1] + "".join(f"{line}\n" for line in lines) + match[3]

    return _BLOCK.sub(block, page)


def blocks(page: str) -> list[str]:
    """The names of the page's blocks."""
    return [name for _, name, _ in _BLOCK.findall(page)]


def _targets(topic: str, results: Path) -> Iterator[str]:
    """The table target / measured / met; with a column for the topic where there are several."""
    every = topic in OVERVIEWS
    header = ["Topic"] * every + ["What", "Target", "Measured", "Met"]
    yield ""
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    rows = sorted(targets.rows(partial(_figures, results)), key=lambda row: TOPICS.index(row.topic))
    for row in rows:
        if row.topic == topic or (every and row.speaks == (topic == "index")):
            link = [f"[{row.topic.replace('-', ' ')}]({row.topic}.md)"] * every
            yield f"| {' | '.join([*link, row.claim, row.bound, row.measured, row.met])} |"
    yield ""


OVERVIEWS = ("index", "small-bases")
"""The pages with the targets of every topic: on a base that speaks, and the others."""
TOPICS = (
    "speaking", "federation", "attribution", "unlearning", "poison", "privacy", "wire", "agents", "chain-and-audit",
    "scale",
    "speed",
)  # fmt: skip
"""In the order in which the table of all targets lists them."""


def _figures(results: Path, name: str) -> Mapping[str, Any] | None:
    path = results / f"{name}.json"
    if not path.exists():
        return None
    figures: Mapping[str, Any] = read(path)["figures"]
    return figures


def _result(path: Path) -> Iterator[str]:
    if not path.exists():
        yield "not measured"
        return
    report = read(path)
    flat = list(_flat(report["figures"]))
    plain = [f"| {name} | {_cell(value)} |" for name, value in flat if not isinstance(value, list)]
    # Raw tables are long: they stay folded until a reader asks. MkDocs needs the attribute to see Markdown inside.
    yield '<details markdown="1">'
    yield f"<summary>Figures of <code>{path.name}</code></summary>"
    yield from (
        "",
        f"`{report['command']}`",
        "",
        f"{' and '.join(map(_machine, report['machines']))}; seed {report['seed']}",
    )
    if plain:
        yield from ("", "| figure | value |", "|---|---:|", *plain)
    for name, value in flat:
        if isinstance(value, list) and value:
            yield from ("", f"{name[0].upper()}{name[1:]}:", "", *_table(value))
    yield from ("", "</details>")


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A list of rows as a table with a column for each key that occurs."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    yield f"| {' | '.join(name.replace('_', ' ') for name in names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield f"| {' | '.join(_cell(row.get(name)) for name in names)} |"


def _machine(machine: Mapping[str, Any]) -> str:
    hardware, versions = machine["hardware"], machine["versions"]
    accelerator = hardware["accelerator"] or "no accelerator"
    used = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch") if name in versions)
    return (
        f"{hardware['processor']} ({hardware['instruction_set']}), {hardware['cores']} cores, "
        f"{hardware['memory_gib']} GiB, {accelerator}; load {hardware['load_average']}; {used}"
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
    """Write the pages, all or none."""
    made = {path: rendered(path.read_text(encoding="utf-8"), path.stem) for path in pages()}
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
