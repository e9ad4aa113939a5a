"""Who ``USER[:GROUP]`` is, according to a container's own ``/etc/passwd`` and ``/etc/group``."""

from __future__ import annotations

from typing import NamedTuple

from hostspec.errors import InvalidRequest
from hostspec.store.account_files import account_rows

__all__ = ["Account", "find_account"]

_PASSWD_FIELDS = 7
_GROUP_FIELDS = 4


class Account(NamedTuple):
    """Under which IDs a process runs, as the container sees them."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Further groups."""
    home: str = "/"
    """Home directory."""


class _User(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str


class _Group(NamedTuple):
    name: str
    gid: int
    members: tuple[str, ...]


def find_account(root: str, wanted: str) -> Account:
    """Look up a user and, where one is named, a group.

    A number that no file knows is itself; its group is then 0. A user without a named group gets the
    groups of which ``/etc/group`` makes it a member, as podman and Docker do it.

    Args:
        root: The container's root directory, mounted.
        wanted: ``""`` for root, ``USER`` or ``USER:GROUP``, each by name or number.

    Raises:
        InvalidRequest: A name is in neither file, or a number is too large.
    """
    user, _, group = wanted.partition(":")
    users = [
        _User(row[0], int(row[2]), int(row[3]), row[5])
        for row in account_rows(root, "etc/passwd")
        if len(row) == _PASSWD_FIELDS and row[2].isdecimal() and row[3].isdecimal()
    ]
    groups = [
        _Group(row[0], int(row[2]), tuple(filter(None, row[3].split(","))))
        for row in account_rows(root, "etc/group")
        if len(row) == _GROUP_FIELDS and row[2].isdecimal()
    ]
    found = _user(users, user or "0")
    if group:
        return Account(found.uid, _gid(groups, group), (), found.home or "/")
    further = sorted({each.gid for each in groups if found.name in each.members})
    return Account(found.uid, found.gid, tuple(further), found.home or "/")


def _user(users: list[_User], wanted: str) -> _User:
    for each in users:
        if each.name == wanted:
            return each
    number = _number(wanted)
    if number is None:
        raise InvalidRequest(f"user {wanted!r}", "is not in the container's /etc/passwd; use a number")
    for each in users:
        if each.uid == number:
            return each
    return _User("", number, 0, "/")


def _gid(groups: list[_Group], wanted: str) -> int:
    for each in groups:
        if each.name == wanted:
            return each.gid
    number = _number(wanted)
    if number is None:
        raise InvalidRequest(f"group {wanted!r}", "is not in the container's /etc/group; use a number")
    return number


def _number(text: str) -> int | None:
    # The specification's numbers are signed 32-bit in every runtime.
    if not (text.isascii() and text.isdecimal()):
        return None
    number = int(text)
    if number > 0x7FFF_FFFF:  # noqa: PLR2004
        raise InvalidRequest(f"ID {text}", "is beyond 2147483647, the last one that a process can have here")
    return number
