"""The store: layers, images and containers, and every operation across them."""

# Operations import what they need when they are first used: listing records is to be fast.
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.naming import change_names, find_object, set_metadata
from hostspec.store.recovery import read_layers

if TYPE_CHECKING:
    from hostspec.driver import GraphDriver
    from hostspec.errors import HostspecError, StoreCorrupt
    from hostspec.idmap import IdMap
    from hostspec.store.configuration.default_store import Configuration
    from hostspec.store.configuration.policy import Policy, Strategy
    from hostspec.store.copies.footing import Warmth
    from hostspec.store.copies.listing import MappedCopy
    from hostspec.store.copies.slow_ways import CopyCost
    from hostspec.store.copies.strategies import Choice, Way
    from hostspec.store.graph_root import GraphRoot
    from hostspec.store.importing import LayerSource
    from hostspec.store.upkeep.disk_space import DiskSpace
    from hostspec.store.upkeep.findings import CheckReport
    from hostspec.values import Change, DiskUsage, ProgressCallback

__all__ = ["Store"]


class Store:
    """One store, open; see :func:`hostspec.store.open_store`.

    Wherever a *reference* is asked for, an ID serves, a name, or the beginning of an ID that no other has.
    Used from several threads and, like the directory itself, by several processes at once.
    Errors that any method may raise, beside those that it names: ``StoreCorrupt`` where a file of the
    store cannot be understood, ``StoreReadOnly`` where something is to be written to a store that was
    opened for reading, and ``DriverUnavailable`` or ``DriverFailed`` from the driver.
    """

    def __init__(self, root: GraphRoot, *, configuration: Configuration | None = None) -> None:
        """Use an opened graph root.

        Args:
            root: The graph root.
            configuration: What the configuration files say, where they said which store to open.
        """
        self._root = root
        self.configuration = configuration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store {self.root!r} of driver {self.driver_name!r}>"

    def close(self) -> None:
        """Give up at once what this process has open: locks, descriptors, the working area. Mounts stay.

        The store can still be used, and is then open again.
        """
        driver = self._root.driver_if_open
        if driver is None:
            return
        if not self._root.read_only:
            self._root.clear_up()
        driver.close()

    # What and where it is

    @property
    def root(self) -> str:
        """Absolute path of the graph root."""
        return self._root.layout.root

    @property
    def run_root(self) -> str:
        """Absolute path of the directory for what need not survive a reboot."""
        return self._root.layout.run_root

    @property
    def driver_name(self) -> str:
        """Name of the store's driver."""
        return self._root.layout.driver

    @property
    def driver_options(self) -> tuple[tuple[str, str], ...]:
        """The driver's options, names without its prefix."""
        return self._root.options

    @property
    def options(self) -> Sequence[str]:
        """The options of the driver and of the store, as ``DRIVER.KEY=VALUE`` and ``hostspec.KEY=VALUE``."""
        stores = [("imagestore", each) for each in self.additional_stores]
        sync = [("sync", self._root.sync)] if self._root.sync != "none" else []
        given = (*stores, *self._root.options, *sync)
        return (*(f"{self.driver_name}.{key}={value}" for key, value in given), *self.policy.as_options())

    @property
    def policy(self) -> Policy:
        """How containers get their ID maps, and how long unused copies stay: the store's own options."""
        return self._root.policy

    @property
    def image_store(self) -> str | None:
        """Absolute path of the graph root for images, where they have one of their own."""
        return self._root.layout.image_root or None

    @property
    def additional_stores(self) -> Sequence[str]:
        """Absolute paths of the graph roots whose images and layers are seen here, and never written."""
        return tuple(each.root for each in self._root.additional)

    @property
    def transient(self) -> bool:
        """Whether its containers need not survive a reboot."""
        return self._root.layout.transient

    @property
    def driver(self) -> GraphDriver:
        """The driver; opened when it is first needed."""
        return self._root.driver

    @property
    def read_only(self) -> bool:
        """Whether everything that writes is refused."""
        return self._root.read_only

    def status(self) -> Sequence[tuple[str, str]]:
        """Return the driver's facts about itself, its file system and this kernel, for people."""
        return self._root.driver.status()

    def idmap_strategies(self, idmap: IdMap) -> Sequence[Way]:
        """Return the ways to give a container this map, cheapest first, and why each is possible or not."""
        from hostspec.store.copies.strategies import ways_for

        return ways_for(self._root, idmap)

    def explain_idmap(
        self, image: str | None, idmap: IdMap | None = None, *, strategy: Strategy | None = None
    ) -> Choice:
        """Say which way a container would get its map now, why, and why not a better one; make nothing.

        Args:
            image: Reference to its image, or ``None``.
            idmap: Its map; as for :meth:`create_container`.
            strategy: As there.

        Raises:
            Unknown: There is no such image, or its top layer is missing.
            OperationNotSupported: Shifting was asked for, and is not possible.
        """
        from hostspec.store.copies.strategies import explain

        return explain(self._root, image, idmap, strategy)

    # Looking

    def layers(self) -> Sequence[Layer]:
        """Return all layers, in the order in which they were made."""
        return tuple(read_layers(self._root))

    def images(self) -> Sequence[Image]:
        """Return all images, in the order in which they were made."""
        return tuple(self._root.images.read())

    def containers(self) -> Sequence[Container]:
        """Return all containers, in the order in which they were made."""
        return tuple(self._root.containers.read())

    def layer(self, reference: str) -> Layer:
        """Return one layer.

        Raises:
            Unknown: There is none.
        """
        return read_layers(self._root).get(reference)

    def image(self, reference: str) -> Image:
        """Return one image.

        Raises:
            Unknown: There is none.
        """
        return self._root.images.read().get(reference)

    def container(self, reference: str) -> Container:
        """Return one container.

        Raises:
            Unknown: There is none.
        """
        return self._root.containers.read().get(reference)

    def has_layer(self, reference: str) -> bool:
        """Tell whether there is such a layer."""
        return read_layers(self._root).find(reference) is not None

    def has_image(self, reference: str) -> bool:
        """Tell whether there is such an image."""
        return self._root.images.read().find(reference) is not None

    def has_container(self, reference: str) -> bool:
        """Tell whether there is such a container."""
        return self._root.containers.read().find(reference) is not None

    def exists(self, reference: str, kinds: Sequence[str] = ()) -> bool:
        """Tell whether there is something of that ID or name.

        Args:
            reference: ID or name.
            kinds: Which kinds count, of ``"layer"``, ``"image"`` and ``"container"``; all by default.
        """
        return find_object(self._root, reference, kinds) is not None

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

    def images_by_digest(self, digest: str) -> Sequence[Image]:
        """Return the images that have that digest, their own or one of their manifests'."""
        return tuple(image for image in self._root.images.read() if digest in image.digests)

    def damage(self, kinds: Sequence[str] = ("layer", "image", "container")) -> Sequence[StoreCorrupt]:
        """Return what is wrong with records that cannot be understood.

        They are left out of everything else, and kept as they are. A table that cannot be read at all
        is among them.

        Args:
            kinds: Of which kinds of records, of ``"layer"``, ``"image"`` and ``"container"``.
        """
        from hostspec.errors import StoreCorrupt

        looks = {
            "layer": lambda: self._root.layers.read().damage,
            "image": lambda: self._root.images.read().damage,
            "container": lambda: self._root.containers.read().damage,
        }
        found: list[StoreCorrupt] = []
        for kind in kinds:
            try:
                found += looks[kind]()
            except StoreCorrupt as error:
                found.append(error)
        return tuple(found)

    # Making

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

    def create_image(
        self,
        top_layer: str | None = None,
        *,
        image_id: str | None = None,
        names: Sequence[str] = (),
        digest: str | None = None,
        metadata: str = "",
        created: str | None = None,
        big_data: Mapping[str, bytes] | None = None,
    ) -> Image:
        """Record an image.

        Args:
            top_layer: Reference to its top layer, or ``None`` for an image without files.
            image_id: Its ID; random by default.
            names: Its names.
            digest: Its digest; by default that of its first manifest.
            metadata: Any text.
            created: When it was made, RFC 3339; now by default.
            big_data: Items to keep with it; those whose keys begin with ``manifest`` are manifests.

        Returns:
            Its record.

        Raises:
            Unknown: There is no such layer.
            Duplicate: The ID or a name is taken.
            InvalidRequest: The ID is no file name, the digest no digest, or a key has no file name.
        """
        from hostspec.store.images import create_image

        return create_image(
            self._root,
            top_layer,
            image_id=image_id,
            names=names,
            digest=digest,
            metadata=metadata,
            created=created,
            big_data=big_data,
        )

    def create_container(  # noqa: PLR0913 - keywords that few callers need
        self,
        image: str | None = None,
        *,
        container_id: str | None = None,
        names: Sequence[str] = (),
        idmap: IdMap | None = None,
        strategy: Strategy | None = None,
        metadata: str = "",
        volatile: bool = False,
        mount_label: str = "",
        mount_options: Sequence[str] = (),
        storage_options: Sequence[tuple[str, str]] = (),
        squash: bool = False,
        threads: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> Container:
        """Make a container and its writable layer.

        Args:
            image: Reference to its image, or ``None`` for one without files.
            container_id: Its ID; random by default.
            names: Its names.
            idmap: The map under which its processes will run; none by default.
            strategy: How its files come to be seen under that map: ``"shift"`` (when it is mounted),
                ``"template"`` or ``"copy"`` (on a mapped copy of the image's top layer, made by the driver
                or by diff and apply), or ``"auto"`` for the first that works. A copy that is there
                already is used again, however it was made. By default as the store's options say.
            metadata: Any text.
            volatile: Its content need not survive a crash of the machine.
            mount_label: SELinux label.
            mount_options: Options with which it is to be mounted.
            storage_options: Limits, ``size`` (``"10g"``) and ``inodes``, and the driver's own options for
                its layer.
            squash: Give files whose IDs are outside the map the nearest that is inside.
            threads: Threads for an ownership pass.
            progress: Told how far a mapped copy has come, in files.

        Returns:
            Its record.

        Raises:
            Unknown: There is no such image, or its top layer is missing.
            Duplicate: The ID or a name is taken.
            OperationNotSupported: The driver cannot shift, and nothing else was allowed.
            SlowWayRefused: It takes a slow copy, which the store's options forbid; see :meth:`warm`.
            IdNotMapped: A file's owner is outside the map.
        """
        from hostspec.store.containers import create_container
        from hostspec.store.format.records import VOLATILE
        from hostspec.store.layer_options import with_storage_options
        from hostspec.values import CreateOptions

        flags: dict[str, object] = {VOLATILE: True} if volatile else {}
        if mount_options:
            flags["MountOpts"] = list(mount_options)
        return create_container(
            self._root,
            image,
            container_id=container_id,
            names=names,
            idmap=idmap,
            strategy=strategy,
            metadata=metadata,
            flags=flags,
            options=with_storage_options(
                CreateOptions(mount_label=mount_label, squash=squash, threads=threads, progress=progress),
                storage_options,
            ),
        )

    def mapped_copies(self) -> Sequence[MappedCopy]:
        """Return the mapped copies of images' top layers: whose, which map, how large, when last used."""
        from hostspec.store.copies.listing import list_copies

        return list_copies(self._root)

    def warm(
        self,
        image: str,
        idmap: IdMap | None = None,
        *,
        strategy: Strategy | None = None,
        squash: bool = False,
        threads: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> Warmth:
        """Make the mapped copy for containers of an image ahead of the first one, where they need one.

        It is made however slow that is. Repeating it is harmless: a copy that is there counts as just used.

        Args:
            image: Reference to the image.
            idmap: The map of the containers; as for :meth:`create_container`.
            strategy: As there, and the further ones, too.
            squash: Give files whose IDs are outside the map the nearest that is inside.
            threads: Threads for an ownership pass.
            progress: Told how far the copy has come, in files.

        Returns:
            The copy, or why none is needed.

        Raises:
            Unknown: There is no such image, or its top layer is missing.
            OperationNotSupported: Shifting was asked for, and is not possible.
            IdNotMapped: A file's owner is outside the map.
        """
        from hostspec.store.copies.footing import warm
        from hostspec.values import CreateOptions

        options = CreateOptions(squash=squash, threads=threads, progress=progress)
        return warm(self._root, image, idmap, strategy, options)

    def copy_cost(self, image: str) -> CopyCost:
        """Return how many files and bytes a mapped copy of an image's top layer has to copy at most.

        Raises:
            Unknown: There is no such image, or its top layer is missing.
        """
        from hostspec.store.copies.slow_ways import cost_of_image

        return cost_of_image(self._root, image)

    def remove_unused_copies(self, unused_for: float, *, dry_run: bool = False) -> Sequence[str]:
        """Remove mapped copies that no container has stood on for a time; images stay as they are otherwise.

        Args:
            unused_for: Seconds since the last container was made on one or deleted.
            dry_run: Only say which would go.

        Returns:
            IDs of the removed layers, in the order in which they went.
        """
        from hostspec.store.copies.unused import remove_unused_copies

        return remove_unused_copies(self._root, unused_for, dry_run=dry_run)

    @contextmanager
    def automatic_idmap(self, image: str | None = None, *, size: int | None = None) -> Iterator[IdMap]:
        """Choose an ID map for a container, for a ``with`` block in which the container is made.

        The IDs are of those that ``/etc/subuid`` and ``/etc/subgid`` grant to the user whom the
        configuration names (``containers`` by default), and no container has any of them. Within the
        block nobody else chooses any, podman included.

        Args:
            image: Reference to the container's image.
            size: How many IDs; by default as many as the image's files and accounts need.

        Raises:
            Unknown: There is no such image.
            InvalidRequest: The image needs more IDs than a map may have, or there are not so many free ones.
            InvalidIdMap: The user has no IDs.
        """
        from hostspec.store.user_namespaces import automatic_map

        found = self.image(image) if image else None
        with automatic_map(self._root, found, configuration=self.configuration, size=size) as idmap:
            yield idmap

    # Mounting

    def mount(
        self,
        reference: str,
        *,
        read_only: bool = False,
        mount_label: str = "",
        options: Sequence[str] = (),
    ) -> str:
        """Make a container's, a layer's or an image's files visible, and count one more user.

        Args:
            reference: To a container, a layer or an image; an image is mounted read-only, and unmapped.
            read_only: Refuse writes, where the driver can.
            mount_label: SELinux label; by default the layer's.
            options: Further mount options, beside those that a container was made with.

        Returns:
            The directory, the same for all users.

        Raises:
            Unknown: There is nothing of that ID or name.
            OperationNotSupported: The driver cannot show it as it must be shown.
        """
        from hostspec.store.mounting import mount

        return mount(
            self._root, reference, read_only=read_only, mount_label=mount_label, mount_options=options
        )

    def unmount(self, reference: str, *, force: bool = False) -> bool:
        """Count one user less, and take the mount down after the last one.

        Args:
            reference: To a container, a layer or an image.
            force: Take it down, whoever else uses it.

        Returns:
            Whether it was taken down.

        Raises:
            Unknown: There is nothing of that ID or name.
            InvalidRequest: It is not mounted.
            DriverFailed: It is busy; it is still mounted and counted.
        """
        from hostspec.store.mounting import unmount

        return unmount(self._root, reference, force=force)

    def mounted(self, reference: str) -> int:
        """Return how many users the mount of a container, a layer or an image has.

        Raises:
            Unknown: There is nothing of that ID or name.
        """
        from hostspec.store.mounting import mount_count

        return mount_count(self._root, reference)

    @contextmanager
    def mounting(self, reference: str, *, read_only: bool = False) -> Iterator[str]:
        """Mount for the time of a ``with`` block; see :meth:`mount`."""
        path = self.mount(reference, read_only=read_only)
        try:
            yield path
        finally:
            self.unmount(reference)

    # Content

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
        """Return the bytes of file content in that difference.

        Raises:
            Unknown: There is no such layer.
        """
        from hostspec.store.content import diff_size

        return diff_size(self._root, reference, parent)

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

    def disk_usage(self, reference: str) -> DiskUsage:
        """Return what a layer, or a container's, occupies.

        Raises:
            Unknown: There is no such layer.
        """
        from hostspec.store.content import disk_usage

        return disk_usage(self._root, reference)

    def disk_space(self) -> DiskSpace:
        """Return what all layers occupy, by what they are for, and the driver's home as a whole."""
        from hostspec.store.upkeep.disk_space import disk_space

        return disk_space(self._root)

    def image_size(self, reference: str) -> int:
        """Return the bytes in an image's layers, mapped copies included, and in its big data.

        Raises:
            Unknown: There is no such image.
        """
        from hostspec.store.content import image_size

        return image_size(self._root, reference)

    def container_size(self, reference: str) -> int:
        """Return the bytes in a container's own layer and in its big data.

        Raises:
            Unknown: There is no such container.
        """
        from hostspec.store.content import container_size

        return container_size(self._root, reference)

    # Names, metadata, big data

    def names(self, reference: str) -> Sequence[str]:
        """Return the names of a layer, image or container.

        Raises:
            Unknown: There is nothing of that ID or name.
        """
        return self._found(reference).names

    def set_names(self, reference: str, names: Sequence[str]) -> Sequence[str]:
        """Give an object these names instead of those that it has; they are taken from whoever has them.

        Returns:
            The names that it has now.

        Raises:
            Unknown: There is nothing of that ID or name.
        """
        return change_names(self._root, reference, lambda _: names)

    def add_names(self, reference: str, names: Sequence[str]) -> Sequence[str]:
        """Give an object more names, taken from whoever has them; see :meth:`set_names`."""
        return change_names(self._root, reference, lambda present: (*present, *names))

    def remove_names(self, reference: str, names: Sequence[str]) -> Sequence[str]:
        """Take names from an object; see :meth:`set_names`."""
        return change_names(
            self._root, reference, lambda present: [name for name in present if name not in names]
        )

    def metadata(self, reference: str) -> str:
        """Return the text kept with an object.

        Raises:
            Unknown: There is nothing of that ID or name.
        """
        return self._found(reference).metadata

    def set_metadata(self, reference: str, metadata: str) -> None:
        """Keep another text with an object.

        Raises:
            Unknown: There is nothing of that ID or name.
        """
        set_metadata(self._root, reference, metadata)

    def big_data(self, record: Layer | Image | Container, key: str) -> bytes:
        """Return a big data item.

        Args:
            record: What it is kept with, as :meth:`layer`, :meth:`image` or :meth:`container` returned it.
            key: Its key; the record's ``big_data`` lists them.

        Raises:
            Unknown: There is no such item.
        """
        from hostspec.store.big_data import read_item

        return read_item(self._root, record, key)

    def set_big_data(self, record: Layer | Image | Container, key: str, content: bytes) -> None:
        """Keep a big data item with an object; an image's ``manifest*`` items give it its digests.

        Raises:
            Unknown: The object has been removed.
            InvalidRequest: No file name can be made of the key.
        """
        from hostspec.store.big_data import set_item

        set_item(self._root, record, key, content)

    # Directories

    def data_directory(self, record: Image | Container) -> str:
        """Return an object's directory for whatever a program wants to keep with it; made if missing."""
        from hostspec.store.directories import data_directory

        return data_directory(self._root, record)

    def run_directory(self, record: Image | Container) -> str:
        """Return an object's directory for what need not survive a reboot; made if missing."""
        from hostspec.store.directories import run_directory

        return run_directory(self._root, record)

    def parent_owners(self, reference: str) -> tuple[list[int], list[int]] | None:
        """Return UIDs and GIDs that own the directories above a mount and are not in its ID map.

        Args:
            reference: To a layer or container.

        Returns:
            Both ascending; none where there is no map, and ``None`` where it is not mounted.

        Raises:
            Unknown: There is nothing of that ID or name.
        """
        from hostspec.store.directories import parent_owners

        return parent_owners(self._root, reference)

    # Removing

    def delete_layer(self, reference: str) -> None:
        """Remove a layer; an image whose mapped copy it is forgets it.

        Raises:
            Unknown: There is no such layer.
            LayerInUse: Layers, an image or a container stand on it.
            DriverFailed: Its mount is busy; nothing was removed.
        """
        from hostspec.store.removal import delete_layer

        delete_layer(self._root, reference)

    def delete_image(self, reference: str, *, dry_run: bool = False) -> Sequence[str]:
        """Remove an image, its mapped copies, its top layer, and parents that nothing else needs.

        Args:
            reference: To the image.
            dry_run: Only say which layers would go.

        Returns:
            IDs of the removed layers, in the order in which they went.

        Raises:
            Unknown: There is no such image.
            InUse: A container was made from it.
            DriverFailed: A mount of one of the layers is busy; nothing was removed.
        """
        from hostspec.store.removal import delete_image

        return delete_image(self._root, reference, dry_run=dry_run)

    def delete_container(self, reference: str) -> None:
        """Remove a container and its layer, unmounting it first.

        Raises:
            Unknown: There is no such container.
            LayerInUse: An image or another layer stands on its layer.
            DriverFailed: Its mount is busy; nothing was removed.
        """
        from hostspec.store.removal import delete_container

        delete_container(self._root, reference)
        if self.policy.remove_mapped_unused_for is not None:
            from hostspec.store.copies.unused import tidy_up

            tidy_up(self._root)

    def delete(self, reference: str) -> None:
        """Remove the container (with its layer), image record or layer of that ID or name, unchecked.

        Unlike the other three this does not look whether something stands on it.

        Raises:
            Unknown: There is nothing of that ID or name.
        """
        from hostspec.store.removal import delete_any

        delete_any(self._root, reference)

    def wipe(self) -> None:
        """Remove everything, and leave nothing mounted."""
        from hostspec.store.removal import wipe

        wipe(self._root)
        self._root.clean_up_driver()

    # Upkeep

    def check(self, *, quick: bool = False, max_age: float = 86400) -> CheckReport:
        """Look for damage; nothing is changed.

        Args:
            quick: Do not compare every file of every image layer with what its tar says of it. Digests
                of layers are compared all the same.
            max_age: Seconds for which a layer may be there that no image or container uses.

        Returns:
            What is wrong.
        """
        from hostspec.store.upkeep.checking import check

        return check(self._root, quick=quick, max_age=max_age)

    def repair(self, report: CheckReport, *, containers: bool = False) -> Sequence[HostspecError]:
        """Remove what is damaged, and images and containers that stand on it.

        What lies in additional stores stays, and what something undamaged stands on.

        Args:
            report: What :meth:`check` has found.
            containers: Remove damaged containers too, with all that was written in them.

        Returns:
            Why something could not be removed.
        """
        from hostspec.store.upkeep.repairing import repair

        return repair(self._root, report, containers=containers)

    def collect_garbage(self) -> Sequence[str]:
        """Remove driver layers, tar-split files and data directories that no record names.

        What living processes are making is left alone.

        Returns:
            IDs of the driver layers.

        Raises:
            StoreCorrupt: A record cannot be understood, which may name any of them; nothing was removed.
            InvalidRequest: Records are hidden by the way in which the store was opened; as before.
        """
        from hostspec.store.upkeep.garbage import collect_garbage

        return collect_garbage(self._root)

    def deduplicate(self, method: str = "size") -> int:
        """Let equal files of images' layers share their blocks.

        Args:
            method: What makes files candidates, before the kernel compares them: ``"size"``, ``"crc"``
                or ``"sha256"``.

        Returns:
            Bytes that need no room of their own now, those included that did not need it before.

        Raises:
            OperationNotSupported: Neither the driver nor its file system can.
            InvalidRequest: There is no such method.
        """
        from hostspec.store.upkeep.deduplication import deduplicate

        return deduplicate(self._root, method)

    def shutdown(self, *, force: bool = False) -> Sequence[str]:
        """Take down what is mounted, as before switching the machine off.

        Args:
            force: Also what is in use.

        Returns:
            IDs of the layers that are still mounted.

        Raises:
            InUse: Without ``force``: layers are in use.
        """
        from hostspec.store.mounting import take_all_down

        return take_all_down(self._root, force=force)

    def _found(self, reference: str) -> Layer | Image | Container:
        from hostspec.errors import Unknown

        found = find_object(self._root, reference)
        if found is None:
            raise Unknown("layer, image or container", reference)
        return found
