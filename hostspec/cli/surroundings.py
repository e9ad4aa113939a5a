"""Sub-commands about what surrounds a store: its configuration, and the user's own ID ranges."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from hostspec.cli.context import Context
from hostspec.cli.described import ranges_json
from hostspec.cli.grammar import Arguments
from hostspec.cli.render import print_json
from hostspec.errors import InvalidRequest
from hostspec.idmap import IdMap

__all__ = ["config", "unshare"]

ALWAYS = ("PullOptions",)
"""What is printed even where it is empty, as ``null``."""
NOT_FOUND = 127
NOT_EXECUTABLE = 126


def config(context: Context, arguments: Arguments) -> None:
    """Print what the configuration files say, as the store's options.

    The names are those of the Go library's ``StoreOptions`` (types/options.go), some of which have no JSON
    name of their own. Its versions before 1.63 print ``RootlessStoragePath`` too.
    """
    from hostspec.store.configuration.default_store import load_configuration  # noqa: PLC0415 - loads a parser

    path = arguments.positional(0)
    named = {"CONTAINERS_STORAGE_CONF": os.path.abspath(path)} if path else {}
    found = load_configuration({**os.environ, **named})
    driver = context.driver or found.driver or ""
    least, most = found.auto_userns_sizes
    fields: dict[str, object] = {
        "runroot": context.run_root or found.run_root,
        "root": context.root or found.root,
        "imagestore": context.image_store or found.image_store,
        "driver": driver,
        "driver-priority": list(found.driver_priority),
        "driver-options": list(context.options or found.options_for(driver)),
        "uidmap": ranges_json(found.idmap.uids),
        "gidmap": ranges_json(found.idmap.gids),
        "root_auto_ns_user": found.auto_userns_user,
        "auto_userns_min_size": least,
        "auto_userns_max_size": most,
        "PullOptions": dict(found.pull_options) or None,
        "disable-volatile": found.disable_volatile,
        "transient_store": found.transient,
    }
    print_json({name: value for name, value in fields.items() if value or name in ALWAYS})


def unshare(context: Context, arguments: Arguments) -> int:
    """Run a command, or a shell, as root of a user namespace that has the caller's ID ranges."""
    del context
    from hostspec.kernel.usernamespaces import run_in_user_namespace  # noqa: PLC0415 - loads ctypes

    command = list(arguments.positionals) or [os.environ.get("SHELL") or "/bin/sh"]
    told = _who_asked()
    try:
        return run_in_user_namespace(_own_ranges(), lambda: _run(command, told))
    except OSError as error:
        raise InvalidRequest("unshare", f"cannot be done here: {error.strerror}") from error


def _who_asked() -> dict[str, str]:
    """Return the variables that tell programs inside whose store to open (the Go library's pkg/unshare)."""
    if os.geteuid() == 0:
        return {}
    return {
        "_CONTAINERS_USERNS_CONFIGURED": "done",
        "_CONTAINERS_ROOTLESS_UID": str(os.geteuid()),
        "_CONTAINERS_ROOTLESS_GID": str(os.getegid()),
    }


def _own_ranges() -> IdMap:
    """Return all that root has here, and to others what ``/etc/subuid`` and ``/etc/subgid`` grant."""
    from hostspec.kernel.subordinate_ids import own_id_map, subordinate_id_map  # noqa: PLC0415

    if os.geteuid() != 0:
        return subordinate_id_map() or own_id_map()
    halves = []
    for kind in ("uid", "gid"):
        with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
            lines = [line.split() for line in file]
        # Mapped to themselves: the namespace's IDs mean outside what they mean inside.
        halves.append([(int(first), int(first), int(size)) for first, _, size in lines])
    return IdMap(*halves)


def _run(command: list[str], told: Mapping[str, str]) -> int:
    try:
        code = subprocess.run(command, check=False, env={**os.environ, **told}).returncode
    except OSError as error:
        print(f"hostspec: {command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    return code if code >= 0 else 128 - code
