"""Faults in copies, in mapping owners, and in what is told of a layer, each in a driver of its own."""

# The hooks of a driver have the arguments that they have.

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from hostspec.disk_usage import measure_tree
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
from hostspec.testing.id_xattrs import ACL_ACCESS, ACL_DEFAULT, CAPABILITY
from hostspec.values import (
    Capabilities,
    Change,
    CreateOptions,
    DiskUsage,
    Extents,
    LayerRef,
    Shifted,
    ShiftOptions,
)
from tests.testing.sound_vfs_driver import SoundVfsDriver

__all__ = ["FAULTS"]


# Copies of a template


class RecordsTheTemplateAsParent(SoundVfsDriver):
    @hookimpl
    def create_from_template(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> IdMap:
        self._recorded = {layer_id: template}
        return super().create_from_template(layer_id, template, parent, options)

    @hookimpl
    def changes(self, layer: LayerRef, parent: LayerRef | None) -> Iterable[Change]:
        """Compare with the layer on which it really stands, whatever the caller asks."""
        recorded = getattr(self, "_recorded", {}).get(layer.layer_id, parent)
        return super().changes(layer, recorded)


class SaysThatCopiesAreCheap(SoundVfsDriver):
    """Says that a copy of a template costs a change of owners."""

    @hookimpl
    def capabilities(self) -> Capabilities:
        return super().capabilities()._replace(template_copies_content=False)


class CountsEachNameAsAFile(SoundVfsDriver):
    @hookimpl
    def disk_usage(self, layer_id: str) -> DiskUsage:
        """Add up what the directories list."""
        found = measure_tree(self.layers.tree(layer_id), blocks_are_shared=False)
        return found._replace(exclusive_bytes=sum(os.lstat(path).st_size for path in self._paths(layer_id)))


class CountsSharedBytesOnly(SoundVfsDriver):
    """Tells of shared bytes that lie nowhere."""

    @hookimpl
    def disk_usage(self, layer_id: str) -> DiskUsage:
        found = measure_tree(self.layers.tree(layer_id), blocks_are_shared=False)
        return found._replace(shared_bytes=4096, shared_extents=Extents("", ()))


class AnswersFromMemory(SoundVfsDriver):
    @hookimpl
    def changes(self, layer: LayerRef, parent: LayerRef | None) -> Iterable[Change]:
        """Compare a layer once, and forget that it may change, or be compared with another one."""
        known: dict[LayerRef, list[Change]] = vars(self).setdefault("_known", {})
        if layer not in known:
            known[layer] = list(super().changes(layer, parent))
        return known[layer]


# What carries an ID, and what a pass over it loses


class LosesAccessControlLists(SoundVfsDriver):
    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        shifted = super().update_idmap(layer_id, old, new, options)
        for path in self._paths(layer_id):
            _remove_xattr(path, ACL_ACCESS)
        return shifted


class LeavesIdsInDefaultAcls(SoundVfsDriver):
    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        directories = [path for path, _, _ in os.walk(self.layers.tree(layer_id))]
        before = {path: _xattr(path, ACL_DEFAULT) for path in directories}
        shifted = super().update_idmap(layer_id, old, new, options)
        _restore_xattrs(before, ACL_DEFAULT)
        return shifted


class LeavesTheRootIdOfCapabilities(SoundVfsDriver):
    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        before = {path: _xattr(path, CAPABILITY) for path in self._paths(layer_id)}
        shifted = super().update_idmap(layer_id, old, new, options)
        _restore_xattrs(before, CAPABILITY)
        return shifted


class LosesCapabilities(SoundVfsDriver):
    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        """Do as a naive chown does: the kernel takes a file's capabilities when it gets another owner."""
        shifted = super().update_idmap(layer_id, old, new, options)
        for path in self._paths(layer_id):
            _remove_xattr(path, CAPABILITY)
        return shifted


class TruncatesTimes(SoundVfsDriver):
    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        shifted = super().update_idmap(layer_id, old, new, options)
        for path in self._paths(layer_id):
            seconds = os.lstat(path).st_mtime_ns // 1_000_000_000
            os.utime(path, (seconds, seconds), follow_symlinks=False)
        return shifted


class MissesNamesThatAreNotUtf8(SoundVfsDriver):
    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        odd = [path for path in self._paths(layer_id) if not path.isprintable()]
        before = {path: os.lstat(path) for path in odd}
        shifted = super().update_idmap(layer_id, old, new, options)
        for path, status in before.items():
            os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
        return shifted


class MapsGroupsLikeUsers(SoundVfsDriver):
    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        return super().update_idmap(layer_id, old, IdMap(new.uids, new.uids), options)


class KnowsTheFirstRangeOnly(SoundVfsDriver):
    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        first = IdMap(list(new.uids)[:1], list(new.gids)[:1])
        return super().update_idmap(layer_id, old, first, options._replace(squash=True))


class SquashesInSilence(SoundVfsDriver):
    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        return super().update_idmap(layer_id, old, new, options._replace(squash=True))


class FillsHoles(SoundVfsDriver):
    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        super().create(layer_id, parent, options)
        for path in self._paths(layer_id):
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                with open(path, "r+b") as opened:
                    content = opened.read()
                    opened.seek(0)
                    opened.write(content)
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


class LosesAttributesOfLinks(SoundVfsDriver):
    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        """Copy attributes by path, which a symbolic link leads elsewhere."""
        super().create(layer_id, parent, options)
        for path in filter(os.path.islink, self._paths(layer_id)):
            _remove_xattr(path, "trusted.note")


class MakesDirectoriesUnderTheUmask(SoundVfsDriver):
    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        """Leave an empty layer's root as mkdir(2) makes it."""
        super().create(layer_id, parent, options)
        if parent is None:
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(self.layers.tree(layer_id), 0o755 & ~umask)


class LeavesDevicesOut(SoundVfsDriver):
    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        super().create(layer_id, parent, options)
        for path in self._paths(layer_id):
            if stat.S_ISCHR(os.lstat(path).st_mode):
                os.unlink(path)


def _xattr(path: str, name: str) -> bytes | None:
    with suppress(OSError):
        return os.getxattr(path, name, follow_symlinks=False)
    return None


def _remove_xattr(path: str, name: str) -> None:
    with suppress(OSError):
        os.removexattr(path, name, follow_symlinks=False)


def _restore_xattrs(values: dict[str, bytes | None], name: str) -> None:
    for path, value in values.items():
        if value is not None:
            os.setxattr(path, name, value, follow_symlinks=False)


FAULTS: dict[type, str] = {
    RecordsTheTemplateAsParent: "test_a_copy_has_its_templates_changes_to_the_parent",
    SaysThatCopiesAreCheap: "test_a_copy_costs_what_the_driver_says",
    CountsEachNameAsAFile: "test_disk_usage_counts_a_file_of_several_names_once",
    CountsSharedBytesOnly: "test_disk_usage_grows_with_what_is_written",
    AnswersFromMemory: "test_random_operations_do_what_a_model_in_memory_does",
    LosesAccessControlLists: "test_users_and_groups_in_acls_are_mapped",
    LeavesIdsInDefaultAcls: "test_users_and_groups_in_default_acls_are_mapped",
    LeavesTheRootIdOfCapabilities: "test_the_root_id_of_capabilities_of_version_3_is_mapped",
    LosesCapabilities: "test_capabilities_of_version_2_are_kept",
    TruncatesTimes: "test_times_are_kept_to_the_nanosecond",
    MissesNamesThatAreNotUtf8: "test_names_of_any_bytes_are_mapped",
    MapsGroupsLikeUsers: "test_a_layer_moved_to_another_map_is_the_same_in_every_detail",
    KnowsTheFirstRangeOnly: "test_a_copy_is_the_same_under_its_map_in_every_detail",
    SquashesInSilence: "test_an_ownership_pass_says_which_file_is_outside_the_map",
    FillsHoles: "test_holes_stay_holes",
    LosesAttributesOfLinks: "test_other_extended_attributes_are_kept",
    MakesDirectoriesUnderTheUmask: "test_the_umask_of_the_caller_makes_no_difference",
    LeavesDevicesOut: "test_devices_and_pipes_are_kept_and_mapped",
}
"""Each fault, and the test whose name says what is wrong."""
