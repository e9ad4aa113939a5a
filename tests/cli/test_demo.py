from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pluggy
import pytest

from hostspec.cli.demo.host_ids import HostIds, three_maps
from hostspec.cli.demo.listing import CheckFailed, check, listing
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import mount_points

DEMO = [sys.executable, "-c", "import sys; from hostspec.cli.main import main; sys.exit(main())", "demo"]
NOBODY = 65534


@pytest.fixture
def rootfs(ext4_directory: str) -> Path:
    """A small root file system that everyone may read."""
    root = Path(ext4_directory, "rootfs")
    for name in ("etc/first", "etc/second", "etc/third", "bin/sh"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (root / "bin/sh").chmod(0o755)
    (root / "bin/link").symlink_to("sh")
    return root


def demo(rootfs: Path, *words: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    scratch = rootfs.parent / "scratch"
    scratch.mkdir(mode=0o777)
    scratch.chmod(0o777)
    done = subprocess.run(
        [*DEMO, "--rootfs", str(rootfs), "--scratch", str(scratch), *words],
        capture_output=True, check=False, text=True, user=user, group=user,
        extra_groups=None if user is None else [], env={**os.environ, "HOME": str(scratch)},
    )  # fmt: skip
    assert mount_points(str(scratch)) == []
    assert list(scratch.iterdir()) == [], "it deletes everything"
    return done


@pytest.mark.skipif(os.geteuid() != 0, reason="the demo as root")
def test_as_root_every_driver_maps_in_each_way_that_it_has(rootfs: Path) -> None:
    done = demo(rootfs, "--json")

    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert not [row["failure"] for row in rows if row["failure"]]
    tried = {row["driver"]: {each["strategy"] for each in row["outcomes"]} for row in rows if row["outcomes"]}
    assert tried["vfs"] - {"shift"} == {"copy"}
    assert {"template", "copy"} <= tried.get("overlay", {"template", "copy"})
    for row in rows:
        assert bool(row["outcomes"]) is not bool(row["reason"])
        # The root directory, two directories, four files less the one deleted, one of them renamed, a link.
        assert {each["files"] for each in row["outcomes"]} <= {7}


def _can_run_as_nobody() -> bool:
    try:
        return not subprocess.run([*DEMO, "--help"], user=NOBODY, capture_output=True, check=False).returncode
    except OSError:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_an_ordinary_user_sees_what_is_possible_and_why_not_the_rest(rootfs: Path) -> None:
    if not _can_run_as_nobody():
        pytest.skip("this Python is not for everyone to run")

    done = demo(rootfs, user=NOBODY)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "vfs " in done.stdout
    assert "any driver on xfs: only root can mount a scratch file system" in done.stdout
    assert "squashed" in done.stdout or "subordinate IDs of this user" in done.stdout


def test_where_no_driver_is_installed_it_says_what_to_install(tmp_path: Path) -> None:
    """Every other distribution is there, and hostspec itself as it lies in the repository."""
    for each in Path(pluggy.__file__).parents[1].iterdir():
        if "hostspec" not in each.name:
            (tmp_path / each.name).symlink_to(each)
    path = os.pathsep.join((str(tmp_path), str(Path(__file__).parents[2])))
    done = subprocess.run(
        [sys.executable, "-S", *DEMO[1:]],
        capture_output=True, check=False, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "none is installed; pip install hostspec-overlay" in done.stderr


def test_an_input_that_is_not_there_is_named() -> None:
    done = subprocess.run([*DEMO, "--rootfs", "/nowhere"], capture_output=True, check=False, text=True)

    assert done.returncode == 1
    assert "/nowhere" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "host_ids",
    [HostIds(1 << 20, 0xFFFF_FFFF - (1 << 20), ""), HostIds(1, 65_536, ""), HostIds(0, 1, "")],
    ids=["root", "subordinate", "single"],
)
def test_no_two_rounds_share_a_map(host_ids: HostIds) -> None:
    maps = [idmap for turn in range(3) for idmap in three_maps(host_ids, turn, [0, 33, 1000, 65_534])]

    assert len(set(maps)) == 9
    for idmap in maps:
        for ranges in (idmap.uids, idmap.gids):
            assert all(host_ids.first <= each.host_id for each in ranges)
            assert all(each.host_id + each.size <= host_ids.first + host_ids.size for each in ranges)
            assert host_ids.squash or all(ranges.find_host(each) is not None for each in (0, 33, 65_534))


def _tree(root: Path) -> Path:
    (root / "d").mkdir(parents=True)
    (root / "d/file").write_bytes(b"content")
    return root


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
@pytest.mark.parametrize("damage", ["owner", "content", "missing", "surplus", "mode"])
def test_what_is_wrong_in_a_mount_is_found(tmp_path: Path, damage: str) -> None:
    expected = listing(str(_tree(tmp_path / "unmapped")))
    root = _tree(tmp_path / "mapped")
    idmap = IdMap.parse(["0:1000:10"])
    for path in (root, root / "d", root / "d/file"):
        os.chown(path, 1000, 1000)
    check(str(root), expected, idmap)

    file = root / "d/file"
    if damage == "owner":
        os.chown(file, 1000, 0)
    elif damage == "content":
        file.write_bytes(b"kontent")
    elif damage == "missing":
        file.unlink()
    elif damage == "surplus":
        (root / "d/other").touch()
    else:
        file.chmod(0o600)

    with pytest.raises(CheckFailed, match="d/"):
        check(str(root), expected, idmap)
