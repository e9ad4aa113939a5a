from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostspec.idmap import IdMap
from hostspec.kernel.mounts import mount
from hostspec.kernel.subordinate_ids import own_id_map
from hostspec.kernel.usernamespaces import MAX_RANGES, run_in_user_namespace


def run(function: object, idmap: IdMap | None = None) -> int:
    try:
        return run_in_user_namespace(idmap or own_id_map(), function)  # type: ignore[arg-type]
    except OSError as refusal:
        pytest.skip(f"no user namespaces here: {refusal}")


def test_inside_one_is_root_and_may_mount(tmp_path: Path) -> None:
    def inside() -> int:
        mount("tmpfs", str(tmp_path), "tmpfs")
        (tmp_path / "seen inside").touch()
        return 7 if (os.geteuid(), os.getegid()) == (0, 0) else 1

    assert run(inside) == 7
    assert list(tmp_path.iterdir()) == []


def test_a_file_made_inside_belongs_to_the_caller(tmp_path: Path) -> None:
    def inside() -> int:
        (tmp_path / "file").touch()
        return 0

    assert run(inside) == 0
    assert (tmp_path / "file").stat().st_uid == os.geteuid()


def test_what_is_raised_inside_is_printed_and_the_status_is_1(capfd: pytest.CaptureFixture[str]) -> None:
    def inside() -> int:
        raise RuntimeError("of the child")

    assert run(inside) == 1
    assert "RuntimeError: of the child" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may grant itself IDs")
def test_a_map_that_is_refused_ends_the_child(tmp_path: Path) -> None:
    def inside() -> int:
        (tmp_path / "ran").touch()
        return 0

    more_than_the_kernel_takes = [(2 * each, 2 * each, 1) for each in range(MAX_RANGES + 1)]
    with pytest.raises(OSError, match="map"):
        run_in_user_namespace(IdMap(more_than_the_kernel_takes, [(0, 0, 1)]), inside)

    assert not (tmp_path / "ran").exists()
