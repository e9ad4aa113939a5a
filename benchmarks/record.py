"""What has been measured so far."""

from __future__ import annotations

import fnmatch
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from benchmarks.measure import Sample, timed
from benchmarks.side import Side
from hostspec.kernel.filesystems import sync_filesystem

__all__ = ["Label", "Record", "Row", "Timer"]

Result = TypeVar("Result")


class Label(NamedTuple):
    """What a row of the report is about."""

    work: str
    """The piece of work, such as ``"import tar"``."""
    driver: str
    """The driver's name."""
    filesystem: str
    """The file system below the store."""
    way: str
    """How ID maps are made, and further options; ``""`` where it does not matter."""

    def __str__(self) -> str:
        return " ".join(filter(None, self))


@dataclass(slots=True)
class Row:
    """The samples of one row, by column."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    """Samples in the order in which they were taken."""
    peak_bytes: dict[str, int] = field(default_factory=dict)
    """The most memory that any process of that column had."""
    space_bytes: dict[str, int] = field(default_factory=dict)
    """What one repetition took on the file system, of works that are repeated within a sample."""


class Record:
    """All rows, in the order in which they were expected."""

    def __init__(self, pattern: str) -> None:
        """Take only rows whose label matches.

        Args:
            pattern: A shell pattern; a plain word may stand anywhere in the label.
        """
        self._pattern = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
        self._rows: dict[Label, Row] = {}
        self.skipped: list[tuple[str, str]] = []

    def wants(self, label: Label) -> bool:
        """Tell whether a row is to be measured."""
        return fnmatch.fnmatchcase(str(label), self._pattern)

    def expect(self, labels: Iterable[Label]) -> bool:
        """Make room for the rows that are wanted, and tell whether there are any."""
        wanted = [label for label in labels if self.wants(label)]
        self._rows.update((label, Row()) for label in wanted)
        return bool(wanted)

    def add(self, label: Label, side: Side, sample: Sample) -> None:
        """Keep a sample, and the memory that the side's last command had."""
        row = self._rows.setdefault(label, Row())
        row.samples.setdefault(side.column, []).append(sample)
        if side.peak_bytes is not None:
            row.peak_bytes[side.column] = max(row.peak_bytes.get(side.column, 0), side.peak_bytes)

    def note_space(self, label: Label, side: Side, space: int) -> None:
        """Keep how many bytes of the file system a piece of work took."""
        self._rows[label].space_bytes[side.column] = space

    @property
    def rows(self) -> Mapping[Label, Row]:
        """Those that have samples."""
        return {label: row for label, row in self._rows.items() if row.samples}

    def skip(self, what: str, reason: str) -> None:
        """Note what is not measured, and why."""
        if (what, reason) not in self.skipped:
            self.skipped.append((what, reason))


class Timer(NamedTuple):
    """Takes the samples of one contestant."""

    record: Record
    """Where they go."""
    side: Side
    """Whose they are."""
    driver: str
    """The driver's name."""
    filesystem: str
    """The file system's kind."""
    directory: str
    """A directory on it."""
    ways: Sequence[str]
    """Rows that the samples belong to, one for each way."""
    warm_up: bool = False
    """Do everything, and keep nothing."""

    def labels(self, work: str) -> list[Label]:
        """Return the labels of the rows that are wanted."""
        labels = [Label(work, self.driver, self.filesystem, way) for way in self.ways]
        return [label for label in labels if self.record.wants(label)]

    def __call__(self, work: str, do: Callable[[], Result], *, times: int = 1) -> Result:
        """Do a piece of work, as part of whatever row is wanted.

        Args:
            work: What it is called.
            do: Does it.
            times: How often it does it; the sample, and the space that is then noted, are of one.
        """
        labels = self.labels(work)
        if self.warm_up or not labels:
            return do()
        # What the step before left to be written must not be paid for by this one.
        before = self._bytes_used()
        result, sample = timed(do)
        for label in labels:
            self.record.add(label, self.side, Sample(*(each / times for each in sample)))
        if times > 1:
            space = (self._bytes_used() - before) // times
            for label in labels:
                self.record.note_space(label, self.side, space)
        return result

    def _bytes_used(self) -> int:
        if self.filesystem == "btrfs":
            # What was deleted is freed later, by a thread of the kernel, which a commit wakes; else it may
            # sleep for half a minute.
            for command in ("filesystem", "subvolume"):
                subprocess.run(("btrfs", command, "sync", self.directory), check=True, capture_output=True)
        sync_filesystem(self.directory)
        facts = os.statvfs(self.directory)
        return (facts.f_blocks - facts.f_bfree) * facts.f_frsize
