"""Methods of the store that act on layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO

from hostspec.store.recovery import read_layers

if TYPE_CHECKING:
    from hostspec.idmap import IdMap
    from hostspec.store.format.records import Layer
    from hostspec.store.graph_root import GraphRoot
    from hostspec.store.importing import LayerSource
    from hostspec.values import Change, DiskUsage, ProgressCallback

__all__ = ["LayerMethods"]


class LayerMethods:
    """Layers: find and make them, compare them, fill and remove them."""

    _root: GraphRoot

    def layers(self) -> Sequence[Layer]:
        """Return all layers, in the order in which they were made."""
        return tuple(read_layers(self._root))

    def layer(self, reference: str) -> Layer:
        """Return one layer.

        Raises:
            Unknown: There is none.
        """
        return read_layers(self._root).get(reference)

    def has_layer(self, reference: str) -> bool:
        """Tell whether there is such a layer."""
        return read_layers(self._root).find(reference) is not None

    def find_layer(self, diff_digest: str, parent: str | None = None) -> Layer | None:
        """Return a layer of that content on that parent, to be used again instead of importing it.

        Args:
            diff_digest: Digest of its uncompressed tar.
            parent: ID of its parent.

        Returns:
            An unmapped layer, or ``None``.
        """
        from hostspec.store.layers import find_layer

        return find_layer(self._root, diff_digest, parent)

    def too_deep_for_others(self, top_layer: str | None) -> str | None:
        """Say why other programs cannot mount what stands on a layer, because of its many parents.

        Args:
            top_layer: ID of the layer, an image's for example.

        Returns:
            A sentence for people, or ``None`` where it is no problem.
        """
        from hostspec.store.lineage import too_deep_for_others

        return too_deep_for_others(self._root, top_layer)

    def create_layer(  # noqa: PLR0913 - keywords that few callers need
        self,
        parent: str | None = None,
        *,
        layer_id: str | None = None,
        names: Sequence[str] = (),
        idmap: IdMap | None = None,
        read_only: bool = False,
        mount_label: str = "",
        storage_options: Sequence[tuple[str, str]] = (),
        squash: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Layer:
        """Make a layer that shows its parent's files.

        Args:
            parent: Reference to the layer on which it stands, or ``None`` for an empty one.
            layer_id: Its ID; random by default.
            names: Its names.
            idmap: The map that its files are to carry; by default its parent's.
            read_only: Whether it is an image's layer; a driver may keep one so that nobody can write to it
                any more, :meth:`apply_diff` included.
            mount_label: SELinux label.
            storage_options: Limits, ``size`` (``"10g"``) and ``inodes``, and the driver's own options.
            squash: Give files whose IDs are outside the map the nearest that is inside.
            progress: Told how far an ownership pass has come, in files.

        Returns:
            Its record.

        Raises:
            Unknown: There is no such parent.
            Duplicate: The ID or a name is taken.
            InvalidRequest: The ID is no file name, or the parent is a container's own layer.
            IdNotMapped: A file's owner is outside the map.
        """
        from hostspec.store.layer_options import with_storage_options
        from hostspec.store.layers import create_layer
        from hostspec.values import CreateOptions

        return create_layer(
            self._root,
            parent,
            layer_id=layer_id,
            names=names,
            idmap=idmap,
            options=with_storage_options(
                CreateOptions(read_only=read_only, mount_label=mount_label, squash=squash, progress=progress),
                storage_options,
            ),
        )

    def import_layer(  # noqa: PLR0913 - keywords that few callers need
        self,
        source: LayerSource,
        parent: str | None = None,
        *,
        layer_id: str | None = None,
        names: Sequence[str] = (),
        idmap: IdMap | None = None,
        expected_digest: str | None = None,
        expected_diff_id: str | None = None,
        read_only: bool = True,
        mount_label: str = "",
        squash: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Layer:
        """Make a layer of a tar stream.

        No lock is held while it is unpacked, and it is seen by nobody before it is whole.

        Args:
            source: A readable binary stream or a path: an OCI layer tar, in any common compression.
            parent: Reference to the layer on which it stands, or ``None``.
            layer_id: Its ID; random by default.
            names: Its names.
            idmap: The map that its files are to carry; by default its parent's.
            expected_digest: ``ALGORITHM:HEX`` of the stream as it comes.
            expected_diff_id: ``ALGORITHM:HEX`` of the uncompressed stream.
            read_only: Whether it is an image's layer.
            mount_label: SELinux label.
            squash: Keep going where an owner cannot be set.
            progress: Told how many bytes of the stream have been read.

        Returns:
            Its record, with digests, sizes and owners.

        Raises:
            InvalidArchive: The tar is broken or hostile.
            DigestMismatch: Something else came than was promised.
            Unknown, Duplicate, InvalidRequest, IdNotMapped: As for :meth:`create_layer`.
        """
        from hostspec.store.importing import import_layer
        from hostspec.values import CreateOptions

        return import_layer(
            self._root,
            source,
            parent,
            layer_id=layer_id,
            names=names,
            idmap=idmap,
            expected_digest=expected_digest,
            expected_diff_id=expected_diff_id,
            options=CreateOptions(
                read_only=read_only, mount_label=mount_label, squash=squash, progress=progress
            ),
        )

    def apply_diff(self, reference: str, source: LayerSource) -> int:
        """Unpack a tar, in any common compression, into a layer that exists and is not in use.

        Args:
            reference: To the layer.
            source: A readable binary stream or a path.

        Returns:
            Bytes of file content unpacked. The record gets the digests and sizes of the tar.

        Raises:
            Unknown: There is no such layer.
            InvalidArchive: The tar is broken or hostile; a part of it has been unpacked.
            DriverFailed: It is an image's layer, and this driver does not write to one again.
        """
        from hostspec.store.importing import apply_diff

        return apply_diff(self._root, reference, source)

    def changes(self, reference: str, parent: str | None = None) -> Iterator[Change]:
        """Yield how a layer, or a container's, differs from another, sorted by path.

        Args:
            reference: To a layer or container.
            parent: With which to compare; by default the layer's parent.

        Raises:
            Unknown: There is no such layer.
        """
        from hostspec.store.content import changes

        return changes(self._root, reference, parent)

    def diff(self, reference: str, parent: str | None = None) -> AbstractContextManager[BinaryIO]:
        """Give that difference as an uncompressed OCI layer tar with container IDs, for a ``with`` block.

        Raises:
            Unknown: There is no such layer.
        """
        from hostspec.store.content import diff

        return diff(self._root, reference, parent)

    def diff_size(self, reference: str, parent: str | None = None) -> int:
        """Return the bytes in that difference: content of files, and targets of symbolic links.

        Raises:
            Unknown: There is no such layer.
        """
        from hostspec.store.content import diff_size

        return diff_size(self._root, reference, parent)

    def disk_usage(self, reference: str) -> DiskUsage:
        """Return what a layer, or a container's, occupies.

        Raises:
            Unknown: There is no such layer.
        """
        from hostspec.store.content import disk_usage

        return disk_usage(self._root, reference)

    def delete_layer(self, reference: str) -> None:
        """Remove a layer; an image whose mapped copy it is forgets it.

        Raises:
            Unknown: There is no such layer.
            LayerInUse: Layers, an image or a container stand on it.
            DriverFailed: Its mount is busy; nothing was removed.
        """
        from hostspec.store.removal import delete_layer

        delete_layer(self._root, reference)
