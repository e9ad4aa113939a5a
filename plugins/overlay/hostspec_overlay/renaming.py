"""Renaming layers between the working area and the home, where these hand down different projects."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

__all__ = ["rename_across_projects"]

_WITHOUT_PROJECTS = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL})


def rename_across_projects(source: str, directory: str, rename: Callable[[], str | None]) -> None:
    """Rename a directory into one that may hand its own project down to what is made in it.

    The kernel refuses that for a directory of another project (EXDEV). So the directory itself, but nothing
    in it, belongs to the other project for the moment.

    Args:
        source: What is renamed; absolute path.
        directory: Where to; absolute path.
        rename: Does it, and returns the new path; ``None`` where it keeps its name.

    Raises:
        OSError: The operating system refused.
    """
    try:
        rename()
    except OSError as error:
        if error.errno != errno.EXDEV or not _rename_as_of(source, directory, rename):
            raise


def _rename_as_of(source: str, directory: str, rename: Callable[[], str | None]) -> bool:
    """Rename with the project of the new place; false where the projects are not what stands against it."""
    from hostspec.kernel.project_quotas import give_project, project_of  # noqa: PLC0415 - hardly ever needed

    try:
        own, other = project_of(source), project_of(directory)
    except OSError as error:
        if error.errno in _WITHOUT_PROJECTS:
            return False
        raise
    if own == other:
        return False
    give_project(source, other)
    try:
        moved = rename() or f"{directory}/{os.path.basename(source)}"
    except BaseException:
        give_project(source, own)
        raise
    give_project(moved, own)
    return True
