"""What the documents say of commands, settings and files is so."""

import re
import tomllib
from pathlib import Path

import pytest
import typer.main
import yaml

from benchmarks import page
from benchmarks.report import RESULTS
from console.cli import app
from core.aggregation import RULES
from core.config import RunConfig
from tests import tree

ROOT = Path(__file__).parent.parent
CONF = sorted((ROOT / "conf").glob("*.toml"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CONF, ids=lambda path: path.name)
def test_conf_only_overrides_settings_that_exist(path: Path) -> None:
    overrides = tomllib.loads(path.read_text(encoding="utf-8"))
    RunConfig.from_flat(overrides)
    defaults = RunConfig().to_flat()
    assert overrides
    assert not [key for key, value in overrides.items() if defaults[key] == value]


@pytest.mark.parametrize("path", CONF, ids=lambda path: path.name)
def test_readme_names_every_conf(path: Path) -> None:
    assert f"conf/{path.name}" in README


def test_readme_documents_the_commands_that_exist_and_no_others() -> None:
    assert set(re.findall(r"^\| `foedus ([a-z]+(?: [a-z]+)?)", README, re.MULTILINE)) == _commands()


def test_readme_documents_every_aggregation_rule() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", README, re.MULTILINE)) >= set(RULES)


def test_readme_tree_is_the_real_tree() -> None:
    listed = tree.listed()
    assert list(listed) == tree.tracked(), "`python -m tests.tree` writes it anew"
    assert not [path for path, text in listed.items() if not text], "a line without a description"


def test_the_result_pages_have_every_figure_as_its_file_has_it() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in page.pages()}
    for topic, text in texts.items():
        assert page.rendered(text, topic) == text, "`python -m benchmarks.page` writes it anew"
        assert "targets" in page.blocks(text), topic
    assert {*page.TOPICS, "index"} <= texts.keys()
    blocks = sorted(name for text in texts.values() for name in page.blocks(text) if name != "targets")
    assert blocks == sorted(path.stem for path in RESULTS.glob("*.json")), "each result file on one page"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith(("http://", "https://"))]
    assert not [link for link in local if not (path.parent / link).exists()]


def test_compose_publishes_nothing_beyond_loopback_and_no_service_runs_as_root() -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    for name, service in compose["services"].items():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service.get("user", "foedus") != "root"
    assert "USER foedus" in (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")


def _commands() -> set[str]:
    """Every command, those of a group under `group name`."""
    group = typer.main.get_command(app)
    names = set()
    for name, command in getattr(group, "commands", {}).items():
        inner = getattr(command, "commands", {})
        names |= {f"{name} {sub}" for sub in inner} or {name}
    return names
