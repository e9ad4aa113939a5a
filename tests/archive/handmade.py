"""Tars for tests, made by the standard library, so that the code under test does not read only its own."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["Given", "directory", "file", "handmade", "hard_link", "rewritten", "symlink"]


class Given(NamedTuple):
    """A member, as a test wants it."""

    name: str
    kind: bytes = tarfile.REGTYPE
    content: bytes = b""
    link: str = ""
    facts: Mapping[str, Any] = {}
    """Further attributes of :class:`tarfile.TarInfo`."""


def file(name: str, content: bytes = b"content", **facts: Any) -> Given:  # noqa: ANN401 - tarfile types them
    return Given(name, content=content, facts=facts)


def directory(name: str, **facts: Any) -> Given:  # noqa: ANN401 - as above
    return Given(name, tarfile.DIRTYPE, facts={"mode": 0o755, **facts})


def symlink(name: str, target: str) -> Given:
    return Given(name, tarfile.SYMTYPE, link=target)


def hard_link(name: str, target: str) -> Given:
    return Given(name, tarfile.LNKTYPE, link=target)


def handmade(*members: Given, form: int = tarfile.PAX_FORMAT) -> io.BytesIO:
    """Return a tar with these members, at its beginning."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form, errors="surrogateescape") as tar:
        for given in members:
            info = tarfile.TarInfo(given.name)
            info.type = given.kind
            info.linkname = given.link
            info.size = len(given.content)
            info.mode = 0o644
            for fact, value in given.facts.items():
                setattr(info, fact, value)
            tar.addfile(info, io.BytesIO(given.content))
    stream.seek(0)
    return stream


def rewritten(block: bytes, change: Callable[[bytearray], None]) -> bytes:
    """Return a header block with a change and the checksum that belongs to it."""
    header = bytearray(block)
    change(header)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
