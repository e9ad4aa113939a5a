"""Images from registries and to them, by skopeo.

skopeo knows registries, their authentication, mirrors and signatures; it writes to and reads from the very
store that hostspec has open. A store whose driver skopeo does not know gets its images through a
temporary OCI layout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, cast

from hostspec.errors import HostspecError, InvalidRequest
from hostspec.store.references import LOCAL, full_names, normalised

if TYPE_CHECKING:
    from hostspec.store import Image, Store

__all__ = ["SkopeoFailed", "pull", "push"]

PROGRAM = "skopeo"
REGISTRY_TRANSPORT = "docker://"
TRANSPORTS = (
    REGISTRY_TRANSPORT,
    "atomic:",
    "containers-storage:",
    "dir:",
    "docker-archive:",
    "docker-daemon:",
    "oci:",
    "oci-archive:",
    "ostree:",
    "sif:",
    "tarball:",
)
"""How a place is spelled for skopeo (containers-transports(5)); anything else is a name in a registry."""

_UNKNOWN_DRIVER = "driver not supported"
_LAYOUT_TAG = "image"


class SkopeoFailed(HostspecError):
    """skopeo ran, and failed.

    Attributes:
        words: Its command line.
        exit_code: What it ended with; negative for a signal.
        said: What it wrote to standard error.
    """

    def __init__(self, words: Sequence[str], exit_code: int, said: str) -> None:
        self.words = tuple(words)
        self.exit_code = exit_code
        self.said = said
        lines = said.strip().splitlines() or ["it said nothing"]
        super().__init__(f"{' '.join(words[:2])} failed with exit code {exit_code}: {_message(lines[-1])}")


def pull(
    store: Store, source: str, *, name: str | None = None, flags: Sequence[str] = (), show: bool = False
) -> Image:
    """Bring an image into the store.

    Args:
        store: The store.
        source: A name in a registry (``debian``, ``quay.io/project/image:tag``), or a place of any
            transport that skopeo has (``oci:DIR:TAG``, ``docker-archive:FILE``, ``dir:DIR``).
        name: What it is called in the store; by default as in the registry, and for other places
            ``localhost/`` and their last part.
        flags: Further flags for ``skopeo copy``, such as ``--src-tls-verify=false``.
        show: Let the user see on standard error what skopeo says while it runs.

    Returns:
        The image's record.

    Raises:
        InvalidRequest: skopeo is not installed, or a name is none.
        SkopeoFailed: It failed, for the reason that it said. There is no image.
    """
    place = _place(source)
    wanted = normalised(name, LOCAL) if name else _name_of(place)
    if store.image_store:  # which skopeo versions before 1.14 do not know
        return _pull_through_layout(store, place, wanted, flags, show=show)
    try:
        with _own_store(store) as environment:
            _skopeo("copy", *flags, place, f"containers-storage:{wanted}", environment=environment, show=show)
    except SkopeoFailed as error:
        if _UNKNOWN_DRIVER not in error.said:
            raise
        return _pull_through_layout(store, place, wanted, flags, show=show)
    return store.image(wanted)


def push(
    store: Store,
    reference: str,
    destination: str | None = None,
    *,
    flags: Sequence[str] = (),
    show: bool = False,
) -> None:
    """Send an image to a registry, or to any place that skopeo can write.

    Args:
        store: The store.
        reference: The image.
        destination: As ``source`` of :func:`pull`; by default what ``reference`` means in full, or, where
            that is an ID, the image's only name in a registry.
        flags: Further flags for ``skopeo copy``, such as ``--dest-tls-verify=false``.
        show: Let the user see on standard error what skopeo says while it runs.

    Raises:
        Unknown: There is no such image.
        InvalidRequest: skopeo is not installed, or there is no destination, or more than one.
        SkopeoFailed: It failed, for the reason that it said.
    """
    image = store.image(reference)
    place = _place(destination or _own_registry(image, reference))
    try:
        with _own_store(store) as environment:
            own = f"containers-storage:@{image.id}"
            _skopeo("copy", *flags, own, place, environment=environment, show=show)
    except SkopeoFailed as error:
        if _UNKNOWN_DRIVER not in error.said:
            raise
        _push_through_layout(store, image, place, flags, show=show)


def _pull_through_layout(store: Store, place: str, name: str, flags: Sequence[str], *, show: bool) -> Image:
    from hostspec.images.importing import import_image  # noqa: PLC0415 - few drivers need it

    with _temporary_directory() as directory:
        layout = f"oci:{directory}:{_LAYOUT_TAG}"
        _skopeo("copy", *flags, place, layout, environment=os.environ, show=show)
        return import_image(store, layout, names=[name])


def _push_through_layout(store: Store, image: Image, place: str, flags: Sequence[str], *, show: bool) -> None:
    from hostspec.images.exporting import export_images  # noqa: PLC0415 - few drivers need it

    with _temporary_directory() as directory:
        layout = f"oci:{directory}:{_LAYOUT_TAG}"
        export_images(store, [image.id], layout)
        _skopeo("copy", *flags, layout, place, environment=os.environ, show=show)


def _skopeo(*words: str, environment: Mapping[str, str], show: bool) -> None:
    program = shutil.which(PROGRAM)
    if program is None:
        reason = "is not installed, and hostspec needs it for registries; install it (apt install skopeo)"
        raise InvalidRequest(PROGRAM, reason)
    with subprocess.Popen(
        [program, *words],
        stdin=subprocess.DEVNULL,
        # What it prints is progress; our own standard output is for results.
        stdout=sys.stderr.fileno() if show else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        errors="replace",
    ) as process:
        said = []
        for line in cast(TextIO, process.stderr):
            said.append(line)
            if show:
                sys.stderr.write(line)
    if process.returncode:
        raise SkopeoFailed((PROGRAM, *words), process.returncode, "".join(said))


@contextmanager
def _own_store(store: Store) -> Iterator[Mapping[str, str]]:
    """Give an environment in which skopeo's ``containers-storage:`` is this store.

    A configuration file says it all. In a reference (``[driver@root+run:options]``) options are separated by
    commas, so that ``mountopt=nodev,metacopy=on`` cannot be said, nor a path with ``+`` in it.
    """
    with tempfile.NamedTemporaryFile("w", prefix="hostspec-storage-", suffix=".conf") as file:
        file.write("\n".join(_configuration(store)) + "\n")
        file.flush()
        overruling = {"STORAGE_DRIVER", "STORAGE_OPTS"}
        others = {key: value for key, value in os.environ.items() if key not in overruling}
        yield others | {"CONTAINERS_STORAGE_CONF": file.name}


def _configuration(store: Store) -> Iterator[str]:
    yield "[storage]"
    yield f"driver = {json.dumps(store.driver_name)}"
    yield f"graphroot = {json.dumps(store.root)}"
    yield f"runroot = {json.dumps(store.run_root)}"
    yield "[storage.options]"
    yield f"additionalimagestores = {json.dumps(_image_stores(store))}"
    yield f"[storage.options.{json.dumps(store.driver_name)}]"
    for key, value in dict(store.driver_options).items():
        yield f"{json.dumps(key)} = {json.dumps(value)}"


def _image_stores(store: Store) -> list[str]:
    """Return the stores whose images skopeo is to see beside those in the graph root."""
    return [*((store.image_store,) if store.image_store else ()), *store.additional_stores]


def _temporary_directory() -> tempfile.TemporaryDirectory[str]:
    # Not below /tmp, which may be in memory: images are big.
    return tempfile.TemporaryDirectory(prefix="hostspec-", dir=os.environ.get("TMPDIR", "/var/tmp"))  # noqa: S108


def _place(text: str) -> str:
    return text if text.startswith(TRANSPORTS) else f"{REGISTRY_TRANSPORT}{normalised(text)}"


def _name_of(place: str) -> str:
    """Return what an image is called in the store when nobody said it."""
    if place.startswith(REGISTRY_TRANSPORT):
        return normalised(place.removeprefix(REGISTRY_TRANSPORT))
    path, _, reference = place.partition(":")[2].partition(":")
    if "/" in reference:
        return normalised(reference)
    last = os.path.basename(path.rstrip("/")).partition(".")[0].lower()
    if not reference:
        return normalised(last, LOCAL)
    # After an archive stands a name, after a layout a tag.
    return normalised(reference if place.startswith("docker-") else f"{last}:{reference}", LOCAL)


def _own_registry(image: Image, reference: str) -> str:
    meant = [name for name in (reference, *full_names(reference)) if name in image.names]
    names = meant[:1] or [name for name in image.names if not normalised(name, LOCAL).startswith(f"{LOCAL}/")]
    if not names or normalised(names[0], LOCAL).startswith(f"{LOCAL}/"):
        raise InvalidRequest(f"image {reference}", "has no registry in its name; say where to push it")
    if len(names) > 1:
        raise InvalidRequest(f"image {reference}", f"is called {' and '.join(names)}; say where to push it")
    return names[0]


def _message(line: str) -> str:
    """Take the message out of a line of a Go program's log."""
    _, found, message = line.partition('msg="')
    return message.removesuffix('"').replace('\\"', '"') if found else line
