"""Chat templates: their date is fixed, they are stopped, and what they raise is one line."""

import resource
from datetime import date
from pathlib import Path

import pytest

from core.errors import DataError, ModelError
from llm import templates
from llm.batches import encode
from llm.records import Message
from llm.templates import chat, fix_date, prints_date
from tests.llm.conftest import CHAT, byte_tokenizer, question

ASKED = (Message("user", "Who?"),)
LLAMA = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}'
    "{%- endif %}{%- endif %}Today: {{ date_string }}\n"
)
"""How the templates of Llama 3.2 ask for the date."""


@pytest.mark.parametrize("asks", [LLAMA, "{{ strftime_now('%d %b %Y') }}\n", '{{ strftime_now( "%d %b %Y" ) }}\n'])
def test_a_template_prints_the_date_that_was_fixed(asks: str) -> None:
    tokenizer = byte_tokenizer(asks + CHAT)
    fix_date(tokenizer, date(2031, 3, 9))
    assert "09 Mar 2031" in chat(tokenizer, ASKED, answered=False)


def test_each_of_several_templates_prints_the_date_that_was_fixed() -> None:
    tokenizer = byte_tokenizer("")
    tokenizer.chat_template = {"default": LLAMA + CHAT, "tool_use": LLAMA + "Tools."}
    fix_date(tokenizer, date(2031, 3, 9))
    assert chat(tokenizer, ASKED, answered=False).startswith("Today: 09 Mar 2031")
    assert "09 Mar 2031" in tokenizer.chat_template["tool_use"]


def test_a_date_in_a_format_that_is_computed_is_refused() -> None:
    with pytest.raises(ModelError, match="expected the format of its date as text, got strftime_now of something else"):
        fix_date(byte_tokenizer("{% set f = '%Y' %}{{ strftime_now(f) }}" + CHAT), date(2031, 3, 9))


@pytest.mark.parametrize(("template", "asks"), [(CHAT, False), (LLAMA + CHAT, True)])
def test_the_files_of_a_base_tell_whether_its_template_prints_a_date(tmp_path: Path, template: str, asks: bool) -> None:
    byte_tokenizer(template).save_pretrained(tmp_path)
    assert prints_date(tmp_path) is asks


def test_a_template_that_loops_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    before = resource.getrlimit(resource.RLIMIT_AS)
    with monkeypatch.context() as patch:
        patch.setattr(templates, "LONGEST_SECONDS", 0.5)
        with pytest.raises(DataError, match=r"expected text within 0.5 s of the turns user, got none"):
            encode(byte_tokenizer(loops + CHAT), question("Who?", "You."), 64)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert chat(byte_tokenizer(CHAT), ASKED, answered=False) == "<user>Who?\n<assistant>"


@pytest.mark.parametrize(
    "fills",
    [
        "{{ 'x' * 10 ** 10 }}",
        "{% for i in range(99999) %}{{ messages[0].content * 1000000 }}{% endfor %}",
        "{% set n = namespace(t='x') %}{% for i in range(40) %}{% set n.t = n.t + n.t %}{% endfor %}{{ n.t }}",
    ],
)
def test_a_template_that_fills_the_memory_is_stopped(monkeypatch: pytest.MonkeyPatch, fills: str) -> None:
    monkeypatch.setattr(templates, "MOST_BYTES", 2**27)
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(DataError, match=r"expected text of the turns user in 128 MiB, got more"):
        chat(byte_tokenizer(fills + CHAT), ASKED, answered=False)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert chat(byte_tokenizer(CHAT), ASKED, answered=False) == "<user>Who?\n<assistant>"


@pytest.mark.parametrize(
    ("fails", "why"),
    [
        ("{{ raise_exception('no such role') }}", "no such role"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{% for i in range(10 ** 12) %}{% endfor %}", "Range too big"),
    ],
)
def test_a_template_that_fails_is_one_line(fails: str, why: str) -> None:
    with pytest.raises(DataError, match=f"template refuses the turns user: .*{why}") as caught:
        chat(byte_tokenizer(fails + CHAT), ASKED, answered=False)
    assert "\n" not in str(caught.value)
