"""Where layers that are directories lie: staged, committed, put aside."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hostspec.errors import Duplicate, InvalidRequest, Unknown
from hostspec.values import CreateOptions
from hostspec.working_area import WorkingArea

__all__ = ["DirectoryLayers", "nearest_existing", "prepare_root"]


class DirectoryLayers:
    """The layers of one home, and those of read-only homes beside it.

    A layer is a directory: staged, in the working area of the process that makes it, then committed,
    under its ID in one directory for all, then put aside, to be deleted.
    """

    def __init__(self, directory: str, area: WorkingArea, elsewhere: Sequence[str]) -> None:
        """Take the places; none needs to exist.

        Args:
            directory: For committed layers, an absolute path.
            area: Where layers are made, on the same file system.
            elsewhere: Directories with layers that may be read, never written.
        """
        self._directory = directory
        self._area = area
        self._elsewhere = tuple(elsewhere)

    def committed(self, layer_id: str) -> str:
        """Return where a layer of this home lies, or will lie, once it is committed.

        Raises:
            InvalidRequest: The ID is no file name.
        """
        if layer_id in {"", ".", ".."} or "/" in layer_id or "\0" in layer_id:
            raise InvalidRequest(f"layer ID {layer_id!r}", "must be usable as a file name")
        return os.path.join(self._directory, layer_id)

    def new(self, layer_id: str) -> str:
        """Return where to make a new layer; nothing is there yet, its directory is.

        Raises:
            Duplicate: This home has such a layer, or this process makes one.
            InvalidRequest: The ID is no file name.
        """
        if self._area.has(layer_id) or os.path.lexists(self.committed(layer_id)):
            raise Duplicate("ID", layer_id)
        return self._area.staged(layer_id)

    @contextmanager
    def abandoned_on_failure(self, tree: str) -> Iterator[None]:
        """Delete a new layer, if what is done to it fails."""
        try:
            yield
        except BaseException:
            if os.path.lexists(tree):
                self.put_aside(tree)
                self._area.reclaim()
            raise

    def staged(self, layer_id: str) -> str:
        """Return where this process makes a layer.

        Raises:
            Unknown: It makes no such layer.
        """
        if not self._area.has(layer_id):
            raise Unknown("staged layer", layer_id)
        return self._area.staged(layer_id)

    def commit(self, layer_id: str) -> None:
        """Rename a staged layer to where everyone sees it.

        Raises:
            Unknown: It is not staged.
            Duplicate: There is such a layer; ours is still staged.
            OSError: The kernel refused; it is still staged.
        """
        staged = self.staged(layer_id)
        committed = self.committed(layer_id)
        # rename(2) would silently replace a directory that is empty. Nobody makes one between this
        # look and the rename, since the layer lock is held.
        if os.path.lexists(committed):
            raise Duplicate("ID", layer_id)
        os.makedirs(self._directory, 0o700, exist_ok=True)
        with _movable(staged) as mode:
            os.rename(staged, committed)
        if mode is not None:
            os.chmod(committed, mode)

    def put_aside(self, tree: str) -> None:
        """Rename a layer out of sight, to be deleted by ``reclaim``.

        Raises:
            OSError: The kernel refused; the layer is where it was.
        """
        with _movable(tree):
            self._area.put_aside(tree)

    def exists(self, layer_id: str) -> bool:
        """Tell whether a layer is committed, here or in a read-only home."""
        return any(os.path.isdir(place) for place in self.committed_places(layer_id))

    def names(self) -> list[str]:
        """Return the IDs of the layers that are committed here."""
        try:
            with os.scandir(self._directory) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    def committed_places(self, layer_id: str) -> Iterator[str]:
        """Yield every place at which a layer may lie once it is committed, here first."""
        yield self.committed(layer_id)
        for directory in self._elsewhere:
            yield os.path.join(directory, layer_id)

    def own_tree(self, layer_id: str) -> str:
        """Return the tree of a layer that may be written.

        Raises:
            Unknown: There is no such layer here.
        """
        tree = self._area.staged(layer_id) if self._area.has(layer_id) else self.committed(layer_id)
        if not os.path.isdir(tree):
            raise Unknown("layer", layer_id)
        return tree

    def tree(self, layer_id: str) -> str:
        """Return the tree of a layer, wherever it lies.

        Raises:
            Unknown: There is no such layer.
        """
        if self._area.has(layer_id):
            return self._area.staged(layer_id)
        for place in self.committed_places(layer_id):
            if os.path.isdir(place):
                return place
        raise Unknown("layer", layer_id)

    def is_shared_mount(self, layer_id: str, path: str) -> bool:
        """Tell whether ``path`` is a layer's own directory, which is its shared mount."""
        if self._area.has(layer_id) and path == self._area.staged(layer_id):
            return True
        return path in self.committed_places(layer_id)


def nearest_existing(path: str) -> str:
    """Return the deepest directory above ``path`` that exists, or ``path`` itself."""
    existing = os.path.abspath(path)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    return existing


def prepare_root(directory: str | int, options: CreateOptions) -> None:
    """Give an empty layer's root directory to the container's root, with mode 0755.

    An ordinary user can give files to nobody else: without a map, they stay that user's.

    Args:
        directory: Its path or descriptor.
        options: The map; with ``squash``, an owner that cannot be set is left as it is.

    Raises:
        OSError: The kernel refused.
    """
    if options.idmap or os.geteuid() == 0:
        try:
            os.chown(directory, *options.idmap.root())
        except PermissionError:
            if not options.squash:
                raise
    os.chmod(directory, 0o755)  # noqa: S103 - what the contract says


@contextmanager
def _movable(tree: str) -> Iterator[int | None]:
    """Let an ordinary user rename a directory that has no write permission.

    To move it, its ".." must be written. Gives the mode that it had, where that had to be changed.
    """
    mode = stat.S_IMODE(os.stat(tree).st_mode)
    if os.geteuid() == 0 or mode & stat.S_IWUSR:
        yield None
        return
    os.chmod(tree, mode | stat.S_IWUSR)
    try:
        yield mode
    except BaseException:
        os.chmod(tree, mode)
        raise
