"""Layer tars made from trees, and trees worked out from layer tars, by the standard library's ``tarfile``.

A second, independent reading of the OCI image specification ("Layer", "Whiteouts"), in memory: what a driver
packs must mean the right tree to it, and what it packs a driver must unpack to the right tree.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Iterable
from typing import BinaryIO, Final

from hostspec.idmap import IdMap
from hostspec.testing.id_xattrs import decode_xattr, encode_xattr
from hostspec.testing.tree import Entry, Kind, Tree
from hostspec.values import ChangeKind

__all__ = ["layer_tar", "member_names", "with_layer"]

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_XATTR: Final = "SCHILY.xattr."
_NANOSECONDS: Final = 1_000_000_000

_TYPES = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
    Kind.CHARACTER: tarfile.CHRTYPE,
    Kind.BLOCK: tarfile.BLKTYPE,
}
_KINDS = {
    **{value: kind for kind, value in _TYPES.items()},
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.GNUTYPE_SPARSE: Kind.FILE,
}


def layer_tar(older: Tree | None, newer: Tree, *, opaque: Collection[str] = ()) -> bytes:
    """Return the layer that turns ``older`` into ``newer``.

    Args:
        older: What the layers below show.
        newer: What they show with this layer.
        opaque: Directories that this layer makes anew, said by an opaque marker and not name by name.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "/", newer)
        hidden = tuple(f"{path}/" for path in opaque)
        for path, kind in newer.changes_from(older):
            if kind is not ChangeKind.DELETE:
                _add(archive, path, newer)
                if path in opaque:
                    archive.addfile(tarfile.TarInfo(f"{path[1:]}/{_OPAQUE}"))
            elif not path.startswith(hidden):
                parent, _, name = path[1:].rpartition("/")
                archive.addfile(tarfile.TarInfo(f"{parent}/{_WHITEOUT}{name}".lstrip("/")))
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, path: str, tree: Tree) -> None:
    entry = tree[path]
    member = tarfile.TarInfo(path[1:] or "./")
    member.type = _TYPES[entry.kind]
    member.mode, member.uid, member.gid = entry.mode, entry.uid, entry.gid
    member.devmajor, member.devminor = entry.device
    seconds, nanoseconds = divmod(entry.mtime_ns, _NANOSECONDS)
    member.pax_headers = {"mtime": f"{seconds}.{nanoseconds:09d}"}
    for name, value in entry.xattrs:
        raw = encode_xattr(name, value, IdMap())
        member.pax_headers[_XATTR + name] = raw.decode("utf-8", "surrogateescape")
    first = next((min(group) for group in tree.links if path in group), path)
    if path != first:
        member.type, member.linkname = tarfile.LNKTYPE, first[1:]
    elif entry.kind is Kind.SYMLINK:
        member.linkname = entry.content.decode("utf-8", "surrogateescape")
    elif entry.kind is Kind.FILE:
        member.size = len(entry.content)
    archive.addfile(member, io.BytesIO(entry.content))


def member_names(layer: bytes) -> list[str]:
    """Return the names in a layer tar, in order."""
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        return archive.getnames()


def with_layer(older: Tree | None, layer: bytes | BinaryIO) -> Tree:
    """Return what a container sees when ``layer`` is put on top of ``older``.

    Args:
        older: What the layers below show, or ``None``.
        layer: An uncompressed layer tar.

    Raises:
        tarfile.TarError: It is none.
    """
    stream = io.BytesIO(layer if isinstance(layer, bytes) else layer.read())
    below = older if older is not None else Tree({})
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        members = [(_path_of(member.name), member, archive) for member in archive]
        return _put_on_top(_without_whited_out(below, [path for path, _, _ in members]), members)


def _without_whited_out(older: Tree, paths: Iterable[str]) -> Tree:
    """Take away what the layer says is gone; a whiteout speaks of the layers below only."""
    tree = older
    for path in paths:
        parent, _, name = path.rpartition("/")
        if name == _OPAQUE:
            tree = tree.without(*(each for each in tree if each.startswith(f"{parent}/")))
        elif name.startswith(_WHITEOUT):
            gone = f"{parent}/{name.removeprefix(_WHITEOUT)}"
            if gone not in older:
                raise AssertionError(f"{path!r} whites out what is not there")
            tree = tree.without(gone)
    return tree


def _put_on_top(tree: Tree, members: Iterable[tuple[str, tarfile.TarInfo, tarfile.TarFile]]) -> Tree:
    entries = dict(tree.items())
    links = {path: group for group in tree.links for path in group}
    for path, member, archive in members:
        if path.rpartition("/")[2].startswith(_WHITEOUT):
            continue
        entry = entries[_path_of(member.linkname)] if member.islnk() else _entry_of(member, archive)
        if entry.kind is not Kind.DIRECTORY:
            for below in [each for each in entries if each.startswith(f"{path}/")]:
                del entries[below]
        entries[path] = entry
        links[path] = frozenset({path})
        if member.islnk():
            first = _path_of(member.linkname)
            group = frozenset({path, *(links.get(first, {first}) & entries.keys())})
            links.update(dict.fromkeys(group, group))
    groups = {frozenset(path for path in group if links.get(path) == group) for group in links.values()}
    return Tree(entries, links=(group for group in groups if len(group) > 1))


def _entry_of(member: tarfile.TarInfo, archive: tarfile.TarFile) -> Entry:
    kind = _KINDS[member.type]
    content = b""
    if kind is Kind.SYMLINK:
        content = member.linkname.encode("utf-8", "surrogateescape")
    elif kind is Kind.FILE:
        opened = archive.extractfile(member)
        content = opened.read() if opened is not None else b""
    seconds, _, fraction = member.pax_headers.get("mtime", str(int(member.mtime))).partition(".")
    xattrs = (
        (name.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"))
        for name, value in member.pax_headers.items()
        if name.startswith(_XATTR)
    )
    is_device = kind in {Kind.CHARACTER, Kind.BLOCK}
    return Entry(
        kind=kind,
        mode=0o777 if kind is Kind.SYMLINK else member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime_ns=int(seconds) * _NANOSECONDS + int(fraction.ljust(9, "0")[:9] or "0"),
        content=content,
        device=(member.devmajor, member.devminor) if is_device else (0, 0),
        xattrs=tuple(sorted((name, decode_xattr(name, value, IdMap())) for name, value in xattrs)),
    )


def _path_of(name: str) -> str:
    return "/" + name.removeprefix("./").strip("/") if name not in {".", "./"} else "/"
