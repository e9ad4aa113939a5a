"""A store driven through a command: ``hostspec`` and ``containers-storage`` take the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.measure import run
from benchmarks.side import MAP_SIZE
from hostspec.kernel.mounts import unmount_all
from hostspec.store.configuration.policy import Strategy

__all__ = ["CommandSide"]


class CommandSide:
    """Each operation is a process of its own; implements :class:`benchmarks.side.Side`."""

    def __init__(
        self,
        column: str,
        program: Sequence[str],
        place: tuple[str, str],
        driver: str,
        *,
        options: Sequence[str],
        environment: Mapping[str, str],
    ) -> None:
        """Name a store; nothing is run yet.

        Args:
            column: The column of the report.
            program: The command's first words.
            place: The store's graph root and run root.
            driver: The driver's name.
            options: Storage options, ``KEY=VALUE``.
            environment: The whole environment of every process.
        """
        self._column = column
        self._root, run_root = place
        self._program = tuple(program)
        flags = (f"--graph={self._root}", f"--run={run_root}", f"--storage-driver={driver}")
        self._flags = (*flags, *(f"--storage-opt={option}" for option in options))
        self._environment = dict(environment)
        self._peak_bytes: int | None = None

    @property
    def column(self) -> str:
        """See :class:`~benchmarks.side.Side`."""
        return self._column

    @property
    def peak_bytes(self) -> int | None:
        """See :class:`~benchmarks.side.Side`."""
        return self._peak_bytes

    def import_layer(self, tar: str) -> str:
        """See :class:`~benchmarks.side.Side`."""
        return self._made("import-layer", f"--file={tar}")

    def diff(self, layer: str) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._run("diff", "--uncompressed", layer, discard=True)

    def delete_layer(self, layer: str) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._run("delete-layer", layer)

    def list_layers(self) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._run("layers")

    def list_images(self) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._run("images")

    def create_layer(self) -> str:
        """See :class:`~benchmarks.side.Side`."""
        return self._made("create-layer")

    def create_image(self, layer: str) -> str:
        """See :class:`~benchmarks.side.Side`."""
        return self._made("create-image", layer)

    def top_layers(self, image: str) -> int:
        """See :class:`~benchmarks.side.Side`."""
        return self._run("image", image).count("Top Layer: ")

    def delete_image(self, image: str) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._run("delete-image", image)

    def create_container(
        self, image: str, first_host_id: int | None = None, strategy: Strategy = "auto"
    ) -> str:
        """See :class:`~benchmarks.side.Side`."""
        idmap = f"0:{first_host_id}:{MAP_SIZE}"
        flags = [] if first_host_id is None else [f"--uidmap={idmap}", f"--gidmap={idmap}"]
        flags += [f"--idmap-strategy={strategy}"] if strategy != "auto" else []
        return self._made("create-container", *flags, image)

    def delete_container(self, container: str) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._run("delete-container", container)

    def mount(self, container: str) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._run("mount", container)

    def unmount(self, container: str) -> None:
        """See :class:`~benchmarks.side.Side`."""
        self._run("unmount", container)

    def show_help(self) -> None:
        """Print the help."""
        run((*self._program, "--help"), self._environment)

    def close(self) -> None:
        """See :class:`~benchmarks.side.Side`."""
        unmount_all(self._root)

    def _made(self, *words: str) -> str:
        return self._run(*words).split("\n", 1)[0]

    def _run(self, command: str, *words: str, discard: bool = False) -> str:
        finished = run((*self._program, command, *self._flags, *words), self._environment, discard=discard)
        self._peak_bytes = finished.peak_bytes
        return finished.output
