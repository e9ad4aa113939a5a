"""The files by which a container knows names: ``/etc/hosts``, ``/etc/resolv.conf``, ``/etc/hostname``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from hostspec.idmap import IdMap
from hostspec.run.options import Network, Volume

if TYPE_CHECKING:  # few containers have an address
    from hostspec.run.leases import Bridge, Lease

__all__ = ["make_name_files", "write_hosts"]

_HOSTS, _RESOLVERS, _HOSTNAME = "hosts", "resolv.conf", "hostname"
_OWN = ("127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback")
_THE_HOST = "host.containers.internal"


def make_name_files(directory: str, network: Network, hostname: str, idmap: IdMap) -> tuple[Volume, ...]:
    """Make the files in a run's directory, and return where the container shall see them.

    Args:
        directory: The run's directory.
        network: The container's network. On the host's, it has the host's files.
        hostname: Its host name.
        idmap: The container's map; its root owns the files.
    """
    shared = network == "host"
    hosts = _content("/etc/hosts") if shared else _lines((*_OWN, f"127.0.1.1\t{hostname}"))
    _rewrite(os.path.join(directory, _HOSTS), hosts)
    _rewrite(os.path.join(directory, _RESOLVERS), _resolvers(network))
    _rewrite(os.path.join(directory, _HOSTNAME), f"{hostname}\n")
    files = [os.path.join(directory, name) for name in (_HOSTS, _RESOLVERS, _HOSTNAME)]
    for each in files:
        os.chown(each, idmap.uids.find_host(0) or 0, idmap.gids.find_host(0) or 0)
    return tuple(Volume(each, f"/etc/{os.path.basename(each)}") for each in files)


def write_hosts(bridge: Bridge, leases: Sequence[Lease]) -> None:
    """Tell every container on a bridge the names of all; the caller holds the bridge's lock."""
    rows = [f"{each.address}\t{' '.join(each.names)}" for each in leases]
    content = _lines((*_OWN, f"{bridge.gateway}\t{_THE_HOST}", *rows))
    for each in leases:
        with suppress(FileNotFoundError):  # a run that is not so far yet, or is being ended
            _rewrite(os.path.join(each.run, _HOSTS), content, make=False)


def _resolvers(network: Network) -> str:
    """Return the host's resolvers, without those that only the host can reach."""
    if network == "none":
        return ""
    lines = _content("/etc/resolv.conf").splitlines()
    if network == "host":
        return _lines(lines)
    return _lines(each for each in lines if each.split()[:1] != ["nameserver"] or not _is_local(each))


def _is_local(line: str) -> bool:
    address = [*line.split(), ""][1]
    return address.startswith("127.") or address == "::1"


def _content(path: str) -> str:
    with suppress(OSError), open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
    return ""


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{each}\n" for each in lines)


def _rewrite(path: str, content: str, *, make: bool = True) -> None:
    """Write a file in its place: a container has it mounted, and would go on seeing one that was replaced."""
    encoded = content.encode("utf-8", "surrogateescape")
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if make else 0), 0o644)
    try:
        os.fchmod(fd, 0o644)
        os.pwrite(fd, encoded, 0)
        os.ftruncate(fd, len(encoded))
    finally:
        os.close(fd)
