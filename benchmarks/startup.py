"""``python -m benchmarks.startup``: where the time of a small command goes.

Whole processes beside a bare interpreter, in turn, and what each import costs. Needs neither root nor the
peer; with neither, the store is one of plain directories.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.measure import Sample, own_environment, run, timed
from benchmarks.ours import our_command
from benchmarks.table import table
from hostspec.plugins import installed_drivers

BUDGET = 0.075
"""Seconds that a small command may take as a whole process."""
AIM = 0.050
"""Seconds that would be better."""
IMPORT_RUNS = 7
LONGEST_LIST = 15
BARE = "bare interpreter"
PROGRAM = "import sys; from hostspec.cli.main import main; sys.exit(main())"


class Import(NamedTuple):
    """One line of what the interpreter tells of its imports."""

    module: str
    """Its full name."""
    seconds: float
    """What it took, less what the imports inside it took."""


def main() -> int:
    """Measure, print, and return the exit code."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="hostspec-startup-") as directory:
        store = (
            f"--graph={directory}/graph",
            f"--run={directory}/run",
            f"--storage-driver={arguments.driver}",
        )
        commands: dict[str, tuple[str, ...]] = {
            "--help": ("--help",),
            "layers": ("layers", *store),
            "create-layer": ("create-layer", *store),
            "create-container": ("create-container", *store, ""),
            "drivers": ("drivers", *store),
        }
        _print_processes(commands, arguments.repeat)
        for name in arguments.imports:
            print()
            _print_imports(name, commands[name])
    return 0


def _print_processes(commands: Mapping[str, Sequence[str]], repeat: int) -> None:
    programs = {
        BARE: (sys.executable, "-c", "pass"),
        **{name: (our_command(), *words) for name, words in commands.items()},
    }
    samples: dict[str, list[Sample]] = {name: [] for name in programs}
    for turn in range(repeat + 1):
        for name, words in programs.items():
            _, sample = timed(lambda words=words: run(words, own_environment()))  # type: ignore[misc]
            if turn:  # the first is for the caches
                samples[name].append(sample)
    bare = statistics.median(each.seconds for each in samples[BARE])
    rows = [_process_cells(name, taken, bare) for name, taken in samples.items()]
    titles = ("COMMAND", "ms", "LEAST", "PROCESSOR ms", "ABOVE BARE ms", f"OF {BUDGET * 1e3:.0f} ms", "")
    sys.stdout.write(table(titles, rows, text_columns={0, len(titles) - 1}))


def _process_cells(name: str, samples: Sequence[Sample], bare: float) -> tuple[str, ...]:
    seconds = statistics.median(each.seconds for each in samples)
    cpu = statistics.median(each.cpu_seconds for each in samples)
    verdict = "over" if seconds > BUDGET else "within" if seconds > AIM else "good"
    return (
        name,
        f"{seconds * 1e3:.1f}",
        f"{min(each.seconds for each in samples) * 1e3:.1f}",
        f"{cpu * 1e3:.1f}",
        f"{(seconds - bare) * 1e3:.1f}",
        f"{seconds / BUDGET:.2f}",
        verdict,
    )


def _print_imports(name: str, words: Sequence[str]) -> None:
    """Print what the imports of one command cost, by package and by module."""
    modules = _import_times(("-c", PROGRAM, *words))
    for module in _import_times(("-c", "pass")):
        modules.pop(module, None)
    packages: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for module, seconds in modules.items():
        package = _package(module)
        packages[package] += seconds
        counts[package] += 1
    total = sum(modules.values())
    print(f"{name}: {len(modules)} imports beyond the bare interpreter's, {total * 1e3:.1f} ms")
    rows = [
        (package, str(counts[package]), f"{seconds * 1e3:.2f}") for package, seconds in _longest(packages)
    ]
    sys.stdout.write(table(("PACKAGE", "MODULES", "ms"), rows, text_columns={0}) + "\n")
    longest = [(module, f"{seconds * 1e3:.2f}") for module, seconds in _longest(modules)]
    sys.stdout.write(table(("MODULE", "ms ITSELF"), longest, text_columns={0}))


def _longest(times: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(times.items(), key=lambda item: -item[1])[:LONGEST_LIST]


def _import_times(words: Sequence[str]) -> dict[str, float]:
    """Return what each module took, the least of several runs, in seconds."""
    least: dict[str, float] = {}
    for _ in range(IMPORT_RUNS):
        finished = run((sys.executable, "-X", "importtime", *words), own_environment())
        for each in map(_parse, finished.messages.splitlines()):
            if each is not None:
                least[each.module] = min(each.seconds, least.get(each.module, each.seconds))
    return least


def _parse(line: str) -> Import | None:
    """Read a line such as ``import time:       123 |        456 |   os.path``, or return ``None``."""
    mark, _, fields = line.partition("import time:")
    own, _, rest = fields.partition("|")
    if mark or not own.strip().isdigit():
        return None
    return Import(rest.partition("|")[2].strip(), int(own) / 1e6)


def _package(module: str) -> str:
    """Return the part of hostspec, or the distribution, that a module belongs to."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "hostspec" else parts[0]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--repeat", type=int, default=20, metavar="N", help="processes of each (default: 20)")
    parser.add_argument(
        "--driver",
        default="vfs",
        choices=[each.name for each in installed_drivers()],
        help="driver of the store (default: %(default)s)",
    )
    parser.add_argument(
        "--imports",
        nargs="*",
        default=["layers", "create-container"],
        metavar="COMMAND",
        help="commands whose imports are listed (default: layers create-container)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
