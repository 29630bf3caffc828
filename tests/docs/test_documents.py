"""What README and the documents say of sizes, figures, terms and events is so."""

import ast
import re
from pathlib import Path

import pytest

from benchmarks.page import OVERVIEWS
from tests.docs.blocks import DOCUMENTS, ROOT

README = ROOT / "README.md"
GLOSSARY = ROOT / "docs" / "concepts" / "glossary.md"
GUIDES = sorted(page for folder in ("start", "guides") for page in (ROOT / "docs" / folder).glob("*.md"))
TERMS = (
    "organisation", "coordinator", "auditor", "lane", "round", "generation", "update", "manifest", "record",
    "aggregate", "genesis", "ledger", "anchor", "salt", "store", "lineage", "shard", "composition", "verdict",
    "residual", "familiarity", "credit", "attested", "recomputed",
)  # fmt: skip


def test_readme_fits_on_a_few_screens() -> None:
    assert len(README.read_bytes()) <= 9216


def test_readme_has_the_figures_of_the_results() -> None:
    """README's rows stand in the tables of targets, which `python -m benchmarks.page` writes from the result files."""
    pages = (ROOT / "docs" / "results" / f"{name}.md" for name in OVERVIEWS)
    results = "".join(page.read_text(encoding="utf-8") for page in pages)
    rows = _section("Results").splitlines()[4:]
    cells = [row.strip("| ").split(" | ")[1:] for row in rows if row.startswith("|")]
    assert len(cells) >= 5
    for bound, measured in cells:
        assert f"| {bound} | {measured} |" in results


def test_readme_maps_every_folder_and_no_other() -> None:
    mapped = set(re.findall(r"^(\w+)/ ", _section("The repository"), re.MULTILINE))
    folders = {path.parent.name for path in ROOT.glob("*/*") if path.parent.name.isidentifier()}
    assert mapped == folders - {"build", "dist", "site", "__pycache__", "keys", "shared"}


def test_readme_explains_seven_words() -> None:
    words = re.findall(r"^\| ([a-z]+) \| (?!meaning)", _section("Seven words"), re.MULTILINE)
    assert words == ["organisation", "lane", "round", "update", "record", "genesis", "ledger"]


def _section(heading: str) -> str:
    return README.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]


def test_the_glossary_has_every_term() -> None:
    headings = {line[3:].lower() for line in GLOSSARY.read_text(encoding="utf-8").splitlines() if line[:3] == "## "}
    assert headings >= set(TERMS)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
@pytest.mark.parametrize("term", TERMS)
def test_a_guide_links_a_term_where_it_is_first_used(page: Path, term: str) -> None:
    text = re.sub(rf"\[[^\]]*\]\(../concepts/glossary.md#{term}\)", "⟦⟧", page.read_text(encoding="utf-8"))
    prose = re.sub(r"^```.*?^```$|^#.*?$|`[^`\n]*`|\(\S+\)", "", text, flags=re.DOTALL | re.MULTILINE)
    before, _, _ = prose.partition("⟦⟧")
    assert not re.search(rf"\b{term}s?\b", before, re.IGNORECASE)


def test_the_events_page_has_every_event_with_its_fields() -> None:
    page = (ROOT / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*?) \|", page, re.MULTILINE))
    written = _events()
    assert set(rows) == set(written)
    for name, fields in written.items():
        assert not [field for field in fields if f"`{field}`" not in rows[name]], name


def _events() -> dict[str, set[str]]:
    """Every event that the code writes, with the fields that it names: calls of `events.write`."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "server_app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("events.write"):
                (name,) = node.args
                assert isinstance(name, ast.Constant), path
                found.setdefault(str(name.value), set()).update(keyword.arg for keyword in node.keywords if keyword.arg)
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_document_names_exist(path: Path) -> None:
    folders = "|".join(sorted(folder.name for folder in ROOT.iterdir() if folder.is_dir() and folder.name[0] != "."))
    text = path.read_text(encoding="utf-8")
    named = re.findall(rf"`((?:{folders})/[a-z0-9_./-]+\.(?:py|toml|md|json|jsonl|yaml))`", text)
    assert not [name for name in named if not (ROOT / name).exists()]
    modules = re.findall(r"`python -m ([\w.]+)", text)
    files = [ROOT / name.replace(".", "/") for name in modules if name.split(".")[0] not in ("http", "pip")]
    assert not [file for file in files if not (file.with_suffix(".py").exists() or (file / "__main__.py").exists())]
