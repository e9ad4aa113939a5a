"""The peer: the Go library's own command, ``containers-storage``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from benchmarks.command import CommandSide
from benchmarks.measure import CommandFailed, run
from benchmarks.side import PEER

__all__ = ["find_peer", "peer_side", "peer_version", "plant_answer"]

NAME = "containers-storage"


def find_peer() -> str | None:
    """Return the path of the peer that the variable PEER names, else of the one in PATH, or ``None``.

    Raises:
        FileNotFoundError: PEER names no program.
    """
    named = os.environ.get("PEER")
    found = shutil.which(named or NAME)
    if named and found is None:
        raise FileNotFoundError(f"PEER={named} is no program")
    return found


def peer_version(program: str) -> str:
    """Return the program's path and the version of the Debian package that it is from."""
    search = ("dpkg-query", "--search", os.path.realpath(program))
    try:
        package = run(search, os.environ).output.split(":")[0]
        version = run(("dpkg-query", "--show", "--showformat=${Version}", package), os.environ).output
    except (CommandFailed, FileNotFoundError):
        version = "of unknown version"
    return f"{NAME} {version} ({program})"


def peer_side(
    program: str, directory: str, run_root: str, driver: str, options: Sequence[str], *, shifting: bool = True
) -> CommandSide:
    """Return a store that the peer drives.

    Args:
        program: Path of its command.
        directory: Directory for its graph root, which need not exist.
        run_root: Directory for its run root, which need not exist.
        driver: Name of the driver.
        options: Storage options, ``KEY=VALUE``.
        shifting: Whether it may use idmapped mounts. Where it may not, it has a run root of its own.
    """
    environment = _environment(_write_configuration(directory))
    if not shifting:
        run_root += "-not-shifting"
        environment["_CONTAINERS_OVERLAY_DISABLE_IDMAP"] = "yes"
        plant_answer(os.path.join(run_root, driver))
    return CommandSide(
        PEER,
        (program,),
        (os.path.join(directory, "graph"), run_root),
        driver,
        options=options,
        environment=environment,
    )


def plant_answer(driver_run_root: str) -> None:
    """Make the peer believe that it has tried idmapped layers, in vain.

    Versions before the variable, such as 1.43, can be switched off by this only: what the overlay driver
    finds out about the kernel, it notes as empty files in its run root (checkAndRecordIDMappedSupport in
    drivers/overlay/overlay.go).
    """
    os.makedirs(driver_run_root)
    with open(os.path.join(driver_run_root, "idmapped-lower-dir-false"), "xb"):
        pass


def _write_configuration(directory: str) -> str:
    """Write a configuration that says nothing, so that this machine's own plays no part."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "storage.conf")
    with open(path, "w", encoding="ascii") as file:
        file.write('[storage]\ndriver = "vfs"\ngraphroot = "/nonexistent"\nrunroot = "/nonexistent"\n')
    return path


def _environment(configuration: str) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/root"),
        "CONTAINERS_STORAGE_CONF": configuration,
    }
