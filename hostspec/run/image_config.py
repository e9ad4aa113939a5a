"""What an image says about the processes that run from it (OCI image specification 1.1, ``config.md``)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from hostspec.errors import InvalidArchive
from hostspec.store import Image, Store

__all__ = ["ImageConfig", "image_config"]

_NAME = "image configuration"


class ImageConfig(NamedTuple):
    """What an image says, as far as it says anything."""

    entrypoint: tuple[str, ...] = ()
    """The words before the command's."""
    command: tuple[str, ...] = ()
    """What runs where no command is given."""
    environment: tuple[str, ...] = ()
    """``NAME=VALUE``."""
    working_directory: str = ""
    """Absolute path, or ``""``."""
    user: str = ""
    """``USER[:GROUP]``, each by name or number, or ``""``."""
    stop_signal: str = ""
    """Name or number of the signal that asks it to end, or ``""``."""
    volumes: tuple[str, ...] = ()
    """Directories for data that is to be kept apart."""


def image_config(store: Store, image: Image) -> ImageConfig:
    """Return what an image says; an image without configuration says nothing.

    Raises:
        InvalidArchive: The configuration is malformed.
    """
    content = _content(store, image)
    if content is None:
        return ImageConfig()
    document = _parsed(content)
    volumes = document.get("Volumes") or {}
    if not isinstance(volumes, dict):
        raise InvalidArchive("has Volumes that are not an object", _NAME)
    return ImageConfig(
        entrypoint=_texts(document, "Entrypoint"),
        command=_texts(document, "Cmd"),
        environment=_texts(document, "Env"),
        working_directory=_text(document, "WorkingDir"),
        user=_text(document, "User"),
        stop_signal=_text(document, "StopSignal"),
        volumes=tuple(sorted(volumes)),
    )


def _content(store: Store, image: Image) -> bytes | None:
    """Return the configuration, whose digest is the image's ID, or else is named by the manifest."""
    own = f"sha256:{image.id}"
    if own in image.big_data:
        return store.big_data(image, own)
    # Imports all that brings images in and out, so only for the few that need it.
    from hostspec.images.documents import parse_manifest  # noqa: PLC0415

    for key in ("manifest", f"manifest-{image.digest}"):
        if key in image.big_data:
            with suppress(InvalidArchive):  # an index names no configuration
                digest = parse_manifest(store.big_data(image, key)).config.digest
                if digest in image.big_data:
                    return store.big_data(image, digest)
    return None


def _parsed(content: bytes) -> dict[str, object]:
    try:
        document = json.loads(content)
        config = document.get("config") or {}
    except (ValueError, AttributeError) as error:
        raise InvalidArchive(f"is no JSON object: {error}", _NAME) from error
    if not isinstance(config, dict):
        raise InvalidArchive("has a config that is not an object", _NAME)
    return config


def _texts(document: dict[str, object], key: str) -> tuple[str, ...]:
    value: object = document.get(key) or ()
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InvalidArchive(f"has {key} that is not a list of texts", _NAME)
    if not all(isinstance(each, str) for each in value):
        raise InvalidArchive(f"has {key} that is not a list of texts", _NAME)
    return tuple(value)


def _text(document: dict[str, object], key: str) -> str:
    value = document.get(key) or ""
    if not isinstance(value, str):
        raise InvalidArchive(f"has {key} that is not a text", _NAME)
    return value
