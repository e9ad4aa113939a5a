"""The report: one table for people, and all samples as JSON."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.measure import Sample
from benchmarks.record import Label, Record, Row
from benchmarks.side import IN_PROCESS, OURS, PEER
from benchmarks.table import table

__all__ = ["print_report", "write_json"]

COLUMNS = (IN_PROCESS, OURS, PEER)
TITLES = (
    *("WORK", "DRIVER", "ON", "WAY"),
    *("IN PROCESS ms", "WHOLE ms", "PEER ms"),
    *("IN PROCESS/PEER", "WHOLE/PEER", "CPU IN PROCESS/PEER", "CPU WHOLE/PEER"),
)
NOISY = 0.25
"""Spread of the middle half, relative to the median, from which a figure is marked."""
FEWEST_FOR_SPREAD = 4

LEGEND = """
IN PROCESS: our call, with its durable writes, in a program that keeps the store open.
WHOLE: our command as a process. PEER: containers-storage, as a process.
Medians; ratios below 1 are in our favour. CPU: the same ratios of processor time, which others disturb less.
~ the middle half of the samples spreads over more than a quarter of the median.
"""


def print_report(record: Record, facts: Mapping[str, str], subject: str) -> None:
    """Print the table, and what is not in it.

    Args:
        record: All samples.
        facts: What they were measured on.
        subject: What was imported.
    """
    for name, value in (*facts.items(), ("subject", subject)):
        print(f"{name}: {value}")
    print()
    if record.rows:
        print(_table(record) + LEGEND)
    if any(row.space_bytes for row in record.rows.values()):
        print(_space_table(record))
    if record.skipped:
        print("Not measured:")
        for what, reason in record.skipped:
            print(f"  {what}: {reason}")


def write_json(path: str, record: Record, facts: Mapping[str, str], subject: str) -> None:
    """Write everything to a file, and make its directory.

    Args:
        path: The file.
        record: All samples.
        facts: What they were measured on.
        subject: What was imported.
    """
    document = {
        "machine": dict(facts),
        "subject": subject,
        "rows": [_row_json(label, row) for label, row in record.rows.items()],
        "skipped": [{"what": what, "reason": reason} for what, reason in record.skipped],
    }
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")


def median(samples: Sequence[Sample], *, cpu: bool = False) -> float:
    """Return the median of the wall-clock times, or of the processor times, in seconds."""
    return statistics.median(each.cpu_seconds if cpu else each.seconds for each in samples)


def ratio(row: Row, column: str, *, cpu: bool = False) -> float | None:
    """Return the ratio of one of our columns to the peer's, or ``None`` where one is missing."""
    if column not in row.samples or PEER not in row.samples:
        return None
    return median(row.samples[column], cpu=cpu) / median(row.samples[PEER], cpu=cpu)


def _table(record: Record) -> str:
    """Lay out all rows, with an empty line where another driver or file system begins."""
    places = [(label.driver, label.filesystem) for label in record.rows]
    return table(
        TITLES,
        [_cells(label, row) for label, row in record.rows.items()],
        text_columns=range(len(Label._fields)),
        gaps=[index for index in range(1, len(places)) if places[index] != places[index - 1]],
    )


def _space_table(record: Record) -> str:
    """Lay out what each repetition took on the file system."""
    return table(
        (*TITLES[: len(Label._fields)], *(f"{column.upper()} KiB" for column in COLUMNS)),
        [
            (*label, *(_kibibytes(row.space_bytes.get(column)) for column in COLUMNS))
            for label, row in record.rows.items()
            if row.space_bytes
        ],
        text_columns=range(len(Label._fields)),
    )


def _kibibytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1024:.1f}"


def _cells(label: Label, row: Row) -> tuple[str, ...]:
    times = [_milliseconds(row.samples.get(column, ())) for column in COLUMNS]
    ratios = [ratio(row, column, cpu=cpu) for cpu in (False, True) for column in (IN_PROCESS, OURS)]
    return (*label, *times, *("" if each is None else f"{each:.2f}" for each in ratios))


def _milliseconds(samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    middle = median(samples) * 1e3
    return f"{'~' if _is_noisy(samples) else ''}{middle:.{0 if middle >= 100 else 1}f}"  # noqa: PLR2004


def _is_noisy(samples: Sequence[Sample]) -> bool:
    if len(samples) < FEWEST_FOR_SPREAD:
        return False
    low, middle, high = statistics.quantiles((each.seconds for each in samples), n=4)
    return high - low > NOISY * middle


def _row_json(label: Label, row: Row) -> dict[str, object]:
    return {
        **label._asdict(),
        "ratio in process": ratio(row, IN_PROCESS),
        "ratio whole": ratio(row, OURS),
        "columns": {
            column: {
                "median seconds": median(samples),
                "median cpu seconds": median(samples, cpu=True),
                "peak bytes": row.peak_bytes.get(column),
                "space bytes": row.space_bytes.get(column),
                "seconds": [each.seconds for each in samples],
                "cpu seconds": [each.cpu_seconds for each in samples],
            }
            for column, samples in row.samples.items()
        },
    }
