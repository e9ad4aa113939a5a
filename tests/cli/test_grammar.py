from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostspec.cli.grammar import Arguments, Command, Flag, UsageError, parse_flags
from hostspec.cli.surface import COMMANDS, GLOBAL_FLAGS, find_command

NAME = Flag(("-n", "--name"), "", "NAME", repeats=True)
ID = Flag(("-i", "--id"), "", "ID")
JSON = Flag(("-j", "--json"), "")
FLAGS = (NAME, ID, JSON)

values = st.text(min_size=1).filter(lambda text: "\0" not in text)
given_flags = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([NAME, ID]), values),
        st.tuples(st.just(JSON), st.sampled_from(["true", "false"])),
    )
)


def parse(*words: str) -> Arguments:
    return parse_flags(words, FLAGS)


def spelt(flag: Flag, value: str, *, long: bool, joined: bool) -> list[str]:
    spelling = flag.spellings[-1 if long else 0]
    return [f"{spelling}={value}"] if joined or not flag.value else [spelling, value]


@given(given_flags, st.lists(st.tuples(st.booleans(), st.booleans())), st.lists(st.text()))
def test_what_is_written_is_what_is_read(
    flags: list[tuple[Flag, str]], spellings: list[tuple[bool, bool]], positionals: list[str]
) -> None:
    words = []
    for index, (flag, value) in enumerate(flags):
        long, joined = spellings[index] if index < len(spellings) else (True, False)
        words += spelt(flag, value, long=long, joined=joined)

    read = parse(*words, "--", *positionals)

    assert read.positionals == tuple(positionals)
    for flag in FLAGS:
        assert read.every(flag.key) == tuple(value for each, value in flags if each is flag)


@given(st.lists(st.text()))
def test_words_are_read_or_refused_but_never_crash(words: list[str]) -> None:
    read = None
    with suppress(UsageError):
        read = parse(*words)

    assert read is None or read.positionals == tuple(words[len(words) - len(read.positionals) :])


def test_flags_of_one_letter_may_be_joined() -> None:
    quiet = Flag(("-q", "--quiet"), "")

    read = parse_flags(["-qji", "ID", "-q"], (*FLAGS, quiet))

    assert (read.given("quiet"), read.given("json"), read.one("id")) == (True, True, "ID")
    for refused in ("-jx", "-ij", "-jq=true", "--jq"):
        with pytest.raises(UsageError):
            parse_flags([refused, "ID"], (*FLAGS, quiet))


def test_flags_end_at_the_first_positional() -> None:
    assert parse("-j", "layer", "-n", "x").positionals == ("layer", "-n", "x")


@pytest.mark.parametrize("first", ["", "-"])
def test_an_empty_word_and_a_dash_are_positionals(first: str) -> None:
    assert parse(first, "-j").positionals == (first, "-j")


def test_a_flag_that_accumulates_keeps_the_order() -> None:
    assert parse("-n", "one", "--name=two", "-n", "three").every("name") == ("one", "two", "three")


def test_of_other_flags_the_last_wins() -> None:
    assert parse("-i", "one", "--id", "two").one("id") == "two"


def test_a_boolean_takes_its_value_only_after_an_equals_sign() -> None:
    assert not parse("--json=false").given("json")
    assert parse("--json", "false").positionals == ("false",)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nam", "x"], "--nam: no such flag; did you mean --name?"),
        (["-x"], "-x: no such flag"),
        (["-n"], "-n: needs a value: -n NAME"),
        (["--json=perhaps"], "--json: 'perhaps' is neither true nor false"),
    ],
)
def test_what_is_wrong_is_named_with_the_way_out(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*words)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("positionals", "fewest", "most"),
    [("", 0, 0), ("ID", 1, 1), ("[PARENT]", 0, 1), ("LAYER [REFERENCE]", 1, 2), ("ID...", 1, None)],
)
def test_the_help_text_says_how_many_positionals_there_may_be(
    positionals: str, fewest: int, most: int | None
) -> None:
    command = Command(("c",), positionals, "", "m:f")

    assert (command.fewest, command.most) == (fewest, most)


def test_a_mistyped_command_is_guessed() -> None:
    with pytest.raises(UsageError, match="did you mean create-container"):
        find_command("creat-container")


def test_no_name_stands_for_two_commands() -> None:
    names = [name for command in COMMANDS for name in command.names]

    assert len(names) == len(set(names))


REDEFINED = {"run": {"--storage-opt"}}
"""Global flags that mean something else after a command: as with podman, an option for one container."""


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.names[0])
def test_no_command_has_two_flags_of_one_spelling(command: Command) -> None:
    spellings = [spelling for flag in command.flags for spelling in flag.spellings]

    assert len(spellings) == len(set(spellings))
    # ``-s``, ``-D`` and so on after the command still mean what they mean before it.
    taken = {spelling for flag in GLOBAL_FLAGS for spelling in flag.spellings}
    assert taken & set(spellings) == REDEFINED.get(command.names[0], set())
