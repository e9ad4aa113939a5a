"""Which container has which address on a bridge: one file for each, below ``/run``, for the whole machine.

A lease belongs to a run, and is void when nobody holds that run's lock any more and its device is gone;
whoever looks next, in whatever store, drops it. Everything happens under the lock of the bridge.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network
from typing import NamedTuple

from hostspec.errors import InvalidRequest
from hostspec.run.options import DEFAULT_SUBNET
from hostspec.run.places import RunPlace, is_owned
from hostspec.store.format.atomic import replace_file
from hostspec.store.format.locking import OccasionLocks

__all__ = ["Bridge", "Lease", "Leases", "device_exists", "leases_of"]

_DIRECTORY = "/run/hostspec-networks"
_FEWEST_ADDRESSES = 4
_LINK_DIGITS = 8


class Bridge(NamedTuple):
    """A bridge of hostspec's own: one for each subnet."""

    subnet: str
    """Its addresses, as ``10.213.0.0/20``."""

    @classmethod
    def of(cls, text: str) -> Bridge:
        """Read a subnet.

        Raises:
            InvalidRequest: It is none, or has no room for two containers.
        """
        try:
            network = IPv4Network(text)
        except ValueError as error:
            raise InvalidRequest(f"subnet {text!r}", f"{error}; it must be like {DEFAULT_SUBNET}") from error
        if network.num_addresses < _FEWEST_ADDRESSES:
            raise InvalidRequest(f"subnet {text!r}", "is too small")
        return cls(str(network))

    @property
    def name(self) -> str:
        """Its name as a network device."""
        return "hs-" + hashlib.sha256(self.subnet.encode()).hexdigest()[:_LINK_DIGITS]

    @property
    def gateway(self) -> str:
        """The host's own address on it."""
        return str(next(IPv4Network(self.subnet).hosts()))

    @property
    def prefix(self) -> int:
        """Length of the subnet's prefix in bits."""
        return IPv4Network(self.subnet).prefixlen

    @property
    def directory(self) -> str:
        """Directory of its leases."""
        return os.path.join(_DIRECTORY, self.name)


class Lease(NamedTuple):
    """One container's address."""

    address: str
    """The address."""
    run: str
    """Directory of its run."""
    names: tuple[str, ...]
    """Names under which the others find it."""

    @property
    def device(self) -> str:
        """Name of its network device on the host's side."""
        return "hsv" + os.path.basename(self.run)[:_LINK_DIGITS]


class Leases:
    """The leases on a bridge, while its lock is held."""

    def __init__(self, bridge: Bridge) -> None:
        """Take a bridge whose lock is held."""
        self.bridge = bridge

    def all(self) -> list[Lease]:
        """Return those that are valid, after dropping the others."""
        found = []
        for address in sorted(os.listdir(self.bridge.directory)):
            if address.startswith("."):  # left by one that was killed while it wrote
                self._drop(address)
                continue
            with open(os.path.join(self.bridge.directory, address), encoding="utf-8") as file:
                run, names = json.load(file)
            lease = Lease(address, run, tuple(names))
            # A container may still run whose owner was killed; then its device is there.
            if is_owned(run) or device_exists(lease.device):
                found.append(lease)
            else:
                self._drop(address)
        return found

    def take(self, place: RunPlace, names: Sequence[str]) -> Lease:
        """Give a run the lowest address that is free.

        Raises:
            InvalidRequest: None is.
        """
        taken = {each.address for each in self.all()} | {self.bridge.gateway}
        for each in IPv4Network(self.bridge.subnet).hosts():
            if str(each) not in taken:
                lease = Lease(str(each), place.directory, tuple(names))
                content = json.dumps([lease.run, lease.names]).encode()
                replace_file(os.path.join(self.bridge.directory, lease.address), content, durable=False)
                return lease
        raise InvalidRequest(f"subnet {self.bridge.subnet}", "has no free address left; choose a larger one")

    def of(self, directory: str) -> Lease | None:
        """Return a run's lease."""
        return next((each for each in self.all() if each.run == directory), None)

    def drop(self, directory: str) -> Lease | None:
        """Take a run's address back, and return what it was."""
        lease = self.of(directory)
        if lease is not None:
            self._drop(lease.address)
        return lease

    def _drop(self, address: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self.bridge.directory, address))


def device_exists(name: str) -> bool:
    """Tell whether this network namespace has a device of that name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


@contextmanager
def leases_of(bridge: Bridge) -> Iterator[Leases]:
    """Hold the lock of a bridge."""
    with OccasionLocks(_DIRECTORY).holding(bridge.name):
        os.makedirs(bridge.directory, 0o700, exist_ok=True)
        yield Leases(bridge)
        with suppress(OSError):  # only without leases it is empty
            os.rmdir(bridge.directory)
