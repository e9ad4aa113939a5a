"""What the configuration files and the environment say about the store that is used where none is named.

Defaults and precedence are those of containers/storage 1.43 to 1.6x (types/options.go, types/utils.go).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from hostspec.store.configuration.files import SYSTEM_DIRECTORIES, read_settings, user_directory, user_of
from hostspec.store.configuration.keys import Configuration, SettingsReader
from hostspec.store.configuration.own_settings import read_own_settings

__all__ = ["load_configuration"]

SYSTEM_ROOT = "/var/lib/containers/storage"
SYSTEM_RUN_ROOT = "/run/containers/storage"

_OWNERS_OWN = 0o700


def load_configuration(
    environment: Mapping[str, str] = os.environ,
    *,
    uid: int | None = None,
    system: Sequence[str] = SYSTEM_DIRECTORIES,
) -> Configuration:
    """Read the configuration of this user.

    Args:
        environment: The environment variables.
        uid: The user; by default the one whose process this is.
        system: Directories of everybody's files, the one that counts most last.

    Raises:
        InvalidRequest: A file cannot be read or understood; names the file and the key.
    """
    user = user_of(environment) if uid is None else uid
    own = read_own_settings(environment, uid=user, system=system)
    return _of_storage_conf(environment, user, system)._replace(own=own)


def _of_storage_conf(environment: Mapping[str, str], user: int, system: Sequence[str]) -> Configuration:
    directory = user_directory(environment, rootless=user != 0)
    if user == 0:
        settings = read_settings(environment, user, user=directory, system=system)
        return SettingsReader(settings, environment, user).all(SYSTEM_ROOT, SYSTEM_RUN_ROOT)
    data = environment.get("XDG_DATA_HOME") or os.path.join(_home(environment), ".local", "share")
    everybody = SettingsReader(read_settings(environment, user, user=None, system=system), environment, user)
    root = everybody.path("rootless_storage_path") or os.path.join(data, "containers", "storage")
    run_root = os.path.join(_runtime_directory(environment, user), "containers")
    if environment.get("CONTAINERS_STORAGE_CONF") or _has_file(directory):
        own = SettingsReader(read_settings(environment, user, user=directory, system=()), environment, user)
        return own.all(own.path("rootless_storage_path") or root, run_root)
    return everybody.for_any_user(root, run_root)


def _has_file(directory: str | None) -> bool:
    return directory is not None and os.path.exists(os.path.join(directory, "storage.conf"))


def _home(environment: Mapping[str, str]) -> str:
    return os.path.realpath(environment.get("HOME") or os.path.expanduser("~"))


def _runtime_directory(environment: Mapping[str, str], uid: int) -> str:
    """Return the user's directory for what need not survive a reboot (pkg/homedir, ``GetRuntimeDir``)."""
    named = environment.get("XDG_RUNTIME_DIR")
    if named:
        return os.path.realpath(named)
    usual = f"/run/user/{uid}"
    try:
        found = os.lstat(usual)
        if found.st_uid == uid and found.st_mode & _OWNERS_OWN == _OWNERS_OWN:
            return usual
    except OSError:
        pass
    return os.path.join(environment.get("TMPDIR") or "/tmp", f"storage-run-{uid}")  # noqa: S108 - as there
