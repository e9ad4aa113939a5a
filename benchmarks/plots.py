"""``python -m benchmarks.plots``: what the first container under a new map costs, over the number of files.

One SVG for each driver, file system and set of options: a line for each strategy, and one for the peer.
Needs root and matplotlib (dependency group ``plots``).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.contest import Contest
from benchmarks.machine import machine_facts
from benchmarks.peer import find_peer, peer_version
from benchmarks.places import Place, place_for, scratch
from benchmarks.record import Label, Record
from benchmarks.report import median
from benchmarks.side import IN_PROCESS, OURS, PEER, STRATEGIES
from benchmarks.subjects import made_up
from benchmarks.work import MAPPED_WORKS, SCENARIOS, Scenario, way_of

WORK = MAPPED_WORKS[0]
SIZES = (1_000, 5_000, 20_000, 100_000)
STYLES = {IN_PROCESS: "-", OURS: "--", PEER: ":"}
COLOURS = {"shift": "tab:green", "template": "tab:blue", "copy": "tab:orange"}
PEER_COLOUR = "tab:red"
PEER_WAYS = {"shift": "shift", "template": "copy", "copy": "copy"}
"""What the peer does where we use a strategy; it knows two."""


class Line(NamedTuple):
    """One line of a plot."""

    strategy: str
    """What was asked of us."""
    column: str
    """Who did it."""


Plot = dict[Line, dict[int, float]]
"""Seconds by number of files."""


def main() -> int:
    """Measure, draw, and return the exit code."""
    arguments = _arguments()
    peer = find_peer()
    plots: dict[str, Plot] = {}
    with scratch(arguments.scratch) as base:
        facts = machine_facts(base.filesystem, peer_version(peer) if peer else "none")
        for scenario in SCENARIOS:
            if not scenario.crowd:
                title = _title(scenario)
                plots[title] = _measure(scenario, base, peer, arguments.sizes, arguments.repeat)
    os.makedirs(arguments.directory, exist_ok=True)
    for title, plot in plots.items():
        path = os.path.join(arguments.directory, f"first-container-{title.replace(' ', '-')}.svg")
        _draw(path, title, plot, facts)
        print(path)
    return 0


def _title(scenario: Scenario) -> str:
    return " ".join(filter(None, (scenario.driver, scenario.filesystem, scenario.name)))


def _measure(scenario: Scenario, base: Place, peer: str | None, sizes: Sequence[int], repeat: int) -> Plot:
    """Run one scenario on a tree of each size."""
    plot: Plot = defaultdict(dict)
    for size in sizes:
        subject = made_up(size, base.directory)
        record = Record(f"{WORK} *")
        with place_for(scenario.filesystem, base) as place:
            Contest(scenario, place, record, repeat=repeat).run(subject, peer)
            for line, seconds in _medians(record, scenario, place.filesystem):
                plot[line][size] = seconds
        os.unlink(subject.tar)
        os.unlink(subject.gzip)
        for what, reason in record.skipped:
            print(f"{size:,} files, {what}: {reason}", file=sys.stderr)
    return plot


def _medians(record: Record, scenario: Scenario, filesystem: str) -> Iterator[tuple[Line, float]]:
    for strategy in STRATEGIES:
        row = record.rows.get(Label(WORK, scenario.driver, filesystem, way_of(strategy, scenario)))
        for column, samples in row.samples.items() if row else ():
            yield Line(strategy, column), median(samples)


def _draw(path: str, title: str, plot: Plot, facts: Mapping[str, str]) -> None:
    """Write one SVG, the same bytes for the same figures."""
    import matplotlib as mpl  # noqa: PLC0415 - a second, which whoever only asks for help need not wait

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.rcParams["svg.hashsalt"] = "hostspec"
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    drawn: set[str] = set()
    for line, points in plot.items():
        label, colour = _label(line)
        if label in drawn:
            continue  # template and copy stand beside the same samples of the peer
        drawn.add(label)
        axes.plot(
            list(points),
            [seconds * 1e3 for seconds in points.values()],
            STYLES[line.column],
            marker="o",
            color=colour,
            label=label,
        )
    axes.set(xscale="log", yscale="log", xlabel="files in the image", ylabel="milliseconds (median)")
    axes.set_title(f"First container under a new ID map: {title}\n{facts['peer']}", fontsize="medium")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _label(line: Line) -> tuple[str, str]:
    if line.column == PEER:
        return f"peer, whole: {PEER_WAYS[line.strategy]}", PEER_COLOUR
    whole = "whole" if line.column == OURS else "in process"
    return f"{line.strategy}, {whole}", COLOURS[line.strategy]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=list(SIZES),
        metavar="FILES",
        help=f"numbers of files (default: {' '.join(map(str, SIZES))})",
    )
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="samples of each (default: 5)")
    parser.add_argument(
        "--scratch",
        metavar="DIR",
        default="/var/tmp",  # noqa: S108 - on disk
        help="directory to work in (default: %(default)s)",
    )
    parser.add_argument(
        "--directory", metavar="DIR", default="docs/plots", help="where they go (default: %(default)s)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
