"""Whether a layer's files are still those that the layer brought."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import BinaryIO

from hostspec.archive.original_tar import original_tar
from hostspec.archive.reader import TarReader
from hostspec.errors import HostspecError, InvalidArchive
from hostspec.store.big_data import path_of
from hostspec.store.format.records import Layer
from hostspec.store.format.tables import Snapshot
from hostspec.store.graph_root import GraphRoot
from hostspec.store.lineage import with_descent
from hostspec.store.upkeep.expected_tree import Described, Uncertain, differences, tree_of
from hostspec.store.upkeep.findings import Finding, Problem
from hostspec.values import LayerRef

__all__ = ["LayerChecks"]

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_WITHOUT_REAL_MODES = "force_mask"
_WITHOUT_REAL_OWNERS = "ignore_chown_errors"


class LayerChecks:
    """Checks the layers of one store, each after the one that it stands on."""

    def __init__(self, root: GraphRoot, layers: Snapshot[Layer], *, trees: bool) -> None:
        """Check these layers.

        Args:
            root: The store.
            layers: The records.
            trees: Whether to compare every file of every image layer with what the tars say of it, too.
        """
        self._root = root
        self._layers = layers
        self._trees = trees
        self._members: dict[str, Sequence[Described]] = {}
        options: Mapping[str, str] = dict(root.options)
        self._owners = options.get(_WITHOUT_REAL_OWNERS) not in _TRUE
        self._modes = _WITHOUT_REAL_MODES not in options

    def data_of(self, layer: Layer) -> Iterator[Finding]:
        """Find big data items that cannot be read; nothing is recorded of what they should be."""
        for key in layer.big_data:
            try:
                with open(path_of(self._root, layer, key), "rb") as file:
                    while file.read(_Digest.PIECE):
                        pass
            except (OSError, HostspecError) as error:
                yield _finding(layer, Problem.LAYER_DATA_MISSING, f'data item "{key}"', _reason(error))

    def files_of(self, layer: Layer, *, is_containers: bool) -> Iterator[Finding]:
        """Find a layer that cannot be mounted, or has other files than it brought.

        Args:
            layer: The layer's record.
            is_containers: Whether it is a container's own layer, which may well have other files.
        """
        try:
            with self._root.driver.mounted(layer.id) as tree:
                if layer.diff_digest and not is_containers:
                    yield from self._diff(layer, layer.diff_digest, tree)
                if self._trees:
                    yield from self._tree(layer, tree)
        except (HostspecError, OSError) as error:
            yield _finding(layer, Problem.LAYER_UNUSABLE, reason=_reason(error))

    def _diff(self, layer: Layer, digest: str, tree: str) -> Iterator[Finding]:
        """Put the tar together again that the layer came from, and compare its digest."""
        try:
            expected = _Digest(digest)
        except ValueError as error:
            yield _finding(layer, Problem.LAYER_DIGEST, reason=str(error))
            return
        try:
            with ExitStack() as held:
                reader = TarReader(self._tar(layer, tree, held), trace=expected)
                members = [Described.of(member) for member in reader]
        except Uncertain:
            yield from self._digest_alone(layer, digest, tree)
            return
        except InvalidArchive as error:
            yield _finding(layer, Problem.LAYER_DIGEST, reason=str(error))
            return
        problem = self._problem(layer, expected)
        if problem is not None:
            yield problem
        else:
            self._members[layer.id] = members

    def _digest_alone(self, layer: Layer, digest: str, tree: str) -> Iterator[Finding]:
        expected = _Digest(digest)
        try:
            with ExitStack() as held:
                stream = self._tar(layer, tree, held)
                while piece := stream.read(_Digest.PIECE):
                    expected.content(memoryview(piece))
        except InvalidArchive as error:
            yield _finding(layer, Problem.LAYER_DIGEST, reason=str(error))
            return
        problem = self._problem(layer, expected)
        if problem is not None:
            yield problem

    def _problem(self, layer: Layer, found: _Digest) -> Finding | None:
        """Say what is wrong with a layer's tar: nothing that can be known where it had to be packed anew."""
        return found.problem(layer) if os.path.exists(self._tar_split(layer)) else None

    def _tar_split(self, layer: Layer) -> str:
        layout = self._root.layout
        return os.path.join(layer.elsewhere or layout.layers, os.path.basename(layout.tar_split(layer.id)))

    def _tar(self, layer: Layer, tree: str, held: ExitStack) -> BinaryIO:
        """Return the layer's tar: the original if there is a tar-split file, or else a new one."""
        try:
            file = held.enter_context(open(self._tar_split(layer), "rb", buffering=0))  # noqa: SIM115 - closed by held
        except FileNotFoundError:
            parent = self._layers.with_id(layer.parent)
            refs = LayerRef(layer.id, layer.idmap), LayerRef(parent.id, parent.idmap) if parent else None
            return held.enter_context(self._root.driver.diff(*refs))
        return held.enter_context(original_tar(file, tree))

    def _tree(self, layer: Layer, tree: str) -> Iterator[Finding]:
        """Compare all files that are seen with what the tars of the layer and its parents say."""
        chain: list[Sequence[Described]] = []
        for each in with_descent(self._layers, layer.id):
            members = self._members.get(each.id)
            if members is None:
                return  # a container's layer, or one that has been found damaged
            chain.append(members)
        try:
            expected = tree_of(chain[::-1])
        except Uncertain:
            return
        found = differences(expected, tree, idmap=layer.idmap, owners=self._owners, modes=self._modes)
        for difference in found:
            yield _finding(layer, Problem.LAYER_MODIFIED, difference)


class _Digest:
    """Adds up the bytes of a tar, as a trace of who reads it."""

    PIECE = 1 << 20

    def __init__(self, expected: str) -> None:
        """Expect a digest.

        Raises:
            ValueError: It is none, or of an unknown algorithm.
        """
        algorithm, _, self._hex = expected.partition(":")
        try:
            self._hash = hashlib.new(algorithm, usedforsecurity=False)
        except ValueError:
            raise ValueError(f"{expected!r} is no digest that is known here") from None
        self._size = 0

    def framing(self, data: memoryview) -> None:
        self.content(data)

    def content(self, data: memoryview) -> None:
        self._hash.update(data)
        self._size += len(data)

    def problem(self, layer: Layer) -> Finding | None:
        if self._hash.hexdigest() != self._hex:
            found = f"is {self._hash.name}:{self._hash.hexdigest()}"
            return _finding(layer, Problem.LAYER_DIGEST, reason=found)
        if layer.diff_size is not None and layer.diff_size not in {-1, self._size}:
            return _finding(
                layer, Problem.LAYER_SIZE, f"read {self._size} bytes instead of {layer.diff_size} bytes"
            )
        return None


def _finding(layer: Layer, problem: Problem, detail: str = "", reason: str = "") -> Finding:
    return Finding("layer", layer.id, problem, detail, layer.read_only, reason)


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
