"""Names, metadata and other facts that layers, images and containers have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hostspec.errors import Unknown
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.format.table_places import STABLE
from hostspec.store.format.tables import Edit
from hostspec.store.graph_root import GraphRoot
from hostspec.store.recovery import read_layers
from hostspec.store.unsettled import Note

__all__ = ["change_names", "find_object", "get_object", "set_metadata"]

Names = tuple[str, ...]

_KINDS = ("layer", "image", "container")


def find_object(
    root: GraphRoot, reference: str, kinds: Sequence[str] = _KINDS
) -> Layer | Image | Container | None:
    """Return the object of that ID or name, of whichever of these kinds it is found first.

    A name may belong to one object of each kind; the Go library looks among layers first (``updateNames``,
    ``Metadata``), and whoever else uses the store must mean the same one. Only where nothing is called
    exactly so, the name may be short for an image's.
    """
    found: Layer | Image | Container | None = None
    for kind in kinds or _KINDS:
        if kind == "layer":
            found = read_layers(root).find_as_given(reference)
        elif kind == "image":
            found = root.images.read().find_as_given(reference)
        else:
            found = root.containers.read().find_as_given(reference)
        if found is not None:
            return found
    return root.images.read().find(reference) if "image" in (kinds or _KINDS) else None


def get_object(root: GraphRoot, reference: str) -> Layer | Image | Container:
    """Return the object of that ID or name, whatever it is.

    Raises:
        Unknown: There is none.
    """
    found = find_object(root, reference)
    if found is None:
        raise Unknown("layer, image or container", reference)
    return found


def change_names(root: GraphRoot, reference: str, change: Callable[[Names], Sequence[str]]) -> Names:
    """Give an object other names; they are taken from whoever has them.

    Args:
        root: The store.
        reference: ID or name.
        change: Told the names that it has, returns those that it will have.

    Returns:
        The names that it has now.
    """
    found = get_object(root, reference)
    names = tuple(dict.fromkeys(change(found.names)))
    if isinstance(found, Layer):
        with root.layers.writing() as layers:
            layer = layers.get(found.id)
            names = tuple(dict.fromkeys(change(layer.names)))
            layers.take_names(names, layer.id)
            layers.put(layer._replace(names=names))
            layers.save()
    elif isinstance(found, Image):
        with root.images.writing() as images:
            image = images.get(found.id)
            names = tuple(dict.fromkeys(change(image.names)))
            images.take_names(names, image.id)
            history = tuple(dict.fromkeys((*reversed(names), *image.names_history)))
            if image.read_only:
                _pull_up(root, images, image._replace(names=names, names_history=history))
            else:
                images.put(image._replace(names=names, names_history=history))
                images.save()
    else:
        with root.containers.writing() as containers:
            container = containers.get(found.id)
            names = tuple(dict.fromkeys(change(container.names)))
            containers.take_names(names, container.id)
            containers.put(container._replace(names=names))
            containers.save()
    return names


def _pull_up(root: GraphRoot, images: Edit[Image], image: Image) -> None:
    """Record an image of an additional store here, so that it can have names of ours (``updateNames``)."""
    from hostspec.store.big_data import pull_up  # noqa: PLC0415 - few stores have additional ones
    from hostspec.store.copies.listing import copies_of  # noqa: PLC0415

    image = image._replace(mapped_layers=copies_of(root, image))
    with root.unsettled.noting([Note("image", image.id)]):
        images.put(pull_up(root, image), place=STABLE)
        images.save()


def set_metadata(root: GraphRoot, reference: str, metadata: str) -> None:
    """Keep another text with an object."""
    found = get_object(root, reference)
    if isinstance(found, Layer):
        with root.layers.writing() as layers:
            layers.put(layers.get(found.id)._replace(metadata=metadata))
            layers.save()
    elif isinstance(found, Image):
        with root.images.writing() as images:
            images.put(images.get(found.id)._replace(metadata=metadata))
            images.save()
    else:
        with root.containers.writing() as containers:
            containers.put(containers.get(found.id)._replace(metadata=metadata))
            containers.save()
