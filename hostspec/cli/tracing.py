"""What ``--debug`` shows: each driver operation on standard error, with its duration."""

from __future__ import annotations

import logging

from hostspec.observers.log import LOGGER, OperationLog

__all__ = ["log_to_stderr"]


def log_to_stderr() -> OperationLog:
    """Return an observer whose records are written as lines to standard error."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler())
    return OperationLog()
