"""Extended attributes that hold IDs, as text in which the IDs are a container's.

A :class:`~hostspec.testing.tree.Tree` describes a file as its container sees it; on disk, ACL entries
and the root IDs of capabilities are host IDs. This module goes between the two, and is written
apart from what drivers use for the same, so that a test never checks a thing by itself.

The texts::

    u::rw-,u:1000:r--,g::r--,g:42:rw-,m::rw-,o::r--     POSIX ACL, acl(5) in its short form
    permitted=0x2000 effective                          capabilities, version 2
    permitted=0x2000 effective root=5                   capabilities, version 3

An ID that the map does not cover is shown as ``host-1000``, which no description says.
"""

from __future__ import annotations

import struct
from typing import Final

from hostspec.idmap import IdMap, IdRanges

__all__ = ["ACL_ACCESS", "ACL_DEFAULT", "CAPABILITY", "decode_xattr", "encode_xattr"]

ACL_ACCESS: Final = "system.posix_acl_access"
ACL_DEFAULT: Final = "system.posix_acl_default"
CAPABILITY: Final = "security.capability"

# include/uapi/linux/posix_acl.h and posix_acl_xattr.h
_ACL_HEADER = struct.pack("<I", 2)
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_UNDEFINED_ID = 0xFFFF_FFFF
_ACL_TAGS = {"u:": 0x01, "u:ID": 0x02, "g:": 0x04, "g:ID": 0x08, "m:": 0x10, "o:": 0x20}
_ACL_NAMES = {number: name for name, number in _ACL_TAGS.items()}
_ACL_BITS = "rwx"

# include/uapi/linux/capability.h: magic, two 32-bit halves of permitted and inheritable, root ID
_CAPABILITY = struct.Struct("<IIIII")
_CAPABILITY_ROOT = struct.Struct("<I")
_CAPABILITY_2 = 0x0200_0000
_CAPABILITY_3 = 0x0300_0000
_CAPABILITY_EFFECTIVE = 1


def encode_xattr(name: str, value: bytes, idmap: IdMap) -> bytes:
    """Return what the disk must hold for ``value`` as a tree describes it."""
    if name in {ACL_ACCESS, ACL_DEFAULT}:
        return _ACL_HEADER + b"".join(
            _encode_acl_entry(entry, idmap) for entry in value.decode("ascii").split(",")
        )
    if name == CAPABILITY:
        return _encode_capability(value.decode("ascii"), idmap)
    return value


def decode_xattr(name: str, value: bytes, idmap: IdMap) -> bytes:
    """Return ``value``, read from disk, as a tree describes it."""
    if name in {ACL_ACCESS, ACL_DEFAULT}:
        # Entries of one kind may stand in any order: sorted by host IDs, as tools write them, they are not
        # sorted by the container's.
        entries = _ACL_ENTRY.iter_unpack(value.removeprefix(_ACL_HEADER))
        decoded = [(tag, _decode_acl_entry(tag, *rest, idmap=idmap)) for tag, *rest in entries]
        decoded.sort(key=_place_in_acl)
        return ",".join(text for _, text in decoded).encode("ascii")
    if name == CAPABILITY:
        return _decode_capability(value, idmap).encode("ascii")
    return value


def _encode_acl_entry(text: str, idmap: IdMap) -> bytes:
    kind, number, letters = text.split(":")
    permissions = sum(4 >> _ACL_BITS.index(letter) for letter in letters if letter != "-")
    if not number:
        return _ACL_ENTRY.pack(_ACL_TAGS[f"{kind}:"], permissions, _ACL_UNDEFINED_ID)
    ranges = idmap.uids if kind == "u" else idmap.gids
    return _ACL_ENTRY.pack(_ACL_TAGS[f"{kind}:ID"], permissions, ranges.to_host(int(number)))


def _decode_acl_entry(tag: int, permissions: int, number: int, *, idmap: IdMap) -> str:
    name = _ACL_NAMES[tag]
    letters = "".join(letter if permissions & 4 >> place else "-" for place, letter in enumerate(_ACL_BITS))
    if not name.endswith("ID"):
        return f"{name}:{letters}"
    ranges = idmap.uids if name.startswith("u") else idmap.gids
    return f"{name[0]}:{_container_id(ranges, number)}:{letters}"


def _place_in_acl(entry: tuple[int, str]) -> tuple[int, int, str]:
    tag, text = entry
    number = text.split(":")[1]
    return tag, int(number) if number.isdigit() else 0, number


def _encode_capability(text: str, idmap: IdMap) -> bytes:
    fields = dict(word.partition("=")[::2] for word in text.split())
    permitted = int(fields["permitted"], 16)
    inheritable = int(fields.get("inheritable", "0"), 16)
    magic = _CAPABILITY_3 if "root" in fields else _CAPABILITY_2
    value = _CAPABILITY.pack(
        magic | (_CAPABILITY_EFFECTIVE if "effective" in fields else 0),
        permitted & 0xFFFF_FFFF,
        inheritable & 0xFFFF_FFFF,
        permitted >> 32,
        inheritable >> 32,
    )
    if "root" not in fields:
        return value
    return value + _CAPABILITY_ROOT.pack(idmap.uids.to_host(int(fields["root"])))


def _decode_capability(value: bytes, idmap: IdMap) -> str:
    magic, low, low_inheritable, high, high_inheritable = _CAPABILITY.unpack_from(value)
    words = [f"permitted=0x{low | high << 32:x}"]
    if inheritable := low_inheritable | high_inheritable << 32:
        words.append(f"inheritable=0x{inheritable:x}")
    if magic & _CAPABILITY_EFFECTIVE:
        words.append("effective")
    if len(value) > _CAPABILITY.size:
        (root,) = _CAPABILITY_ROOT.unpack_from(value, _CAPABILITY.size)
        container_id = _container_id(idmap.uids, root)
        # Those of the container's own root it reads as version 2: so the kernel shows version 2 through an
        # idmapped mount, and version 3 in the user namespace of that root (cap_inode_getsecurity).
        if container_id != "0":
            words.append(f"root={container_id}")
    return " ".join(words)


def _container_id(ranges: IdRanges, number: int) -> str:
    found = ranges.find_container(number)
    return f"host-{number}" if found is None else str(found)
