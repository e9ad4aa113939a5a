"""The tar-split files of a store's layers: ``<driver>-layers/ID.tar-split.gz``.

Such a file belongs to a layer's record, gets its name while the layer lock is held, and is never
changed afterwards, only replaced, so that layers with the same content can share one by hard links. A layer
without one is no worse for it, except that its diff is packed anew and has another digest.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import BinaryIO, Self

from hostspec.errors import InvalidArchive
from hostspec.store.format.atomic import sync_directory
from hostspec.store.format.layout import Layout
from hostspec.store.format.records import Layer
from hostspec.store.format.unnamed_files import UnnamedFile, copy_to, link_as
from hostspec.store.graph_root import GraphRoot
from hostspec.store.notices import warn
from hostspec.store.refusals import refusals

__all__ = ["NewTarSplit", "open_original", "share_tar_split"]

_PIECE = 1 << 17


class NewTarSplit:
    """A tar-split file that belongs to no layer yet; a context manager.

    Attributes:
        file: To be written from its beginning.
    """

    def __init__(self, layout: Layout) -> None:
        """Make the file.

        Raises:
            StoreReadOnly: The directory of the layers' records may not be written.
            DriverFailed: The operating system refused.
        """
        self._layout = layout
        self._sealed = False
        with refusals("write", layout.layers):
            self._unnamed = UnnamedFile(layout.layers)
        self.file = self._unnamed.file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._unnamed.__exit__(kind, error, trace)

    def gives_back(self, layer: Layer, tree: str) -> bool:
        """Tell whether it gives back the tar that a layer's record speaks of, by having it do so.

        Args:
            layer: The record, with the digest and the size of the tar.
            tree: Where the layer's files are.
        """
        from hashlib import new as new_digest  # noqa: PLC0415 - seldom needed, as what follows

        from hostspec.archive.original_tar import original_tar  # noqa: PLC0415

        digest = new_digest((layer.diff_digest or "").partition(":")[0], usedforsecurity=False)
        self.file.seek(0)
        try:
            with original_tar(self.file, tree, size=layer.diff_size) as stream:
                while piece := stream.read(_PIECE):
                    digest.update(piece)
        except InvalidArchive:
            return False
        return layer.diff_digest == f"{digest.name}:{digest.hexdigest()}"

    def seal(self) -> None:
        """Make durable what has been written, all of which is right."""
        self._unnamed.sync()
        self._sealed = True

    def publish(self, layer_id: str) -> None:
        """Make it the tar-split file of a layer; one that was not sealed takes away the layer's old one.

        The caller holds the layer lock. A failure is logged only: there is then no tar-split file.
        """
        path = self._layout.tar_split(layer_id)
        try:
            if self._sealed:
                link_as(self.file, path)
            else:
                os.unlink(path)
            sync_directory(self._layout.layers)
        except FileNotFoundError:
            return
        except OSError as error:
            warn(f"layer {layer_id} has no tar-split file: {error}")
            with suppress(OSError):
                os.unlink(path)


def share_tar_split(layout: Layout, template: Layer, copy: str) -> None:
    """Give a mapped copy the tar-split file of its template, if that has one.

    The caller holds the layer lock. The Go library copies the file (layers.go, ``create``).

    Args:
        layout: The store, where the copy is.
        template: The record of the template, which may lie in an additional store.
        copy: ID of the copy.
    """
    try:
        with open(_path(layout, template), "rb") as file:
            give = copy_to if template.elsewhere else link_as  # nothing is changed there, not even a count
            give(file, layout.tar_split(copy))
        sync_directory(layout.layers)
    except FileNotFoundError:
        return
    except OSError as error:
        warn(f"layer {copy} has no tar-split file: {error}")


def open_original(root: GraphRoot, layer: Layer, held: ExitStack) -> BinaryIO | None:
    """Open the tar that a layer came from, bit by bit as it was.

    Args:
        root: The store.
        layer: The layer's record.
        held: Gets what is to be closed after the stream has been read.

    Returns:
        The stream; or ``None`` where there is no tar-split file, or the layer's files are seen not to be
        those any more. Its reads raise InvalidArchive where that shows only then.
    """
    path = _path(root.layout, layer)
    with refusals("read", path):
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115 - kept in a stack
        except FileNotFoundError:
            return None
    from hostspec.archive.original_tar import original_tar  # noqa: PLC0415 - loads ctypes and decompressors

    with ExitStack() as own:
        own.enter_context(file)
        tree = own.enter_context(root.driver.mounted(layer.id))
        size = layer.diff_size if layer.diff_size is not None and layer.diff_size >= 0 else None
        try:
            stream = own.enter_context(original_tar(file, tree, size=size))
        except InvalidArchive as error:
            warn(f"the tar that layer {layer.id} came from cannot be had any more: {error}")
            return None
        held.enter_context(own.pop_all())
        return stream


def _path(layout: Layout, layer: Layer) -> str:
    return os.path.join(layer.elsewhere or layout.layers, os.path.basename(layout.tar_split(layer.id)))
