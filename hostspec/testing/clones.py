"""Clones of images and of prepared root file systems, for the fixtures in :mod:`hostspec.testing.rootfs`."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from hostspec.errors import HostspecError, LayerInUse, Unknown
from hostspec.idmap import IdMap
from hostspec.images import import_image
from hostspec.kernel.filelocks import lock
from hostspec.kernel.mounts import unmount_all
from hostspec.store import Image, Store

__all__ = ["Clone", "LayerClone", "clear_dead", "obtain_image"]

NAME = "pytest"
"""First part of the name of every clone; process, its start and a number follow."""


class Clone(NamedTuple):
    """One writable root file system."""

    path: Path
    """Where it is mounted."""
    layer: str
    """ID of the layer that takes what is written."""


class LayerClone:
    """Makes clones, and deletes all of them when its context ends.

    A clone takes the space of what is written to it, and no time to speak of.
    """

    def __init__(self, store: Store) -> None:
        """Make clones in ``store``."""
        self._store = store
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Last in, first out: a clone of a clone goes before its template.
        self._undo.close()

    def __call__(self, template: str | Image | Clone, *, idmap: IdMap = IdMap()) -> Clone:
        """Clone ``template``.

        Args:
            template: An image of the store (its ID, a name, or its record), or a clone; what is in that one
                now is in the new one, so write no more to a clone that was cloned.
            idmap: Show the files under this map; then ``template`` is an image, and the clone no template.

        Raises:
            HostspecError: It cannot be made or mounted.
        """
        with ExitStack() as undo:
            layer, mounted = self._writable(template, idmap, undo)
            path = Path(self._store.mount(mounted))
            undo.callback(_take_down, self._store, mounted, str(path))
            self._undo.push(undo.pop_all())
        return Clone(path, layer)

    def _writable(self, template: str | Image | Clone, idmap: IdMap, undo: ExitStack) -> tuple[str, str]:
        """Make a layer on a template; return its ID, and that of what is to be mounted."""
        name = _new_name()
        if idmap and not isinstance(template, Clone):
            image = template.id if isinstance(template, Image) else template
            container = self._store.create_container(image, names=[name], idmap=idmap, volatile=True)
            undo.callback(self._store.delete_container, container.id)
            return container.layer, container.id
        parent = template.layer if isinstance(template, Clone) else self._image(template).layer
        layer = self._store.create_layer(parent, names=[name], idmap=idmap or None).id
        undo.callback(self._store.delete_layer, layer)
        return layer, layer

    def _image(self, template: str | Image) -> Image:
        return template if isinstance(template, Image) else self._store.image(template)


def obtain_image(store: Store, source: str) -> Image:
    """Return the image of that name in the store, or import it from what ``source`` names.

    What was imported before is used again as long as the source's time of modification stays the same, and
    deleted when it has changed. Of several processes that ask at once, one imports.
    """
    with suppress(Unknown):
        return store.image(source)
    place = source.partition(":")[2] if ":" in source and not os.path.exists(source) else source
    path = os.path.abspath(place if os.path.exists(place) else place.rpartition(":")[0] or place)
    imports = f"localhost/{NAME}-{_digest(f'{source} {path}')}:"
    name = f"{imports}{_digest(str(_last_changed(path)))}"
    with _importing(store):
        with suppress(Unknown):
            return store.image(name)
        image = import_image(store, source, names=[name])
        _delete_older(store, imports, image)
    return image


@contextmanager
def _importing(store: Store) -> Iterator[None]:
    """Wait until no other process imports an image for tests into this store."""
    os.makedirs(store.run_root, exist_ok=True)
    with open(os.path.join(store.run_root, f"{NAME}.lock"), "wb") as file:
        lock(file.fileno(), exclusive=True)
        yield


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:24]


def _last_changed(path: str) -> int:
    """Return when a file or a directory was changed last, in nanoseconds; of an OCI layout, its index."""
    places = (path, os.path.join(path, "index.json"))
    return max((os.stat(place).st_mtime_ns for place in places if os.path.exists(place)), default=0)


def _delete_older(store: Store, imports: str, newest: Image) -> None:
    """Delete what was imported from the same source before, unless somebody uses it."""
    for image in store.images():
        if image.id != newest.id and image.names and image.names[0].startswith(imports):
            with suppress(HostspecError):
                store.delete_image(image.id)


def clear_dead(store: Store) -> None:
    """Unmount and delete the clones of processes that are gone.

    One that cannot be deleted is told as a warning: it must not keep a run from its own work.
    """
    for container in store.containers():
        if _is_dead(container.names):
            _clear(store, container.id, store.delete_container)
    # A clone that stands on another one is later than that.
    for layer in reversed(store.layers()):
        if _is_dead(layer.names):
            _clear(store, layer.id, store.delete_layer)


def _clear(store: Store, reference: str, delete: Callable[[str], object]) -> None:
    try:
        # Mounted here or not, this says where.
        _take_down(store, reference, store.mount(reference))
        delete(reference)
    except (Unknown, LayerInUse):
        pass  # another run clears as well, or a clone that lives stands on it
    except (HostspecError, OSError) as error:
        warnings.warn(f"what a test run left cannot be deleted: {error}", stacklevel=2)


def _take_down(store: Store, reference: str, path: str) -> None:
    """Unmount a root, whatever a test has mounted in it, and whoever still uses it."""
    unmount_all(path)
    store.unmount(reference, force=True)


def _new_name() -> str:
    return f"{NAME}-{os.getpid()}-{_start_of(os.getpid())}-{os.urandom(6).hex()}"


def _is_dead(names: tuple[str, ...]) -> bool:
    """Tell whether the first name is a clone's, and the process that made it is gone."""
    parts = names[0].split("-") if names else []
    is_ours = len(parts) == 4 and parts[0] == NAME and parts[1].isdecimal() and parts[2].isdecimal()
    return is_ours and str(_start_of(int(parts[1]))) != parts[2]


def _start_of(pid: int) -> int | None:
    """Return when a process began, in clock ticks after boot, or ``None`` where none runs (proc(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Of one that has ended, the parent may not have asked yet.
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])
