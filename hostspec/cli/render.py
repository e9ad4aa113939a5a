"""How results look: JSON, tables, sizes, progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # listing records needs no driver, and so none of the values that drivers take
    from hostspec.values import DiskUsage, Progress, ProgressCallback

__all__ = ["SHORT_ID", "human_size", "print_json", "progress_bar", "table", "told", "used_of_limits"]

SHORT_ID = 12
"""How many characters of an ID are shown to people."""

STEP = 1024
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
BAR_WIDTH = 24
GO_ESCAPES = "<>&\u2028\u2029"
"""What Go's encoding/json escapes beside what every encoder must."""


def print_json(document: object) -> None:
    """Print a document on one line, without spaces, as the peer does: scripts match on ``"key":value``."""
    import json  # noqa: PLC0415 - most commands print text

    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    for character in GO_ESCAPES:
        text = text.replace(character, f"\\u{ord(character):04x}")
    sys.stdout.write("".join(map(_as_utf8, text)) + "\n" if _has_other_bytes(text) else f"{text}\n")


def _has_other_bytes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _as_utf8(character: str) -> str:
    """Replace what stands for a byte of a file name that is not UTF-8, which JSON has to be."""
    return "\\ufffd" if "\ud800" <= character <= "\udfff" else character


def told(error: Exception) -> str:
    """Return an error as people are told of it: of the operating system's, the file and what is wrong."""
    if not isinstance(error, OSError):
        return str(error)
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows under titles, columns aligned; a column of numbers to the right."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    numeric = [bool(rows) and all(_is_number(row[index]) for row in rows) for index in range(len(titles))]
    lines = []
    for row in (titles, *rows):
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def human_size(size: int) -> str:
    """Write a size in bytes for people: ``206.4 MiB``."""
    amount = float(size)
    for unit in UNITS:
        if amount < STEP or unit == UNITS[-1]:
            break
        amount /= STEP
    return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}"


def used_of_limits(usage: DiskUsage) -> tuple[str, str]:
    """Write for people what a layer occupies: bytes and inodes, each with its limit if there is one."""
    size, inodes = human_size(usage.exclusive_bytes + usage.shared_bytes), str(usage.inodes)
    return (
        size if usage.limit_bytes is None else f"{size} of {human_size(usage.limit_bytes)}",
        inodes if usage.limit_inodes is None else f"{inodes} of {usage.limit_inodes}",
    )


@contextmanager
def progress_bar(title: str) -> Iterator[ProgressCallback | None]:
    """Give a callback that draws on standard error, or ``None`` where that is no terminal."""
    if not os.isatty(sys.stderr.fileno()):
        yield None
        return
    try:
        yield lambda progress: _draw(title, progress)
    finally:
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()


def _draw(title: str, progress: Progress) -> None:
    done = human_size(progress.done) if progress.unit == "bytes" else f"{progress.done} {progress.unit}"
    if progress.total:
        filled = BAR_WIDTH * min(progress.done, progress.total) // progress.total
        done = f"[{'#' * filled:{BAR_WIDTH}}] {done}"
    sys.stderr.write(f"\r\033[K{title}: {done}")
    sys.stderr.flush()


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).removesuffix("×").strip().isdigit() or cell in {"", "-"}
