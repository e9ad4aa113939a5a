"""The values that cross the contract: what hooks are given and what they answer.

All of them are immutable; ``_replace`` makes a changed copy. Fields are added over time, each with
a default, so give them by keyword. Sizes are in bytes, paths in a layer are absolute within
that layer (``/etc/passwd``), as :class:`str` with undecodable bytes kept by
``surrogateescape`` (PEP 383).
"""

# Named tuples and no data classes: every process that opens a driver imports this module, and it takes
# five times as long to make a data class. Nor are annotations left as strings here, each of which would be
# compiled.

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from hostspec.idmap import IdMap

__all__ = [
    "ApplyOptions",
    "Capabilities",
    "Change",
    "ChangeKind",
    "CreateOptions",
    "DedupOptions",
    "DiskUsage",
    "Extents",
    "LayerRef",
    "MountOptions",
    "Progress",
    "ProgressCallback",
    "ShiftOptions",
    "Shifted",
    "Shifting",
    "StoredIds",
    "TemplateCost",
]


class Progress(NamedTuple):
    """How far a long operation has come."""

    done: int
    """Units done so far."""
    total: int | None
    """Units in all, or ``None`` when not known."""
    unit: str
    """``"files"`` or ``"bytes"``."""


ProgressCallback = Callable[[Progress], None]
"""Called now and then, from the thread that works; must be quick and not raise."""


class LayerRef(NamedTuple):
    """A layer, and the ID map that its files carry on disk."""

    layer_id: str
    """The layer's ID."""
    idmap: IdMap = IdMap()
    """Where its files' host IDs come from; ``IdMap()`` when they are unmapped."""
    shifted: bool = False
    """True when ``idmap`` holds for the layer's own files only, and what lies below them is unmapped.

    So it is with what was written through a shifted mount whose driver stores mapped IDs
    (:attr:`Shifting.stored`). The whole tree shows one map only when it is mounted under ``idmap``.
    """


class ChangeKind(Enum):
    """What happened to a path between two layers."""

    MODIFY = "Modify"
    ADD = "Add"
    DELETE = "Delete"


class Change(NamedTuple):
    """One path that differs between a layer and the one it is compared with."""

    path: str
    """Absolute within the layer."""
    kind: ChangeKind
    """Added, modified or deleted; a replaced file is modified."""

    def __str__(self) -> str:
        return f"{self.kind.value} {self.path}"


class StoredIds(Enum):
    """Which IDs reach the disk when a process writes through a shifted mount."""

    UNMAPPED = "unmapped"
    """Container IDs: the mount maps in both directions (an idmapped bind)."""
    MAPPED = "mapped"
    """Host IDs: what is written is not mapped back (overlay's upper directory)."""


class Shifting(NamedTuple):
    """Whether a driver can show a layer under an ID map by mounting it so."""

    possible: bool
    """True when ``mount`` takes this map in ``MountOptions.idmap``."""
    reason: str
    """What makes it possible, or what is missing; for people."""
    stored: StoredIds = StoredIds.UNMAPPED
    """Which IDs reach the disk through such a mount."""
    shared_with_go: bool = False
    """True when containers/storage shifts such layers in the same way, so that podman mounts them too."""


class Shifted(NamedTuple):
    """What an ownership pass did."""

    inodes: int
    """Inodes whose owner, ACL or capability changed."""
    bytes_copied: int
    """Bytes of file content that had to be copied for it."""
    squashed: int = 0
    """IDs outside the map that were replaced, where the caller allowed that."""


class Extents(NamedTuple):
    """Runs of bytes on the device of a file system."""

    device: str
    """The file system, by what tells it from all others of the machine."""
    runs: tuple[tuple[int, int], ...]
    """Where each run starts, and where the next byte after it is; in order, and none touches the next."""


class DiskUsage(NamedTuple):
    """What a layer occupies."""

    exclusive_bytes: int
    """Bytes that removing the layer would free."""
    shared_bytes: int
    """Bytes of its own that other layers share (reflinks, snapshots)."""
    inodes: int
    """Inodes that removing the layer would free."""
    limit_bytes: int | None = None
    """The quota in bytes, or ``None`` for no limit."""
    limit_inodes: int | None = None
    """The quota in inodes, or ``None`` for no limit."""
    project: int | None = None
    """The project to which the layer alone belongs, which the kernel's warnings name, or ``None``."""
    shared_extents: Extents | None = None
    """Where the shared bytes lie, from which can be told what several layers have in common and what removing
    all of them would free; ``None`` where the driver does not tell."""

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return self.limit_bytes is not None or self.limit_inodes is not None


class TemplateCost(Enum):
    """What a copy of a template under another map costs for each file."""

    METADATA = "metadata"
    """A change of owner."""
    REFLINKS = "reflinks"
    """A new file that shares the blocks of the old one."""
    CONTENT = "content"
    """A new file, to which every byte is copied."""


class Capabilities(NamedTuple):
    """What a driver can do, as facts that the host side and the conformance suite read.

    A new field always has a default that is true of a driver written before it.
    """

    contract: int = 1
    """Version of the contract that the driver was written for."""
    stages_layers: bool = False
    """Layers stay unseen by ``exists`` and ``list_layers`` until ``commit``."""
    layers_are_whole: bool = False
    """Each layer is a complete tree of plain files, independent of its parent."""
    layers_are_filesystems: bool = False
    """Each layer is a file system of its own, so that no file of one shares blocks with one of another."""
    mounts_privately: bool = True
    """``mount`` honours ``MountOptions.target``; a driver that cannot must return its own directory."""
    read_only_mounts: bool = True
    """Private mounts honour ``MountOptions.read_only``; a shared one may be the layer's own directory."""
    limits_size: bool = False
    """``create`` honours ``CreateOptions.size`` here and now."""
    limits_inodes: bool = False
    """``create`` honours ``CreateOptions.inodes`` here and now."""
    max_depth: int | None = None
    """How many layers one chain may have, or ``None`` for any number."""
    shared_depth: int | None = None
    """How many layers an image may have for other programs on its store to mount it; ``None``: any number."""
    template_copies_content: bool = False
    """A copy of a template under another map takes each file's content along, not only its metadata: by
    reflink where the home's file system has them, else by copying, which is slow."""


class CreateOptions(NamedTuple):
    """How a layer is to be made."""

    idmap: IdMap = IdMap()
    """``create``: owner of an empty layer's root. ``create_from_template``: the wanted map."""
    read_only: bool = False
    """True for an image's layer, false for a container's.

    From ``commit`` on nobody need be able to write to an image's layer: its mounts may be read-only
    whatever is asked for, and ``apply_diff`` and ``update_idmap`` may refuse. A driver may ignore it.
    """
    size: int | None = None
    """Limit in bytes, or ``None``: of its own content or, where it shares blocks, of all that it shows."""
    inodes: int | None = None
    """Limit of the layer's own inodes, or ``None``."""
    mount_label: str = ""
    """SELinux label for the layer's files, or ``""``."""
    squash: bool = False
    """Give files whose IDs are outside the map the nearest that is inside, instead of failing."""
    threads: int | None = None
    """Threads for work on many files, or ``None`` for the driver's choice."""
    progress: ProgressCallback | None = None
    """Told how far the work has come."""
    others: tuple[tuple[str, str], ...] = ()
    """Further storage options, spelt as the user spelt them; a driver refuses those it does not know."""


class MountOptions(NamedTuple):
    """How a layer is to be mounted."""

    idmap: IdMap = IdMap()
    """Show the files under this map (shift); only where ``supports_shifting`` said that it can be done."""
    target: str | None = None
    """An empty directory for a private mount, or ``None`` for the layer's one shared mount."""
    read_only: bool = False
    """Refuse writes through this mount."""
    volatile: bool = False
    """Content need not survive a crash of the machine."""
    mount_label: str = ""
    """SELinux label for the mount, or ``""``."""
    options: tuple[str, ...] = ()
    """Further mount options, as in ``mount -o``; a driver refuses those it does not know."""


class ApplyOptions(NamedTuple):
    """How a layer tar is to be unpacked."""

    idmap: IdMap = IdMap()
    """From the container IDs in the tar to the host IDs on disk."""
    squash: bool = False
    """Keep going where an owner cannot be set (``ignore_chown_errors``)."""
    force_mode: int | None = None
    """Permission bits for every file (``force_mask``), the real ones kept in an xattr; or ``None``."""
    progress: ProgressCallback | None = None
    """Told how far the work has come."""


class ShiftOptions(NamedTuple):
    """How an ownership pass is to be made."""

    squash: bool = False
    """Replace IDs outside the map by the nearest inside, instead of failing."""
    threads: int | None = None
    """Threads, or ``None`` for one for each processor."""
    mount_label: str = ""
    """SELinux label for the private mount of the pass, or ``""``."""
    progress: ProgressCallback | None = None
    """Told how far the work has come."""


class DedupOptions(NamedTuple):
    """How equal files are to be found."""

    method: str = "size"
    """``"size"``, ``"crc"`` or ``"sha256"``: what makes files candidates; the kernel compares them."""
