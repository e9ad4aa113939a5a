"""A tree that exists only as a tar: the same one for the same number of files, on every machine."""

from __future__ import annotations

import io
import random
import tarfile

__all__ = ["write_tree"]

FILES_IN_DIRECTORY = 100
DIRECTORIES_IN_DIRECTORY = 100
LARGEST_FILE = 4096
"""Bytes; sizes are spread evenly from 0 to this, so that what each file costs shows, not what it holds."""
TIME = 1_700_000_000
"""Seconds since 1970; any fixed time does."""


def write_tree(path: str, files: int) -> None:
    """Write the tar, uncompressed.

    Args:
        path: Where; replaced if it exists.
        files: How many regular files it has; directories come in addition.
    """
    numbers = random.Random(files)  # noqa: S311 - the same sizes each time, no secrets
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(_member("tree", directory=True))
        for number in range(files):
            group, within = divmod(number, FILES_IN_DIRECTORY)
            above = f"tree/{group // DIRECTORIES_IN_DIRECTORY:04}"
            if not within:
                if group % DIRECTORIES_IN_DIRECTORY == 0:
                    tar.addfile(_member(above, directory=True))
                tar.addfile(_member(f"{above}/{group:06}", directory=True))
            content = numbers.randbytes(numbers.randrange(LARGEST_FILE + 1))
            file = _member(f"{above}/{group:06}/file-{within:02}", size=len(content))
            tar.addfile(file, io.BytesIO(content))


def _member(name: str, *, size: int = 0, directory: bool = False) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = size, TIME
    if directory:
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    return member
