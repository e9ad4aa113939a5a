"""``hostspec bench``: every installed driver does the standard work, and nothing of it is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostspec.cli.bench.work import WORKS
from hostspec.cli.main import main
from hostspec.testing.requirements import require_or_skip
from tests.scratch_filesystems import require_mkfs

COMMAND = "import sys; from hostspec.cli.main import main; sys.exit(main())"


def bench(scratch: Path, *words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-c", COMMAND, "bench", "--scratch", str(scratch), "--repeat=1", *words)
    environment = os.environ if path is None else os.environ | {"PYTHONPATH": str(path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        require_or_skip("root", "layers are mounted")
    return tmp_path / "scratch"


def test_the_asked_driver_does_every_work_beside_the_others(scratch: Path) -> None:
    require_mkfs("btrfs")
    done = bench(scratch, "--driver=vfs", "--files=3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    columns = json.loads(done.stdout)
    first = columns[0]
    assert (first["driver"], first["reason"]) == ("vfs", "")
    assert set(WORKS) - set(first["samples"]) <= {"child, mapped by shift"}
    assert {len(samples) for samples in first["samples"].values()} == {1}
    assert {"overlay", "btrfs"} <= {each["driver"] for each in columns if each["samples"]}
    assert not any(each["reason"].startswith("failed") for each in columns)
    assert os.listdir(scratch) == []


def test_the_table_has_a_line_for_each_work_and_says_why_a_driver_is_missing(scratch: Path) -> None:
    require_mkfs("btrfs")
    done = bench(scratch, "--driver=btrfs", "--files=3")
    assert done.returncode == 0, done.stderr
    assert all(f"\n{work}  " in done.stdout for work in WORKS)
    assert "must be on btrfs" in done.stdout


def test_a_driver_that_is_not_written_yet_fails_alone(
    scratch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new-driver", "fresh", str(tmp_path / "fresh")]) == 0
    capsys.readouterr()
    facts = tmp_path / "fresh" / "hostspec_fresh-1.0.dist-info"
    facts.mkdir()
    (facts / "entry_points.txt").write_text("[hostspec.drivers]\nfresh = hostspec_fresh:open_driver\n")

    done = bench(scratch, "--driver=fresh", "--files=3", path=tmp_path / "fresh")

    assert (done.returncode, done.stderr) == (1, "")
    assert "fresh: failed: NotImplementedError: fresh: create is not written yet" in done.stdout
    assert "\nremove and reclaim  " in done.stdout


@pytest.mark.parametrize(
    ("words", "said"), [(("--driver=none",), "is not installed"), (("--files=0",), "no number above 0")]
)
def test_what_cannot_be_measured_is_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert main(["bench", *words]) == 1
    assert said in capsys.readouterr().err
