"""Faults in mounts and in the life of a layer, each in a driver of its own."""

# The hooks of a driver have the arguments that they have.
# ruff: noqa: ARG002

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Sequence

from hostspec.errors import failing
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import is_mountpoint
from hostspec.kernel.mounts import bind, unmount
from hostspec.treecopy import copy_tree
from hostspec.values import (
    CreateOptions,
    LayerRef,
    MountOptions,
    Shifting,
    StoredIds,
)
from tests.testing.sound_vfs_driver import SoundVfsDriver

__all__ = ["FAULTS"]


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


class MountsOnTopOfItsMount(SoundVfsDriver):
    @hookimpl
    def mount(self, layer_id: str, options: MountOptions) -> str:
        """Mount the layer at its own place, also where it is mounted already."""
        path = super().mount(layer_id, options)
        if options.target is None:
            bind(path, path)
        return path

    @hookimpl
    def unmount(self, layer_id: str, path: str) -> None:
        if is_mountpoint(path):
            unmount(path)


class UnmountsOnce(SoundVfsDriver):
    @hookimpl
    def unmount(self, layer_id: str, path: str) -> None:
        with failing(f"unmount layer {layer_id}"):
            if not self.layers.is_shared_mount(layer_id, path):
                unmount(path)


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


class HasALayerOfNoName(SoundVfsDriver):
    @hookimpl
    def exists(self, layer_id: str) -> bool:
        """Look for the directory, which for no name is that of all layers."""
        return os.path.isdir(os.path.join(self.home, "dir", layer_id))


class RemovesFromAdditionalStores(SoundVfsDriver):
    @hookimpl
    def remove(self, layer_id: str) -> None:
        if self.area.has(layer_id) or self.exists(layer_id):
            self.layers.put_aside(self.layers.tree(layer_id))


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


FAULTS: dict[type, str] = {
    LeaksMounts: "test_unmounting_leaves_no_mount_behind",
    UnmountsEveryMountOfALayer: "test_the_shared_mount_does_not_disturb_a_private_one",
    MountsOnTopOfItsMount: "test_the_shared_mount_stays_at_one_place",
    UnmountsOnce: "test_a_private_mount_is_where_it_was_asked_for",
    MountsWritable: "test_a_read_only_mount_refuses_writes",
    MountsWithoutTheMap: "test_a_shifted_mount_shows_mapped_owners",
    SaysWronglyWhatIsStored: "test_what_is_written_through_a_shifted_mount_is_stored_as_announced",
    ShowsWhatIsStaged: "test_a_staged_layer_is_seen_from_its_commit_on",
    ShowsWhatIsSealed: "test_a_sealed_layer_shows_what_was_filled_and_is_still_staged",
    CommitsFileByFile: "test_a_layer_whose_creator_is_killed_is_whole_or_not_there",
    RemovesFileByFile: "test_a_layer_whose_remover_is_killed_is_whole_or_gone",
    KeepsItsListInMemory: "test_layers_are_found_again_after_reopening",
    ClearsWhatOthersAreMaking: "test_what_another_process_stages_is_not_seen_nor_cleared",
    HasALayerOfNoName: "test_what_is_no_layer_id_is_no_layer",
    RemovesFromAdditionalStores: "test_an_additional_store_is_never_written",
    ReplacesALayerOfTheSameId: "test_an_id_is_given_once",
    TakesEveryOption: "test_an_unknown_storage_option_is_refused",
    RaisesErrorsOfPythons: "test_an_unknown_layer_is_called_unknown",
    WritesWhenItIsOpened: "test_opening_and_asking_writes_nothing",
}
"""Each fault, and the test whose name says what is wrong."""
