"""Where the driver may and may not work: a user namespace, too few privileges, an unfit file system."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from hostspec.errors import WrongFilesystem
from hostspec.kernel.mounts import mount, unmount
from hostspec.testing.requirements import require_or_skip
from hostspec_overlay import open_driver

WORK = """
import io, json, os, shutil, sys
from hostspec.driver import GraphDriver
from hostspec.values import LayerRef
from hostspec_overlay import open_driver

home, run_root, name, value = sys.argv[1:]
options = ((name, value),)
driver = GraphDriver("overlay", open_driver(home, run_root, options, ()), home=home, run_root=run_root)
driver.create("base")
with driver.mounted("base", read_only=False) as root:
    os.mkdir(f"{root}/directory")
    for name in ("deleted", "directory/old"):
        open(f"{root}/{name}", "w").close()
driver.commit("base")
base = LayerRef("base")
driver.create("layer", base)
with driver.mounted("layer", read_only=False) as root:
    os.unlink(f"{root}/deleted")
    shutil.rmtree(f"{root}/directory")
    os.mkdir(f"{root}/directory")
driver.commit("layer")
with driver.diff(LayerRef("layer"), base) as stream:
    driver.create("applied", base)
    driver.apply_diff("applied", stream)
driver.commit("applied")
with driver.mounted("applied") as root:
    shown = sorted(os.path.relpath(os.path.join(where, name), root)
                   for where, names, files in os.walk(root) for name in (*names, *files))
changes = {}
for name in ("layer", "applied"):
    changes[name] = [str(each) for each in driver.changes(LayerRef(name), base)]
json.dump([shown, changes, dict(driver.status())], sys.stdout)
driver.cleanup()
"""


def facts_without_privileges(directory: str, option: tuple[str, str]) -> dict[str, str]:
    """Make and tell layers in a user namespace, and return what the driver says of itself there."""
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", WORK]
    words = [f"{directory}/overlay", f"{directory}/run", *option]
    done = subprocess.run([*command, *words], capture_output=True, check=False)
    if done.returncode and b"unshare failed" in done.stderr:
        require_or_skip("user namespaces", done.stderr.decode().strip())
    assert done.returncode == 0, done.stderr.decode()
    shown, changes, facts = json.loads(done.stdout)

    assert shown == ["directory"]
    assert changes["layer"] == ["Delete /deleted", "Modify /directory", "Delete /directory/old"]
    assert changes["applied"] == changes["layer"]
    assert isinstance(facts, dict)
    return facts


def test_layers_are_made_and_told_by_a_mount_program_without_privileges(
    ext4_directory: str, mount_program: str
) -> None:
    facts = facts_without_privileges(ext4_directory, ("mount_program", mount_program))
    assert facts["Mount program"] == mount_program


def test_layers_are_made_and_told_without_privileges(ext4_directory: str) -> None:
    facts = facts_without_privileges(ext4_directory, ("mountopt", "metacopy=on"))
    assert "userxattr" in facts["Mount options"]
    assert facts["metacopy"].startswith("no ")


def test_who_may_not_mount_is_told_so() -> None:
    program = (
        "from hostspec_overlay import open_driver; open_driver('/nowhere/overlay', '/nowhere/run', (), ())"
    )
    done = subprocess.run(
        ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-c", program],
        capture_output=True,
        check=False,
    )
    assert b"PrerequisitesMissing" in done.stderr
    assert b"CAP_SYS_ADMIN" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_home_on_an_unfit_file_system_is_refused(ext4_directory: str) -> None:
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{ext4_directory}/{name}")
    parts = (f"{option}dir={ext4_directory}/{option}" for option in ("lower", "upper", "work"))
    mount("overlay", f"{ext4_directory}/merged", "overlay", 0, ",".join(parts))

    with pytest.raises(WrongFilesystem, match="overlay, which cannot hold overlay layers"):
        open_driver(f"{ext4_directory}/merged/overlay", f"{ext4_directory}/run", (), ())

    unmount(f"{ext4_directory}/merged")
