"""How arguments are read: the rules of the ``containers-storage`` command.

No argument parser on offer has these rules, and scripts rely on them: flags end at the first
positional argument, so that ``""`` and names starting with ``-`` can follow; no prefix of a flag
stands for it; booleans take a value only as ``--flag=false``; flags of one letter may be joined, as in
``-jq``; global flags stand before or after the sub-command.
"""

# No "from __future__ import annotations": a named tuple compiles every annotation that is a string, and every
# command imports this module.

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from hostspec.errors import InvalidRequest

__all__ = ["TRUE", "Arguments", "Command", "Flag", "UsageError", "parse_flags", "parse_flags_anywhere"]

TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
"""What Go's ``strconv.ParseBool`` takes for true."""
FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class UsageError(InvalidRequest):
    """The command line cannot be understood; nothing was done.

    Attributes:
        exit_code: What the process is to end with.
    """

    exit_code = 1


class Flag(NamedTuple):
    """One flag of a command."""

    spellings: tuple[str, ...]
    """As typed, long one last: ``("-n", "--name")``."""
    summary: str
    """One line of help."""
    value: str = ""
    """Placeholder of its value in help, ``""`` for a boolean."""
    repeats: bool = False
    """Values accumulate; otherwise the last one wins."""

    @property
    def key(self) -> str:
        """The name under which its value is asked for."""
        return self.spellings[-1].lstrip("-")


class Command(NamedTuple):
    """One sub-command."""

    names: tuple[str, ...]
    """Its name, then its aliases."""
    positionals: str
    """How its positional arguments are shown in help: ``ID...``, ``[PARENT]``."""
    summary: str
    """One line of help."""
    run: str
    """The function that runs it: ``module:function`` below ``hostspec.cli``."""
    flags: tuple[Flag, ...] = ()
    """Its own flags; the global ones come in addition."""
    example: str = ""
    """A command line that works."""
    flags_anywhere: bool = False
    """Whether flags may follow positional arguments, as of no command that the peer has."""
    usage_exit_code: int = UsageError.exit_code
    """What the process ends with where its arguments cannot be understood."""
    ignores_more: bool = False
    """Whether no notice is taken of further positional arguments, as the peer takes none."""

    @property
    def fewest(self) -> int:
        """How many positional arguments it needs."""
        return sum(1 for word in self.positionals.split() if not word.startswith("["))

    @property
    def most(self) -> int | None:
        """How many positional arguments it takes, ``None`` for any number."""
        words = self.positionals.split()
        return None if any(word.rstrip("]").endswith("...") for word in words) else len(words)


class Arguments(NamedTuple):
    """What was given to a sub-command."""

    flags: Mapping[str, Sequence[str]]
    """Values by flag, in the order given."""
    positionals: tuple[str, ...]
    """The positional arguments."""

    def given(self, key: str) -> bool:
        """Tell whether a boolean flag is set; with several, the last counts."""
        return self.one(key) == "true"

    def one(self, key: str) -> str | None:
        """Return a flag's value, the last if it was given several times, or ``None``."""
        values = self.flags.get(key)
        return values[-1] if values else None

    def every(self, key: str) -> tuple[str, ...]:
        """Return all values of a flag that accumulates."""
        return tuple(self.flags.get(key, ()))

    def positional(self, index: int) -> str | None:
        """Return a positional argument, or ``None`` where it was left out."""
        return self.positionals[index] if index < len(self.positionals) else None


def parse_flags(words: Sequence[str], flags: Iterable[Flag]) -> Arguments:
    """Read flags up to the first positional argument.

    Raises:
        UsageError: A flag is unknown, lacks its value, or a boolean has a value that is none.
    """
    by_spelling = {spelling: flag for flag in flags for spelling in flag.spellings}
    values: dict[str, list[str]] = {}
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--":
            position += 1
            break
        if not word.startswith("-") or word == "-":
            break
        spelling, equals, value = word.partition("=")
        flag = by_spelling.get(spelling)
        if flag is None and (letters := _letters(word, by_spelling)):
            words = (*letters, *words[position + 1 :])
            position = 0
            continue
        if flag is None:
            raise UsageError(spelling, "no such flag" + _did_you_mean(spelling, by_spelling))
        position += 1
        if not flag.value:
            value = _boolean(spelling, value if equals else "true")
        elif not equals:
            if position == len(words):
                raise UsageError(spelling, f"needs a value: {spelling} {flag.value}")
            value = words[position]
            position += 1
        values.setdefault(flag.key, []).append(value)
    return Arguments(values, tuple(words[position:]))


def parse_flags_anywhere(words: Sequence[str], flags: Sequence[Flag]) -> Arguments:
    """Read flags between positional arguments, too; what follows ``--`` is positional.

    Raises:
        UsageError: As :func:`parse_flags`.
    """
    end = words.index("--") if "--" in words else len(words)
    values: dict[str, list[str]] = {}
    positionals: list[str] = []
    left: Sequence[str] = words[:end]
    while left:
        part = parse_flags(left, flags)
        for key, given in part.flags.items():
            values.setdefault(key, []).extend(given)
        positionals += part.positionals[:1]
        left = part.positionals[1:]
    return Arguments(values, (*positionals, *words[end + 1 :]))


def _letters(word: str, known: Mapping[str, Flag]) -> list[str]:
    """Take ``-jq`` apart, if each letter is a flag; only the last may need a value."""
    letters = [f"-{letter}" for letter in word[1:]]
    if len(letters) > 1 and all(each in known for each in letters):
        return letters if not any(known[each].value for each in letters[:-1]) else []
    return []


def _boolean(spelling: str, value: str) -> str:
    if value in TRUE:
        return "true"
    if value in FALSE:
        return "false"
    raise UsageError(spelling, f"{value!r} is neither true nor false")


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 - only a mistake needs it

    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
