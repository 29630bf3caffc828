"""The tree of errors, as the docstring draws it."""

import inspect

from core import errors


def test_every_error_is_in_the_drawn_tree() -> None:
    defined = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in defined)


def test_every_error_is_a_foedus_error_with_a_docstring() -> None:
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        assert issubclass(cls, errors.FoedusError)
        assert cls.__doc__


def test_a_mistake_of_the_user_exits_with_2_and_everything_else_with_1() -> None:
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        assert cls("x").exit_code == (2 if issubclass(cls, errors.UsageError) else 1)
