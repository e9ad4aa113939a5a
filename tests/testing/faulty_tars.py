"""Faults in layers as tars, each in a driver of its own."""

# The hooks of a driver have the arguments that they have.
# ruff: noqa: ARG002

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import BinaryIO

from hostspec.archive.pack import pack
from hostspec.errors import InvalidArchive
from hostspec.hookspecs import hookimpl
from hostspec.idmap import IdMap
from hostspec.kernel.mounts import bind, unmount
from hostspec.values import (
    ApplyOptions,
    LayerRef,
)
from tests.testing.sound_vfs_driver import SoundVfsDriver

__all__ = ["FAULTS"]


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


class WritesIntoTheFileThatIsThere(SoundVfsDriver):
    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        """Do as ``tar --overwrite`` does: all names of a file get what is meant for one."""
        content = stream.read()
        _write_in_place(content, self.layers.tree(layer_id), os.path.isfile)
        return super().apply_diff(layer_id, io.BytesIO(content), options)


class FollowsLinksOfTheLayersBelow(SoundVfsDriver):
    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        """Refuse links of the tar itself that lead outside, and forget those that are there already."""
        content, root = stream.read(), self.layers.tree(layer_id)
        _write_in_place(content, root, lambda path: os.path.islink(os.path.dirname(path)))
        return super().apply_diff(layer_id, io.BytesIO(content), options)


class LeavesTheModesOfTheTar(SoundVfsDriver):
    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        return super().apply_diff(layer_id, stream, options._replace(force_mode=None))


class SquashesNothing(SoundVfsDriver):
    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        return super().apply_diff(layer_id, stream, options._replace(squash=False))


class TellsNoProgress(SoundVfsDriver):
    @hookimpl
    def apply_diff(self, layer_id: str, stream: BinaryIO, options: ApplyOptions) -> int:
        return super().apply_diff(layer_id, stream, options._replace(progress=None))


class LeavesAMountWhereADiffIsLeftUnread(SoundVfsDriver):
    @hookimpl
    def diff(self, layer: LayerRef, parent: LayerRef | None) -> AbstractContextManager[BinaryIO]:
        return self._mounted_until_read(layer, super().diff(layer, parent))

    @contextmanager
    def _mounted_until_read(
        self, layer: LayerRef, packed: AbstractContextManager[BinaryIO]
    ) -> Iterator[BinaryIO]:
        place = tempfile.mkdtemp(dir=os.path.dirname(self.home))
        bind(self.layers.tree(layer.layer_id), place)
        with packed as stream:
            yield stream
            if not stream.read(1):
                unmount(place)


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
        return sum(
            each.st_size for each in statuses if stat.S_IFMT(each.st_mode) in {stat.S_IFREG, stat.S_IFLNK}
        )


def _write_in_place(content: bytes, root: str, is_wanted: Callable[[str], bool]) -> None:
    """Write the files of a tar to whatever their paths lead to, where that is wanted."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            path = os.path.join(root, member.name)
            if (packed := archive.extractfile(member)) and is_wanted(path):
                with open(path, "wb") as opened:
                    opened.write(packed.read())


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
    LosesWhiteouts: "test_a_deleted_file_is_gone",
    LosesOpaqueDirectories: "test_a_directory_made_anew_shows_nothing_of_the_old_one",
    ExtractsWhereverTheTarSays: "test_a_hostile_tar_touches_nothing_outside_the_layer",
    TakesATruncatedTarForAWholeOne: "test_a_truncated_tar_is_refused",
    StopsBeforeTheEndOfTheStream: "test_apply_reads_the_stream_to_its_end",
    WritesIntoTheFileThatIsThere: "test_a_file_of_several_names_is_replaced_under_one",
    FollowsLinksOfTheLayersBelow: "test_a_link_of_a_layer_below_leads_no_tar_outside",
    LeavesTheModesOfTheTar: "test_apply_gives_every_file_the_mode_that_is_asked_for",
    SquashesNothing: "test_apply_can_squash_what_is_outside_the_map",
    TellsNoProgress: "test_progress_is_told_and_only_grows",
    LeavesAMountWhereADiffIsLeftUnread: "test_a_diff_need_not_be_read_to_its_end",
    PacksHostIds: "test_the_diff_of_each_layer_means_its_tree",
    CountsEachNameOfAnInode: "test_diff_size_is_the_size_of_the_files_in_the_diff",
}
"""Each fault, and the test whose name says what is wrong."""
