"""The configuration of a container for an OCI runtime (OCI runtime specification 1.0, ``config.md``).

Resource limits of processes are left as they are: raising one needs a capability that not every root
has. Devices are those that the specification demands, which the runtime makes by itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from hostspec.idmap import ID_LIMIT, IdMap, IdRange, IdRanges
from hostspec.run.accounts import Account
from hostspec.run.confinement import CAPABILITIES, MASKED_PATHS, READ_ONLY_PATHS
from hostspec.run.image_config import ImageConfig
from hostspec.run.options import Network, RunOptions, Volume

__all__ = ["Bundle", "arguments_of", "environment_of", "terminal_of"]

Json = dict[str, object]

_VERSION = "1.0.2"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_IN_MEMORY = ("nosuid", "nodev", "mode=1777", "tmpcopyup")
_KEPT = {os.ST_NOSUID: "nosuid", os.ST_NODEV: "nodev", os.ST_NOEXEC: "noexec"}
_WRITABLE_WITHOUT_ROOT = ("/run", "/tmp", "/var/tmp")  # noqa: S108 - the container's own


class Bundle(NamedTuple):
    """All that a runtime has to know."""

    root: str
    """Where the runtime finds the root directory."""
    options: RunOptions
    """What was asked for."""
    config: ImageConfig
    """What the image says."""
    account: Account
    """Under which IDs the process runs."""
    idmap: IdMap
    """The container's map."""
    hostname: str
    """Its host name."""
    cgroup: str
    """Path of its control group below each hierarchy, or ``""`` where it can have none."""
    files: tuple[Volume, ...] = ()
    """Files that are made for it: ``/etc/hosts`` and the like."""
    seccomp: Json | None = None
    """Which system calls it may make; ``None`` for any."""
    hooks: Sequence[Sequence[str]] = ()
    """Commands that the runtime runs when the namespaces are there and nothing in them runs yet."""

    def document(self) -> Json:
        """Return ``config.json``."""
        document: Json = {
            "ociVersion": _VERSION,
            "process": self._process(),
            "root": {"path": self.root, "readonly": self.options.read_only},
            "hostname": self.hostname,
            "mounts": self._mounts(),
            "linux": self._linux(),
        }
        if self.hooks:
            document["hooks"] = {"createRuntime": [_hook(each) for each in self.hooks]}
        return document

    def _process(self) -> Json:
        capabilities = list(CAPABILITIES)
        # As execve(2) would leave them: a user that is not root has none but those it may gain.
        held = capabilities if self.account.uid == 0 else []
        return {
            **terminal_of(self.options.terminal),
            "user": {
                "uid": self.account.uid,
                "gid": self.account.gid,
                "additionalGids": list(self.account.groups),
            },
            "args": list(arguments_of(self.options, self.config)),
            "env": list(
                environment_of(self.options, self.config, hostname=self.hostname, home=self.account.home)
            ),
            "cwd": self.options.working_directory or self.config.working_directory or "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": held,
                "permitted": held,
                "inheritable": [],
                "ambient": [],
            },
            "noNewPrivileges": False,
        }

    def _mounts(self) -> list[Json]:
        mounts = [
            _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount("/dev/pts", "devpts", "devpts", *_pts_options(self.idmap)),
            _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),  # noqa: S108
            _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            self._sys(),
        ]
        if self.options.read_only:
            targets = dict.fromkeys((*_WRITABLE_WITHOUT_ROOT, *self.config.volumes))
            mounts += [_mount(each, "tmpfs", "tmpfs", *_IN_MEMORY) for each in targets]
        # A mount hides what was mounted before below its place, so those nearer to the root come first.
        volumes = sorted((*self.files, *self.options.volumes), key=lambda each: each.target.count("/"))
        return [*mounts, *(_bind(each) for each in volumes)]

    def _sys(self) -> Json:
        if self.idmap and self.options.network == "host":
            # A user namespace mounts a new one only with a network namespace of its own (kernel, sysfs).
            return _mount("/sys", "none", "/sys", "rbind", "nosuid", "noexec", "nodev", "ro", "rslave")
        return _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro")

    def _linux(self) -> Json:
        linux: Json = {
            "namespaces": [{"type": each} for each in _namespaces(self.idmap, self.options.network)],
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READ_ONLY_PATHS),
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        }
        if self.seccomp is not None:
            linux["seccomp"] = self.seccomp
        if self.cgroup:
            linux["cgroupsPath"] = self.cgroup
        if self.idmap:
            linux["uidMappings"] = _mappings(self.idmap.uids)
            linux["gidMappings"] = _mappings(self.idmap.gids)
        return linux


def arguments_of(options: RunOptions, config: ImageConfig) -> tuple[str, ...]:
    """Return the words of the command: with an entry point of one's own the image's command is left out."""
    entrypoint = config.entrypoint if options.entrypoint is None else options.entrypoint
    default = config.command if options.entrypoint is None else ()
    return (*entrypoint, *(options.command or default))


def environment_of(options: RunOptions, config: ImageConfig, *, hostname: str, home: str) -> tuple[str, ...]:
    """Return the environment: what every container has, then the image's, then what was asked for."""
    terminal = ("TERM=xterm",) if options.terminal else ()
    given = (_PATH, *terminal, f"HOSTNAME={hostname}", f"HOME={home}")
    by_name = {each.partition("=")[0]: each for each in (*given, *config.environment, *options.environment)}
    return tuple(by_name.values())


def terminal_of(wanted: bool) -> Json:  # noqa: FBT001 - what the member is to say
    """Return the members of a process that say whether it has a terminal, which is as large as this one.

    A runtime passes on later changes, but when it comes to the first the command may have looked already.
    """
    if wanted:
        for fd in range(3):
            with suppress(OSError):
                size = os.get_terminal_size(fd)
                return {"terminal": True, "consoleSize": {"height": size.lines, "width": size.columns}}
    return {"terminal": wanted}


def _namespaces(idmap: IdMap, network: Network) -> list[str]:
    user = ["user"] if idmap else []
    own_network = ["network"] if network != "host" else []
    cgroup = ["cgroup"] if os.path.exists("/proc/self/ns/cgroup") else []
    return ["pid", "ipc", "uts", "mount", *cgroup, *own_network, *user]


def _mappings(ranges: IdRanges) -> list[Json]:
    # A user namespace has both maps, also where only one of them says anything.
    return [
        {"containerID": each.container_id, "hostID": each.host_id, "size": each.size}
        for each in ranges or (IdRange(0, 0, ID_LIMIT),)
    ]


def _pts_options(idmap: IdMap) -> list[str]:
    options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    # Group 5 is tty by convention; where the map lacks it, the mount would be refused.
    mapped = not idmap.gids or idmap.gids.find_host(5) is not None
    return [*options, "gid=5"] if mapped else options


def _mount(target: str, kind: str, source: str, *options: str) -> Json:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def _bind(volume: Volume) -> Json:
    # In a user namespace nobody may take them from a mount of the host (mount_namespaces(7)), as it would be
    # to change others of its options and to leave these out.
    flags = os.statvfs(volume.source).f_flag
    kept = [option for flag, option in _KEPT.items() if flags & flag]
    mode = "ro" if volume.read_only or flags & os.ST_RDONLY else "rw"
    options = dict.fromkeys((*volume.restrictions, *kept))
    return _mount(volume.target, "bind", volume.source, "rbind", "rprivate", mode, *options)


def _hook(words: Sequence[str]) -> Json:
    environment = [f"{name}={os.environ[name]}" for name in ("PATH", "PYTHONPATH") if name in os.environ]
    return {"path": words[0], "args": list(words), "env": environment}
