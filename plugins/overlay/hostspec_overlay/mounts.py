"""The driver's mounts: of which layer, where, and by whom, the kernel or a program."""

# What calls the kernel is imported by what uses it: most commands mount nothing.
# ruff: noqa: PLC0415

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING

from hostspec.kernel.self_binds import unbind_from_itself
from hostspec.values import MountOptions
from hostspec_overlay.environment import usual_choices
from hostspec_overlay.home_mount import bind_home, unbind_home
from hostspec_overlay.homes import Homes
from hostspec_overlay.layout import LayerDirectory
from hostspec_overlay.options import MountChoices, OverlayOptions, parse_mount_options

if TYPE_CHECKING:
    from hostspec_overlay.mount_program import MountProgram

__all__ = ["Mounts"]


class Mounts:
    """Makes and takes down the mounts of one home; threads may share it."""

    def __init__(self, homes: Homes, run_root: str, options: OverlayOptions) -> None:
        """Take homes and options; nothing is mounted.

        Args:
            homes: Where layers are.
            run_root: Absolute path of the directory for what need not survive a reboot.
            options: What the user chose.
        """
        self._homes = homes
        self._run_root = run_root
        self._options = options
        self._mounting = Lock()

    def choices(self, further: Sequence[str] = ()) -> MountChoices:
        """Return the mount options that every mount gets.

        Args:
            further: Options for one mount, on top of them.

        Raises:
            InvalidRequest: One of them is not known.
        """
        program = self._options.mount_program
        choices = parse_mount_options(further, self._options.mount, any_name=bool(program))
        return choices.for_program() if program else usual_choices(choices)

    def program(self) -> MountProgram | None:
        """Return the program that mounts instead of the kernel, if one does."""
        if not self._options.mount_program:
            return None
        from hostspec_overlay.mount_program import MountProgram

        return MountProgram(
            self._options.mount_program,
            self._homes.home,
            keeps_modes_apart=self._options.force_mask is not None,
        )

    def mount(self, layer: LayerDirectory, options: MountOptions) -> str:
        """Mount a layer, and return where; its shared mount where that is there already.

        Raises:
            InvalidRequest: A mount option is not known.
            OperationNotSupported: There are too many layers, or the map cannot be shown.
            OSError: The kernel or the program refused; nothing is mounted.
        """
        choices = self.choices(options.options)
        if options.read_only or not layer.writable:
            choices = choices.read_only()
        elif options.volatile:
            choices = choices.with_overlay("volatile")
        if options.target is not None:
            self._mount_at(options.target, layer, choices, options)
            return options.target
        return self._mount_shared(layer, choices, options)

    def unmount(self, path: str) -> None:
        """Unmount what is mounted at ``path``, and the home from itself where that was the last mount in it.

        Raises:
            OSError: It is busy.
        """
        from hostspec.kernel.mounts import A_MOMENT, unmount

        try:
            unmount(path, patience=A_MOMENT)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOENT}:
                raise
        if path.startswith(f"{self._homes.home}/"):
            with self._mounting:
                self._unbind_home()

    def release_home(self) -> None:
        """Unmount the home from itself, unless something is mounted in it; the caller has ``storage.lock``.

        Raises:
            OSError: The kernel refused.
        """
        with self._mounting:
            if not self._options.skip_mount_home:
                unbind_from_itself(self._homes.home)

    def _unbind_home(self) -> None:
        if not self._options.skip_mount_home:
            unbind_home(self._homes.home)

    def _mount_shared(self, layer: LayerDirectory, choices: MountChoices, options: MountOptions) -> str:
        target = layer.merged if layer.writable else f"{self._run_root}/merged/{layer.layer_id}"
        # Between looking and mounting no other thread may mount here too.
        with self._mounting:
            if not self._is_mounted(target):
                os.makedirs(target, 0o700, exist_ok=True)
                if not self._options.skip_mount_home:
                    bind_home(self._homes.home)
                try:
                    self._mount_at(target, layer, choices, options)
                except BaseException:
                    self._unbind_home()
                    raise
        return target

    def _mount_at(
        self, target: str, layer: LayerDirectory, choices: MountChoices, options: MountOptions
    ) -> None:
        from hostspec_overlay.mounting import mount_overlay
        from hostspec_overlay.planning import plan_mount
        from hostspec_overlay.stubs import follow_stubs

        program = self.program()
        below = self._homes.below(layer)
        plan = plan_mount(
            layer,
            below,
            choices if program is not None else follow_stubs(choices, below),
            home=self._homes.home,
            spare=f"{self._run_root}/empty",
            idmap=options.idmap,
            label=options.mount_label,
            by_program=program is not None,
        )
        if program is not None:
            program.mount(plan, target)
        else:
            mount_overlay(plan, target, self._options.mount_api)

    def _is_mounted(self, target: str) -> bool:
        """Tell whether something is mounted; a mount whose program has died is taken down."""
        from hostspec.kernel.mountinfo import is_mountpoint
        from hostspec.kernel.mounts import unmount

        if not is_mountpoint(target):
            return False
        if self._options.mount_program:
            try:
                os.statvfs(target)  # the program has to answer it
            except OSError as error:
                if error.errno != errno.ENOTCONN:
                    raise
                unmount(target, lazy=True)
                return False
        return True
