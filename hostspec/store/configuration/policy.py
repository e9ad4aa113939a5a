"""What the store's own options say: how containers get their ID maps, and how long unused copies stay.

They are written ``hostspec.NAME=VALUE`` where options are given one by one, and are keys of
``hostspec.conf``. No other program obeys them.
"""

# No "from __future__ import annotations": a named tuple compiles every annotation that is a string, and every
# command imports this module.

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast, get_args

from hostspec.errors import InvalidRequest

__all__ = ["POLICY_PREFIX", "OnSlowPath", "Policy", "Shift", "Strategy", "parse_policy", "seconds_of"]

POLICY_PREFIX = "hostspec"
"""What stands before the name of such an option, where a driver's name stands before that driver's."""

Strategy = Literal["auto", "shift", "template", "copy"]
"""How a container gets its ID map: shifted when it is mounted, or on a mapped copy of the image's top
layer, made by the driver (template) or by diff and apply (copy). ``auto`` takes the first that works."""

Shift = Literal["auto", "native-only"]
"""Where to shift: wherever the driver can, or only where the Go library would, too."""

OnSlowPath = Literal["allow", "warn", "refuse"]
"""What to do where a container takes a copy for which the content of files has to be copied."""

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}


class Policy(NamedTuple):
    """The store's own options."""

    shift: Shift = "auto"
    """Where to shift."""
    idmap_strategy: Strategy = "auto"
    """The strategy of containers for which none is named."""
    on_slow_path: OnSlowPath = "allow"
    """What to do where a container takes a slow copy."""
    remove_mapped_unused_for: float | None = None
    """Seconds after which unused mapped copies are removed, or ``None`` to keep them."""

    def as_options(self) -> tuple[str, ...]:
        """Return what differs from the defaults as ``hostspec.NAME=VALUE``."""
        default = Policy()
        changed = [each for each in zip(self._fields, self, default, strict=True) if each[1] != each[2]]
        return tuple(
            f"{POLICY_PREFIX}.{name}={f'{value:g}s' if isinstance(value, float) else value}"
            for name, value, _ in changed
        )


def parse_policy(options: Sequence[tuple[str, str]]) -> Policy:
    """Read the store's own options; of one given twice, the last counts, and an empty one is none.

    Args:
        options: Names without the prefix, and values.

    Raises:
        InvalidRequest: There is no such option, or not with this value.
    """
    given = dict(options)
    unknown = sorted(given.keys() - set(Policy._fields))
    if unknown:
        reason = f"is not known; there are {', '.join(Policy._fields)}"
        raise InvalidRequest(f"option {POLICY_PREFIX}.{unknown[0]}", reason)
    age = given.get("remove_mapped_unused_for")
    return Policy(
        shift=cast(Shift, _one_of(given, "shift", get_args(Shift))),
        idmap_strategy=cast(Strategy, _one_of(given, "idmap_strategy", get_args(Strategy))),
        on_slow_path=cast(OnSlowPath, _one_of(given, "on_slow_path", get_args(OnSlowPath))),
        remove_mapped_unused_for=(
            seconds_of(age, f"option {POLICY_PREFIX}.remove_mapped_unused_for={age}") if age else None
        ),
    )


def seconds_of(text: str, subject: str) -> float:
    """Return the seconds in a time such as ``7d``, ``1d12h``, ``90m`` or ``0``.

    Args:
        text: Numbers, each with ``w``, ``d``, ``h``, ``m`` or ``s`` behind it.
        subject: What it was given for, for the message.

    Raises:
        InvalidRequest: It is no such time.
    """
    import re  # noqa: PLC0415 - few commands are told a time

    parts = re.findall(r"(\d+(?:\.\d+)?)([wdhms])", text, re.ASCII)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise InvalidRequest(subject, "must be a time such as 7d, 12h or 0")
    return sum((float(number) * _SECONDS[unit] for number, unit in parts), 0.0)


def _one_of(given: dict[str, str], name: str, values: tuple[str, ...]) -> str:
    value = given.get(name) or values[0]
    if value not in values:
        reason = f"must be one of {', '.join(values)}"
        raise InvalidRequest(f"option {POLICY_PREFIX}.{name}={value}", reason)
    return value
