"""The command line as a whole: every command has an example, and every mistake is one line."""

from importlib.metadata import version

import pytest
import typer

from console.cli import SUMMARIES, app, commands
from core.errors import UsageError
from tests.commands import World, foedus

COMMANDS = (
    "run", "sweep", "status", "witness", "credits", "verify", "proof", "evaluate", "export", "dossier",
    "attribute", "chat",
    "serve", "calibrate", "evidence", "approve", "request", "forget", "check", "chain start", "chain status",
    "chain stop", "chain deploy", "keys new", "keys show", "deploy init", "deploy admit", "deploy check", "doctor",
    "join", "node", "signer", "coordinator", "members request", "members approve", "members revoke", "members show",
    "members join", "members leave", "members sign-leave", "members rotate", "members sign-rotation", "prune", "backup",
    "restore", "schema", "completion",
)  # fmt: skip


@pytest.mark.parametrize("command", [*COMMANDS, "chain", "keys", "members", "deploy", ""])
def test_help_shows_an_example(command: str) -> None:
    done = foedus(*command.split(), "--help")
    assert done.code == 0
    assert f"Example: foedus {command}".rstrip() in " ".join(done.out.split())


def test_help_lists_arguments_once() -> None:
    shown = foedus("verify", "--help").out
    assert shown.count("Run id; the newest without it.") == 1


def test_help_shows_what_every_argument_and_option_is() -> None:
    for name, command in commands():
        shown = " ".join(foedus(*name.split(), "--help").out.split())
        for parameter in command.params:
            described = getattr(parameter, "help", None)
            assert described, f"{name} {parameter.name}"
            assert described in shown, f"{name} {parameter.name}"
        assert "\\[" not in shown


def test_ctrl_c_is_told_with_a_status_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("console.status.state_of", interrupted)
    done = foedus("status")
    assert (done.code, done.error) == (130, "interrupted")


def test_a_run_that_is_interrupted_says_how_it_is_resumed(finished: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("console.backends.inline.run_simulation", interrupted)
    run = finished.command("status").json["run"]
    done = finished.resume(run)
    assert done.code == 130
    assert f"foedus run --resume {run} --state {finished.state}" in done.err


def test_the_version_is_that_of_the_package() -> None:
    assert foedus("--version").out == f"foedus {version('foedus')}\n"


def test_these_are_all_the_commands() -> None:
    assert [name for name, _ in commands()] == list(COMMANDS)


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    group = typer.main.get_command(app)
    listed = foedus("--help").out
    for name, command in group.commands.items():  # type: ignore[attr-defined] # it is a group
        assert SUMMARIES[name] in " ".join(listed.split())
        assert command.help
        if not hasattr(command, "commands"):
            assert command.help.startswith(SUMMARIES[name].removesuffix("."))


@pytest.mark.parametrize("arguments", [("fly",), ("status", "nobody"), ("verify",), ("keys", "show", "nowhere")])
def test_what_does_not_exist_is_wrong_usage(world: World, arguments: tuple[str, ...]) -> None:
    state = ("--state", world.state) if arguments[0] in ("status", "verify") else ()
    done = foedus(*arguments, *state)
    assert done.code == 2
    assert done.error


def test_a_command_that_was_mistyped_is_guessed() -> None:
    assert "'verify'" in foedus("verfy").error


def test_no_command_at_all_shows_the_help() -> None:
    done = foedus()
    assert done.code == 2
    assert "Example: foedus run" in done.out + done.err


def test_an_error_is_one_line_that_steers_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise UsageError("one\ntwo \x1b[2J\u202e three")

    monkeypatch.setattr("console.status.state_of", fail)
    assert foedus("status").error == "one two �[2J� three"
