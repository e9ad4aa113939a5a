"""Sub-commands about the content of layers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from hostspec.archive.byte_source import pieces_of
from hostspec.archive.compressing import compressing
from hostspec.archive.compression import Compression
from hostspec.cli.context import Context
from hostspec.cli.grammar import Arguments, UsageError
from hostspec.cli.objects import input_stream
from hostspec.cli.render import print_json
from hostspec.errors import InvalidRequest
from hostspec.values import ChangeKind

__all__ = ["apply_diff", "changes", "diff", "diff_size"]

KIND_NUMBERS = {ChangeKind.MODIFY: 0, ChangeKind.ADD: 1, ChangeKind.DELETE: 2}
"""How the peer writes kinds in JSON (pkg/archive/changes.go)."""


def changes(context: Context, arguments: Arguments) -> None:
    """List what differs from the parent, or from another layer."""
    found = context.store.changes(arguments.positionals[0], arguments.positional(1))
    if arguments.given("json"):
        # As the peer writes a list without elements.
        print_json([{"Path": each.path, "Kind": KIND_NUMBERS[each.kind]} for each in found] or None)
        return
    for each in found:
        print(f"{each.kind.value} {quoted(each.path)}")


def quoted(path: str) -> str:
    """Write a path as the peer does: Go's ``%q``, which escapes what is not printable."""
    pieces = []
    for character in path:
        code = ord(character)
        if character in {'"', "\\"}:
            pieces.append(f"\\{character}")
        elif character in GO_ESCAPES:
            pieces.append(GO_ESCAPES[character])
        elif 0xDC80 <= code <= 0xDCFF:  # noqa: PLR2004 - surrogateescape: a byte that is not UTF-8
            pieces.append(f"\\x{code - 0xDC00:02x}")
        elif character.isprintable():
            pieces.append(character)
        elif code < 0x80:  # noqa: PLR2004 - ASCII
            pieces.append(f"\\x{code:02x}")
        else:
            pieces.append(f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")  # noqa: PLR2004
    return f'"{"".join(pieces)}"'


GO_ESCAPES = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip


def diff(context: Context, arguments: Arguments) -> None:
    """Write the difference to the parent as a tar."""
    layer = context.store.layer(arguments.positionals[0])
    compression = _compression(arguments, layer.compression)
    with (
        context.store.diff(layer.id, arguments.positional(1)) as stream,
        _output(arguments) as target,
        compressing(target, compression) as packed,
    ):
        for piece in pieces_of(stream):
            packed.write(piece)


def _compression(arguments: Arguments, own: int) -> Compression:
    """Return which compression is asked for; by default it is the layer's own."""
    flags = {
        "uncompressed": Compression.NONE,
        "gzip": Compression.GZIP,
        "bzip2": Compression.BZIP2,
        "xz": Compression.XZ,
    }
    # Where several are given, the last of these counts, as with the peer.
    given = [key for key in flags if arguments.given(key)]
    return flags[given[-1]] if given else Compression(own)


@contextmanager
def _output(arguments: Arguments) -> Iterator[BinaryIO]:
    path = arguments.one("file")
    if not path and os.isatty(sys.stdout.fileno()):
        raise UsageError("diff", "will not write a tar to a terminal; use --file, or a pipe")
    if not path:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        target = open(path, "wb")  # noqa: SIM115 - closed below; only opening it may fail like this
    except OSError as error:
        raise InvalidRequest("--file", f"cannot be written: {error.strerror}: {path}") from error
    with target:
        yield target


def diff_size(context: Context, arguments: Arguments) -> None:
    """Print how many bytes the difference has."""
    print(context.store.diff_size(arguments.positionals[0], arguments.positional(1)))


def apply_diff(context: Context, arguments: Arguments) -> None:
    """Unpack a tar, in any compression, into a layer."""
    with input_stream(arguments) as stream:
        context.store.apply_diff(arguments.positionals[0], stream)
