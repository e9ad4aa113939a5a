"""The ``demo`` sub-command."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from hostspec.cli.context import Context
from hostspec.cli.demo.host_ids import HostIds, with_host_ids
from hostspec.cli.demo.material import Material, material
from hostspec.cli.demo.places import Place, places
from hostspec.cli.demo.report import Row, print_report, row_json
from hostspec.cli.demo.trial import run_trial
from hostspec.cli.grammar import Arguments
from hostspec.cli.render import print_json
from hostspec.errors import DriverUnavailable, HostspecError, InvalidRequest
from hostspec.kernel.mounts import private_mount_namespace
from hostspec.plugins import installed_drivers
from hostspec.store import open_store
from hostspec.store.configuration.policy import POLICY_PREFIX

__all__ = ["demo"]


class Setting(NamedTuple):
    """What is tried, and with what."""

    material: Material
    host_ids: HostIds
    options: tuple[str, ...]
    """Storage options ``DRIVER.KEY=VALUE``; each driver gets its own."""


def demo(context: Context, arguments: Arguments) -> int:
    """Run the main job on every driver that works here, and print what it cost."""
    if not installed_drivers():
        raise InvalidRequest(
            "demo", "needs drivers, and none is installed; pip install hostspec-overlay, say"
        )
    # In a child process where it takes a user namespace, so nothing may have been opened before.
    return with_host_ids(lambda host_ids: _run(context.options, arguments, host_ids))


def _run(options: tuple[str, ...], arguments: Arguments, host_ids: HostIds) -> int:
    # It forces one way after the other, and need not be told of each time what that means for podman.
    logging.getLogger("hostspec.store").addHandler(logging.NullHandler())
    quiet = arguments.given("json")
    may_mount = _leave_mount_namespace()
    with _scratch(arguments.one("scratch")) as scratch, ExitStack() as stack:
        found = material(arguments.one("rootfs"), arguments.one("image"), scratch)
        if not quiet:
            print(
                "\n".join(filter(None, (f"Importing {found.description}.", host_ids.explanation))), flush=True
            )
        setting = Setting(found, host_ids, options)
        rows = [
            row
            for place in places(scratch, stack, privileged=may_mount and host_ids.everything)
            for row in _try_drivers(place, setting)
        ]
    if quiet:
        print_json([row_json(row) for row in rows])
    else:
        print_report(rows)
    return 0 if any(row.result for row in rows) and not any(row.failure for row in rows) else 1


def _leave_mount_namespace() -> bool:
    """See to it that mounts and loop devices go when this process does; tell whether it may mount."""
    try:
        private_mount_namespace()
    except PermissionError:
        return False
    return True


@contextmanager
def _scratch(directory: str | None) -> Iterator[str]:
    if directory is not None:
        os.makedirs(directory, exist_ok=True)
    # On disk, because a temporary directory in memory has neither reflinks nor room.
    scratch = tempfile.mkdtemp(prefix="hostspec-demo-", dir=directory or "/var/tmp")  # noqa: S108
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def _try_drivers(place: Place, setting: Setting) -> Iterator[Row]:
    if not place.directory:
        yield Row("any driver", place.filesystem, reason=place.reason)
        return
    for driver in installed_drivers():
        prefixes = (f"{driver.name}.", f"{POLICY_PREFIX}.", ".")
        options = [each for each in setting.options if each.startswith(prefixes)]
        try:
            yield _try_driver(driver.name, place, setting, options)
        except DriverUnavailable as error:
            # Where the scratch directory was says nothing: it is gone.
            reason = error.reason.replace(f"{place.directory}/", "")
            yield Row(driver.name, place.filesystem, reason=reason)
        except HostspecError as error:
            yield Row(driver.name, place.filesystem, failure=str(error))


def _try_driver(driver: str, place: Place, setting: Setting, options: Sequence[str]) -> Row:
    root = os.path.join(place.directory, f"store-{driver}")
    with open_store(root=root, run_root=f"{root}-run", driver=driver, options=options) as store:
        try:
            if sys.stderr.isatty():
                print(f"{driver} on {place.filesystem} …", file=sys.stderr)
            result = run_trial(store, setting.material, setting.host_ids)
        finally:
            # Whatever happened, mounts of this store must not keep the scratch directory busy.
            store.wipe()
    return Row(driver, place.filesystem, result)
