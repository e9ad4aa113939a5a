"""What is imported, as one tar: the tree of a Debian minbase system, or a made-up one of any size."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from typing import NamedTuple

from hostspec.cli.bench.material import write_tree

__all__ = ["Subject", "debian_root", "made_up", "prepare"]

SUITE = "bookworm"
TAR_FLAGS = (
    "--format=pax",
    "--pax-option=delete=atime,delete=ctime",
    "--numeric-owner",
    "--xattrs",
    "--xattrs-include=*",
    "--acls",
    "--sort=name",
)
COPY_SIZE = 1 << 20


class Subject(NamedTuple):
    """One tree, as both sides get it."""

    description: str
    """For people: where it came from, entries, bytes."""
    tar: str
    """Path of the uncompressed tar."""
    gzip: str
    """Path of the same, compressed with gzip at its usual level."""


def debian_root(given: str | None) -> str:
    """Return the directory of the tree to measure with, made by debootstrap the first time.

    Args:
        given: A directory to use instead, or ``None``.

    Raises:
        FileNotFoundError: There is no such directory, or debootstrap is not installed.
        OSError: debootstrap failed; says where its log is.
    """
    if given is not None:
        if not os.path.isdir(given):
            raise FileNotFoundError(f"{given} is no directory")
        return os.path.abspath(given)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    root = os.path.join(cache, "hostspec", f"{SUITE}-minbase")
    if not os.path.isdir(root):
        _bootstrap(root)
    return root


def _bootstrap(root: str) -> None:
    """Make the tree beside its place and rename it, so that an interrupted run leaves no half one."""
    program = shutil.which("debootstrap")
    if program is None:
        raise FileNotFoundError(
            "debootstrap is not installed (Debian package debootstrap); or give --rootfs DIR"
        )
    unfinished, log = f"{root}.unfinished", f"{root}.log"
    os.makedirs(os.path.dirname(root), exist_ok=True)
    shutil.rmtree(unfinished, ignore_errors=True)
    print(f"Making {root} with debootstrap; once.")
    with open(log, "wb") as file:
        finished = subprocess.run(
            (program, "--variant=minbase", SUITE, unfinished), stdout=file, stderr=file, check=False
        )
    if finished.returncode:
        raise OSError(f"debootstrap failed; see {log}")
    os.rename(unfinished, root)


def prepare(root: str, directory: str) -> Subject:
    """Pack the tree twice, uncompressed and with gzip.

    Args:
        root: The tree.
        directory: Where the two files are made.

    Raises:
        OSError: tar failed.
    """
    plain = os.path.join(directory, "subject.tar")
    command = ("tar", "--create", *TAR_FLAGS, f"--file={plain}", f"--directory={root}", ".")
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise OSError(f"tar: {finished.stderr.strip()}")
    entries = sum(len(directories) + len(files) for _, directories, files in os.walk(root)) + 1
    return _compressed(f"{root}: {entries:,} entries", plain)


def made_up(files: int, directory: str) -> Subject:
    """Make a tree that exists only as a tar; the same one for the same number on every machine.

    Args:
        files: How many regular files it has.
        directory: Where the two tars are made.
    """
    plain = os.path.join(directory, f"made-up-{files}.tar")
    write_tree(plain, files)
    return _compressed(f"a made-up tree of {files:,} files", plain)


def _compressed(description: str, plain: str) -> Subject:
    """Add the same tar, compressed with gzip, and say how large both are."""
    packed = f"{plain}.gz"
    with open(plain, "rb") as source, gzip.open(packed, "wb", compresslevel=6) as target:
        shutil.copyfileobj(source, target, COPY_SIZE)
    megabytes = [os.path.getsize(path) / 1e6 for path in (plain, packed)]
    return Subject(
        f"{description}, {megabytes[0]:.0f} MB as a tar, {megabytes[1]:.0f} MB with gzip", plain, packed
    )
