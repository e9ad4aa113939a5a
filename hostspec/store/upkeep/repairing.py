"""Removing what a check found damaged, and nothing else.

Each removal looks again under the locks whether something stands on the object, and then leaves it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hostspec.errors import HostspecError, Unknown
from hostspec.store.format.records import Container, Image, Layer
from hostspec.store.format.tables import Table
from hostspec.store.graph_root import GraphRoot
from hostspec.store.lineage import children_first
from hostspec.store.recovery import forget_mapped_layer
from hostspec.store.removal import delete_container, delete_image, delete_layer
from hostspec.store.upkeep.findings import CheckReport, Problem
from hostspec.store.upkeep.garbage import refuse_hidden_records, remove_unrecorded_layers

__all__ = ["repair"]

_Removal = Callable[[GraphRoot, str], object]


def repair(root: GraphRoot, report: CheckReport, *, containers: bool) -> tuple[HostspecError, ...]:
    """Remove what is damaged; see :meth:`hostspec.store.Store.repair`."""
    if report.findings:
        with root.editing() as edits:
            refuse_hidden_records(root, edits)
    # First what no record names, since the driver keeps a layer on which another of its layers stands;
    # and again at the end, since a layer with a record may stand on one without.
    unaccounted = [each.id for each in report.having(Problem.LAYER_UNACCOUNTED)]
    _remove_unaccounted(root, unaccounted)
    errors: list[HostspecError] = []
    if containers:
        errors += _remove(root, root.containers, list(report.of("container")), delete_container)
    _forget_missing_copies(root, report)
    gone = {each.id for each in report.findings if each.problem is Problem.IMAGE_COPY_MISSING}
    images = [
        each
        for each, findings in report.of("image").items()
        if each not in gone or any(one.problem is not Problem.IMAGE_COPY_MISSING for one in findings)
    ]
    errors += _remove(root, root.images, images, delete_image)
    recorded = root.layers.read()
    layers = [each for each in report.of("layer") if each in recorded]
    errors += _remove(root, root.layers, children_first(recorded, layers), delete_layer)
    errors += _remove_unaccounted(root, unaccounted)
    return tuple(errors)


def _remove(
    root: GraphRoot,
    table: Table[Layer] | Table[Image] | Table[Container],
    identifiers: Sequence[str],
    removal: _Removal,
) -> list[HostspecError]:
    errors: list[HostspecError] = []
    for identifier in identifiers:
        # A reference that is no ID any more might be the beginning of another one.
        if identifier not in table.read():
            continue
        try:
            removal(root, identifier)
        except Unknown:
            continue
        except HostspecError as error:
            errors.append(error)
    return errors


def _forget_missing_copies(root: GraphRoot, report: CheckReport) -> None:
    """Take mapped copies that are not there any more out of the images' records."""
    if not any(True for _ in report.having(Problem.IMAGE_COPY_MISSING)):
        return
    with root.editing() as edits:
        missing = {copy for image in edits.images for copy in image.mapped_layers} - edits.layers.by_id.keys()
        for copy in missing:
            forget_mapped_layer(edits, copy)
        edits.images.save()


def _remove_unaccounted(root: GraphRoot, layer_ids: list[str]) -> list[HostspecError]:
    if not layer_ids:
        return []
    with root.editing() as edits:
        refuse_hidden_records(root, edits)
        refused = remove_unrecorded_layers(root, edits, layer_ids)
    root.clear_up()
    return list(refused.values())
