"""More drivers that each have one fault, derived from the vfs driver, which mounts, stages and shifts."""

# The hooks of a driver have the arguments that they have.
# ruff: noqa: ARG002

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import BinaryIO

from hostspec.archive.changes import compare_trees
from hostspec.archive.pack import pack
from hostspec.disk_usage import measure_tree
from hostspec.errors import InvalidArchive
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
from hostspec.kernel.mounts import bind
from hostspec.testing.id_xattrs import ACL_ACCESS, ACL_DEFAULT, CAPABILITY
from hostspec.treecopy import copy_tree
from hostspec.values import (
    ApplyOptions,
    Capabilities,
    Change,
    CreateOptions,
    DiskUsage,
    Extents,
    LayerRef,
    MountOptions,
    Shifted,
    Shifting,
    ShiftOptions,
    StoredIds,
)
from hostspec_vfs.driver import VfsDriver

__all__ = ["FAULTS", "SoundVfsDriver"]


class SoundVfsDriver(VfsDriver):
    """The vfs driver, with native hooks in which something can be wrong."""

    def __init__(
        self,
        home: str,
        run_root: str,
        _options: tuple[tuple[str, str], ...] = (),
        read_only_homes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(home, run_root, read_only_homes)

    @hookimpl
    def capabilities(self) -> Capabilities:
        return super().capabilities()._replace(template_copies_content=True)

    @hookimpl
    def create_from_template(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> IdMap:
        self.create(layer_id, template, options)
        return template.idmap

    @hookimpl
    def changes(self, layer: LayerRef, parent: LayerRef | None) -> Iterable[Change]:
        return compare_trees(
            self.layers.tree(layer.layer_id),
            None if parent is None else self.layers.tree(parent.layer_id),
            new_map=layer.idmap,
            old_map=IdMap() if parent is None else parent.idmap,
        )

    @hookimpl
    def diff(self, layer: LayerRef, parent: LayerRef | None) -> AbstractContextManager[BinaryIO]:
        return pack(self.layers.tree(layer.layer_id), self.changes(layer, parent), idmap=layer.idmap)

    def _paths(self, layer_id: str) -> Iterator[str]:
        """Yield every path of a layer that is no directory."""
        for directory, directories, names in os.walk(self.layers.tree(layer_id)):
            links = (name for name in directories if os.path.islink(f"{directory}/{name}"))
            yield from (f"{directory}/{name}" for name in (*names, *links))


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


class LeavesDevicesOut(SoundVfsDriver):
    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        super().create(layer_id, parent, options)
        for path in self._paths(layer_id):
            if stat.S_ISCHR(os.lstat(path).st_mode):
                os.unlink(path)


# Layer tars


class LosesWhiteouts(SoundVfsDriver):
    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        kept = _tar_without(stream, lambda name: name.startswith(".wh.") and name != ".wh..wh..opq")
        return super().apply_diff(layer_id, kept, options)


class LosesOpaqueDirectories(SoundVfsDriver):
    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        kept = _tar_without(stream, lambda name: name == ".wh..wh..opq")
        return super().apply_diff(layer_id, kept, options)


class ExtractsWhereverTheTarSays(SoundVfsDriver):
    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        content = stream.read()
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(self.layers.tree(layer_id), filter="fully_trusted")  # noqa: S202 - the fault
        return len(content)


class TakesATruncatedTarForAWholeOne(SoundVfsDriver):
    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        with suppress(InvalidArchive):
            return super().apply_diff(layer_id, stream, options)
        return 0


class StopsBeforeTheEndOfTheStream(SoundVfsDriver):
    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            archive.extractall(self.layers.tree(layer_id), filter="tar")
        return 0


class PacksHostIds(SoundVfsDriver):
    @hookimpl
    def diff(self, layer: LayerRef, parent: LayerRef | None) -> AbstractContextManager[BinaryIO]:
        return pack(self.layers.tree(layer.layer_id), self.changes(layer, parent), idmap=IdMap())


class CountsEachNameOfAnInode(SoundVfsDriver):
    @hookimpl
    def diff_size(self, layer: LayerRef, parent: LayerRef | None) -> int:
        root = self.layers.tree(layer.layer_id)
        found = (root + change.path for change in self.changes(layer, parent))
        statuses = [os.lstat(path) for path in found if os.path.lexists(path)]
        return sum(each.st_size for each in statuses if stat.S_ISREG(each.st_mode))


# Mounts


class LeaksMounts(SoundVfsDriver):
    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        """Keep a mount of the layer for later use, and forget where."""
        path = super().mount(layer_id, options)
        bind(path, tempfile.mkdtemp(dir=os.path.dirname(self.home)))
        return path


class UnmountsEveryMountOfALayer(SoundVfsDriver):
    _targets: dict[str, list[str]]

    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        path = super().mount(layer_id, options)
        self._targets = {**getattr(self, "_targets", {})}
        self._targets.setdefault(layer_id, []).append(path)
        return path

    @hookimpl
    def unmount(self, layer_id: str, path: str) -> None:
        for each in self._targets.pop(layer_id, [path]):
            super().unmount(layer_id, each)


class MountsWritable(SoundVfsDriver):
    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        return super().mount(layer_id, options._replace(read_only=False))


class MountsWithoutTheMap(SoundVfsDriver):
    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        return super().mount(layer_id, options._replace(idmap=IdMap()))


class SaysWronglyWhatIsStored(SoundVfsDriver):
    @hookimpl
    def supports_shifting(self, idmap: IdMap) -> Shifting:
        return super().supports_shifting(idmap)._replace(stored=StoredIds.MAPPED)


# The life of a layer


class ShowsWhatIsStaged(SoundVfsDriver):
    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        super().create(layer_id, parent, options)
        super().commit(layer_id)

    @hookimpl
    def commit(self, layer_id: str) -> None:
        """Have done it already."""


class ShowsWhatIsSealed(SoundVfsDriver):
    @hookimpl
    def seal(self, layer_id: str) -> None:
        super().commit(layer_id)

    @hookimpl
    def commit(self, layer_id: str) -> None:
        if not self.exists(layer_id):
            super().commit(layer_id)


class CommitsFileByFile(SoundVfsDriver):
    @hookimpl
    def commit(self, layer_id: str) -> None:
        staged, committed = self.layers.staged(layer_id), self.layers.committed(layer_id)
        os.makedirs(os.path.dirname(committed), exist_ok=True)
        copy_tree(staged, _made(committed))
        shutil.rmtree(staged)


class RemovesFileByFile(SoundVfsDriver):
    @hookimpl
    def remove(self, layer_id: str) -> None:
        if self.exists(layer_id):
            shutil.rmtree(self.layers.committed(layer_id))
        else:
            super().remove(layer_id)


class KeepsItsListInMemory(SoundVfsDriver):
    @hookimpl
    def commit(self, layer_id: str) -> None:
        super().commit(layer_id)
        self._known = {*getattr(self, "_known", ()), layer_id}

    @hookimpl
    def list_layers(self) -> Sequence[str]:
        return sorted(getattr(self, "_known", ()))


class ClearsWhatOthersAreMaking(SoundVfsDriver):
    @hookimpl
    def reclaim(self) -> int:
        shutil.rmtree(os.path.join(self.home, "tempdirs"), ignore_errors=True)
        return 0


class ReplacesALayerOfTheSameId(SoundVfsDriver):
    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        self.remove(layer_id)
        super().create(layer_id, parent, options)


class TakesEveryOption(SoundVfsDriver):
    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        super().create(layer_id, parent, options._replace(others=(), size=None))


class RaisesErrorsOfPythons(SoundVfsDriver):
    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        if not os.path.isdir(self.layers.committed(layer_id)) and not self.area.has(layer_id):
            raise FileNotFoundError(errno.ENOENT, "no such layer", layer_id)
        return super().mount(layer_id, options)


class WritesWhenItIsOpened(SoundVfsDriver):
    def __init__(self, home: str, run_root: str, *more: tuple[str, ...]) -> None:
        super().__init__(home, run_root)
        os.makedirs(os.path.join(home, "dir"), exist_ok=True)


def _made(directory: str) -> str:
    os.mkdir(directory)
    return directory


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


def _tar_without(stream: BinaryIO, is_left_out: Callable[[str], bool]) -> BinaryIO:
    kept = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="r|") as source, tarfile.open(fileobj=kept, mode="w") as target:
        for member in source:
            if not is_left_out(os.path.basename(member.name)):
                target.addfile(member, source.extractfile(member) if member.isreg() else None)
    stream.read()
    kept.seek(0)
    return kept


FAULTS: dict[type, str] = {
    RecordsTheTemplateAsParent: "test_a_copy_has_its_templates_changes_to_the_parent",
    SaysThatCopiesAreCheap: "test_a_copy_costs_what_the_driver_says",
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
    LeavesDevicesOut: "test_devices_and_pipes_are_kept_and_mapped",
    LosesWhiteouts: "test_a_deleted_file_is_gone",
    LosesOpaqueDirectories: "test_a_directory_made_anew_shows_nothing_of_the_old_one",
    ExtractsWhereverTheTarSays: "test_a_hostile_tar_touches_nothing_outside_the_layer",
    TakesATruncatedTarForAWholeOne: "test_a_truncated_tar_is_refused",
    StopsBeforeTheEndOfTheStream: "test_apply_reads_the_stream_to_its_end",
    PacksHostIds: "test_the_diff_of_each_layer_means_its_tree",
    CountsEachNameOfAnInode: "test_diff_size_is_the_size_of_the_files_in_the_diff",
    LeaksMounts: "test_unmounting_leaves_no_mount_behind",
    UnmountsEveryMountOfALayer: "test_the_shared_mount_does_not_disturb_a_private_one",
    MountsWritable: "test_a_read_only_mount_refuses_writes",
    MountsWithoutTheMap: "test_a_shifted_mount_shows_mapped_owners",
    SaysWronglyWhatIsStored: "test_what_is_written_through_a_shifted_mount_is_stored_as_announced",
    ShowsWhatIsStaged: "test_a_staged_layer_is_seen_from_its_commit_on",
    ShowsWhatIsSealed: "test_a_sealed_layer_shows_what_was_filled_and_is_still_staged",
    CommitsFileByFile: "test_a_layer_whose_creator_is_killed_is_whole_or_not_there",
    RemovesFileByFile: "test_a_layer_whose_remover_is_killed_is_whole_or_gone",
    KeepsItsListInMemory: "test_layers_are_found_again_after_reopening",
    ClearsWhatOthersAreMaking: "test_what_another_process_stages_is_not_seen_nor_cleared",
    ReplacesALayerOfTheSameId: "test_an_id_is_given_once",
    TakesEveryOption: "test_an_unknown_storage_option_is_refused",
    RaisesErrorsOfPythons: "test_an_unknown_layer_is_called_unknown",
    WritesWhenItIsOpened: "test_opening_and_asking_writes_nothing",
}
"""Each fault, and the test whose name says what is wrong."""
