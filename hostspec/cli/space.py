"""The ``df`` sub-command."""

from __future__ import annotations

import sys

from hostspec.cli.context import Context
from hostspec.cli.grammar import Arguments
from hostspec.cli.render import SHORT_ID, human_size, print_json, table, used_of_limits
from hostspec.store.upkeep.disk_space import LimitedContainer

__all__ = ["df"]


def df(context: Context, arguments: Arguments) -> None:
    """Print what layers occupy by what they are for, and the driver's home as a whole."""
    found = context.store.disk_space()
    if arguments.given("json"):
        print_json(
            {
                "rows": [row._asdict() for row in found.rows],
                "exclusive_bytes": found.exclusive_bytes,
                "shared_bytes": found.shared_bytes,
                "total_bytes": found.total_bytes,
                "inodes": found.inodes,
                "limited": [_limited_json(each) for each in found.limited],
            }
        )
        return
    rows = [
        (
            row.kind,
            str(row.layers),
            str(row.unused),
            human_size(row.exclusive_bytes),
            human_size(row.unused_bytes),
        )
        for row in found.rows
    ]
    sys.stdout.write(table(("LAYERS OF", "LAYERS", "UNUSED", "OWN", "OWN, UNUSED"), rows))
    print(f"In all: {human_size(found.total_bytes)} ({human_size(found.shared_bytes)} of it shared)")
    if found.limited:
        limited = [
            (",".join(each.names) or each.container_id[:SHORT_ID], *used_of_limits(each.usage))
            for each in found.limited
        ]
        sys.stdout.write("\n" + table(("LIMITED CONTAINER", "OWN", "INODES"), limited))


def _limited_json(container: LimitedContainer) -> dict[str, object]:
    return {
        "container": container.container_id,
        "names": list(container.names),
        "bytes": container.usage.exclusive_bytes + container.usage.shared_bytes,
        "limit_bytes": container.usage.limit_bytes,
        "inodes": container.usage.inodes,
        "limit_inodes": container.usage.limit_inodes,
    }
