"""What carries an ID, and how it changes with the ID map.

A file on disk carries *host IDs*. Under its layer's map each stands for a *container ID*
(:mod:`hostspec.idmap`); under another map that container ID is another host ID:
``new.to_host(old.to_container(host_id))``. An ID is carried by

- the owner and the group of every inode, the root directory's among them;
- entries for users and groups in POSIX ACLs, ``system.posix_acl_access`` and ``…_default``
  (``include/uapi/linux/posix_acl_xattr.h``, version 2);
- the root ID of a version 3 ``security.capability`` (``include/uapi/linux/capability.h``,
  capabilities(7), "Namespaced file capabilities").
"""

from __future__ import annotations

import struct
from threading import Lock

from hostspec.errors import IdNotMapped
from hostspec.idmap import IdMap, IdRanges

__all__ = ["ACL_NAMES", "CAPABILITY_NAME", "IdShift", "ids_in_xattr"]

ACL_NAMES = frozenset({"system.posix_acl_access", "system.posix_acl_default"})
"""Extended attributes that hold a POSIX ACL."""

CAPABILITY_NAME = "security.capability"
"""The extended attribute that holds a file's capabilities."""

_ACL_HEADER = struct.Struct("<I")
_ACL_ENTRY = struct.Struct("<HHI")  # tag, permissions, ID
_ACL_VERSION = 2
_ACL_USER = 0x02
_ACL_GROUP = 0x08

_CAPABILITY_REVISION_MASK = 0xFF00_0000
_CAPABILITY_REVISION_2 = 0x0200_0000
_CAPABILITY_REVISION_3 = 0x0300_0000
_CAPABILITY_3 = struct.Struct("<I16sI")  # magic and flags, two pairs of sets, root ID
_CAPABILITY_2 = struct.Struct("<I16s")


def ids_in_xattr(name: str, value: bytes) -> tuple[frozenset[int], frozenset[int]]:
    """Return the UIDs and the GIDs that an extended attribute carries; most carry none.

    Capabilities that name no root ID are those of UID 0.
    """
    if name == CAPABILITY_NAME:
        with_root_id = len(value) == _CAPABILITY_3.size
        return frozenset({_CAPABILITY_3.unpack(value)[2] if with_root_id else 0}), frozenset()
    if name not in ACL_NAMES or (len(value) - _ACL_HEADER.size) % _ACL_ENTRY.size:
        return frozenset(), frozenset()
    entries = list(_ACL_ENTRY.iter_unpack(value[_ACL_HEADER.size :]))
    return (
        frozenset(number for tag, _, number in entries if tag == _ACL_USER),
        frozenset(number for tag, _, number in entries if tag == _ACL_GROUP),
    )


class IdShift:
    """Turns what files carry under one map into what they carry under another.

    Few different IDs occur in a tree, so each is looked up once and then remembered.
    Threads may share one.

    With ``squash``, an ID that a map does not cover is replaced instead of refused:
    the container ID that it stands for gives way to the nearest one that ``new`` covers
    (the lower of two that are equally near). A host ID outside ``old`` stands for no container ID;
    its own number is then taken for one, since a file that an earlier pass left out
    still has it.
    """

    def __init__(self, old: IdMap, new: IdMap, *, squash: bool = False) -> None:
        """Prepare to move files from ``old`` to ``new``.

        Args:
            old: The map that the files carry.
            new: The map that they will carry.
            squash: Replace IDs outside the maps by the nearest inside, instead of failing.
        """
        self.is_identity = old == new
        """True where nothing would change; IDs outside the map are then left alone too."""
        if self.is_identity:
            old = new = IdMap()
        self._uids = _IdTable(old.uids, new.uids, "UID", squash=squash)
        self._gids = _IdTable(old.gids, new.gids, "GID", squash=squash)
        self._owners: dict[tuple[int, int], tuple[int, int]] = {}

    @property
    def squashed(self) -> int:
        """How many carried IDs have been replaced because a map did not cover them."""
        return self._uids.squashed + self._gids.squashed

    def owner(self, uid: int, gid: int, path: str = "") -> tuple[int, int]:
        """Return the new owner of a file.

        Args:
            uid: Its present host UID.
            gid: Its present host GID.
            path: The file, absolute within its layer, for the error.

        Raises:
            IdNotMapped: A map does not cover one of them, and nothing is squashed.
        """
        found = self._owners.get((uid, gid))
        if found is None:
            found = self._uids.shift(uid, path), self._gids.shift(gid, path)
            # An ID that is squashed is counted each time.
            if uid in self._uids and gid in self._gids:
                self._owners[uid, gid] = found
        return found

    def acl(self, value: bytes, path: str = "") -> bytes:
        """Return a POSIX ACL, as its extended attribute holds it, under the new map.

        Entries of one kind are sorted by ID again, as getfacl(1) shows them. Where squashing makes two
        speak of the same user or group, the one that is left grants only what both granted.
        What is not a version 2 ACL is returned as it is: no ID can be told in it.

        Raises:
            IdNotMapped: A map does not cover an ID in it, and nothing is squashed.
        """
        body = value[_ACL_HEADER.size :]
        if len(value) < _ACL_HEADER.size or len(body) % _ACL_ENTRY.size:
            return value
        if _ACL_HEADER.unpack_from(value)[0] != _ACL_VERSION:
            return value
        granted: dict[tuple[int, int], int] = {}
        for tag, permissions, number in _ACL_ENTRY.iter_unpack(body):
            if tag == _ACL_USER:
                number = self._uids.shift(number, path)  # noqa: PLW2901
            elif tag == _ACL_GROUP:
                number = self._gids.shift(number, path)  # noqa: PLW2901
            granted[tag, number] = granted.get((tag, number), permissions) & permissions
        # The kernel wants the kinds in the order of their tags (posix_acl_valid in fs/posix_acl.c).
        entries = (_ACL_ENTRY.pack(tag, granted[tag, number], number) for tag, number in sorted(granted))
        return value[: _ACL_HEADER.size] + b"".join(entries)

    def capability(self, value: bytes, path: str = "") -> bytes:
        """Return file capabilities, as their extended attribute holds them, under the new map.

        Version 2 holds no ID and is returned as it is. A version 3 root ID that becomes 0
        says what version 2 says, and is written so; the kernel too shows it so.

        Raises:
            IdNotMapped: A map does not cover the root ID, and nothing is squashed.
        """
        if len(value) != _CAPABILITY_3.size:
            return value
        magic, sets, root_id = _CAPABILITY_3.unpack(value)
        if magic & _CAPABILITY_REVISION_MASK != _CAPABILITY_REVISION_3:
            return value
        root_id = self._uids.shift(root_id, path)
        if root_id == 0:
            flags = magic & ~_CAPABILITY_REVISION_MASK
            return _CAPABILITY_2.pack(_CAPABILITY_REVISION_2 | flags, sets)
        return _CAPABILITY_3.pack(magic, sets, root_id)

    def xattr(self, name: str, value: bytes, path: str = "") -> bytes:
        """Return the value of any extended attribute under the new map.

        Raises:
            IdNotMapped: A map does not cover an ID in it, and nothing is squashed.
        """
        if name in ACL_NAMES:
            return self.acl(value, path)
        if name == CAPABILITY_NAME:
            return self.capability(value, path)
        return value


class _IdTable:
    """One half of an IdShift: UIDs or GIDs."""

    __slots__ = ("_kind", "_known", "_lock", "_new", "_old", "_outside", "_squash", "squashed")

    def __init__(self, old: IdRanges, new: IdRanges, kind: str, *, squash: bool) -> None:
        self._old = old
        self._new = new
        self._kind = kind
        self._squash = squash
        self._known: dict[int, int] = {}
        self._outside: dict[int, int] = {}
        self._lock = Lock()
        self.squashed = 0

    def __contains__(self, number: int) -> bool:
        """Tell whether an ID has been looked up and is covered by both maps."""
        return number in self._known

    def shift(self, number: int, path: str) -> int:
        found = self._known.get(number)
        return self._look_up(number, path) if found is None else found

    def _look_up(self, number: int, path: str) -> int:
        container_id = self._old.find_container(number)
        target = None if container_id is None else self._new.find_host(container_id)
        if target is not None:
            self._known[number] = target
            return target
        if not self._squash:
            if container_id is None:
                raise IdNotMapped(path, f"host {self._kind}", number)
            raise IdNotMapped(path, f"container {self._kind}", container_id)
        with self._lock:
            self.squashed += 1
            if number not in self._outside:
                wanted = number if container_id is None else container_id
                self._outside[number] = _nearest_host_id(self._new, wanted)
            return self._outside[number]


def _nearest_host_id(ranges: IdRanges, container_id: int) -> int:
    """Return the host ID of the container ID that ``ranges`` covers nearest to ``container_id``."""
    if not ranges:
        return container_id
    inside = (min(max(container_id, each.container_id), each.container_id + each.size - 1) for each in ranges)
    return ranges.to_host(min(inside, key=lambda found: (abs(found - container_id), found)))
