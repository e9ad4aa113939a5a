"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

from hostspec import __version__
from hostspec.plugins import installed_drivers

__all__ = ["machine_facts"]


def machine_facts(scratch_filesystem: str, peer: str) -> Mapping[str, str]:
    """Return names and values, for people and for the JSON.

    Args:
        scratch_filesystem: Kind of the file system that the scratch directory is on.
        peer: The peer and its version, or why there is none.
    """
    drivers = ", ".join(f"{each.name} {each.version}" for each in installed_drivers())
    return {
        "kernel": platform.release(),
        "machine": f"{_processor()}, {os.cpu_count()} processors, {_memory()}",
        "load": " ".join(f"{each:.2f}" for each in os.getloadavg()),
        "scratch file system": scratch_filesystem,
        "python": platform.python_version(),
        "hostspec": f"{__version__} (drivers: {drivers or 'none'})",
        "peer": peer,
    }


def _processor() -> str:
    return _value("/proc/cpuinfo", "model name") or platform.machine()


def _memory() -> str:
    kibibytes = (_value("/proc/meminfo", "MemTotal") or "0").split()[0]
    return f"{int(kibibytes) / (1 << 20):.1f} GiB"


def _value(path: str, name: str) -> str | None:
    """Return the first value of that name in a file of ``NAME: VALUE`` lines."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return None
