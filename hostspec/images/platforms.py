"""What this machine is called in image documents."""

from __future__ import annotations

import os

__all__ = ["go_architecture"]

GO_NAMES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "i386": "386",
    "loongarch64": "loong64",
}


def go_architecture() -> str:
    """Return this machine's architecture as Go, and so OCI, spells it."""
    machine = os.uname().machine
    return GO_NAMES.get(machine, machine)
