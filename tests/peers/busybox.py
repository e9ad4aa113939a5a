"""A root file system that needs no network: Debian's static busybox, a few names for it, and a few files."""

from __future__ import annotations

import os
import shutil

__all__ = ["GREETING", "GREETING_OWNER", "PROGRAM", "make_root", "program_path"]

PROGRAM = "busybox"
"""What a test needs; Debian's package is busybox-static."""

GREETING = "hello\n"
"""What ``/etc/greeting`` says."""
GREETING_OWNER = (5, 6)
"""Its UID and GID, as a container sees them."""

_APPLETS = ("sh", "cat", "echo", "rm", "sleep", "stat")
_DIRECTORIES = ("bin", "dev", "etc", "proc", "run", "sys", "tmp")
_MODIFIED = 1_700_000_000  # seconds since the epoch


def program_path() -> str | None:
    """Return the path of a busybox, if there is one that needs no libraries."""
    found = shutil.which(PROGRAM)
    if found is None:
        return None
    with open(found, "rb") as file:
        dynamic = b"/lib64/ld-linux" in file.read() or b"/lib/ld-" in file.read()
    return None if dynamic else found


def make_root(directory: str) -> None:
    """Fill an empty directory.

    Args:
        directory: Where; belongs to root.
    """
    for name in _DIRECTORIES:
        os.mkdir(os.path.join(directory, name), 0o755)
    os.chmod(os.path.join(directory, "tmp"), 0o1777)
    program = os.path.join(directory, "bin", PROGRAM)
    shutil.copy(program_path() or PROGRAM, program)
    os.chmod(program, 0o755)
    for name in _APPLETS:
        os.link(program, os.path.join(directory, "bin", name))
    _write(os.path.join(directory, "etc", "passwd"), "root:x:0:0:root:/:/bin/sh\n")
    greeting = os.path.join(directory, "etc", "greeting")
    _write(greeting, GREETING)
    os.chown(greeting, *GREETING_OWNER)
    for parent, _, names in os.walk(directory, topdown=False):
        for name in names:
            os.utime(os.path.join(parent, name), (_MODIFIED, _MODIFIED))
        os.utime(parent, (_MODIFIED, _MODIFIED))


def _write(path: str, content: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(content)
