"""Points in time as records have them: RFC 3339 with nanoseconds, ``2026-11-23T20:04:11.228961039Z``.

Records keep the text as it was written, since a foreign one may have any offset and any number of
digits; these functions make and read it.
"""

from __future__ import annotations

import time

__all__ = ["NEVER", "nanoseconds", "now", "timestamp"]

NEVER = "0001-01-01T00:00:00Z"
"""The zero time, which the Go library writes where no time is known."""

_SECOND = 1_000_000_000


def now() -> str:
    """Return the present."""
    return timestamp(time.time_ns())


def timestamp(nanoseconds_since_epoch: int) -> str:
    """Return a point in time as text, in UTC, without trailing zeros."""
    seconds, fraction = divmod(nanoseconds_since_epoch, _SECOND)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{whole}{digits}Z"


def nanoseconds(text: str) -> int | None:
    """Return a point in time as nanoseconds since the epoch, or ``None`` where none is known.

    Raises:
        ValueError: ``text`` is not RFC 3339.
    """
    if text in {"", NEVER}:
        return None
    from datetime import datetime  # noqa: PLC0415 - listing records does not need it

    whole, offset = (text[:-1], "+00:00") if text[-1] in "zZ" else (text[:-6], text[-6:])
    whole, _, digits = whole.partition(".")
    seconds = datetime.fromisoformat(whole + offset).timestamp()
    return int(seconds) * _SECOND + int(digits[:9].ljust(9, "0") or 0)
