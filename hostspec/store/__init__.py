"""The store: layers, images and containers in containers/storage's own format.

The same directory serves podman, buildah, skopeo and CRI-O at the same time. Open it, look, make, mount::

    from hostspec.idmap import IdMap
    from hostspec.store import open_store

    with open_store(root="/var/lib/containers/storage") as store:
        layer = store.import_layer("rootfs.tar.gz")
        image = store.create_image(layer.id, names=["localhost/mine:latest"])
        container = store.create_container(image.id, idmap=IdMap.parse(["0:100000:65536"]))
        with store.mounting(container.id) as root:
            print(root)

Records are immutable values. No lock is held while files are unpacked, copied or deleted, and a process
may die at any moment without leaving anything half-made to be seen.
"""

from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.opening import open_store
from hostspec.store.store import Store

__all__ = ["Container", "Image", "Layer", "Store", "open_store"]
