"""A store in a user namespace of an ordinary user; its arguments are at the end of the file.

It has the subordinate IDs that the user is granted or, with ``single``, the user's own ID alone.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys

from hostspec.idmap import IdMap
from hostspec.kernel.subordinate_ids import own_id_map, subordinate_id_map
from hostspec.kernel.usernamespaces import run_in_user_namespace
from hostspec.store import Store, open_store
from hostspec.store.configuration.policy import Strategy
from tests.store.tars import tar_of

STRATEGIES: tuple[Strategy, ...] = ("auto", "template", "copy")


def look(store: Store, idmap: IdMap, *, squash: bool) -> dict[str, object]:
    """Make an image and a container in each way, and return who owns a file in each."""
    layer = store.import_layer(
        io.BytesIO(tar_of({"etc": None, "etc/name": b"x"}, uid=10, gid=20)), squash=squash
    )
    image = store.create_image(layer.id, names=["image"])
    found: dict[str, object] = {}
    for strategy in STRATEGIES:
        container = store.create_container(image.id, idmap=idmap, strategy=strategy, squash=squash)
        with store.mounting(container.id) as root:
            status = os.stat(f"{root}/etc/name")
        store.delete_container(container.id)
        squashed = [copy.squashed for copy in store.mapped_copies()]
        found[strategy] = [status.st_uid, status.st_gid, *squashed]
        store.remove_unused_copies(0)
    found["against shifting"] = next(
        way.reason for way in store.explain_idmap(image.id, idmap).ways if way.name == "shift"
    )
    store.delete_image(image.id)
    found["left"] = [*map(str, store.layers()), *store.driver.list_layers()]
    return found


def main() -> int:
    """Work inside, and write what was found as JSON, and warnings to standard error."""
    directory, driver, ids = sys.argv[1:]
    single = ids == "single"
    outer = own_id_map() if single else subordinate_id_map()
    assert outer is not None
    logging.basicConfig(format="%(message)s")

    def run() -> int:
        options = [f"{driver}.ignore_chown_errors=true"] if single else []
        with open_store(
            root=f"{directory}/graph", run_root=f"{directory}/run", driver=driver, options=options
        ) as store:
            idmap = IdMap.parse(["0:0:1" if single else "0:1:1000"])
            sys.stdout.write(json.dumps(look(store, idmap, squash=single)))
            store.wipe()
        return 0

    return run_in_user_namespace(outer, run)


if __name__ == "__main__":
    sys.exit(main())
