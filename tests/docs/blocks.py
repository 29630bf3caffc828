"""Commands in documents: the shell statements of their fenced `bash` and `console` blocks, in order."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs" / "start").glob("*.md")))
"""The documents whose every command is executed."""
DOCUMENTS = tuple(sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]))
_HEREDOC = re.compile(r"<<'?(\w+)'?")


@dataclass(frozen=True)
class Command:
    """A statement, with the heading that it stands under and the output that the document shows for it."""

    heading: str
    text: str
    output: tuple[str, ...] = ()


def commands(path: Path) -> list[Command]:
    """Every command of a document."""
    found: list[Command] = []
    heading, lines = "", iter(path.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line in ("```bash", "```console"):
            block = list(_until_fence(lines))
            found += _script(heading, block) if line == "```bash" else _session(heading, block)
    return found


def _until_fence(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line == "```":
            return
        yield line


def _script(heading: str, block: list[str]) -> Iterator[Command]:
    """The statements of a script; lines that end in a backslash and here-documents belong together."""
    lines = iter(block)
    for line in lines:
        statement = line
        while statement.endswith("\\"):
            statement += "\n" + next(lines)
        if heredoc := _HEREDOC.search(statement):
            for text in lines:
                statement += "\n" + text
                if text == heredoc[1]:
                    break
        if statement.strip():
            yield Command(heading, statement)


def _session(heading: str, block: list[str]) -> Iterator[Command]:
    """The prompts of a session, each with the lines up to the next."""
    lines = iter(block)
    text, output = "", []
    for line in lines:
        if line.startswith("$ "):
            if text:
                yield Command(heading, text, tuple(output))
            text, output = line.removeprefix("$ "), []
            while text.endswith("\\"):
                text += "\n" + next(lines)
        else:
            output.append(line)
    if text:
        yield Command(heading, text, tuple(output))
