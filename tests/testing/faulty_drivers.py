"""Drivers that each have one fault, as somebody might really make it, derived from the minimal driver."""

# The hooks of a driver have the arguments that they have.
# ruff: noqa: ARG002

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterable
from typing import BinaryIO

from hostspec.archive.changes import compare_trees
from hostspec.archive.unpack import unpack
from hostspec.archive.whiteouts import WhiteoutForm
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
from hostspec.ownership import shift_tree
from hostspec.values import ApplyOptions, Change, ChangeKind, CreateOptions, LayerRef, Shifted, ShiftOptions
from tests.testing.minimal_driver.hostspec_minimal import MinimalDriver

__all__ = ["FAULTS", "SoundDriver"]


class SoundDriver(MinimalDriver):
    """The minimal driver, with native hooks in which something can be wrong."""

    @hookimpl
    def create_from_template(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> IdMap:
        """Copy the template as it is; the caller maps it."""
        if parent is not None:
            self._directory(parent.layer_id)  # an unknown one is refused
        self.create(layer_id, template, options)
        return template.idmap

    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        """Change the owners in the layer's directory."""
        return shift_tree(self._directory(layer_id), old, new, squash=options.squash)

    @hookimpl
    def changes(self, layer: LayerRef, parent: LayerRef | None) -> Iterable[Change]:
        """Compare the two directories."""
        return compare_trees(
            self._directory(layer.layer_id),
            None if parent is None else self._directory(parent.layer_id),
            new_map=layer.idmap,
            old_map=IdMap() if parent is None else parent.idmap,
        )

    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        """Unpack into the layer's directory."""
        root = self._directory(layer_id)
        return unpack(stream, root, idmap=options.idmap, whiteouts=WhiteoutForm.PLAIN)


class CopiesTheParentForTheTemplate(SoundDriver):
    @hookimpl
    def create_from_template(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> IdMap:
        self.create(layer_id, parent, options)
        return template.idmap if parent is None else parent.idmap


class SaysThatItMapped(SoundDriver):
    @hookimpl
    def create_from_template(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> IdMap:
        super().create_from_template(layer_id, template, parent, options)
        return options.idmap


class MapsTheTemplateItself(SoundDriver):
    @hookimpl
    def create_from_template(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> IdMap:
        """Share the template's inodes to save space, and forget that owners belong to inodes."""
        self.create(layer_id, None, options)
        _cp("-al", self._directory(template.layer_id), self._directory(layer_id))
        return template.idmap


class LeavesAHalfMadeCopy(SoundDriver):
    @hookimpl
    def create_from_template(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> IdMap:
        """Map while copying, and leave what there is when that fails."""
        self.create(layer_id, template, options)
        shift_tree(self._directory(layer_id), template.idmap, options.idmap, squash=options.squash)
        return options.idmap


class ListsALayerOfItsOwn(SoundDriver):
    @hookimpl
    def create_from_template(
        self, layer_id: str, template: LayerRef, parent: LayerRef | None, options: CreateOptions
    ) -> IdMap:
        """Keep the layer on which the copy really stands, where everybody sees it."""
        self.create(f"{layer_id}-hidden", template, options)
        return super().create_from_template(layer_id, template, parent, options)


class ForgetsTheRootDirectory(SoundDriver):
    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        root = self._directory(layer_id)
        before = os.lstat(root)
        shifted = super().update_idmap(layer_id, old, new, options)
        os.chown(root, before.st_uid, before.st_gid)
        return shifted


class ForgetsNamesOfOneCharacter(SoundDriver):
    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        root = self._directory(layer_id)
        short = {name: os.lstat(f"{root}/{name}") for name in os.listdir(root) if len(name) == 1}
        shifted = super().update_idmap(layer_id, old, new, options)
        for name, before in short.items():
            os.chown(f"{root}/{name}", before.st_uid, before.st_gid, follow_symlinks=False)
        return shifted


class DropsSetIdBits(SoundDriver):
    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        """Do as a naive chown does: the kernel clears these bits of files with a new owner."""
        shifted = super().update_idmap(layer_id, old, new, options)
        for directory, _, names in os.walk(self._directory(layer_id)):
            for name in names:
                status = os.lstat(f"{directory}/{name}")
                if stat.S_ISREG(status.st_mode):
                    os.chmod(f"{directory}/{name}", status.st_mode & 0o777)
        return shifted


class MapsHardLinksTwice(SoundDriver):
    @hookimpl
    def update_idmap(self, layer_id: str, old: IdMap, new: IdMap, options: ShiftOptions) -> Shifted:
        """Copy each name of an inode, so that it can be given its own owner."""
        root = self._directory(layer_id)
        for directory, _, names in os.walk(root):
            for name in names:
                if os.lstat(f"{directory}/{name}").st_nlink > 1:
                    subprocess.run(["cp", "-a", "--", name, ".copy"], cwd=directory, check=True)
                    os.rename(f"{directory}/.copy", f"{directory}/{name}")
        return super().update_idmap(layer_id, old, new, options)


class LosesExtendedAttributes(SoundDriver):
    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        super().create(layer_id, None, options)
        if parent is not None:
            kept = "--preserve=mode,ownership,timestamps,links"
            _cp("-dR", self._directory(parent.layer_id), self._directory(layer_id), kept)


class SharesInodesWithTheParent(SoundDriver):
    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        super().create(layer_id, None, options)
        if parent is not None:
            _cp("-al", self._directory(parent.layer_id), self._directory(layer_id))


class ComparesOwnersOnDisk(SoundDriver):
    @hookimpl
    def changes(self, layer: LayerRef, parent: LayerRef | None) -> Iterable[Change]:
        unmapped = None if parent is None else LayerRef(parent.layer_id)
        return super().changes(LayerRef(layer.layer_id), unmapped)


class ForgetsDeletions(SoundDriver):
    @hookimpl
    def changes(self, layer: LayerRef, parent: LayerRef | None) -> Iterable[Change]:
        return [each for each in super().changes(layer, parent) if each.kind is not ChangeKind.DELETE]


class UnpacksWhiteoutsAsFiles(SoundDriver):
    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        unpacked = subprocess.run(
            [
                "tar",
                "-x",
                "--xattrs",
                "--xattrs-include=*",
                "--numeric-owner",
                "-C",
                self._directory(layer_id),
            ],
            input=stream.read(),
            check=True,
        )
        return unpacked.returncode


class OnlyForgetsTheName(SoundDriver):
    @hookimpl
    def remove(self, layer_id: str) -> None:
        if self.exists(layer_id):
            place = os.path.join(self._unfinished, f"removed-{os.urandom(4).hex()}")
            os.rename(self._directory(layer_id), place)


class ListsWhatIsUnfinished(SoundDriver):
    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None, options: CreateOptions) -> None:
        """Make the layer under its name before looking for the parent."""
        super().create(layer_id, None, options)
        if parent is not None:
            _cp("-a", self._directory(parent.layer_id), self._directory(layer_id))


def _cp(how: str, source: str, target: str, *more: str) -> None:
    subprocess.run(["cp", how, *more, "--", f"{source}/.", target], check=True)


FAULTS: dict[type, str] = {
    CopiesTheParentForTheTemplate: "test_a_copy_shows_its_template_under_the_wanted_map",
    SaysThatItMapped: "test_a_copy_shows_its_template_under_the_wanted_map",
    MapsTheTemplateItself: "test_the_template_is_not_touched",
    LeavesAHalfMadeCopy: "test_a_copy_that_fails_half_way_leaves_nothing",
    ListsALayerOfItsOwn: "test_a_copy_shows_in_the_list_as_one_layer",
    ForgetsTheRootDirectory: "test_the_root_directory_is_mapped",
    ForgetsNamesOfOneCharacter: "test_names_of_one_character_are_mapped",
    DropsSetIdBits: "test_set_id_bits_are_kept",
    MapsHardLinksTwice: "test_hard_links_stay_one_inode_and_are_mapped_once",
    LosesExtendedAttributes: "test_other_extended_attributes_are_kept",
    SharesInodesWithTheParent: "test_what_is_written_to_a_child_shows_there_alone",
    ComparesOwnersOnDisk: "test_a_layer_that_only_changes_the_map_has_no_changes",
    ForgetsDeletions: "test_one_change_is_told",
    UnpacksWhiteoutsAsFiles: "test_a_deleted_file_is_gone",
    OnlyForgetsTheName: "test_removal_and_reclaim_leave_nothing_on_disk",
    ListsWhatIsUnfinished: "test_an_unknown_parent_is_refused_and_leaves_nothing",
}
"""Each fault, and the test whose name says what is wrong."""
