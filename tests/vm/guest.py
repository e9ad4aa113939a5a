"""Running a command under another kernel: a virtual machine that sees this machine's files.

Its root is the host's, read-only, so that every path, Python and checkout among them, is at its own place;
what the guest writes is in memory and gone in the end. Python, its packages and the checkout are copied into
the guest's memory when it starts: older kernels read shared files page by page, and what changes in the
checkout meanwhile makes no difference. A fresh ext4 disk is at ``/scratch``, and ``TMPDIR`` lies on it. There
is no network but the loopback, no terminal, and nothing on standard input.

The processor is emulated, since ``/dev/kvm`` of a machine that is virtual itself may hang: everything
takes ten to forty times as long as outside, and most of all starting processes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.vm.kernels import Kernel, cache

__all__ = ["REPORT", "Finished", "run_in_guest"]

_STAGE2 = Path(__file__).with_name("stage2.sh")
_QEMU = "qemu-system-x86_64"
_KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic mitigations=off nokaslr random.trust_cpu=on"
)
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "VIRTUAL_ENV", "PYTHONPATH")
_SHOWN_LINES = 40
_SECONDS_TO_END = 300

REPORT = "/run/host/report.xml"
"""Where a command in the guest leaves a report."""


class Finished(NamedTuple):
    """What a command in a guest came to."""

    status: int | None
    """Its exit status; ``None`` where the guest ended without one, or was stopped when its time was over."""
    output: str
    """What it wrote to standard output and standard error."""
    report: str
    """What it wrote to :data:`REPORT`, or ``""``."""
    console: str
    """The last lines of the guest's console."""


def run_in_guest(
    kernel: Kernel,
    command: Sequence[str],
    *,
    directory: str,
    environment: Mapping[str, str],
    timeout: float,
    memory_mib: int = 3072,
    disk_mib: int = 4096,
) -> Finished:
    """Boot a kernel, run a command as root, and switch the machine off.

    Args:
        kernel: From :func:`tests.vm.kernels.fetch`.
        command: Program and arguments.
        directory: Working directory of the command, absolute.
        environment: Variables for the command, beside a few of this process.
        timeout: Seconds after which the command is interrupted, so that it can still write its report; five
            minutes later the machine is stopped.
        memory_mib: Memory of the machine in MiB.
        disk_mib: Size of the scratch disk in MiB; only what is written is used.
    """
    runs = cache() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runs) as place:
        exchange = Path(place)
        _make_disk(exchange / "disk", disk_mib)
        _pack(exchange / "copied.tar", directory)
        limited = ("timeout", "--signal=INT", f"{timeout:.0f}", *command)
        _write_orders(exchange, kernel, limited, directory, environment)
        with subprocess.Popen(
            _machine(kernel, exchange, memory_mib), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as machine:
            try:
                _, said = machine.communicate(timeout=timeout + _SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                machine.kill()
                _, said = machine.communicate()
        console = _read(exchange / "console").splitlines()[-_SHOWN_LINES:]
        status = _read(exchange / "status").strip()
        return Finished(
            int(status) if status else None,
            _read(exchange / "output"),
            _read(exchange / "report.xml"),
            "\n".join([*console, said.decode(errors="replace")]),
        )


def _make_disk(path: Path, size_mib: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_mib << 20)
    program = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "mkfs.ext4"
    options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    subprocess.run([program, "-q", "-F", "-E", options, path], check=True)


def _pack(path: Path, directory: str) -> None:
    """Pack what the guest copies into its memory."""
    library = sysconfig.get_path("stdlib")
    packages = sysconfig.get_path("purelib")
    left_out = (f"{library}/test", f"{library}/site-packages", *_left_out(directory))
    # Packages come last and by name, since they may lie below what is left out.
    for number, tree in enumerate((library, directory, packages)):
        exclude = [f"--exclude={each[1:]}" for each in left_out if tree != packages]
        mode = "-r" if number else "-c"
        subprocess.run(["tar", mode, "-f", path, *exclude, "-C", "/", tree[1:]], check=True)


def _left_out(checkout: str) -> list[str]:
    return [f"{checkout}/{name}" for name in (".git", ".venv", ".mypy_cache", ".hypothesis", "build")]


def _write_orders(
    exchange: Path, kernel: Kernel, command: Sequence[str], directory: str, environment: Mapping[str, str]
) -> None:
    variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    variables |= {"TMPDIR": "/scratch/tmp", **environment}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines += [f"cd {shlex.quote(directory)}", f"exec {shlex.join(command)}", ""]
    (exchange / "command").write_text("\n".join(lines), encoding="utf-8")
    (exchange / "settings").write_text(
        f"VERSION={shlex.quote(kernel.version)}\nMODULES={shlex.quote(str(kernel.modules))}\n",
        encoding="utf-8",
    )
    shutil.copy(_STAGE2, exchange / "stage2.sh")


def _machine(kernel: Kernel, exchange: Path, memory_mib: int) -> list[str]:
    return [
        *(_QEMU, "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off", "-M", "q35"),
        *("-smp", "2", "-m", str(memory_mib), "-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none", "-serial", f"file:{exchange}/console"),
        *("-kernel", str(kernel.image), "-initrd", str(kernel.initramfs), "-append", _KERNEL_ARGUMENTS),
        *("-drive", f"file={exchange}/disk,if=none,id=disk,format=raw,cache=unsafe"),
        *("-drive", f"file={exchange}/copied.tar,if=none,id=copied,format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=disk", "-device", "virtio-blk-pci,drive=copied"),
        *("-device", "virtio-rng-pci"),
        *("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-9p-pci,fsdev=root,mount_tag=hostroot"),
        *("-fsdev", f"local,id=exchange,path={exchange},security_model=none"),
        *("-device", "virtio-9p-pci,fsdev=exchange,mount_tag=exchange"),
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
