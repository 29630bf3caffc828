"""What `python -m tests.style` counts, on sources of a few lines."""

import sys
from pathlib import Path

import pytest

from tests import style


def measured(root: Path, **sources: str) -> style.Figures:
    """The figures of a project with one package, `core`, of the given modules."""
    (root / "core").mkdir()
    for name, source in sources.items():
        (root / "core" / f"{name}.py").write_text(source, encoding="utf-8")
    return style.measure(["core"], root)


def names(lines: list[str]) -> list[str]:
    return [line.partition(" ")[2] for line in lines]


def test_lines_are_those_of_code_without_docstrings_comments_and_blank_lines(tmp_path: Path) -> None:
    value = '"""Module."""\n\n# why\nx = (\n    1,\n)\n"""What x is."""\n\n\n'
    source = value + 'def f():\n    """One\n    two."""\n    return x\n'
    figures = measured(tmp_path, a=source)
    assert figures.lines == 5
    assert figures.comments == 1
    assert figures.comment_share == 20


def test_comments_that_give_no_reason_do_not_count(tmp_path: Path) -> None:
    source = (
        "#!/usr/bin/env python3\n# --- part ------\nx = 1  # noqa: E501\ny = 2  # type: ignore\n# fmt: off\n"
        "z = 3  # the protocol counts from three\n"
    )
    assert measured(tmp_path, a=source).comments == 1


def test_private_functions_are_single_when_one_place_of_the_module_uses_them(tmp_path: Path) -> None:
    source = (
        "def _once(): ...\ndef _twice(): ...\ndef _never(): ...\ndef f():\n    _once()\n    return _twice, _twice()\n"
    )
    figures = measured(tmp_path, a=source, b="def g(_once):\n    return _once\n")
    assert figures.private == 3
    assert names(figures.single) == ["_once"]
    assert figures.functions == 5


def test_a_hook_that_another_modules_class_calls_counts_all_uses(tmp_path: Path) -> None:
    base = "class A:\n    def f(self):\n        self._hook(), self._hook(), self._own()\n    def _own(self): ...\n"
    hook = "class B(A):\n    def _hook(self): ...\n    def __len__(self): ...\n"
    figures = measured(tmp_path, a=base, b=hook)
    assert figures.private == 2
    assert names(figures.single) == ["_own"]


def test_functions_above_forty_lines_are_listed_with_signature_and_docstring(tmp_path: Path) -> None:
    def body(lines: int) -> str:
        return f"def f{lines}():\n" + "    x = 1\n" * (lines - 1)

    assert names(measured(tmp_path, a=body(40) + body(41)).long) == ["f41, 41 lines"]


def test_class_names_and_private_names_that_two_modules_have_are_listed(tmp_path: Path) -> None:
    figures = measured(tmp_path, a="class A: ...\ndef _f(): ...\n", b="class A: ...\nclass B: ...\ndef _f(): ...\n")
    assert names(figures.classes) == ["A", "A"]
    assert names(figures.duplicates) == ["_f", "_f"]


@pytest.mark.parametrize(
    ("imports", "body", "hidden"),
    [
        ("import json", "json = 1", ["json"]),
        ("import os.path", "os = 1", ["os"]),
        ("import json as text", "json = 1", []),
        ("import json as text", "for text in (): ...", ["text"]),
        ("from core import b", "return [b for b in ()]", ["b"]),
        ("from core.b import value", "value = 1", []),
        ("from email import message", "with open('') as message: ...", ["message"]),
        ("from email import message", "try: ...\n    except OSError as message: ...", ["message"]),
        ("from email import message_from_string", "message_from_string = 1", []),
    ],
)
def test_variables_that_hide_an_imported_module_are_listed(
    tmp_path: Path, imports: str, body: str, hidden: list[str]
) -> None:
    figures = measured(tmp_path, a=f"{imports}\n\ndef f():\n    {body}\n", b="value = 1\n")
    assert names(figures.hidden) == hidden


def test_parameters_hide_modules_and_fields_of_classes_do_not(tmp_path: Path) -> None:
    source = "from core import b, c\nclass A:\n    b: int\ndef f(c): ...\n"
    assert names(measured(tmp_path, a=source, b="", c="").hidden) == ["c"]


def test_messages_that_say_wanted_are_listed_and_docstrings_are_not(tmp_path: Path) -> None:
    source = (
        '"""What is wanted."""\nraise ValueError(f"got {1}, a list wanted")\nraise ValueError(f"wanted {1}, got {2}")\n'
        'check("is no number, one wanted")\nname = "wanted"\nraise ValueError("unwanted")\n'
    )
    assert names(measured(tmp_path, a=source).wanted) == [", a list wanted", "wanted", "is no number, one wanted"]


def test_goals_that_are_missed_are_named_with_expected_and_got(tmp_path: Path) -> None:
    source = "def _f(): ...\ndef _g(): ...\n_f(), _f(), _g()\nclass A: ...\nclass A: ...\n"
    assert measured(tmp_path, a=source).misses() == [
        "private functions with a single caller: expected ≤ 45 %, got 50.0 %",
        "comments per 100 lines: expected ≥ 1.5, got 0.00",
        "class names used twice: expected none, got 2",
    ]


def test_check_fails_only_where_a_goal_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("core").mkdir()
    Path("core/a.py").write_text("# a reason\nx = 1\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["style", "--check", "core"])
    assert style.main() == 0
    Path("core/a.py").write_text("x = 1\n", encoding="utf-8")
    assert style.main() == 1
    monkeypatch.setattr(sys, "argv", ["style", "core"])
    assert style.main() == 0
    assert "expected ≥ 1.5, got 0.00" in capsys.readouterr().out
