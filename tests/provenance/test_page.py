"""The page of a trace, as text and in a real browser."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from provenance.colours import colours
from provenance.page import page
from provenance.shares import response_shares, token_shares
from tests.browser import Page, browser
from tests.provenance.traces import TEXTS, abstaining, names, trace

ALL = "document.querySelectorAll('.token')"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "trace.html"
    path.write_text(page(trace(), names()), encoding="utf-8")
    return path


# --- as text -------------------------------------------------------------------------------------------------------


def test_it_refers_to_nothing_outside_itself() -> None:
    html = page(trace(), names())
    assert "http:" not in html
    assert "https:" not in html
    assert "default-src 'none'" in html


def test_text_is_escaped() -> None:
    html = page(trace(texts=("<script>alert(1)</script>", "</script><b>", '"onclick="')), names())
    assert "<script>alert" not in html
    assert "<b>" not in html
    assert 'aria-label=""' not in html


def test_an_abstention_names_nobody() -> None:
    html = page(abstaining(trace()), names())
    assert '<p class="name" id="verdict">None</p>' in html
    assert "a confidence of 25 % is too low" in html


def test_a_thousand_organisations_stay_readable() -> None:
    html = page(trace(1000), names(1000))
    assert html.count('name="view"') == 13
    assert "and 988 organisations with less" in html
    assert len(html) < 400_000


def test_a_method_without_a_residual_shows_none() -> None:
    found = trace()
    bare = replace(found, response=replace(found.response, residual=None))
    assert '<td id="residual">–</td>' in page(bare, names())


# --- in a browser --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_the_heat_map(shown: Page, file: Path, dark: bool) -> None:
    shown.open(file, dark=dark)
    found, colour = trace(), colours(names(), names())
    tokens = shown.evaluate(f"[...{ALL}].map(t => [t.textContent, t.style.getPropertyValue('--c')])")
    assert [text for text, _ in tokens] == [text.replace("\n", "↵") or "∅" for text in TEXTS]
    assert [seen for _, seen in tokens] == [colour[found.organisations[k % 4]] for k in range(len(TEXTS))]
    alphas = shown.evaluate(f"[...{ALL}].map(t => +getComputedStyle(t).backgroundColor.match(/[\\d.]+(?=\\))/)[0])")
    assert alphas == sorted(alphas)  # the later, the more is taught
    assert alphas[0] < 0.1
    assert alphas[-1] > 0.3
    assert not shown.complaints


@pytest.mark.parametrize("dark", [False, True])
def test_text_on_every_colour_can_be_read(shown: Page, tmp_path: Path, dark: bool) -> None:
    """WCAG 2.2 AA: a contrast of at least 4.5 for the tokens of fully taught responses."""
    found = trace(12, [f"word{k}" for k in range(12)])
    sure = tuple(
        replace(t, scores=tuple(9.0 * (k == i) for k in range(12)), residual=0.0) for i, t in enumerate(found.tokens)
    )
    (tmp_path / "trace.html").write_text(page(replace(found, tokens=sure), names(12)), encoding="utf-8")
    shown.open(tmp_path / "trace.html", dark=dark)
    ratios = shown.evaluate(CONTRAST)
    assert len(ratios) >= 20
    assert min(ratios) >= 4.5


def test_a_browser_shows_the_shares_as_bars(shown: Page, file: Path) -> None:
    shown.open(file)
    rows = shown.evaluate(
        "[...document.querySelectorAll('#shares tr[data-share]')].map(r => [r.querySelector('th').textContent,"
        "r.querySelector('.bar').getBoundingClientRect().width / r.querySelector('.track').clientWidth])"
    )
    found, verdict = trace(), trace().response.verdict
    assert verdict is not None
    shares = response_shares(found)
    wanted = dict(zip([names()[o] for o in found.organisations], shares.organisations, strict=True))
    assert {name for name, _ in rows} == {*wanted, "base model"}
    for name, width in rows:
        assert width == pytest.approx((wanted | {"base model": shares.base})[name], abs=0.005)
    assert shown.evaluate("document.getElementById('verdict').textContent") == names()[verdict]


def test_a_token_is_explained_when_pointed_at_clicked_or_reached_by_key(shown: Page, file: Path) -> None:
    shown.open(file)
    detail = "document.getElementById('detail').textContent"
    assert "Point at a token" in shown.evaluate(detail)
    shown.point_at('[data-token="5"]')
    assert json.dumps(TEXTS[5]) in shown.evaluate(detail)
    shown.click('[data-token="1"]')
    assert json.dumps(TEXTS[1]) in shown.evaluate(detail)
    shown.press("ArrowRight")
    assert json.dumps(TEXTS[2]) in shown.evaluate(detail)
    shown.press("End")
    assert shown.evaluate("document.activeElement.dataset.token") == str(len(TEXTS) - 1)
    width = shown.evaluate("parseFloat(document.querySelector('#detail .bar').style.width)")
    assert width == pytest.approx(100 * max(token_shares(trace().tokens[-1]).organisations))
    assert shown.evaluate("document.querySelectorAll('.token[tabindex=\"0\"]').length") == 1
    assert not shown.complaints


def test_the_legend_colours_by_one_organisation(shown: Page, file: Path) -> None:
    shown.open(file)
    legend = shown.evaluate("[...document.querySelectorAll('.legend label')].map(l => l.textContent.trim())")
    assert sorted(legend) == sorted(["the strongest", *names().values()])
    shown.click(".legend label:nth-of-type(2) span")
    name = legend[1]
    (organisation,) = (o for o in names() if names()[o] == name)
    k = trace().organisations.index(organisation)
    strengths = shown.evaluate(f"[...{ALL}].map(t => +t.style.getPropertyValue('--s'))")
    assert strengths == pytest.approx([token_shares(t).organisations[k] for t in trace().tokens], abs=1e-4)
    assert set(shown.evaluate(f"[...{ALL}].map(t => t.style.getPropertyValue('--c'))")) == {
        colours(names(), names())[organisation]
    }


def test_everything_has_a_name_for_those_who_cannot_see_it(shown: Page, file: Path) -> None:
    shown.open(file)
    shown.call("Accessibility.enable")
    nodes = shown.call("Accessibility.getFullAXTree")["nodes"]
    seen = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]
    for role, count in (("button", len(TEXTS)), ("radio", 5), ("meter", 1), ("heading", 5), ("main", 1)):
        assert len([name for r, name in seen if r == role and (name or role == "main")]) == count, role
    first = token_shares(trace().tokens[0])
    share = f"medical {100 * first.organisations[0]:.0f} %, base model {100 * first.base:.0f} %"
    assert ("button", f"{TEXTS[0]!r}: {share}") in seen


def test_the_page_runs_no_script_but_its_own(shown: Page, file: Path) -> None:
    shown.open(file)
    shown.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.foreign = 1'}))"
    )
    shown.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x'}))")
    shown.wait("document.readyState === 'complete'")
    assert shown.evaluate("window.foreign === undefined")
    assert sum("Content Security Policy" in complaint for complaint in shown.complaints) == 2


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_a_phone_and_a_desk_whatever_the_names_and_tokens(shown: Page, tmp_path: Path, width: int) -> None:
    long = {organisation: name * 12 for organisation, name in names().items()}
    (tmp_path / "trace.html").write_text(page(trace(texts=["x" * 300, "y" * 20]), long), encoding="utf-8")
    shown.open(tmp_path / "trace.html", width=width)
    shown.click('[data-token="0"]')
    assert shown.evaluate("document.documentElement.scrollWidth") <= width


CONTRAST = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  canvas.canvas.width = canvas.canvas.height = 1;
  const painted = (...colours) => {
    for (const c of colours) { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (rgb) => rgb.map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const contrast = (...pair) => {
    const [light, dark] = pair.map(luminance).sort((x, y) => y - x);
    return (light + .05) / (dark + .05);
  };
  const card = getComputedStyle(document.querySelector('.card')).backgroundColor;
  return [...document.querySelectorAll('.token, .quiet, h2')].map(e => {
    const style = getComputedStyle(e);
    const ground = e.closest('.card') ? card : getComputedStyle(document.body).backgroundColor;
    return contrast(painted(ground, style.backgroundColor, style.color), painted(ground, style.backgroundColor));
  });
})()
"""
