"""The trees and ID maps that the suite works on.

A chain of three layers, each of which owns files, adds, changes, replaces and deletes; small, since every
test makes it anew, but with everything in it that drivers have been seen to lose. All IDs are covered by
all maps, unless a test says otherwise.
"""

from __future__ import annotations

import os
from typing import Final

from hostspec.idmap import ID_LIMIT, IdMap
from hostspec.testing.id_xattrs import ACL_ACCESS, ACL_DEFAULT, CAPABILITY
from hostspec.testing.tree import MTIME_NS, Tree, character_device, directory, fifo, file, symlink

__all__ = [
    "ANOTHER",
    "BOTTOM",
    "GAPS",
    "HIGHEST",
    "MAPPED",
    "MAPS",
    "MIDDLE",
    "MINE",
    "SCATTERED",
    "SMALL",
    "TOP",
    "TOP_RECREATES",
    "UNMAPPED",
]

UNMAPPED: Final = IdMap()
"""No map."""
MAPPED: Final = IdMap([(0, 100_000, 65_536)], [(0, 300_000, 65_536)])
"""One range each, UIDs unlike GIDs."""
ANOTHER: Final = IdMap(
    [(0, 200_000, 1_000), (1_000, 500_000, 64_536)], [(0, 700_000, 10), (10, 800_000, 65_526)]
)
"""Several ranges, cut differently for UIDs and GIDs."""
SCATTERED: Final = IdMap(
    [(0, 900_000, 500), (500, 1_000, 501), (1_001, 400_000, 64_535)],
    [(0, 20_000, 1_000), (1_000, 10_000, 1), (1_001, 600_000, 64_535)],
)
"""Ranges that follow each other for containers and lie apart, in another order, on the host."""
GAPS: Final = IdMap(
    [(0, 1_000, 100), (1_000, 3_000_000, 100), (65_534, 1_100, 1)],
    [(0, 2_000_000, 100), (1_000, 1_000, 100), (65_534, 5_000, 1)],
)
"""Ranges with gaps between them on both sides; some host IDs are container IDs too."""
HIGHEST: Final = IdMap([(0, ID_LIMIT - 65_536, 65_536)], [(0, ID_LIMIT - 65_535, 65_535)])
"""The last IDs that 32 bits have."""

MAPS: Final = {
    "unmapped": UNMAPPED,
    "mapped": MAPPED,
    "another": ANOTHER,
    "scattered": SCATTERED,
    "gaps": GAPS,
    "highest": HIGHEST,
}
"""All of them, by name."""

_LATER: Final = MTIME_NS + 86_400_000_000_001
_LATEST: Final = MTIME_NS + 172_800_000_000_002
_LONG_NAME: Final = "long-" + "n" * 200

SMALL: Final = Tree(
    {
        "/a": directory(),
        "/a/file": file(b"content of a file", uid=1_000, gid=1_000),
        "/b": file(b"b", mode=0o600, uid=1, gid=2),
        "/link": symlink("a/file", uid=5, gid=6),
    }
)
"""A tree of a few files, for tests in which content does not matter."""

MINE: Final = Tree(
    {
        "/": directory(uid=os.geteuid(), gid=os.getegid()),
        "/file": file(b"content", uid=os.geteuid(), gid=os.getegid()),
    }
)
"""A tree that whoever runs the suite can make."""

BOTTOM: Final = Tree(
    {
        "/": directory(mode=0o751, uid=3, gid=4),
        "/bin": directory(),
        "/bin/sh": file(b"#!shell " * 600, mode=0o755),
        "/bin/su": file(b"set-uid program", mode=0o4755),
        "/bin/mail": file(b"set-gid program", mode=0o2755, gid=8),
        "/bin/ping": file(
            b"needs a capability", mode=0o755, xattrs={CAPABILITY: b"permitted=0x2000 effective"}
        ),
        "/bin/spare": file(b"soon deleted", mode=0o755, uid=1_000),
        "/etc": directory(mtime_ns=MTIME_NS + 1),
        "/etc/group": file(b"root:x:0:\n", gid=42, mtime_ns=MTIME_NS + 999),
        "/etc/passwd": file(b"root:x:0:0\n", uid=1_000, gid=1_001),
        "/etc/empty": file(),
        "/x": file(b"one-character name", uid=42, gid=43),
        "/y": directory(mode=0o2775, uid=42, gid=43),
        "/y/z": file(b"below one", uid=65_534, gid=65_534),
        "/tmp": directory(mode=0o1777),
        "/lib": directory(),
        "/lib/libc.so": symlink("libc.so.6"),
        "/lib/libc.so.6": file(b"\x7fELF" + bytes(range(256)) * 20, mode=0o755),
        "/lib/old": directory(uid=7),
        "/lib/old/one": file(b"one"),
        "/lib/old/two": file(b"two", uid=7),
        "/lib/replaced": directory(),
        "/lib/replaced/inner": file(b"inner"),
        "/var": directory(),
        "/var/pipe": fifo(uid=10, gid=11),
        "/var/null": character_device(1, 3, gid=12),
        "/var/one": file(b"three names, one inode", uid=33, gid=33),
        f"/var/{_LONG_NAME}": file(b"long", uid=1_050, gid=1_051),
        "/var/caf\udce9": file(b"a name that is not UTF-8", uid=99, gid=99),
    },
    links=[("/var/one", "/var/two", "/etc/three")],
)
"""The bottom layer."""

MIDDLE: Final = BOTTOM.without("/bin/spare", "/lib/replaced").with_entries(
    {
        "/etc/passwd": file(b"root:x:0:0\nuser:x:1000\n", uid=1_000, gid=1_001, mtime_ns=_LATER),
        "/etc/empty": directory(uid=9, gid=9, mtime_ns=_LATER),
        "/etc/empty/full": file(b"now a directory", uid=9, gid=9, mtime_ns=_LATER),
        "/lib/replaced": symlink("old", uid=11, mtime_ns=_LATER),
        "/bin/sudo": file(b"another set-uid program", mode=0o6755, gid=1_000, mtime_ns=_LATER),
        "/srv": directory(
            mode=0o775,
            uid=1_000,
            gid=1_000,
            mtime_ns=_LATER,
            xattrs={
                ACL_ACCESS: b"u::rwx,u:42:r-x,g::r-x,g:1000:rwx,m::rwx,o::r-x",
                ACL_DEFAULT: b"u::rwx,u:1001:rwx,g::r-x,m::rwx,o::---",
            },
        ),
        "/srv/shared": file(
            b"shared by an ACL",
            mode=0o664,
            uid=1_000,
            mtime_ns=_LATER,
            xattrs={ACL_ACCESS: b"u::rw-,u:1:r--,u:1002:rw-,g::r--,g:43:rw-,m::rw-,o::r--"},
        ),
        "/srv/contained": file(
            b"a capability of one container",
            mode=0o755,
            uid=2,
            mtime_ns=_LATER,
            xattrs={CAPABILITY: b"permitted=0x400 effective root=5"},
        ),
        "/srv/noted": file(
            b"with notes",
            uid=3,
            mtime_ns=_LATER,
            xattrs={"user.note": b"\x00\xff note", "trusted.note": b"trusted"},
        ),
    }
)
"""The middle layer: parent of templates."""

TOP: Final = MIDDLE.without("/lib/old", "/etc/group", "/var/pipe", "/y/z").with_entries(
    {
        "/": directory(mode=0o755, uid=4, gid=3, mtime_ns=_LATEST),
        "/lib/old": directory(mode=0o700, uid=1_001, mtime_ns=_LATEST),
        "/lib/old/three": file(b"in a directory made anew", uid=1_001, mtime_ns=_LATEST),
        "/etc/passwd": file(b"root:x:0:0\nuser:x:1001\n", uid=0, gid=1_002, mtime_ns=_LATEST),
        "/bin/ping": file(
            b"needs another capability",
            mode=0o750,
            gid=13,
            mtime_ns=_LATEST,
            xattrs={CAPABILITY: b"permitted=0x3000 effective root=1000"},
        ),
        "/z": file(b"one character, on top", uid=1_000, gid=1_000, mtime_ns=_LATEST),
        "/q": directory(mode=0o4755, uid=1, gid=1, mtime_ns=_LATEST),
        "/opt": directory(uid=1_099, gid=1_099, mtime_ns=_LATEST),
        "/opt/first": file(b"linked on top", mode=0o2750, uid=65_534, gid=1_000, mtime_ns=_LATEST),
        "/opt/tty": character_device(5, 0, mode=0o620, uid=1, gid=5),
        "/opt/pipe": fifo(mode=0o600, uid=2, gid=2),
        "/opt/link": symlink("/etc/passwd", uid=1_000, gid=1_000, mtime_ns=_LATEST),
        "/opt/caf\udce9": directory(uid=1, mtime_ns=_LATEST),
    },
    links=[("/opt/first", "/opt/second")],
)
"""The top layer: what templates show."""

TOP_RECREATES: Final = frozenset({"/lib/old"})
"""What the top layer deletes and makes anew, so that it is opaque where a driver knows such a thing."""
