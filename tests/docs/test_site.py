"""The documentation site: it builds without a network and with warnings as errors, and loads nothing from elsewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer.main
import yaml

from console.cli import app
from core.config import RunConfig
from tests.browser import Page, browser
from tests.docs.blocks import DOCUMENTS, ROOT

PACKAGES = (
    "core", "llm", "chain", "agents", "provenance", "unlearning", "client_app", "server_app", "console", "assets",
)  # fmt: skip
_OFFLINE = """
import socket, sys

def refuse(*_):
    raise OSError("the build asked for a network")

socket.socket.connect = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli(["build", "--strict", "--site-dir", sys.argv[1]])
"""
"""Builds the site in a process that cannot reach any host."""
_LOADING = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src",
    "object": "data", "link": "href", "use": "href", "image": "href",
}  # fmt: skip
"""The attributes by which a page loads something; `a` only leads somewhere."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


class _Loads(HTMLParser):
    """What a page loads, and whether it has a diagram that the theme would draw with a script from another host."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.diagrams = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.diagrams += "mermaid" in (found.get("class") or "").split()
        if tag == "link" and found.get("rel") in ("canonical", "prev", "next"):
            return
        if address := found.get(_LOADING.get(tag, "")):
            self.addresses.append(address)


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = {path: _Loads(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > 40
    remote = {path.name: [a for a in page.addresses if "//" in a] for path, page in pages.items()}
    assert not {name: found for name, found in remote.items() if found}
    assert not [path for path, page in pages.items() if page.diagrams]


def test_no_stylesheet_loads_anything_from_another_host(site: Path) -> None:
    sheets = list(site.rglob("*.css"))
    assert sheets
    for path in sheets:
        loads = re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')\s]+)", path.read_text(encoding="utf-8"))
        assert not [address for address in loads if "//" in address and not address.startswith("data:")], path


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.mark.parametrize("name", ["index.html", "reference/commands.html", "results/attribution.html"])
def test_a_page_in_a_browser_asks_no_network(site: Path, opened: Page, name: str) -> None:
    opened.open(site / name)
    assert opened.evaluate("document.querySelector('h1') !== null")
    assert not [complaint for complaint in opened.complaints if "http" in complaint]


def test_the_site_has_a_page_for_every_document(site: Path) -> None:
    for path in (ROOT / "docs").rglob("*.md"):
        assert (site / path.relative_to(ROOT / "docs").with_suffix(".html")).exists(), path


def test_the_commands_page_has_every_command_and_its_options(site: Path) -> None:
    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for name, options in _command_options().items():
        assert f'id="{name.replace(" ", "-")}"' in text
        assert not [option for option in options if option not in text], name


def _command_options() -> dict[str, list[str]]:
    """The long options of every command."""
    found = {}

    def walk(command: object, name: str) -> None:
        for part, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{name} {part}")
        if not hasattr(command, "commands"):
            found[name] = [option for p in getattr(command, "params", []) for option in p.opts if option[:2] == "--"]

    walk(typer.main.get_command(app), "foedus")
    return found


def test_the_settings_page_has_every_setting(site: Path) -> None:
    text = (site / "reference" / "settings.html").read_text(encoding="utf-8")
    assert not [name for name in RunConfig().to_flat() if f"<code>{name}</code>" not in text]


def test_the_file_tree_has_every_module_with_a_description(site: Path) -> None:
    text = (site / "contributing" / "file-tree.html").read_text(encoding="utf-8")
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"]
    assert not [path for path in modules if not re.search(rf"<code>{path.name}</code></td>\s*<td>\S", text)]


def test_no_document_is_left_out_of_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    documents = [p.relative_to(ROOT / "docs").as_posix() for p in DOCUMENTS if (ROOT / "docs") in p.parents]
    assert not [name for name in documents if f"- {name}" not in navigation]


def test_the_theme_fetches_no_fonts_and_has_no_plugin_that_downloads() -> None:
    # mkdocs.yml without tags: the loader of MkDocs knows some that PyYAML does not.
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert settings["theme"]["font"] is False
    names = [plugin if isinstance(plugin, str) else next(iter(plugin)) for plugin in settings["plugins"]]
    assert set(names) <= {"search", "mkdocstrings"}
