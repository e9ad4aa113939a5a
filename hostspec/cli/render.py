"""How results look: JSON, tables, sizes, progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # listing records needs no driver, and so none of the values that drivers take
    from hostspec.values import Progress, ProgressCallback

__all__ = ["human_size", "print_json", "progress_bar", "table"]

STEP = 1024
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
BAR_WIDTH = 24


def print_json(document: object) -> None:
    """Print a document on one line, without spaces, as the peer does: scripts match on ``"key":value``."""
    import json  # noqa: PLC0415 - most commands print text

    sys.stdout.write(json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n")


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
