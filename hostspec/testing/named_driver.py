"""The driver that the command line of pytest names, and whether it can be proved here at all."""

from __future__ import annotations

import pytest

from hostspec.errors import HostspecError
from hostspec.testing.driver_opener import DriverOpener, parent_of_homes
from hostspec.testing.isolation import fresh_directory, isolate_mounts

__all__ = ["check_named_driver", "named_driver"]

Options = tuple[tuple[str, str], ...]


def named_driver(config: pytest.Config) -> tuple[str, Options]:
    """Return the name and the storage options of the driver to prove.

    Raises:
        pytest.UsageError: None is named, or an option is malformed.
    """
    name = config.getoption("--graph-driver")
    if not name:
        raise pytest.UsageError("say which driver to prove: pytest --pyargs hostspec.testing --driver NAME")
    pairs = [text.partition("=") for text in config.getoption("--driver-option")]
    for key, equals, _ in pairs:
        if not equals:
            raise pytest.UsageError(f"--driver-option {key}: must be NAME=VALUE")
    return name, tuple((key, value) for key, _, value in pairs)


def check_named_driver(config: pytest.Config) -> None:
    """Open the driver once, before a thousand tests say that it cannot be opened.

    Raises:
        pytest.UsageError: It is not installed, or cannot be used here; has the reason.
    """
    name, options = named_driver(config)
    isolate_mounts()
    try:
        with fresh_directory(parent_of_homes(config)) as directory:
            opener = DriverOpener(frozenset())
            try:
                opener(directory, name, options=options).capabilities  # noqa: B018 - it may be the one to refuse
            finally:
                opener.close()
    except (HostspecError, OSError) as refusal:
        raise pytest.UsageError(f"the driver cannot be proved here: {refusal}") from refusal
