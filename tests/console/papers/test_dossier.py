"""The dossier: each figure leads to what shows it, it claims nothing that is not there, and everybody can read it."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from chain.audit.report import AuditReport, Failure
from console.papers.dossier import LAW, dossier, month_after, render
from console.papers.origin import Origin
from core.storage.state_folder import State
from tests.behaviours.runs import Federation, build
from tests.browser import browser

PURPOSE = "Answers about <b>products</b>"
AUDIT = AuditReport({"records": 2}, 2, 0, ())


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "state" / "runs" / "run", rounds=2)


@pytest.fixture
def origin(federation: Federation) -> Origin:
    return Origin(State(federation.run.folder.parent.parent), federation.run)


def rows_of(content: dict[str, object], name: str) -> list[list[object]]:
    sections = content["sections"]
    assert isinstance(sections, list)
    (section,) = (section for section in sections if section["id"] == name)
    return [row["cells"] for row in section["rows"]]


def test_every_row_leads_to_a_source_and_every_file_has_its_digest(origin: Origin) -> None:
    content = dossier(origin, PURPOSE, "embedded", AUDIT)
    rows = [row for section in content["sections"] for row in section["rows"]]
    assert rows
    assert {row["source"] for row in rows} == set(content["sources"])
    files = [source for source in content["sources"].values() if source["kind"] == "file"]
    assert files
    for source in files:
        data = (origin.run.folder / source["text"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == source["sha256"]


def test_every_row_has_a_cell_for_each_column(origin: Origin) -> None:
    for section in dossier(origin, "", "embedded", None)["sections"]:
        assert all(len(row["cells"]) == len(section["columns"]) for row in section["rows"]), section["id"]


def test_what_left_a_site_is_counted_from_the_store(origin: Origin) -> None:
    logs = {origin.run.genesis.named("financial").address: {"answers": 7, "bytes": 12345, "kinds": []}}
    for row in rows_of(dossier(origin, "", "embedded", None, logs), "left"):
        name, updates, size, gone, own, readers = row
        assert own == ("7 answers, 12,345 bytes" if name == "financial" else "not given")
        address = origin.run.genesis.named(str(name)).address
        manifests = [
            a.signed.value for s in origin.run.records() for a in s.value.admitted if a.organisation == address
        ]
        assert updates == len(manifests) == 2
        assert size == sum(origin.run.artifacts.size(manifest.update) for manifest in manifests) > 0
        assert gone == 0
        assert "the coordinator" in str(readers)


def test_no_audit_is_no_finding(origin: Origin) -> None:
    without = rows_of(dossier(origin, "", "embedded", None), "standing")
    assert {row[-1] for row in without} == {"not checked", "no audit shows it"}
    bad = AuditReport({}, 0, 0, (Failure("aggregate", "round 1", "0x1", "0x2"),))
    told = [str(row[-1]) for row in rows_of(dossier(origin, "", "embedded", bad), "standing")]
    assert len([one for one in told if one.startswith("DOES NOT HOLD: 0x1")]) == 1


def test_the_log_has_each_record(origin: Origin) -> None:
    records = [signed.value for signed in origin.run.records()]
    logged = rows_of(dossier(origin, "", "embedded", None), "rounds")
    assert [row[-1] for row in logged] == [record.aggregate for record in records]


def test_the_table_of_law_leads_to_sections_that_are_there(origin: Origin) -> None:
    content = dossier(origin, "", "embedded", None)
    assert {section for _, _, section, _, _ in LAW} <= {section["id"] for section in content["sections"]}
    assert all(missing for *_, missing in LAW), "each provision asks for more than is here"


@pytest.mark.parametrize(
    ("asked", "due"), [("2026-01-31", "2026-02-28"), ("2026-12-05", "2027-01-05"), ("2028-01-30", "2028-02-29")]
)
def test_a_deadline_is_one_month_later(asked: str, due: str) -> None:
    assert month_after(asked) == due


def test_the_page_loads_nothing_and_escapes_what_was_typed(origin: Origin) -> None:
    page = render(dossier(origin, PURPOSE, "https://user:secret@chain.example", None))
    assert "&lt;b&gt;products&lt;/b&gt;" in page
    assert "secret" not in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)
    assert "<script" not in page


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_for_everybody(origin: Origin, tmp_path: Path, dark: bool) -> None:
    content = dossier(origin, PURPOSE, "embedded", AUDIT)
    json.dumps(content, allow_nan=False)
    (file := tmp_path / "dossier.html").write_text(render(content), encoding="utf-8")
    with browser(tmp_path / "profile") as page:
        page.open(file, dark=dark)
        assert page.complaints == []
        ids = page.evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash.slice(1))")
        assert not [name for name in ids if not page.evaluate(f"!!document.getElementById({json.dumps(name)})")]
        for width in (900, 400):
            page.open(file, dark=dark, width=width)
            assert page.audit() == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
