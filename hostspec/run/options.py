"""What can be asked for when a container is run."""

from __future__ import annotations

import os
from typing import Literal, NamedTuple, get_args

from hostspec.errors import InvalidRequest
from hostspec.idmap import IdMap
from hostspec.store.configuration.policy import Strategy
from hostspec.values import ProgressCallback

__all__ = ["DEFAULT_SUBNET", "Network", "RunOptions", "Volume", "network_of", "refuse_unless_absolute"]

Network = Literal["none", "private", "host"]
"""``none``: a network namespace with the loopback device alone; ``private``: one with an address on
hostspec's own bridge; ``host``: the machine's."""

DEFAULT_SUBNET = "10.213.0.0/20"
"""The addresses that private networks have where no others are asked for."""

_RESTRICTIONS = frozenset({"nosuid", "nodev", "noexec"})
_VOLUME_OPTIONS = _RESTRICTIONS | {"ro", "rw", "z", "Z"}


class Volume(NamedTuple):
    """A directory or file of the host that a container sees."""

    source: str
    """Absolute path on the host; must exist."""
    target: str
    """Absolute path in the container; made if missing."""
    read_only: bool = False
    restrictions: tuple[str, ...] = ()
    """Further options of its mount: ``nosuid``, ``nodev``, ``noexec``."""

    @classmethod
    def parse(cls, text: str) -> Volume:
        """Read ``SOURCE:TARGET[:OPTION,…]``.

        The options are ``ro`` or ``rw`` and the :attr:`restrictions`. ``z`` and ``Z`` are there for people
        who know them: no label confines the container, so nothing needs one.

        Args:
            text: What is to be read; a source that begins with ``.`` is below the current directory.

        Raises:
            InvalidRequest: It is something else, or there is no such source.
        """
        source, _, rest = text.partition(":")
        target, _, words = rest.partition(":")
        options = dict.fromkeys(words.split(",")) if words else {}
        if source.startswith("."):
            source = os.path.abspath(source)
        elif rest and source and not source.startswith("/"):
            reason = f"there are no volumes with names; for a directory here write ./{source}"
            raise InvalidRequest(f"volume {text!r}", reason)
        if not (source.startswith("/") and target.startswith("/")):
            raise InvalidRequest(f"volume {text!r}", "must be /SOURCE:/TARGET, with :OPTIONS after it or not")
        if not options.keys() <= _VOLUME_OPTIONS or {"ro", "rw"} <= options.keys():
            known = ", ".join(sorted(_VOLUME_OPTIONS))
            raise InvalidRequest(f"volume {text!r}", f"its options can be {known}, and not both ro and rw")
        if not os.path.exists(source):
            raise InvalidRequest(f"volume {text!r}", f"{source} does not exist")
        target = os.path.normpath(target)
        if not target.strip("/"):
            # The runtime would make what every container has, /dev for one, in the host's directory.
            raise InvalidRequest(
                f"volume {text!r}", "cannot take the place of the container's root directory"
            )
        restrictions = tuple(each for each in options if each in _RESTRICTIONS)
        return cls(os.path.realpath(source), target, "ro" in options, restrictions)


class RunOptions(NamedTuple):
    """How a container is to be run. What is left out, the image says."""

    names: tuple[str, ...] = ()
    """Names of the container."""
    command: tuple[str, ...] = ()
    """The command; the image's entry point comes before it."""
    entrypoint: tuple[str, ...] | None = None
    """Words to put before the command instead of the image's entry point."""
    environment: tuple[str, ...] = ()
    """``NAME=VALUE``; later ones win, also over the image's."""
    working_directory: str = ""
    """Absolute path in the container; made if missing."""
    user: str = ""
    """``USER[:GROUP]``, each by a name that the container knows, or by number."""
    hostname: str = ""
    """The container's host name; by default the beginning of its ID."""
    idmap: IdMap | None = None
    """The ID map; by default the store's, which is mostly none."""
    automatic_map: bool = False
    """Choose a map of free IDs (``--userns auto``) instead of :attr:`idmap`."""
    idmap_strategy: Strategy | None = None
    """How the root gets the map; by default as the store's options say."""
    squash: bool = False
    """Whether files whose owners are outside the map get the nearest that is inside."""
    network: Network = "none"
    """What network it has."""
    subnet: str = DEFAULT_SUBNET
    """The addresses of a private network; each subnet has a bridge of its own."""
    read_only: bool = False
    """Whether the root cannot be written; ``/run``, ``/tmp`` and the image's volumes are in memory then."""
    volumes: tuple[Volume, ...] = ()
    """Directories and files of the host that it sees."""
    storage_options: tuple[tuple[str, str], ...] = ()
    """The driver's options for its layer, ``size`` and the like."""
    runtime: str = ""
    """Name or path of the OCI runtime; by default the first of those that are installed."""
    interactive: bool = False
    """Whether it reads standard input; otherwise that is at its end."""
    terminal: bool = False
    """Whether its standard streams are a terminal of its own."""
    remove: bool = False
    """Whether the container is removed when it has ended."""
    progress: ProgressCallback | None = None
    """Told how far a mapped copy has come."""


def refuse_unless_absolute(directory: str) -> None:
    """Raise InvalidRequest if a working directory begins anywhere but at the container's root."""
    if not directory.startswith("/"):
        raise InvalidRequest(f"working directory {directory!r}", "must be an absolute path in the container")


def network_of(text: str) -> Network:
    """Return the network of that name.

    Raises:
        InvalidRequest: There is none.
    """
    for each in get_args(Network):
        if each == text:
            found: Network = each
            return found
    raise InvalidRequest(f"network {text!r}", f"is none of {', '.join(get_args(Network))}")
