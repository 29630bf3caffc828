"""The console's pages, as text and in a real browser."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.storage.events import EventLog
from core.storage.state_folder import State
from tests.browser import Page, browser
from tests.commands import PATIENCE_SECONDS, World
from tests.console.web.served import Served, serving

pytestmark = pytest.mark.chain

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>\u202egnp.exe{{7*7}}' + "long" * 100


def pages(served: Served) -> list[str]:
    run = f"/runs/{served.run}"
    return ["/", "/playground", run, f"{run}/trust", f"{run}/lineage", f"{run}/erase", f"/sites/{served.run}"]


# --- as text -------------------------------------------------------------------------------------------------------


def test_every_page_names_the_run_and_refers_to_nothing_elsewhere(served: Served) -> None:
    for path in pages(served):
        html = served.get(path)
        assert served.run in html
        assert "http://" not in html.replace("http://www.w3.org", "")
        assert "https:" not in html
        assert "style=" not in html
        assert "onclick" not in html


def test_a_run_shows_its_rounds_organisations_losses_and_transactions(served: Served, finished: World) -> None:
    status = finished.command("status").json
    html = served.get(f"/runs/{served.run}")
    for entry in status["rounds"]:
        assert entry["transaction"] in html
        assert entry["aggregate"] in html
    for name, loss in status["final_loss"].items():
        assert name in html
        assert f"{name} ends at {loss:.3f}" in html
    assert ">done<" in html


def test_a_run_shows_what_its_model_answered_after_each_round(served: Served, finished: World) -> None:
    state = State.at(finished.state)
    events, _ = EventLog.read(state.events(state.existing().name))
    told = [event for event in events if event["event"] == "answered"]
    assert [event["round"] for event in told[:2]] == [0, 1]  # the second round may have had no time for it
    html = served.get(f"/runs/{served.run}")
    for event in told:
        (asked,) = event["answers"]
        assert asked["question"] in html
        assert f"<dt>{'Round ' + str(event['round']) if event['round'] else 'Base'}</dt>" in html


def test_the_trust_map_verifies_an_item_now_and_shows_expected_and_got(served: Served) -> None:
    path = f"/runs/{served.run}/trust"
    before = served.get(path)
    for rung in ("recomputed", "attested", "anchored", "self-reported", "not defended"):
        assert rung in before
    assert "Expected" not in before
    after = served.post(path, fact="aggregates")
    assert after.status == 200
    assert after.text.count(">Holds<") == before.count("Verify now</button>")
    assert "2 aggregates checked" in after.text


def test_a_preview_says_what_an_erasure_comes_to(served: Served) -> None:
    html = served.get(f"/runs/{served.run}/erase?organisation=medical&method=replay")
    assert "exact" in html
    assert "Trained again" in html
    assert "Asked to delete what they hold" in html
    refused = served.get(f"/runs/{served.run}/erase?organisation=nobody&method=replay")
    assert 'role="alert"' in refused
    assert "Type the organisation" not in refused


def test_records_are_previewed_and_named_in_what_is_confirmed(served: Served) -> None:
    path, fields = f"/runs/{served.run}/preview", {"organisation": "medical", "method": "replay"}
    found = served.post(path, records='{"question": "medical 3?", "answer": "med 9"}', **fields)
    assert "trained with one record" in found.text
    assert "Erase one record of medical" in found.text
    assert f'<a href="/runs/{served.run}/erase" aria-current="page">' in found.text
    refused = served.post(path, records="<b>nothing</b>", **fields)
    assert 'role="alert"' in refused.text
    assert "records:1" in refused.text
    assert "Gone for good" not in refused.text


def test_pages_of_what_is_not_there_say_so(served: Served) -> None:
    for path in ("/nowhere", "/runs/nobody", "/runs/nobody/erase", "/evidence/0x12"):
        found = served.ask("GET", path)
        assert found.status == 404
        assert "That did not work" in found.text


def test_what_comes_from_elsewhere_is_text(served: Served) -> None:
    quoted = json.dumps(HOSTILE)[1:-1]
    for path in (
        f"/runs/{served.run}/erase?organisation=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&method=%3Cb%3E",
        "/playground?run=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&beside=%3Cscript%3E",
        "/%3Cscript%3Ealert(1)%3C/script%3E",
    ):
        found = served.ask("GET", path)
        assert "<script>alert" not in found.text
        assert quoted not in found.text


# --- what changes something ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"token": "x" * 32}, "token"),
        ({"token": ""}, "token"),
        ({"typed": "Medical"}, "confirmation"),
        ({"method": "all"}, "expected a member"),
        ({"organisation": "nobody", "typed": "nobody"}, "expected a member"),
        ({"records": "nothing"}, "records:1"),
        ({"records": '{"question": "1?", "answer": "1"}'}, "method"),
    ],
)
def test_nothing_is_erased_without_the_token_and_the_typed_name(
    served: Served, change: dict[str, str], named: str
) -> None:
    fields = {"organisation": "medical", "method": "remove", "typed": "medical", "token": served.token}
    found = served.post(f"/runs/{served.run}/erase", **(fields | change))
    assert found.status == 400
    assert named in found.text
    assert not State.at(served.site.state.folder).existing().erasures()
    assert "An erasure is at work" not in served.get(f"/runs/{served.run}/erase")


def test_nothing_is_erased_by_another_site_or_by_a_link(served: Served) -> None:
    fields = f"organisation=medical&method=remove&typed=medical&token={served.token}"
    path = f"/runs/{served.run}/erase"
    kind = "application/x-www-form-urlencoded"
    assert served.ask("POST", path, fields.encode(), content_type=kind, origin="http://evil.example").status == 403
    served.ask("GET", f"{path}?{fields}")
    assert not State.at(served.site.state.folder).existing().erasures()


def test_a_server_without_a_token_erases_nothing(finished: World) -> None:
    with serving(finished.state) as server:
        path = f"/runs/{server.run}/erase"
        assert "--token-file" in server.get(f"{path}?organisation=medical&method=remove")
        for token in ("", "x" * 32):
            found = server.post(path, organisation="medical", method="remove", typed="medical", token=token)
            assert found.status == 400


@pytest.fixture
def own(base: Path, data: Path, tmp_path: Path) -> Iterator[Served]:
    """A server of a run that may be erased."""
    world = World(base, data, tmp_path / "state")
    assert world.inline(rounds=2).code == 0
    with serving(world.state, tmp_path / "token") as found:
        yield found
    world.command("chain stop")


@pytest.mark.slow
def test_an_erasure_is_previewed_done_certified_and_checked_and_serves_another_state(own: Served, shown: Page) -> None:
    before = own.complete(provenance=True).json["foedus"]["receipt"]["receipt"]["value"]["aggregate"]
    shown.open(f"{own.url}/runs/{own.run}/erase")
    shown.evaluate("document.querySelector('select').value = 'medical'")
    shown.evaluate("document.querySelector('input[value=remove]').checked = true")
    shown.click(".secondary")
    shown.wait("document.getElementById('preview') !== null && document.readyState === 'complete'")
    assert "Gone for good" in shown.evaluate("document.getElementById('preview').textContent")
    shown.evaluate("document.querySelector('[name=typed]').value = 'medical'")
    shown.evaluate(f"document.querySelector('[name=token]').value = {json.dumps(own.token)}")
    shown.click(".destructive")
    shown.wait(
        "document.body !== null && document.body.textContent.includes('The erasure has ended')", PATIENCE_SECONDS
    )
    shown.click("[name=certificate]")
    shown.wait("document.querySelector('.result') !== null")
    assert "Holds" in shown.evaluate("document.querySelector('.result').textContent"), own.get(f"/runs/{own.run}/erase")
    assert not shown.complaints
    after = own.complete(provenance=True).json["foedus"]
    assert after["receipt"]["receipt"]["value"]["aggregate"] != before
    assert "medical" not in after["trace"]["response"]["scores"]
    assert "without medical" in own.get(f"/runs/{own.run}/lineage")
    # What was erased for now alone can be erased for good.
    again = own.get(f"/runs/{own.run}/erase?organisation=medical&method=replay")
    assert "Gone for good" in again
    assert "<option selected>medical</option>" in again


# --- a run while it goes on ----------------------------------------------------------------------------------------


def test_events_of_a_run_are_told_in_words_until_it_has_ended(finished: World, tmp_path: Path) -> None:
    for name in ("runs", "settings"):
        shutil.copytree(finished.state / name, tmp_path / "state" / name)
    (tmp_path / "state").chmod(0o700)
    state = State.at(tmp_path / "state")
    log = EventLog(state.events(state.existing().name))
    log.write("finished")
    with serving(state.folder) as server:
        told = server.get(f"/runs/{server.run}/events")
    assert told.rstrip().endswith('event: ended\ndata: "done"')


# --- in a browser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("dark", [False, True])
def test_every_page_is_accessible_and_complains_of_nothing(served: Served, shown: Page, dark: bool) -> None:
    for path in [*pages(served), f"/runs/{served.run}/erase?organisation=medical&method=repair"]:
        shown.open(served.url + path, dark=dark)
        assert shown.audit() == [], path
        assert not shown.complaints, path


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_is_wider_than_its_window(served: Served, shown: Page, width: int) -> None:
    for path in [*pages(served), f"/runs/{served.run}/erase?organisation=medical&method=repair"]:
        shown.open(served.url + path, width=width)
        assert shown.evaluate("document.documentElement.scrollWidth") <= width, path


def ask(shown: Page, served: Served, prompt: str, method: str = "default") -> None:
    shown.open(f"{served.url}/playground")
    for name, value in (("prompt", prompt), ("method", method), ("most", "8")):
        shown.evaluate(f"document.getElementById({name!r}).value = {json.dumps(value)}")
    shown.click("#send")
    shown.wait(
        "document.querySelector('.exports:not([hidden])') !== null || document.querySelector('.problem') !== null"
    )


@pytest.mark.parametrize("method", ["default", "ablation"])
def test_the_playground_colours_tokens_and_tells_their_scores_by_mouse_and_keyboard(
    served: Served, shown: Page, method: str
) -> None:
    ask(shown, served, "coding 3?", method)
    tokens = shown.evaluate("[...document.querySelectorAll('.token')].map(t => t.style.getPropertyValue('--c'))")
    assert len(tokens) >= 2
    assert all(colour.startswith("#") for colour in tokens)
    assert shown.evaluate("document.querySelectorAll('.token[tabindex=\"0\"]').length") == 1
    shown.point_at(".token")
    shown.wait("!document.querySelector('.detail').hidden")
    first = shown.evaluate("document.querySelector('.detail').textContent")
    assert "base model" in first
    assert "residual" in first
    shown.evaluate("document.querySelector('.token').focus()")
    shown.press("ArrowRight")
    shown.wait("document.querySelectorAll('.token')[1] === document.activeElement")
    assert shown.evaluate("document.querySelectorAll('.token')[1].getAttribute('aria-pressed')") == "true"
    assert "confident, by " + ("direct-logit" if method == "default" else method) in shown.evaluate(
        "document.querySelector('.verdict').textContent"
    )
    assert shown.audit() == []
    assert not shown.complaints


def test_the_playground_exports_evidence_that_holds(
    served: Served, shown: Page, finished: World, tmp_path: Path
) -> None:
    prompts = [f"{name} {number}?" for number in range(1, 5) for name in ("coding", "financial", "medical")]
    ask(shown, served, next(prompt for prompt in prompts if _named(served, prompt)), "ablation")
    link = shown.evaluate("document.querySelector('a[href^=\"/evidence\"]')?.getAttribute('href')")
    assert link, "the method abstained"
    found = served.ask("GET", link)
    assert "attachment" in found.headers["content-disposition"]
    (tmp_path / "evidence.json").write_text(found.text, encoding="utf-8")
    assert finished.command("evidence", tmp_path / "evidence.json").json["ok"]


def _named(served: Served, prompt: str) -> bool:
    """Whether a verdict names somebody: a random model's answers are often nobody's."""
    asked = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 8, "provenance": "ablation"}
    return served.complete(**asked).json["foedus"]["trace"]["response"]["verdict"] is not None


def test_a_hostile_prompt_is_text(served: Served, shown: Page) -> None:
    ask(shown, served, HOSTILE[:64])
    assert shown.evaluate("document.querySelectorAll('script').length") == 1
    assert shown.evaluate("document.querySelectorAll('.answers img').length") == 0
    assert not shown.complaints


def test_two_runs_answer_side_by_side(finished: World, shown: Page, tmp_path: Path) -> None:
    run = State.at(finished.state).existing()
    for name in (run.name, "beside"):
        shutil.copytree(run.folder, tmp_path / "state" / "runs" / name)
    (tmp_path / "state").chmod(0o700)
    with serving(tmp_path / "state") as server:
        shown.open(f"{server.url}/playground?run={run.name}&beside=beside")
        shown.evaluate("document.getElementById('prompt').value = 'coding 3?'")
        shown.evaluate("document.getElementById('most').value = '4'")
        shown.click("#send")
        shown.wait("document.querySelectorAll('.exports:not([hidden])').length === 2")
        texts = shown.evaluate("[...document.querySelectorAll('.tokens')].map(t => t.textContent)")
        assert texts[0] == texts[1] != ""
        assert not shown.complaints


def test_an_error_of_the_endpoint_is_shown(served: Served, shown: Page) -> None:
    ask(shown, served, "word " * 400)
    assert "context" in shown.evaluate("document.querySelector('.state').textContent")


def test_hostile_events_are_text_on_a_live_page(finished: World, shown: Page, tmp_path: Path) -> None:
    for name in ("runs", "settings"):
        shutil.copytree(finished.state / name, tmp_path / "state" / name)
    (tmp_path / "state").chmod(0o700)
    state = State.at(tmp_path / "state")
    run = state.existing()
    log, lock = EventLog(state.events(run.name)), state.lock(run.name)
    address = run.genesis.organisations[0].address
    log.write("round-started", round=1, rounds=2, asked=[address])
    log.write("rejected", organisation=address, reason="CLIENT_ERROR", detail=HOSTILE)
    asked = dict.fromkeys(("of", "question", "expected", "answer"), HOSTILE)
    log.write("answered", round=1, aggregate=None, answers=[asked])
    lock.parent.mkdir(parents=True)
    from core.storage.lock import take  # noqa: PLC0415 - as the writer of a run

    with serving(state.folder) as server:
        with take(lock):
            shown.open(f"{server.url}/runs/{server.run}")
            assert "running" in shown.evaluate("document.querySelector('.chip').textContent")
            assert "<script>" in shown.evaluate("document.querySelector('.by-round').textContent")
            log.write("step", doing=HOSTILE)
            shown.wait("document.querySelectorAll('#log li').length > 0")
            assert "<script>" in shown.evaluate("document.querySelector('#log li').textContent")
            assert shown.evaluate("document.querySelectorAll('script').length") == 1
            log.write("finished")
        shown.wait("document.querySelector('.chip')?.textContent === 'done'")
        assert not shown.complaints
        assert shown.evaluate("document.querySelectorAll('img').length") == 0


def described(shown: Page) -> list[Any]:
    """Role and name of everything that a reader is told."""
    tree = shown.call("Accessibility.getFullAXTree")["nodes"]
    return [(n.get("role", {}).get("value"), n.get("name", {}).get("value")) for n in tree if not n.get("ignored")]


def test_a_reader_is_told_pictures_and_states_in_words(served: Served, shown: Page) -> None:
    shown.open(f"{served.url}/runs/{served.run}")
    assert any(role == "image" and "ends at" in str(name) for role, name in described(shown))
    shown.open(f"{served.url}/runs/{served.run}/lineage")
    assert any(role == "image" and "2 rounds in 1 generation" in str(name) for role, name in described(shown))
