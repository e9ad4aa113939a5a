"""Storage options of the driver, and mount options: each is obeyed or refused by name.

Option names and values are those of containers-storage.conf(5), section
``storage.options.overlay``; options of our own begin with ``hostspec_``.
Mount options are those of mount(8) that hold for any file system, and those of
overlayfs (Linux, ``Documentation/filesystems/overlayfs.rst``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from hostspec.errors import InvalidRequest, OperationNotSupported
from hostspec.values import CreateOptions

__all__ = [
    "DRIVER",
    "MOUNT_API_CHOICES",
    "NO_CHOICES",
    "Limits",
    "MountChoices",
    "OverlayOptions",
    "parse_mount_options",
    "parse_options",
    "wanted_limits",
]

DRIVER = "overlay"
"""The driver's name, for errors."""

MOUNT_API_CHOICES = ("auto", "detached", "descriptors", "lowerdir+", "string", "classic")
"""Values of ``hostspec_mount_api``, best first; see :mod:`hostspec_overlay.mounting`."""

_SWITCHED_ON = frozenset({"1", "t", "true", "yes", "on"})
_SWITCHED_OFF = frozenset({"0", "f", "false", "no", "off", ""})

_ATTRIBUTES = frozenset({"ro", "nodev", "nosuid", "noexec", "noatime", "nodiratime"})
_OPPOSITES = {"rw": "ro", "dev": "nodev", "suid": "nosuid", "exec": "noexec", "diratime": "nodiratime"}
_WITHOUT_EFFECT = frozenset({"", "defaults", "relatime"})

_OVERLAY_SETTINGS = {
    "index": frozenset({"on", "off"}),
    "metacopy": frozenset({"on", "off"}),
    "nfs_export": frozenset({"on", "off"}),
    "redirect_dir": frozenset({"on", "off", "follow", "nofollow"}),
    "uuid": frozenset({"on", "off", "null", "auto"}),
    "verity": frozenset({"on", "off", "require"}),
    "xino": frozenset({"on", "off", "auto"}),
}
_OVERLAY_FLAGS = frozenset({"volatile", "userxattr", "default_permissions"})
_DIRECTORIES = frozenset({"lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir"})

_MASKS = {"shared": 0o755, "private": 0o700}
# Not compiled before it is used: most stores have no such option.
_OCTAL_MODE = r"0?[0-7]{3}"


class MountChoices(NamedTuple):
    """How a mount is to be made, beyond its directories."""

    attributes: frozenset[str] = frozenset()
    """Of ``ro``, ``nodev``, ``nosuid``, ``noexec``, ``noatime``, ``nodiratime``."""
    overlay: tuple[tuple[str, str | None], ...] = ()
    """Options of overlayfs; ``None`` for one that has no value. Each name at most once."""

    def __str__(self) -> str:
        settings = (name if value is None else f"{name}={value}" for name, value in self.overlay)
        return ",".join([*sorted(self.attributes), *settings])

    def overlay_option(self, name: str) -> str | None:
        """Return the value of an overlayfs option, ``""`` for one without, ``None`` where it is not set."""
        for each, value in self.overlay:
            if each == name:
                return value or ""
        return None

    def with_overlay(self, name: str, value: str | None = None) -> MountChoices:
        """Return these choices with one overlayfs option set."""
        return self._replace(overlay=(*self.without_overlay(name).overlay, (name, value)))

    def without_overlay(self, name: str) -> MountChoices:
        """Return these choices with one overlayfs option left to the kernel."""
        return self._replace(overlay=tuple(each for each in self.overlay if each[0] != name))

    def for_program(self) -> MountChoices:
        """Return these choices as a mount program can have them, none of which knows metacopy."""
        return self.without_overlay("metacopy")

    def read_only(self) -> MountChoices:
        """Return these choices for a mount that refuses writes."""
        return self._replace(attributes=self.attributes | {"ro"})


NO_CHOICES = MountChoices()
"""Everything left to the kernel."""


class Limits(NamedTuple):
    """What a layer may occupy."""

    size: int | None = None
    """Bytes of its own content, or ``None``."""
    inodes: int | None = None
    """Inodes of its own, or ``None``."""

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self._asdict().items() if value is not None)


class OverlayOptions(NamedTuple):
    """What the user chose for this driver."""

    mount: MountChoices = NO_CHOICES
    """``mountopt``: for every mount."""
    squash: bool = False
    """``ignore_chown_errors``."""
    mount_api: str = "auto"
    """``hostspec_mount_api``: one of :data:`MOUNT_API_CHOICES`."""
    shifting: bool = True
    """``hostspec_shifting``: mount layers under ID maps where the kernel can."""
    direct_pass: bool = True
    """``hostspec_direct_pass``: write what a layer inherits under a new ID map without a mount."""
    volatile_pass: bool = True
    """``hostspec_volatile_pass``: change owners through a volatile mount where the kernel has it."""
    skip_mount_home: bool = False
    """``skip_mount_home``: do not make the home a mount of its own."""
    image_homes: tuple[str, ...] = ()
    """``additionalimagestore``: homes of this driver in further stores, never written."""
    mount_program: str = ""
    """``mount_program``: path of the program that mounts instead of the kernel, or ``""``."""
    force_mask: int | None = None
    """``force_mask``: permission bits that every file gets on disk; ``None`` for its own."""
    limits: Limits = Limits()
    """``size`` and ``inodes``: for each writable layer that is given no other."""


def parse_options(options: Iterable[tuple[str, str]]) -> OverlayOptions:
    """Read the driver's storage options; of one given twice, the last counts.

    Raises:
        InvalidRequest: An option is not known, or not with this value.
        OperationNotSupported: The option is known, and this driver cannot honour it.
    """
    given = list(options)
    # Known first: a program may have mount options that nobody else knows.
    parsed = OverlayOptions(mount_program=dict(given).get("mount_program", ""))
    for name, value in given:
        reader = _READERS.get(name)
        if reader is None:
            known = ", ".join(sorted(_READERS))
            raise InvalidRequest(f"option overlay.{name}", f"is not known; the overlay driver knows {known}")
        parsed = reader(parsed, value)
    if parsed.force_mask is not None and not parsed.mount_program:
        raise OperationNotSupported(
            DRIVER,
            f"option overlay.force_mask={parsed.force_mask:o}",
            "the kernel's overlayfs would show every file with these permissions; "
            "name a mount program by overlay.mount_program",
        )
    return parsed


def wanted_limits(options: CreateOptions, usual: Limits) -> Limits:
    """Return what a new layer may occupy.

    Args:
        options: How the layer is to be made. Its options ``size`` and ``inodes`` count most.
        usual: For writable layers.

    Raises:
        InvalidRequest: An option is not known, or its value is no size or number.
    """
    limits = Limits() if options.read_only else usual
    limits = Limits(
        size=limits.size if options.size is None else options.size or None,
        inodes=limits.inodes if options.inodes is None else options.inodes or None,
    )
    for name, value in options.others:
        if name == "size":
            limits = limits._replace(size=_size(f"storage option {name}", value))
        elif name == "inodes":
            limits = limits._replace(inodes=_number(f"storage option {name}", value))
        else:
            raise InvalidRequest(
                f"storage option {name}={value}",
                "is not known to the overlay driver; it knows size and inodes",
            )
    return limits


def parse_mount_options(
    texts: Iterable[str], start: MountChoices = NO_CHOICES, *, any_name: bool = False
) -> MountChoices:
    """Read mount options, as in ``mount -o``, on top of those in ``start``.

    Args:
        texts: Options; one text may hold several, joined by commas.
        start: What holds where ``texts`` says nothing.
        any_name: Take options that are not known, for a mount program to obey or refuse.

    Raises:
        InvalidRequest: One of them is not known, or not with this value.
    """
    choices = start
    for option in (part.strip() for text in texts for part in text.split(",")):
        name, separator, value = option.partition("=")
        if option in _WITHOUT_EFFECT:
            continue
        if option in _ATTRIBUTES:
            choices = choices._replace(attributes=choices.attributes | {option})
        elif option in _OPPOSITES:
            choices = choices._replace(attributes=choices.attributes - {_OPPOSITES[option]})
        elif option in _OVERLAY_FLAGS:
            choices = choices.with_overlay(option)
        elif separator and value in _OVERLAY_SETTINGS.get(name, ()):
            choices = choices.with_overlay(name, value)
        elif any_name and name not in _DIRECTORIES:
            choices = choices.with_overlay(name, value if separator else None)
        elif name in _OVERLAY_SETTINGS:
            allowed = ", ".join(f"{name}={each}" for each in sorted(_OVERLAY_SETTINGS[name]))
            raise InvalidRequest(f"mount option {option!r}", f"must be one of {allowed}")
        else:
            known = ", ".join(
                sorted(_ATTRIBUTES | _OPPOSITES.keys() | _OVERLAY_FLAGS | _OVERLAY_SETTINGS.keys())
            )
            raise InvalidRequest(
                f"mount option {option!r}", f"is not known to the overlay driver; it knows {known}"
            )
    return choices


def _mountopt(parsed: OverlayOptions, value: str) -> OverlayOptions:
    return parsed._replace(mount=parse_mount_options([value], any_name=bool(parsed.mount_program)))


def _ignore_chown_errors(parsed: OverlayOptions, value: str) -> OverlayOptions:
    return parsed._replace(squash=_switch("ignore_chown_errors", value))


def _mount_api(parsed: OverlayOptions, value: str) -> OverlayOptions:
    if value not in MOUNT_API_CHOICES:
        raise InvalidRequest(
            f"option overlay.hostspec_mount_api={value}", f"must be one of {', '.join(MOUNT_API_CHOICES)}"
        )
    return parsed._replace(mount_api=value)


def _shifting(parsed: OverlayOptions, value: str) -> OverlayOptions:
    return parsed._replace(shifting=_switch("hostspec_shifting", value))


def _direct_pass(parsed: OverlayOptions, value: str) -> OverlayOptions:
    return parsed._replace(direct_pass=_switch("hostspec_direct_pass", value))


def _volatile_pass(parsed: OverlayOptions, value: str) -> OverlayOptions:
    return parsed._replace(volatile_pass=_switch("hostspec_volatile_pass", value))


def _additional_image_stores(parsed: OverlayOptions, value: str) -> OverlayOptions:
    roots = [root.strip() for root in value.split(",") if root.strip()]
    for root in roots:
        if not os.path.isabs(root) or not os.path.isdir(root):
            raise InvalidRequest(
                f"option overlay.additionalimagestore={root}", "must be the absolute path of a store's root"
            )
    homes = (os.path.join(root, DRIVER) for root in roots)
    return parsed._replace(image_homes=(*parsed.image_homes, *homes))


def _skip_mount_home(parsed: OverlayOptions, value: str) -> OverlayOptions:
    return parsed._replace(skip_mount_home=_switch("skip_mount_home", value))


def _override_kernel_check(parsed: OverlayOptions, value: str) -> OverlayOptions:  # noqa: ARG001
    # The kernel is never checked by its version, so there is nothing to override.
    return parsed


def _mount_program(parsed: OverlayOptions, value: str) -> OverlayOptions:
    if value and not os.path.isabs(value):
        raise InvalidRequest(
            f"option overlay.mount_program={value}", "must be the absolute path of a program"
        )
    return parsed


def _force_mask(parsed: OverlayOptions, value: str) -> OverlayOptions:
    if not value:
        return parsed._replace(force_mask=None)
    mask = _MASKS.get(value)
    if mask is None:
        if not re.fullmatch(_OCTAL_MODE, value):
            reason = "must be shared, private, or permission bits as octal digits, such as 0755"
            raise InvalidRequest(f"option overlay.force_mask={value}", reason)
        mask = int(value, 8)
    return parsed._replace(force_mask=mask)


def _usual_size(parsed: OverlayOptions, value: str) -> OverlayOptions:
    return parsed._replace(limits=parsed.limits._replace(size=_size("option overlay.size", value)))


def _usual_inodes(parsed: OverlayOptions, value: str) -> OverlayOptions:
    return parsed._replace(limits=parsed.limits._replace(inodes=_number("option overlay.inodes", value)))


def _size(name: str, value: str) -> int | None:
    """Return a size in bytes; ``None`` for none, as the Go library has 0 and the empty text."""
    from hostspec.option_values import size_in_bytes  # noqa: PLC0415 - most stores have no such option

    return size_in_bytes(name, value if value.strip() else "0") or None


def _number(name: str, value: str) -> int | None:
    """Return a number; ``None`` for none, as for :func:`_size`."""
    from hostspec.option_values import number  # noqa: PLC0415 - most stores have no such option

    return number(name, value if value.strip() else "0") or None


def _refused(name: str, reason: str) -> Callable[[OverlayOptions, str], OverlayOptions]:
    def read(parsed: OverlayOptions, value: str) -> OverlayOptions:
        if value.lower() in _SWITCHED_OFF:
            return parsed
        raise OperationNotSupported(DRIVER, f"option overlay.{name}={value}", reason)

    return read


def _switch(name: str, value: str) -> bool:
    if value.lower() in _SWITCHED_ON:
        return True
    if value.lower() in _SWITCHED_OFF:
        return False
    raise InvalidRequest(f"option overlay.{name}={value}", "must be true or false")


_READERS: dict[str, Callable[[OverlayOptions, str], OverlayOptions]] = {
    "additionalimagestore": _additional_image_stores,
    "additionallayerstore": _refused(
        "additionallayerstore", "layers that a file system in user space serves are not supported"
    ),
    "force_mask": _force_mask,
    "hostspec_direct_pass": _direct_pass,
    "hostspec_mount_api": _mount_api,
    "hostspec_shifting": _shifting,
    "hostspec_volatile_pass": _volatile_pass,
    "ignore_chown_errors": _ignore_chown_errors,
    "imagestore": _additional_image_stores,
    "inodes": _usual_inodes,
    "mount_program": _mount_program,
    "mountopt": _mountopt,
    "override_kernel_check": _override_kernel_check,
    "size": _usual_size,
    "skip_mount_home": _skip_mount_home,
    "use_composefs": _refused("use_composefs", "composefs is not supported"),
}
