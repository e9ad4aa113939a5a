"""Where everything lies in a graph root, and under which names.

The layout is that of containers/storage (store.go, layers.go, images.go, containers.go); what only
hostspec knows lies below ``<driver>-layers/hostspec``, and losing it is harmless.
"""

# No "from __future__ import annotations": a named tuple compiles every annotation that is a string, and every
# command imports this module.

import os
from typing import NamedTuple

from hostspec.errors import InvalidRequest
from hostspec.store.refusals import refusals

__all__ = ["DRIVER_SYNONYMS", "Layout", "big_data_file_name", "check_id", "drivers_with_records"]

DRIVER_SYNONYMS = {"overlay2": "overlay"}
"""Names that drivers used to have, in configurations of the Go library."""

_PLAIN_IN_FILE_NAMES = frozenset(".0123456789abcdefghijklmnopqrstuvwxyz")
_LAYERS_SUFFIX = "-layers"
_TABLES = (
    ("-layers", "layers.json"),
    ("-layers", "volatile-layers.json"),
    ("-images", "images.json"),
    ("-containers", "containers.json"),
    ("-containers", "volatile-containers.json"),
)
_SIZE_OF_EMPTY_TABLE = len("null")


class Layout(NamedTuple):
    """The places of one store: a graph root, a run root and the driver that the store belongs to."""

    root: str
    """Absolute path of the graph root: what survives a reboot."""
    run_root: str
    """Absolute path of the run root: what need not survive a reboot."""
    driver: str
    """The driver's name."""
    image_root: str = ""
    """Absolute path of the graph root for images, where they have one of their own."""
    transient: bool = False
    """Whether containers, and the layers made for them, need not survive a reboot."""

    @property
    def home(self) -> str:
        """The driver's own directory."""
        return os.path.join(self.root, self.driver)

    @property
    def driver_run_root(self) -> str:
        """The driver's own directory for what need not survive a reboot."""
        return os.path.join(self.run_root, self.driver)

    @property
    def layers(self) -> str:
        """Directory of layer records, tar-split files and layers' big data."""
        return os.path.join(self.root, f"{self.driver}-layers")

    @property
    def image_home(self) -> str:
        """The driver's own directory for images' layers; :attr:`home` unless they have one of their own."""
        return os.path.join(self.image_root or self.root, self.driver)

    @property
    def image_layers(self) -> str:
        """Directory of the records of images' layers; :attr:`layers` unless they have one of their own."""
        return os.path.join(self.image_root or self.root, f"{self.driver}-layers")

    @property
    def volatile_layers(self) -> str:
        """Directory of the records of layers that need not survive."""
        return self.mounts if self.transient else self.layers

    @property
    def images(self) -> str:
        """Directory of image records and images' big data."""
        return os.path.join(self.image_root or self.root, f"{self.driver}-images")

    @property
    def older_images(self) -> str:
        """Directory of the images that were made before they got a graph root of their own."""
        return os.path.join(self.root, f"{self.driver}-images")

    @property
    def containers(self) -> str:
        """Directory of container records, containers' big data and directories."""
        return os.path.join(self.root, f"{self.driver}-containers")

    @property
    def volatile_containers(self) -> str:
        """Directory of the records of containers that need not survive, and of the containers' lock."""
        return self.running_containers if self.transient else self.containers

    @property
    def mounts(self) -> str:
        """Directory of the mount counts."""
        return os.path.join(self.run_root, f"{self.driver}-layers")

    @property
    def running_containers(self) -> str:
        """Directory of containers' run directories."""
        return os.path.join(self.run_root, f"{self.driver}-containers")

    @property
    def locks(self) -> str:
        """Directory of lock files for single pieces of work."""
        return os.path.join(self.run_root, f"{self.driver}-locks")

    @property
    def own(self) -> str:
        """Directory of what only hostspec knows."""
        return os.path.join(self.layers, "hostspec")

    def tar_split(self, layer_id: str) -> str:
        """Return the file from which a layer's original tar stream is put together again."""
        return os.path.join(self.layers, f"{layer_id}.tar-split.gz")


def big_data_file_name(key: str) -> str:
    """Return the name of the file in which the big data item ``key`` lies.

    A key of digits, lower-case letters and dots is its own file name; others are encoded. The Go
    library's loop stops *after* the first other character, so one in the last place goes unnoticed
    (``fooX`` and ``-`` are their own file names); files must be found where it puts them.

    Raises:
        InvalidRequest: No file name can be made of the key.
    """
    name = key
    if not _PLAIN_IN_FILE_NAMES.issuperset(key[:-1]):
        from base64 import b64encode  # noqa: PLC0415 - few keys need it

        name = "=" + b64encode(_utf_8(key)).decode()
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise InvalidRequest(f"big data key {key!r}", "cannot be made a file name; choose another")
    return name


def check_id(kind: str, identifier: str) -> None:
    """Refuse an ID that cannot be the name of a file.

    Args:
        kind: ``"layer"``, ``"image"`` or ``"container"``, for the message.
        identifier: The wanted ID.

    Raises:
        InvalidRequest: It cannot.
    """
    if identifier in {"", ".", ".."} or "/" in identifier or "\0" in identifier:
        raise InvalidRequest(f"{kind} ID {identifier!r}", "must be usable as a file name")
    if len(_utf_8(identifier)) > 255 - len(".tar-split.gz"):
        raise InvalidRequest(f"{kind} ID {identifier!r}", "is too long for a file name")


def drivers_with_records(root: str) -> dict[str, str]:
    """Return the drivers that have made something in a graph root, each with the file that shows it.

    Args:
        root: Absolute path of the graph root; need not exist.

    Raises:
        DriverFailed: It cannot be read.
    """
    with refusals("read", root):
        try:
            names = os.listdir(root)
        except FileNotFoundError:
            return {}
    found: dict[str, str] = {}
    for name in sorted(names):
        driver = name.removesuffix(_LAYERS_SUFFIX)
        if driver and driver != name:
            for suffix, table in _TABLES:
                path = os.path.join(root, driver + suffix, table)
                if driver not in found and _has_records(path):
                    found[driver] = path
    return found


def _has_records(path: str) -> bool:
    try:
        return os.stat(path).st_size > _SIZE_OF_EMPTY_TABLE
    except OSError:
        return False


def _utf_8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(repr(text), "is not Unicode text, which a record needs") from error
