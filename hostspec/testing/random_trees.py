"""Random trees, for properties of the suite's own tools."""

from __future__ import annotations

from hypothesis import strategies as st

from hostspec.testing.id_xattrs import ACL_ACCESS, CAPABILITY
from hostspec.testing.tree import Entry, Tree, character_device, directory, fifo, file, symlink

IDS = st.sampled_from([0, 1, 42, 1_000, 65_535])
TIMES = st.sampled_from([0, 1, 999_999_999, 1_700_000_000_000_000_001, 4_000_000_000_123_456_789])
NAMES = st.sampled_from(["a", "b", "c", "longer name", "caf\udce9", "-x", ".hidden"])
XATTRS = st.sampled_from(
    [
        {},
        {"user.note": b"\x00\xff"},
        {CAPABILITY: b"permitted=0x2000 effective"},
        {CAPABILITY: b"permitted=0x400 root=1000"},
        {ACL_ACCESS: b"u::rw-,u:1000:r--,g::r--,g:42:r--,m::r--,o::r--"},
    ]
)

FILES = st.builds(
    file, st.binary(max_size=20), mode=st.sampled_from([0o644, 0o4744]), uid=IDS, gid=IDS, mtime_ns=TIMES
) | st.builds(file, st.binary(max_size=20), mode=st.just(0o644), uid=IDS, gid=IDS, xattrs=XATTRS)
LEAVES = st.one_of(
    FILES,
    st.builds(symlink, st.sampled_from(["a", "/nowhere"]), uid=IDS, gid=IDS, mtime_ns=TIMES),
    st.builds(fifo, uid=IDS, gid=IDS),
    st.builds(character_device, st.integers(1, 300), st.integers(0, 70_000), uid=IDS),
)
DIRECTORIES = st.builds(directory, mode=st.sampled_from([0o755, 0o2700]), uid=IDS, gid=IDS, mtime_ns=TIMES)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """A tree of some directories with files of every kind in them, hard links among them."""
    entries: dict[str, Entry] = {"/": draw(DIRECTORIES)}
    inside = [""]
    for name in draw(st.lists(NAMES, max_size=3)):
        path = f"{draw(st.sampled_from(inside))}/{name}"
        if path not in entries:
            entries[path] = draw(DIRECTORIES)
            inside.append(path)
    free = [f"{parent}/{name}" for parent in inside for name in "pqrs"]
    for path in draw(st.lists(st.sampled_from(free), max_size=6, unique=True)):
        entries[path] = draw(LEAVES)
    linked = [path for path in free if path in entries][:1]
    group = [*linked, *(path for path in free if path not in entries)][: draw(st.integers(0, 3))]
    return Tree(entries, links=[group] if linked and len(group) > 1 else [])
