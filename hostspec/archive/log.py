"""Where oddities of archives are noted that are no errors: a logger that is silent unless asked for."""

from __future__ import annotations

import logging

__all__ = ["log"]

log = logging.getLogger("hostspec.archive")
# Without a handler of its own, warnings would go to standard error of whoever uses the library.
log.addHandler(logging.NullHandler())
