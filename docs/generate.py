"""Hooks of mkdocs.yml that write the parts of the site which come from the code.

A page says where: `<!-- generated: commands -->` becomes the list of commands when the site is built. Nothing that is
generated is committed, and a page that is read on its own still says what stands there.
"""

import ast
import json
import posixpath
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from pathlib import Path, PurePosixPath
from typing import get_type_hints

import click
import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the pages describe this checkout, whatever is installed

from console.cli import app  # noqa: E402 - from this checkout
from core.config import RunConfig  # noqa: E402

PACKAGES = ("core", "llm", "chain", "agents", "provenance", "unlearning", "client_app", "server_app")
"""The packages whose API has a page, from the lowest layer up."""
_MARKER = re.compile(r"^<!-- generated: ([a-z-]+)(?: ([\w./-]+))? -->$", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\(([^)#:]*)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each package's API."""
    for package in PACKAGES:
        files.append(File.generated(config, f"reference/python/{package}.md", content=api(package)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace each marker by what it names."""
    del config, files

    def generated(match: re.Match[str]) -> str:
        name, argument = match.groups()
        return _include(argument, page.file.src_uri) if name == "include" else GENERATED[name]()

    return _MARKER.sub(generated, markdown)


def commands() -> str:
    """Every command of the command line: what it does, how it is called, its options and an example."""
    lines = []
    for name, command in sorted(_leaves(typer.main.get_command(app), "foedus")):
        given = [_typed(command, p) for p in command.params if isinstance(p, click.Argument) or p.required]
        hints = get_type_hints(command.callback, include_extras=True)
        lines += [f"## `{name}` {{ #{name.replace(' ', '-')} }}", "", command.help or "", ""]
        lines += ["```console", f"$ {' '.join([name, *given, '[OPTIONS]'])}", "```", ""]
        lines += ["| argument or option | meaning |", "|---|---|"] if command.params else []
        for parameter in command.params:
            # click 8.4 forgets the help of typer's arguments: it still stands in the function's annotations.
            documented = next(iter(getattr(hints[str(parameter.name)], "__metadata__", ())), parameter)
            text = " ".join((documented.help or "").split())
            lines.append(f"| `{_typed(command, parameter)}` | {text} |")
        lines += ["", f"{command.epilog.replace('Example: ', 'Example: `', 1)}`" if command.epilog else "", ""]
    return "\n".join(lines)


def _leaves(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    inner = getattr(command, "commands", {})
    if not inner:
        yield name, command
    for part, found in inner.items():
        yield from _leaves(found, f"{name} {part}")


def _typed(command: click.Command, parameter: click.Parameter) -> str:
    """A parameter as it is typed: an argument's placeholder, or an option with its value's."""
    value = parameter.make_metavar(click.Context(command))
    if isinstance(parameter, click.Argument):
        return value
    return parameter.opts[0] if getattr(parameter, "is_flag", False) else f"{parameter.opts[0]} {value}"


def settings() -> str:
    """Every setting with its type, default and documentation: the docstrings under the fields of `RunConfig`."""
    defaults = RunConfig().to_flat()
    body = next(
        node.body
        for node in ast.parse((ROOT / "core" / "config.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == RunConfig.__name__
    )
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            name = ast.unparse(field.target).replace("_", "-")
            lines.append(f"| `{name}` | `{json.dumps(defaults[name])}` | {' '.join(str(text.value.value).split())} |")
    return "\n".join(lines)


def tree() -> str:
    """The repository's files, one a line, each with what it is."""
    lines = []
    listing = subprocess.run(
        ["git", "ls-files"],  # noqa: S607 - wherever git is
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = sorted((name for name in listing.splitlines() if _has_line(name)), key=lambda name: (_folder(name), name))
    for folder, files in groupby(names, key=_folder):
        lines += [f"## {folder or 'the top'}", "", "| file | what it is |", "|---|---|"]
        lines += [f"| `{PurePosixPath(name).name}` | {_description(name)} |" for name in files]
        lines.append("")
    return "\n".join(lines)


def _folder(name: str) -> str:
    return str(PurePosixPath(name).parent).removeprefix(".")


def _has_line(name: str) -> bool:
    """Modules with content, contracts, documents and settings; data, tests and built files have none."""
    if name.startswith(("tests/", "assets/base/", "assets/samples/", "chain/contracts/test/")):
        return False
    suffix = PurePosixPath(name).suffix
    return (suffix == ".py" and not name.endswith("__init__.py")) or suffix in {".sol", ".md", ".toml", ".yaml", ".yml"}


def _description(name: str) -> str:
    """The first sentence of a module's docstring, a contract's title, a page's heading, or a file's first comment."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".py"):
        paragraph = " ".join((ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].split())
        return paragraph.split(". ")[0].rstrip(".:").replace("|", "\\|")
    if name.endswith(".sol"):
        title = re.search(r"@title (.*)", text)
        return title[1] if title else ""
    marks = "# 0123456789." if name.endswith(".md") else "# "
    return next((line.lstrip(marks).rstrip(".") for line in text.splitlines() if line.startswith("#")), "")


def api(package: str) -> str:
    """A page of a package's API, a section a module, in the order of their names."""
    paths = sorted((ROOT / package).rglob("*.py"))
    modules = [path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in paths]
    named = [module for module in modules if not module.rsplit(".", 1)[-1].startswith("__")]
    return "\n\n".join([f"# {package}", *(f"::: {module}" for module in named)])


def _include(name: str, page: str) -> str:
    """A document of the top folder as a page of the site: its links lead to pages where there is one."""

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if target and not (target in TOP or target.startswith("docs/") or match[0].startswith("http")):
            return text  # a file of the repository that is no page
        path = TOP.get(target) or target.removeprefix("docs/")
        relative = posixpath.relpath(path, posixpath.dirname(page) or ".") if target else ""
        return f"[{text}]({relative}{anchor})"

    return _LINK.sub(link, (ROOT / name).read_text(encoding="utf-8"))


GENERATED: dict[str, Callable[[], str]] = {"commands": commands, "settings": settings, "tree": tree}
TOP = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing/index.md",
    "CHANGELOG.md": "contributing/changelog.md",
    "SECURITY.md": "concepts/security.md",
}
"""Documents of the top folder that are pages of the site, too."""
