"""Sub-commands that bring images to other places and from there."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from hostspec.archive.compression import Compression
from hostspec.cli.context import Context
from hostspec.cli.described import created_lines, image_json
from hostspec.cli.grammar import Arguments, UsageError
from hostspec.cli.render import print_json, progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostspec.store import Image

__all__ = ["copy_image", "export", "pull", "push"]

COMPRESSIONS = {"none": Compression.NONE, "gzip": Compression.GZIP, "zstd": Compression.ZSTD}
"""Those that the OCI image specification knows."""


def export(context: Context, arguments: Arguments) -> None:
    """Write images to a layout or an archive."""
    from hostspec.images.exporting import export_images  # noqa: PLC0415 - imports what only exporting needs

    *references, destination = arguments.positionals
    wanted = arguments.one("compress")
    if wanted is not None and wanted not in COMPRESSIONS:
        raise UsageError("--compress", f"{wanted!r} is none of {', '.join(COMPRESSIONS)}")
    with progress_bar(destination) as progress:
        written = export_images(
            context.store,
            references,
            destination,
            compression=COMPRESSIONS[wanted] if wanted is not None else None,
            repack=arguments.given("repack"),
            progress=progress,
        )
    for each in written:
        for layer in each.repacked:
            print(f"hostspec: layer {layer} was packed anew: the image has another ID there", file=sys.stderr)
    if arguments.given("json"):
        print_json(
            [
                {"image": each.image.id, "digest": each.digest, "repacked": list(each.repacked)}
                for each in written
            ]
        )
    else:
        print("\n".join(each.digest for each in written))


def pull(context: Context, arguments: Arguments) -> None:
    """Bring an image from a registry."""
    from hostspec.images.registries import pull as run  # noqa: PLC0415 - imports what only skopeo needs

    made = run(
        context.store,
        arguments.positionals[0],
        name=arguments.one("name"),
        flags=_flags(arguments, "src"),
        show=True,
    )
    _print_images([made], arguments)
    context.tell_of_depth(made.layer, anywhere=True)


def push(context: Context, arguments: Arguments) -> None:
    """Send an image to a registry."""
    from hostspec.images.registries import push as run  # noqa: PLC0415 - imports what only skopeo needs

    run(
        context.store,
        arguments.positionals[0],
        arguments.positional(1),
        flags=_flags(arguments, "dest"),
        show=True,
    )


def copy_image(context: Context, arguments: Arguments) -> None:
    """Copy images to another store."""
    from hostspec.images.store_copy import copy_image as run  # noqa: PLC0415 - imports what only copying needs
    from hostspec.store import open_store  # noqa: PLC0415

    graph, names = arguments.one("to-graph"), arguments.every("name")
    if graph is None:
        raise UsageError("copy-image", "needs the directory of the other store: --to-graph DIR")
    if names and len(arguments.positionals) > 1:
        raise UsageError("--name", "would be of several images")
    run_root = arguments.one("to-run")
    made = []
    with open_store(
        root=os.path.abspath(graph),
        run_root=os.path.abspath(run_root) if run_root is not None else None,
        driver=arguments.one("to-driver"),
        options=arguments.every("to-opt"),
    ) as target:
        for reference in arguments.positionals:
            with progress_bar(reference) as progress:
                made.append(
                    run(
                        context.store,
                        reference,
                        target,
                        names=names or None,
                        squash=context.squash,
                        progress=progress,
                    )
                )
        _print_images(made, arguments)
        context.tell_of_depth(*(each.layer for each in made), anywhere=True, store=target)


def _flags(arguments: Arguments, side: str) -> list[str]:
    """Return the flags for the side of the copy that is not the store."""
    authfile, creds = arguments.one("authfile"), arguments.one("creds")
    certificates, verify = arguments.one("cert-dir"), arguments.one("tls-verify")
    return [
        *([f"--{side}-authfile={authfile}"] if authfile is not None else ()),
        *([f"--{side}-creds={creds}"] if creds is not None else ()),
        *([f"--{side}-cert-dir={certificates}"] if certificates is not None else ()),
        *([f"--{side}-tls-verify={verify}"] if verify is not None else ()),
    ]


def _print_images(made: Sequence[Image], arguments: Arguments) -> None:
    if arguments.given("json"):
        found = [image_json(each) for each in made]
        print_json(found if len(arguments.positionals) > 1 else found[0])
    else:
        for each in made:
            print("\n".join(created_lines(each.id, each.names)))
