"""Where images come from and go to: ``oci:DIR[:TAG]``, ``docker-archive:FILE[:NAME]``.

The spelling is containers/image's (containers-transports(5)): what follows the first colon after the
path is the tag or name, which may have colons itself. hostspec also takes paths with colons, if they
are there.
"""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["DOCKER_ARCHIVE", "OCI", "OCI_ARCHIVE", "directory_and_tag", "file_and_reference"]

OCI = "oci:"
OCI_ARCHIVE = "oci-archive:"
DOCKER_ARCHIVE = "docker-archive:"


def directory_and_tag(place: str) -> tuple[str, str | None]:
    """Take ``DIR[:TAG]`` apart, where ``DIR`` need not be there."""
    return _split(place, os.path.isdir)


def file_and_reference(place: str) -> tuple[str, str | None]:
    """Take ``FILE[:NAME]`` apart, where ``FILE`` need not be there."""
    return _split(place, lambda path: os.path.exists(path) and not os.path.isdir(path))


def _split(place: str, is_there: Callable[[str], bool]) -> tuple[str, str | None]:
    positions = [index for index, character in enumerate(place) if character == ":"]
    for end in (len(place), *reversed(positions)):
        if is_there(place[:end]):
            return place[:end], place[end + 1 :] or None
    path, _, rest = place.partition(":")
    return path, rest or None
