"""``hostspec run`` as its users see it: streams, terminal, signals, exit codes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import shlex
import signal
import struct
import sys
import termios
import time

import pytest

from hostspec.kernel.mountinfo import mount_table
from hostspec.run import list_runs
from tests.run.stages import COMMAND, ENVIRONMENT, IMAGE, MAP, Stage

LOADED = """
import sys
from hostspec.cli.main import main
code = main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""

MUCH = 100_000_000  # bytes
SMALL, LARGE = (30, 100), (44, 111)  # lines and columns


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("sh", "-c", "exit 0"), 0),
        (("sh", "-c", "exit 3"), 3),
        (("no-such-program",), 127),
        (("/no/such/program",), 127),
        (("/etc/greeting",), 126),
    ],
)
def test_the_exit_code_is_the_commands_or_podmans_for_one_that_never_ran(
    stage: Stage, command: tuple[str, ...], code: int
) -> None:
    assert stage("run", "--rm", IMAGE, *command).code == code
    assert stage.containers() == []


def test_running_a_container_loads_nothing_that_only_other_commands_need(stage: Stage) -> None:
    flags = stage.command[len(COMMAND) :]
    with stage.beside(sys.executable, "-c", LOADED, *flags, "run", "--rm", IMAGE, "sh", "-c", "") as process:
        _, said = process.communicate()
    loaded = said.decode().split()

    others = ("control", "detached", "joining", "leases", "network", "process", "quota_listening")
    heavy = ("archive", "directory_layers", "images", "store.copies.making", "store.upkeep")
    unwanted = (*(f"hostspec.run.{each}" for each in others), *(f"hostspec.{each}" for each in heavy))
    assert [each for each in loaded if each.startswith((*unwanted, "bz2", "logging", "shutil"))] == []
    assert "hostspec.store.removal" in loaded


def test_a_failure_of_hostspec_itself_has_the_exit_code_125(stage: Stage) -> None:
    done = stage("run", "--runtime", "no-such-runtime", IMAGE, "sh")
    assert done.code == 125
    assert "no-such-runtime: is not installed" in done.err
    assert stage("run", "nowhere", "sh").code == 125
    for command in ("run", "exec"):
        assert stage(command).code == 125
        assert stage(command, "--no-such-flag", IMAGE, "sh").code == 125


def test_containers_run_where_control_groups_cannot_be_made(stage: Stage) -> None:
    hierarchies = [each.mount_point for each in mount_table() if each.filesystem in {"cgroup", "cgroup2"}]
    script = f'for each in {" ".join(hierarchies)}; do mount -o remount,bind,ro $each; done; exec "$@"'
    words = ("run", "--rm", "--uidmap", MAP, IMAGE, "sh", "-c", "echo ran; exit 3")
    with stage.beside("unshare", "-m", "sh", "-c", script, "sh", *stage.command, *words) as process:
        assert process.communicate() == (b"ran\n", b"")
    assert process.returncode == 3


def test_a_service_that_runs_containers_may_have_a_socket_for_its_own_state(stage: Stage) -> None:
    words = shlex.join([*stage.command, "run", "-d", "--name", "web", IMAGE, "sleep", "1000"])
    with stage.beside("sh", "-c", f"NOTIFY_SOCKET=/run/hostspec-nobody exec {words}") as command:
        _, err = command.communicate()
    assert command.returncode == 0, err
    stage.good("rm", "-f", "web")


def test_a_hundred_megabytes_pass_from_standard_input_to_standard_output(stage: Stage) -> None:
    content = os.urandom(1 << 20) * (MUCH // (1 << 20) + 1)
    with stage.started("run", "--rm", "-i", "--uidmap", MAP, IMAGE, "cat") as process:
        out, err = process.communicate(content)
        assert process.returncode == 0, err
    assert hashlib.sha256(out).digest() == hashlib.sha256(content).digest()


def test_standard_input_is_at_its_end_unless_it_is_asked_for(stage: Stage) -> None:
    assert stage.good("run", "--rm", IMAGE, "cat", content=b"unread") == ""
    assert stage.good("run", "--rm", "-i", IMAGE, "cat", content=b"read") == "read"


def test_standard_output_and_standard_error_stay_apart(stage: Stage) -> None:
    done = stage("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2")
    assert (done.out, done.err) == ("out\n", "err\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(stage: Stage, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'exit 9' {name}; echo ready; while :; do sleep 0.05; done"
    # Where the tests run in the background SIGINT is ignored, and what is ignored is not passed on.
    heard = ("env", f"--default-signal={name}", *stage.command)
    with stage.beside(*heard, "run", "--rm", IMAGE, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait() == 9
    assert stage.containers() == []


def _resize(terminal: int, lines: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))


def _typed(stage: Stage, text: bytes, *words: str) -> tuple[int, bytes]:
    """Run a command on a terminal, type a text, and return its exit code and what is seen."""
    command = [*stage.command, *words]
    child, terminal = pty.fork()
    if child == 0:
        _resize(0, *SMALL)
        os.execvpe(command[0], command, ENVIRONMENT)  # noqa: S606 - no shell is wanted
    seen = b""
    with open(terminal, "r+b", buffering=0) as stream:
        stream.write(text)
        try:
            while piece := stream.read(1024):
                seen += piece
        except OSError:
            pass  # how a terminal tells that its other end is closed
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen


def test_a_terminal_is_one_inside_and_passes_what_is_typed(stage: Stage) -> None:
    text = b"/bin/busybox tty; echo $((6 * 7)); exit 5\n"
    code, seen = _typed(stage, text, "run", "--rm", "-it", "--uidmap", MAP, IMAGE, "sh")
    assert code == 5, seen
    assert b"/dev/pts/0\r\n42\r\n" in seen


def test_a_further_process_has_a_terminal_too(stage: Stage) -> None:
    stage.good("run", "-d", "--rm", "--name", "web", IMAGE, "sleep", "1000")
    code, seen = _typed(stage, b"/bin/busybox tty; echo $TERM; exit 6\n", "exec", "-it", "web", "sh")
    assert code == 6, seen
    assert b"/dev/pts/0\r\nxterm\r\n" in seen
    stage.good("rm", "-f", "web")


@pytest.mark.parametrize(
    "words", [("run", "--rm", "-it", IMAGE), ("exec", "-it", "web")], ids=["run", "exec"]
)
def test_a_terminal_has_the_size_of_ours_and_follows_it(stage: Stage, words: tuple[str, ...]) -> None:
    if words[0] == "exec":
        stage.good("run", "-d", "--rm", "--name", "web", IMAGE, "sleep", "1000")
    script = """
/bin/busybox stty size
while [ "$(/bin/busybox stty size)" = "30 100" ]; do sleep 0.05; done
/bin/busybox stty size
"""
    command = [*stage.command, *words, "sh", "-c", script]
    child, terminal = pty.fork()
    if child == 0:
        _resize(0, *SMALL)
        os.execvpe(command[0], command, ENVIRONMENT)  # noqa: S606 - no shell is wanted
    with open(terminal, "rb", buffering=0) as stream:
        seen = b""
        while not seen.endswith(b"30 100\r\n"):
            seen += stream.read(1)
        _resize(terminal, *LARGE)
        while not seen.endswith(b"44 111\r\n"):
            seen += stream.read(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stage("rm", "-f", "web")


def test_where_there_is_no_terminal_none_can_be_given(stage: Stage) -> None:
    with stage.beside("setsid", "-w", *stage.command, "run", "--rm", "-t", IMAGE, "sh") as command:
        _, errors = command.communicate()
    assert command.returncode == 125
    assert b"--tty: there is no terminal here" in errors
    assert stage.containers() == []


def test_who_works_in_the_root_does_not_change_the_exit_code(stage: Stage) -> None:
    with stage.started("run", "-i", "--name", "web", IMAGE, "sh", "-c", "read line; exit 3") as command:
        while not any(each.process for each in list_runs(stage.store)):
            time.sleep(0.01)
        with stage.store.mounting("web") as root:
            user = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _, errors = command.communicate(b"\n")
        finally:
            os.close(user)
    assert command.returncode == 3
    assert b"busy: " in errors
    assert "ended (3)" in stage.good("ps", "-a")
    assert not stage.store.mounted("web")


def test_a_terminal_needs_the_foreground(stage: Stage) -> None:
    done = stage("run", "-d", "-t", IMAGE, "sh")
    assert done.code == 125
    assert "--tty" in done.err
