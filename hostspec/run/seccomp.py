"""Which system calls a container may make: the profile that podman uses, where it is installed.

The file (containers/common, ``seccomp.json``, and moby's of the same form) has rules that hold for some
architectures, capabilities or kernels only; a runtime is given those that hold here (OCI runtime
specification, ``config-linux.md``, "Seccomp").
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hostspec.errors import InvalidRequest

__all__ = ["seccomp_for", "system_profile"]

PROFILES = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")
"""Where a profile is looked for: the administrator's, then the distribution's."""

_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "amd64"),
    "aarch64": ("SCMP_ARCH_AARCH64", "arm64"),
    "armv7l": ("SCMP_ARCH_ARM", "arm"),
    "ppc64le": ("SCMP_ARCH_PPC64LE", "ppc64le"),
    "riscv64": ("SCMP_ARCH_RISCV64", "riscv64"),
    "s390x": ("SCMP_ARCH_S390X", "s390x"),
}
"""By what the kernel calls a machine: what libseccomp and Go call it."""

Json = Mapping[str, Any]


def system_profile(places: Sequence[str] = PROFILES) -> Json | None:
    """Return the profile of this machine, or ``None`` where there is none or the kernel cannot filter.

    Raises:
        InvalidRequest: It cannot be understood.
    """
    path = next((each for each in places if os.path.exists(each)), None)
    if path is None or not _kernel_filters():
        return None
    try:
        with open(path, encoding="utf-8") as file:
            profile = json.load(file)
    except ValueError as error:
        raise InvalidRequest(path, f"is not JSON: {error}") from error
    if not isinstance(profile, dict) or "defaultAction" not in profile:
        raise InvalidRequest(path, "is no seccomp profile")
    return profile


def seccomp_for(
    profile: Json, capabilities: Collection[str], *, machine: str, kernel: str
) -> dict[str, object] | None:
    """Return what of a profile holds, as a runtime takes it; ``None`` for a machine that no profile knows.

    Args:
        profile: The profile.
        capabilities: Those that a process in the container may have.
        machine: What the kernel calls the architecture, ``x86_64``.
        kernel: The kernel's release, ``6.1.0``.
    """
    if machine not in _ARCHITECTURES:
        return None
    native, go_name = _ARCHITECTURES[machine]
    further = (each for each in profile.get("archMap") or () if each.get("architecture") == native)
    found: dict[str, object] = {
        "defaultAction": profile["defaultAction"],
        "architectures": [native, *(sub for each in further for sub in each.get("subArchitectures") or ())],
        "syscalls": [
            _rule(each)
            for each in profile.get("syscalls") or ()
            if _holds(each, capabilities, go_name, _version(kernel))
        ],
    }
    if profile.get("defaultErrnoRet") is not None:
        found["defaultErrnoRet"] = profile["defaultErrnoRet"]
    return found


def _rule(rule: Json) -> dict[str, object]:
    found = {"names": rule["names"], "action": rule["action"], "args": rule.get("args") or []}
    if rule.get("errnoRet") is not None:
        found["errnoRet"] = rule["errnoRet"]
    return found


def _holds(rule: Json, capabilities: Collection[str], architecture: str, kernel: tuple[int, ...]) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    needed, forbidden = includes.get("caps") or (), excludes.get("caps") or ()
    only, never = includes.get("arches") or (architecture,), excludes.get("arches") or ()
    return (
        all(each in capabilities for each in needed)
        and not any(each in capabilities for each in forbidden)
        and architecture in only
        and architecture not in never
        and kernel >= _version(includes.get("minKernel") or "0")
        and not (excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]))
    )


def _version(release: str) -> tuple[int, ...]:
    """Return major and minor number of a kernel."""
    return tuple(int(each) for each in re.findall(r"\d+", release)[:2])


def _kernel_filters() -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return any(line.startswith("Seccomp:") for line in file)
