from __future__ import annotations

import pytest

from hostspec.cli.grammar import Command
from hostspec.cli.main import main
from hostspec.cli.surface import COMMANDS, GLOBAL_FLAGS


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_help_lists_every_command(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0

    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  {command.names[0]} " in shown


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.names[0])
def test_the_help_of_a_command_explains_its_flags(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command.names[-1], "--help"]) == 0

    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: hostspec {command.names[0]}")
    for flag in (*command.flags, *GLOBAL_FLAGS):
        assert ", ".join(flag.spellings) in shown
        assert flag.summary in shown


def test_help_before_a_command_is_the_help_of_that_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help", "mount"]) == 0

    assert capsys.readouterr().out.startswith("Usage: hostspec mount")


def test_help_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        main([command.names[0], "--help"])
    main([])

    assert max(map(len, capsys.readouterr().out.splitlines())) <= 110


@pytest.mark.parametrize("words", [["lyers"], ["layers", "--jsn"], ["mount"], ["--grph", "x", "layers"]])
def test_what_cannot_be_understood_is_an_error_on_standard_error(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 1

    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("hostspec: ")
    assert shown.err.count("\n") == 1
