"""What the documents say of commands, settings and files is so."""

import re
import tomllib
from pathlib import Path

import pytest

from benchmarks import page
from benchmarks.report import RESULTS
from core.aggregation import RULES
from core.config import RunConfig

ROOT = Path(__file__).parent.parent
CONF = sorted((ROOT / "conf").glob("*.toml"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("path", CONF, ids=lambda path: path.name)
def test_conf_only_overrides_settings_that_exist(path: Path) -> None:
    overrides = tomllib.loads(path.read_text(encoding="utf-8"))
    RunConfig.from_flat(overrides)
    defaults = RunConfig().to_flat()
    assert overrides
    assert not [key for key, value in overrides.items() if defaults[key] == value]


@pytest.mark.parametrize("path", CONF, ids=lambda path: path.name)
def test_the_settings_page_names_every_conf(path: Path) -> None:
    assert f"`conf/{path.name}`" in (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")


def test_the_guide_explains_every_aggregation_rule() -> None:
    guide = (ROOT / "docs" / "guides" / "aggregation.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)` \|", guide, re.MULTILINE)) >= set(RULES)


def test_the_result_pages_have_every_figure_as_its_file_has_it() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in page.pages()}
    for topic, text in texts.items():
        assert page.rendered(text, topic) == text, "`python -m benchmarks.page` writes it anew"
        assert "targets" in page.blocks(text), topic
    assert {*page.TOPICS, "index"} <= texts.keys()
    blocks = sorted(name for text in texts.values() for name in page.blocks(text) if name != "targets")
    assert len(blocks) == len(set(blocks))
    without = set(blocks) ^ {path.stem for path in RESULTS.glob("*.json")}
    assert without <= {"gpu"}, "each result file on one page, and only those of another machine are not measured"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith(("http://", "https://"))]
    assert not [link for link in local if not (path.parent / link).exists()]
