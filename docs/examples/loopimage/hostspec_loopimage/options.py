"""The options of the driver, and of one layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hostspec.errors import InvalidRequest, OperationNotSupported
from hostspec.option_values import size_in_bytes
from hostspec.values import CreateOptions, MountOptions

__all__ = ["DEFAULTS", "DRIVER", "Options", "parse_options", "refuse_mount_options", "wanted_size"]

DRIVER = "loopimage"


class Options(NamedTuple):
    """The driver's options."""

    filesystem: str = "ext4"
    """What new images hold: ``ext4`` or ``xfs``."""
    size: int = 10 << 30
    """Bytes that a layer without a parent has, if nothing else is asked for."""


DEFAULTS = Options()


def parse_options(options: Sequence[tuple[str, str]], filesystems: Sequence[str]) -> Options:
    """Read the driver's options.

    Raises:
        InvalidRequest: One is unknown, or its value is.
    """
    parsed = DEFAULTS
    for name, value in options:
        if name == "fs" and value in filesystems:
            parsed = parsed._replace(filesystem=value)
        elif name == "size":
            parsed = parsed._replace(size=size_in_bytes(f"{DRIVER}.size", value))
        else:
            known = f"fs={'|'.join(filesystems)} and size, such as 512m or 10g"
            raise InvalidRequest(f"{DRIVER}.{name}={value}", f"is no option of this driver; it knows {known}")
    return parsed


def wanted_size(options: CreateOptions, present: int, *, empty: bool) -> int:
    """Return how large a new layer's image is to be, in bytes.

    Args:
        options: What the caller asks for.
        present: What it would be otherwise.
        empty: Nothing is in it yet, so that it can be smaller too.

    Raises:
        InvalidRequest: A storage option is unknown.
        OperationNotSupported: A limit that an image does not have, or one that is too small.
    """
    for name, value in options.others:
        raise InvalidRequest(f"{name}={value}", f"the {DRIVER} driver knows no storage options")
    if options.inodes is not None:
        raise OperationNotSupported(
            DRIVER, "limit a layer's inodes", "its file system decides how many it has"
        )
    if options.mount_label:
        raise OperationNotSupported(DRIVER, "label a layer's files", "they keep the labels that they have")
    if options.size is None:
        return present
    if options.size < present and not empty:
        reason = f"the layer below has {present} bytes, and an image can only grow"
        raise OperationNotSupported(DRIVER, f"limit a layer to {options.size} bytes", reason)
    return options.size


def refuse_mount_options(options: MountOptions) -> None:
    """Refuse what an image cannot be mounted with.

    Raises:
        InvalidRequest: An option is unknown.
        OperationNotSupported: A map or a label is wanted.
    """
    if unknown := set(options.options) - {"ro", "rw"}:
        raise InvalidRequest(f"mount option {min(unknown)!r}", f"the {DRIVER} driver knows only ro and rw")
    if options.idmap:
        reason = "layers are shown with the owners that they have; make a mapped copy instead"
        raise OperationNotSupported(DRIVER, f"mount under the ID map {options.idmap}", reason)
    if options.mount_label:
        raise OperationNotSupported(DRIVER, "label a mount", "files keep the labels that they have")
