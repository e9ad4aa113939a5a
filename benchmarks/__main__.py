"""``python -m benchmarks``: measure hostspec beside the Go library's command, and print one table."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping

from benchmarks.contest import Contest
from benchmarks.machine import machine_facts
from benchmarks.peer import find_peer, peer_version
from benchmarks.places import Place, place_for, scratch
from benchmarks.record import Record
from benchmarks.report import print_report, write_json
from benchmarks.subjects import debian_root, made_up, prepare
from benchmarks.work import SCENARIOS, labels_of

INTERRUPTED = 130
NO_PEER = "not in PATH (Debian package containers-storage); or name one in the variable PEER"


def main() -> int:
    """Run what the command line asks for, and return the exit code."""
    arguments = _arguments()
    if os.geteuid() != 0:
        print("Needs root, to mount layers and scratch file systems; run it with sudo.", file=sys.stderr)
        print(
            "python -m benchmarks.startup measures the start of small commands as any user.", file=sys.stderr
        )
        return 1
    # As Ctrl-C does, so that everything is cleaned up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    record = Record(arguments.only)
    try:
        with scratch(arguments.scratch) as base:
            facts, subject = _measure(arguments, base, record)
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    print_report(record, facts, subject)
    write_json(arguments.json, record, facts, subject)
    print(f"\nAll samples are in {arguments.json}.")
    return 0


def _measure(arguments: argparse.Namespace, base: Place, record: Record) -> tuple[Mapping[str, str], str]:
    """Run every scenario that is wanted; return the machine's facts and what was imported."""
    peer = find_peer()
    if peer is None:
        record.skip("the peer, containers-storage", NO_PEER)
    facts = machine_facts(base.filesystem, peer_version(peer) if peer else "none")
    wanted = [scenario for scenario in SCENARIOS if record.expect(labels_of(scenario))]
    if not wanted:
        raise OSError(f"no row matches {arguments.only!r}; a row is called WORK DRIVER FILE-SYSTEM WAY")
    if arguments.made_up:
        subject = made_up(arguments.made_up, base.directory)
    else:
        subject = prepare(debian_root(arguments.rootfs), base.directory)
    for scenario in wanted:
        try:
            with place_for(scenario.filesystem, base) as place:
                Contest(scenario, place, record, repeat=arguments.repeat).run(subject, peer)
        except Exception as error:  # noqa: BLE001 - what was measured before is worth printing
            where = f"{scenario.driver} {scenario.filesystem} {scenario.name}"
            record.skip(f"{where.strip()}, all that is missing", f"{type(error).__name__}: {error}")
    return facts, subject.description


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure hostspec beside containers-storage: the same work on the same tree, in turn.",
        epilog="The variable PEER names another containers-storage. Needs root.",
    )
    parser.add_argument(
        "--only",
        default="*",
        metavar="GLOB",
        help="only rows whose 'WORK DRIVER FILE-SYSTEM WAY' matches, such as 'first container overlay*'",
    )
    parser.add_argument(
        "--repeat", type=_positive, default=5, metavar="N", help="samples of each (default: %(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_const",
        dest="repeat",
        const=1,
        help="one sample of each: shows that it works",
    )
    subject = parser.add_mutually_exclusive_group()
    subject.add_argument(
        "--rootfs", metavar="DIR", help="tree to import (default: a Debian minbase, made once by debootstrap)"
    )
    subject.add_argument(
        "--made-up", type=_positive, metavar="FILES", help="import a made-up tree of that many files instead"
    )
    parser.add_argument(
        "--scratch",
        metavar="DIR",
        default="/var/tmp",  # noqa: S108 - on disk
        help="directory to work in (default: %(default)s)",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        default="build/benchmarks.json",
        help="where all samples go (default: %(default)s)",
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
