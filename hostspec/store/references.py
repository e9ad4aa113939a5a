"""Names of images as registries spell them: ``[DOMAIN/]PATH[:TAG][@DIGEST]``.

Source: ``reference.go`` and ``normalize.go`` of distribution/reference, which every Go client uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from hostspec.errors import InvalidRequest

__all__ = [
    "LOCAL",
    "REGISTRY",
    "Reference",
    "full_names",
    "normalised",
    "parse_reference",
    "repositories",
]

REGISTRY = "docker.io"
"""Where a name without a domain is looked for, as by skopeo and Docker."""
LOCAL = "localhost"
"""Domain of what was made here, as podman says."""

_OFFICIAL = "library"
_REFERENCE = re.compile(
    r"""
    (?P<path> [a-z0-9]+ (?: (?: [._] | __ | -+ ) [a-z0-9]+ )*
        (?: / [a-z0-9]+ (?: (?: [._] | __ | -+ ) [a-z0-9]+ )* )* )
    (?: : (?P<tag> \w [\w.-]{0,127} ) )?
    (?: @ (?P<digest> [A-Za-z][A-Za-z0-9]* (?: [-_+.] [A-Za-z][A-Za-z0-9]* )* : [0-9a-fA-F]{32,} ) )?
    """,
    re.VERBOSE | re.ASCII,
)
_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)  # the Go clients take no such name, not to mistake an ID for one
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?", re.ASCII
)


class Reference(NamedTuple):
    """A name, taken apart."""

    domain: str | None
    """Host and perhaps port of the registry."""
    path: str
    """What it is called there."""
    tag: str | None
    """Which version of it."""
    digest: str | None
    """Which manifest exactly, ``ALGORITHM:HEX``."""

    def __str__(self) -> str:
        domain = f"{self.domain}/" if self.domain else ""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{domain}{self.path}{tag}{digest}"


def parse_reference(name: str) -> Reference:
    """Take a name apart.

    Raises:
        InvalidRequest: No registry would accept it.
    """
    first, slash, rest = name.partition("/")
    # What stands first is a domain only if it cannot be a part of a path, or is this host.
    is_domain = slash and (first == LOCAL or first != first.lower() or any(mark in first for mark in ".:["))
    found = _REFERENCE.fullmatch(rest if is_domain else name)
    if found is None or _ID.fullmatch(name) or (is_domain and not _DOMAIN.fullmatch(first)):
        problem = "is no image name; one is [DOMAIN/]PATH[:TAG][@DIGEST], with the path in lower case"
        raise InvalidRequest(repr(name), problem)
    return Reference(first if is_domain else None, found["path"], found["tag"], found["digest"])


def normalised(name: str, domain: str = REGISTRY) -> str:
    """Return a name in full: with its domain, and tagged ``latest`` where it has no tag and no digest.

    Args:
        name: The name.
        domain: The domain of a name without one.

    Raises:
        InvalidRequest: No registry would accept it.
    """
    found = parse_reference(name)
    if found.domain in {None, REGISTRY}:
        path = found.path
        if (found.domain or domain) == REGISTRY and "/" not in path:
            path = f"{_OFFICIAL}/{path}"
        found = found._replace(domain=found.domain or domain, path=path)
    if found.tag is None and found.digest is None:
        found = found._replace(tag="latest")
    return str(found)


def full_names(name: str) -> tuple[str, ...]:
    """Return what a name that somebody typed may stand for in a store, the likeliest first.

    As podman does (``ResolveLocally`` in containers/common's ``libimage`` and containers/image's
    ``shortnames``): what was made here comes before what came from a registry. Of the registries of
    ``registries.conf`` only the one that everybody has counts.

    Returns:
        Nothing where no registry would accept the name.
    """
    try:
        names = (normalised(name, LOCAL), normalised(name))
    except InvalidRequest:
        return ()
    return tuple(dict.fromkeys(names))


def repositories(names: Iterable[str]) -> frozenset[str]:
    """Return what names may stand for, without tags and digests: where all versions of an image are."""
    parsed = (parse_reference(full) for name in names for full in full_names(name))
    return frozenset(str(each._replace(tag=None, digest=None)) for each in parsed)
