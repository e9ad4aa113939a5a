"""Debian's kernels, unpacked beside each other to be booted in a virtual machine; nothing is installed.

Each lies below the cache directory (``HOSTSPEC_VM_CACHE``, else ``~/.cache/hostspec-vm``)::

    apt/                 an apt state of its own: the machine's sources and packages are left alone
    packages/            what was downloaded
    kernels/VERSION/     kernel, modules, and an initramfs that leads to the host's root

Needs apt, dpkg-deb, kmod and a static busybox, and the machine's own Debian sources to know the mirror.
Ordinary kernels, not those for clouds, which lack 9p.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.vm.expectations import NEWEST

__all__ = ["Kernel", "cache", "fetch", "latest"]

SUITES = (
    ("debian-security", "bullseye-security"),
    ("debian-security", "bookworm-security"),
    ("debian", "trixie-backports"),
)
"""Archive and suite: between them 5.10, 6.1, 6.12 and the newest."""

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_MODULES_IN_INITRAMFS = ("virtio_pci", "virtio_blk", "9pnet_virtio", "9p", "overlay", "ext4", "virtio_rng")
_LEFT_OUT = (
    "*/kernel/sound",
    "*/kernel/drivers/[!bvcmn]*",
    "*/kernel/drivers/media",
    "*/kernel/drivers/mmc",
    "*/kernel/drivers/net/[!dtvl]*",
    "./usr/share",
    "*/System.map*",
)
_INIT = Path(__file__).with_name("init.sh")


class Kernel(NamedTuple):
    """A kernel that can be booted."""

    version: str
    """As ``uname -r`` has it."""
    directory: Path
    """Where it is unpacked."""

    @property
    def image(self) -> Path:
        """What to boot."""
        found = next(self.directory.glob("boot/vmlinuz-*"), None)
        return found or next(each for each in self.directory.rglob("vmlinu[xz]*") if each.is_file())

    @property
    def modules(self) -> Path:
        """What belongs at ``/lib/modules/VERSION``."""
        return self.directory / "lib/modules" / self.version

    @property
    def initramfs(self) -> Path:
        """What is booted with it."""
        return self.directory / "initramfs"


def cache() -> Path:
    """Return the directory in which kernels are kept."""
    chosen = os.environ.get("HOSTSPEC_VM_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache/hostspec-vm"


def latest(series: str) -> str:
    """Return the newest version that Debian offers, of a series (``"6.1"``) or of all (``"newest"``).

    Raises:
        LookupError: It offers none.
        subprocess.CalledProcessError: The package lists cannot be had.
    """
    _update()
    offered = _apt("apt-cache", "pkgnames", "linux-image-").split()
    numbers = r"[0-9.]+" if series == NEWEST else rf"{re.escape(series)}\.[0-9.]+"
    pattern = re.compile(rf"linux-image-({numbers}(-\d+|\+deb\d+)-amd64)")
    versions = [found[1] for name in offered if (found := pattern.fullmatch(name))]
    if not versions:
        raise LookupError(f"Debian offers no kernel {series} in {', '.join(suite for _, suite in SUITES)}")
    return max(versions, key=lambda text: [int(number) for number in re.findall(r"\d+", text)])


def fetch(version: str) -> Kernel:
    """Return a kernel, downloaded and unpacked unless it has been before.

    Raises:
        subprocess.CalledProcessError: It cannot be had, or a program failed.
    """
    kernel = Kernel(version, cache() / "kernels" / version)
    if not kernel.directory.is_dir():
        kernel.directory.parent.mkdir(parents=True, exist_ok=True)
        # Made beside its place and renamed, so that an interrupted run leaves no half one.
        with tempfile.TemporaryDirectory(dir=kernel.directory.parent) as unfinished:
            unpacked = Kernel(version, Path(unfinished) / version)
            _unpack(unpacked)
            unpacked.directory.rename(kernel.directory)
    # Always made anew, since init.sh may have changed; it takes a moment.
    _make_initramfs(kernel)
    return kernel


def _unpack(kernel: Kernel) -> None:
    packages = cache() / "packages"
    packages.mkdir(exist_ok=True)
    kernel.directory.mkdir()
    for package in _packages(kernel.version):
        if not any(packages.glob(f"{package}_*.deb")):
            _apt("apt-get", "download", "-qq", package, cwd=packages)
        archive = next(packages.glob(f"{package}_*.deb"))
        left_out = [f"--exclude={each}" for each in _LEFT_OUT]
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as unpacking:
            command = ["tar", "-x", "-C", str(kernel.directory), "--wildcards", *left_out]
            subprocess.run(command, stdin=unpacking.stdout, check=True)
    if not (kernel.directory / "lib").exists():
        (kernel.directory / "lib").symlink_to("usr/lib")
    subprocess.run(["depmod", "-b", kernel.directory, kernel.version], check=True, capture_output=True)


def _packages(version: str) -> tuple[str, ...]:
    """Return the packages that make up a kernel: one, or since 7.x three."""
    parts = (f"linux-binary-{version}", f"linux-modules-{version}", f"linux-base-{version}")
    known = subprocess.run(
        ["apt-cache", "show", parts[1]], env=_environment(), check=False, capture_output=True
    )
    return (f"linux-image-{version}",) if known.returncode else parts


def _make_initramfs(kernel: Kernel) -> None:
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place)
        for name in ("bin", "mod", "proc", "sys", "dev", "ro", "rw", "newroot"):
            (tree / name).mkdir()
        shutil.copy(shutil.which("busybox") or "/bin/busybox", tree / "bin/busybox")
        (tree / "bin/sh").symlink_to("busybox")
        shutil.copy(_INIT, tree / "init")
        (tree / "init").chmod(0o755)
        for number, module in enumerate(_needed_modules(kernel)):
            target = tree / f"mod/{number:03}-{module.name.split('.')[0]}.ko"
            target.write_bytes(_uncompressed(module))
        names = "\n".join(str(each.relative_to(tree)) for each in sorted(tree.rglob("*")))
        packed = subprocess.run(
            ["busybox", "cpio", "-o", "-H", "newc"],
            input=names.encode(),
            cwd=tree,
            check=True,
            capture_output=True,
        )
    kernel.initramfs.write_bytes(gzip.compress(packed.stdout, compresslevel=1))


def _needed_modules(kernel: Kernel) -> list[Path]:
    """Return the modules to load first, in order; those that are built in are left out."""
    found: dict[Path, None] = {}
    for name in _MODULES_IN_INITRAMFS:
        command = ["modprobe", "-d", str(kernel.directory), "-S", kernel.version, "--show-depends", name]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        for line in told.stdout.splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "insmod":
                found[Path(rest.split()[0])] = None
    return list(found)


def _uncompressed(module: Path) -> bytes:
    programs = {".xz": ["xz", "-dc"], ".zst": ["zstd", "-dcq"]}
    program = programs.get(module.suffix)
    if program is None:
        return module.read_bytes()
    return subprocess.run([*program, module], check=True, capture_output=True).stdout


def _update() -> None:
    """Read the package lists of the mirror that this machine uses already."""
    apt = cache() / "apt"
    for name in ("state/lists/partial", "cache/archives/partial", "etc/sources.list.d", "etc/preferences.d"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "state/status").touch()
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)"], check=True, capture_output=True, text=True
    )
    site = next(each for each in told.stdout.split() if each.rstrip("/").endswith("/debian"))
    mirror = site.rstrip("/").removesuffix("/debian")
    (apt / "etc/sources.list").write_text(
        "".join(f"deb [signed-by={_KEYRING}] {mirror}/{archive} {suite} main\n" for archive, suite in SUITES),
        encoding="utf-8",
    )
    (apt / "apt.conf").write_text(
        f'Dir::State "{apt}/state"; Dir::State::status "{apt}/state/status"; Dir::Cache "{apt}/cache";\n'
        f'Dir::Etc::sourcelist "{apt}/etc/sources.list"; Dir::Etc::sourceparts "{apt}/etc/sources.list.d";\n'
        f'Dir::Etc::preferencesparts "{apt}/etc/preferences.d"; APT::Architecture "amd64";\n'
        'APT::Sandbox::User "root"; Acquire::Languages "none"; Acquire::Check-Valid-Until "false";\n',
        encoding="utf-8",
    )
    _apt("apt-get", "update", "-qq")


def _apt(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, env=_environment(), cwd=cwd, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def _environment() -> dict[str, str]:
    return os.environ | {"APT_CONFIG": str(cache() / "apt/apt.conf")}
