"""What the demo prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hostspec.cli.demo.trial import Result
from hostspec.cli.render import human_size, table

__all__ = ["Row", "print_report", "row_json"]

TITLES = ("DRIVER", "ON", "IMPORT s", "WAY", "FIRST s", "SECOND s", "WRITTEN", "OF COPY", "FILES CHECKED")

LEGEND = """
FIRST and SECOND: to create and mount a container under an ID map, the first time and again
(median of three maps). WRITTEN: bytes on disk for one more map. OF COPY: FIRST, relative to
the fallback copy. In every mount each file had its mapped owner and the image's content;
the second container of each map stood on what the first had made; at the end everything was deleted."""


class Row(NamedTuple):
    """One driver on one file system: what it cost, or why it was not tried."""

    driver: str
    filesystem: str
    result: Result | None = None
    """What it cost."""
    reason: str = ""
    """Why it is not possible here."""
    failure: str = ""
    """What went wrong: a bug of hostspec, of a driver, or of the machine."""


def print_report(rows: Sequence[Row]) -> None:
    """Print the table, and below it what is not possible here and why."""
    cells = [cell for row in rows for cell in _cells(row)]
    if cells:
        sys.stdout.write("\n" + table(TITLES, cells))
        print(LEGEND)
    _print_list("Not possible here:", [*_missing_drivers(rows), *_missing_ways(rows)])
    _print_list(
        "Failed:", [f"{row.driver} on {row.filesystem}: {row.failure}" for row in rows if row.failure]
    )


def row_json(row: Row) -> dict[str, object]:
    """Describe a row for a script."""
    return {
        "driver": row.driver,
        "filesystem": row.filesystem,
        "reason": row.reason,
        "failure": row.failure,
        "import-seconds": row.result.imported if row.result else None,
        "outcomes": [outcome._asdict() for outcome in row.result.outcomes] if row.result else [],
        "missing": dict(row.result.missing) if row.result else {},
    }


def _print_list(title: str, lines: Sequence[str]) -> None:
    if lines:
        print(f"\n{title}")
    for line in lines:
        print(f"  {line}")


def _missing_drivers(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.reason:
            yield f"{row.driver} on {row.filesystem}: {row.reason}"


def _missing_ways(rows: Sequence[Row]) -> Iterator[str]:
    """Describe each way that a driver lacks once, however many file systems it lacks it on."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        for way, reason in row.result.missing if row.result else ():
            places.setdefault((row.driver, way, reason), []).append(row.filesystem)
    for (driver, way, reason), filesystems in places.items():
        yield f"{way} with {driver} on {', '.join(filesystems)}: {reason}"


def _cells(row: Row) -> Iterator[tuple[str, ...]]:
    if row.result is None:
        return
    copied = next((each.seconds for each in row.result.outcomes if each.strategy == "copy"), None)
    for outcome in row.result.outcomes:
        yield (
            row.driver,
            row.filesystem,
            f"{row.result.imported:.2f}",
            outcome.strategy,
            f"{outcome.seconds:.3f}",
            f"{outcome.reused_seconds:.3f}",
            human_size(outcome.bytes_written),
            f"{outcome.seconds / copied:.2f}" if copied else "-",
            str(outcome.files),
        )
