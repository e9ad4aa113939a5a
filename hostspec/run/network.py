"""Private networks: a bridge of hostspec's own, and a pair of devices between it and each container.

The runtime makes the container's network namespace. Before anything runs in it, it calls this module as a
hook (``python -m hostspec.run.network DIRECTORY``), which finds the namespace's process in the state that
it is given (OCI runtime specification, "POSIX-platform Hooks"). A pair goes with its namespace; the bridge
goes with the last lease on it.

Links are made and removed over netlink, by pyroute2 (the extra ``hostspec[run]``).
"""

from __future__ import annotations

import errno
import json
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from hostspec.errors import DriverFailed, HostspecError, InvalidRequest
from hostspec.run.leases import Bridge, Lease, device_exists, leases_of
from hostspec.run.names import write_hosts
from hostspec.run.places import RunPlace

if TYPE_CHECKING:
    from pyroute2 import IPRoute

__all__ = ["attach", "hook", "lease_address", "main", "release"]

_INSIDE = "eth0"
_UP = "up"


def lease_address(place: RunPlace, subnet: str, names: Sequence[str]) -> Lease:
    """Get an address for a container; its owner gives it back by :func:`release`.

    Args:
        place: The container's run, owned by this process.
        subnet: The bridge's addresses.
        names: Names under which other containers on the bridge find it.

    Raises:
        InvalidRequest: There is no free address, or pyroute2 is missing.
    """
    from importlib.util import find_spec  # noqa: PLC0415 - only private networks need it

    if find_spec("pyroute2") is None:
        raise InvalidRequest("network 'private'", "needs pyroute2; install hostspec[run]")
    with leases_of(Bridge.of(subnet)) as leases:
        return leases.take(place, names)


def hook(place: RunPlace, subnet: str) -> tuple[str, ...]:
    """Return the command by which the runtime has a container attached to its bridge."""
    return (sys.executable, "-P", "-m", __name__, place.directory, subnet)


def attach(directory: str, subnet: str, process: int) -> None:
    """Connect the network namespace of a process with a bridge, which is made where it is missing.

    Args:
        directory: Directory of the run, which has a lease.
        subnet: The bridge's addresses.
        process: A process in the namespace.

    Raises:
        DriverFailed: The kernel refused.
        InvalidRequest: The run has no lease.
    """
    from pyroute2 import IPRoute  # noqa: PLC0415 - takes 0.14 s
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    bridge = Bridge.of(subnet)
    with leases_of(bridge) as leases:
        lease = leases.of(directory)
        if lease is None:
            raise InvalidRequest(directory, f"has no address in {subnet}")
        try:
            with IPRoute() as host:
                _make_pair(host, lease, process, _bridge(host, bridge))
            with IPRoute(netns=f"/proc/{process}/ns/net") as inside:
                _set_up(inside, lease, bridge)
        except NetlinkError as error:
            raise DriverFailed(f"connect {lease.address} to {bridge.name}", str(error)) from error
        write_hosts(bridge, leases.all())


def release(directory: str, subnet: str) -> None:
    """Give a run's address back, and remove its device; with the last one on it, the bridge.

    May be repeated, and come before :func:`attach` ever did.

    Raises:
        DriverFailed: The kernel refused.
    """
    bridge = Bridge.of(subnet)
    with leases_of(bridge) as leases:
        lease = leases.drop(directory)
        doomed = [lease.device] if lease is not None else []
        left = leases.all()
        if left:
            write_hosts(bridge, left)
        else:
            doomed.append(bridge.name)
        _remove_links([each for each in doomed if device_exists(each)])


def main(words: Sequence[str]) -> int:
    """Be the hook: attach the container whose state comes on standard input."""
    state = json.load(sys.stdin)
    try:
        attach(words[0], words[1], int(state["pid"]))
    except HostspecError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the runtime passes it on
        return 1
    return 0


def _bridge(host: IPRoute, bridge: Bridge) -> int:
    """Return the bridge's number, after making sure that it is there and has its address."""
    if not device_exists(bridge.name):
        host.link("add", ifname=bridge.name, kind="bridge")
    index = socket.if_nametoindex(bridge.name)
    # Each time, since whoever made it may have died before it came to this.
    with _tolerating(errno.EEXIST):
        host.addr("add", index=index, address=bridge.gateway, prefixlen=bridge.prefix)
    host.link("set", index=index, state=_UP)
    return index


def _make_pair(host: IPRoute, lease: Lease, process: int, bridge: int) -> None:
    host.link("add", ifname=lease.device, kind="veth", peer={"ifname": _INSIDE, "net_ns_pid": process})
    host.link("set", index=socket.if_nametoindex(lease.device), master=bridge, state=_UP)


def _set_up(inside: IPRoute, lease: Lease, bridge: Bridge) -> None:
    (index,) = inside.link_lookup(ifname=_INSIDE)
    inside.addr("add", index=index, address=lease.address, prefixlen=bridge.prefix)
    inside.link("set", index=index, state=_UP)
    inside.route("add", dst="default", gateway=bridge.gateway)


def _remove_links(names: Sequence[str]) -> None:
    if not names:
        return
    from pyroute2 import IPRoute  # noqa: PLC0415 - takes 0.14 s

    with IPRoute() as host:
        for name in names:
            # A pair goes with its namespace, which the kernel clears up in its own time.
            with _tolerating(errno.ENODEV), suppress(IndexError):
                host.link("del", index=host.link_lookup(ifname=name)[0])


@contextmanager
def _tolerating(number: int) -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - takes 0.14 s

    try:
        yield
    except NetlinkError as error:
        if error.code != number:
            raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
