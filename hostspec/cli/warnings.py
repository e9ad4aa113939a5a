"""What the store warns of, on standard error."""

from __future__ import annotations

from contextlib import AbstractContextManager

from hostspec.cli.objects import print_error
from hostspec.store.notices import warnings_told

__all__ = ["warnings_shown"]


def warnings_shown() -> AbstractContextManager[None]:
    """Print warnings of the store as errors are printed, for the time of a ``with`` block."""
    return warnings_told(print_error)
