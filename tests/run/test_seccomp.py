from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pytest

from hostspec.errors import InvalidRequest
from hostspec.run.seccomp import PROFILES, seccomp_for, system_profile
from hostspec.testing.requirements import require_or_skip
from tests.run.stages import IMAGE, MAP, Stage

ALLOW, REFUSE = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
PROFILE = {
    "defaultAction": REFUSE,
    "defaultErrnoRet": 38,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        {"names": ["read"], "action": ALLOW},
        {"names": ["arch_prctl"], "action": ALLOW, "includes": {"arches": ["amd64"]}},
        {"names": ["bpf"], "action": ALLOW, "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["bpf"], "action": REFUSE, "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["ptrace"], "action": ALLOW, "includes": {"minKernel": "4.8"}},
        {"names": ["socket"], "action": ALLOW, "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
    ],
}


def _rules(found: object) -> list[tuple[str, str]]:
    assert isinstance(found, dict)
    return [(name, rule["action"]) for rule in found["syscalls"] for name in rule["names"]]


def test_the_rules_that_hold_here_are_given_to_the_runtime() -> None:
    found = seccomp_for(PROFILE, {"CAP_CHOWN"}, machine="x86_64", kernel="6.1.0-13-amd64")
    assert _rules(found) == [
        ("read", ALLOW), ("arch_prctl", ALLOW), ("bpf", REFUSE), ("ptrace", ALLOW), ("socket", ALLOW),
    ]  # fmt: skip
    assert found is not None
    assert (found["defaultAction"], found["defaultErrnoRet"]) == (REFUSE, 38)
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]


def test_rules_go_by_architecture_capabilities_and_kernel() -> None:
    found = seccomp_for(PROFILE, {"CAP_SYS_ADMIN"}, machine="aarch64", kernel="4.7")
    assert _rules(found) == [("read", ALLOW), ("bpf", ALLOW), ("socket", ALLOW)]
    assert seccomp_for(PROFILE, (), machine="pdp11", kernel="4.7") is None


def test_a_file_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    for content in ("nothing", "[]", "{}"):
        (tmp_path / "seccomp.json").write_text(content)
        with pytest.raises(InvalidRequest):
            system_profile([str(tmp_path / "seccomp.json")])
    assert system_profile([str(tmp_path / "missing")]) is None


@pytest.mark.parametrize("flags", [(), ("--uidmap", MAP)], ids=["unmapped", "mapped"])
def test_system_calls_are_filtered_where_podmans_profile_is_installed(
    stage: Stage, flags: tuple[str, ...]
) -> None:
    if not any(map(os.path.exists, PROFILES)):
        require_or_skip("podman", "it is not installed, and neither is its profile")
    assert "Seccomp:\t2" in stage.good("run", "--rm", *flags, IMAGE, "cat", "/proc/self/status")


def test_the_installed_profile_lets_a_process_start_and_end() -> None:
    profile = system_profile()
    if profile is None:
        require_or_skip("podman", "it is not installed, and neither is its profile")
    found = seccomp_for(profile, (), machine=platform.machine(), kernel=platform.release())
    allowed = {name for name, action in _rules(json.loads(json.dumps(found))) if action == ALLOW}
    assert {"execve", "exit_group", "openat"} <= allowed
