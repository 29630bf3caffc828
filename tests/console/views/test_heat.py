import io
import re
from dataclasses import replace

from rich.console import Console

from console.views.heat import Heat, parts, verdict
from console.views.tables import show
from provenance.colours import colours, mixed
from provenance.shares import response_shares, token_shares
from tests.provenance.traces import TEXTS, abstaining, names, trace


def console(width: int = 80, *, coloured: bool = True) -> Console:
    system = "truecolor" if coloured else None
    return Console(file=io.StringIO(), force_terminal=coloured, color_system=system, width=width)  # type: ignore[arg-type]


def shown(on: Console, count: int = 4) -> str:
    show(*parts(on, trace(count), names(count)), on=on)
    written = on.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


def test_every_token_has_the_colour_of_its_organisation_as_strong_as_its_share() -> None:
    text, found = shown(console()), trace()
    for index, token in enumerate(found.tokens[:6]):
        share = max(token_shares(token).organisations)
        ground = mixed(colours(names(), names())[found.organisations[index % 4]], 0.7 * share)
        channels = ";".join(str(c) for c in bytes.fromhex(ground[1:]))
        assert f"48;2;{channels}m{TEXTS[index]}\x1b[0m" in text


def test_without_colours_letters_stand_under_the_text() -> None:
    text = shown(console(coloured=False))
    assert "\x1b" not in text
    lines = text.splitlines()
    where = lines.index("Take two tablets of <script>alert(1)</script>")
    # by name: A coding, B financial, C mathematical, D medical
    assert lines[where + 1] == "········AAAACCCCDDD" + "B" * 26
    assert lines[where + 2 : where + 4] == [" & milk.", "CCDDDDBA"]
    assert re.search(r"^D medical +█+ +\d+ %", text, re.MULTILINE)


def test_one_organisation_can_be_looked_at_alone() -> None:
    on, financial = console(coloured=False), list(names())[1]
    heat = Heat(on, trace().organisations, names(), financial)
    marks = {heat.mark(token).lower() for token in trace().tokens}
    assert marks == {"b", "·"}
    coloured = Heat(console(), trace().organisations, names(), financial)
    styles = {str(coloured.token(token).style) for token in trace().tokens}
    own = mixed(colours(names(), names())[financial], 0.7 * token_shares(trace().tokens[9]).organisations[1])
    assert f"black on {own}" in styles
    assert "" in styles


def test_letters_stay_under_their_text_in_narrow_consoles_and_under_wide_characters() -> None:
    on = console(10, coloured=False)
    lines = str(Heat(on, trace().organisations, names()).response(trace(texts=["漢字", "かな", "abcdef", "g"]))).split(
        "\n"
    )
    assert lines[::2] == ["漢字かなab", "cdefg"]
    assert [len(line) for line in lines[1::2]] == [10, 5]


def test_the_table_has_shares_nats_the_base_and_the_residual() -> None:
    text, found = shown(console(coloured=False)), trace()
    shares = response_shares(found)
    for k, organisation in enumerate(found.organisations):
        wanted = rf"{names()[organisation]} +█* +{100 * shares.organisations[k]:.0f} % +{found.response.scores[k]:.2f}"
        wanted += rf" +{re.escape(f'{found.response.familiarity[k]:+z.2f}')}"
        assert re.search(wanted, text)
    assert re.search(rf"base model +█+ +{100 * shares.base:.0f} % +{found.response.base:.2f}", text)
    assert re.search(rf"residual +{found.response.residual:.2f}".replace("-", "[-]"), text)
    assert "Verdict  " in text


def test_of_many_organisations_the_first_are_listed() -> None:
    text = shown(console(coloured=False), 1000)
    assert "and 988 with less" in text
    assert len(text.splitlines()) < 40


def test_a_verdict_is_told_with_its_confidence_and_so_is_an_abstention() -> None:
    found = trace()
    best = found.response.verdict
    assert best is not None
    assert verdict(found, names()) == f"Verdict  {names()[best]}, 88 % confident"
    assert "none: the method abstains at a confidence of 25 %" in verdict(abstaining(found), names())


def test_a_verdict_by_the_constants_says_that_they_do_not_fit_this_base() -> None:
    plain = trace()
    fitted = replace(plain, response=replace(plain.response, calibrated=True))
    on = console()
    assert "constants, not calibrated for this base" in str(parts(on, plain, names())[-1])
    assert "constants" not in str(parts(on, fitted, names())[-1])
