"""``hostspec run`` as its users see it: streams, terminal, signals, exit codes."""

from __future__ import annotations

import hashlib
import os
import pty
import shlex
import signal

import pytest

from hostspec.kernel.mountinfo import mount_table
from tests.run.stages import ENVIRONMENT, IMAGE, MAP, Stage

MUCH = 100_000_000  # bytes


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


def test_a_failure_of_hostspec_itself_has_the_exit_code_125(stage: Stage) -> None:
    done = stage("run", "--runtime", "no-such-runtime", IMAGE, "sh")
    assert done.code == 125
    assert "no-such-runtime: is not installed" in done.err
    assert stage("run", "nowhere", "sh").code == 125


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
    script = f"trap 'exit 9' {number.name.removeprefix('SIG')}; echo ready; while :; do sleep 0.05; done"
    with stage.started("run", "--rm", IMAGE, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait() == 9
    assert stage.containers() == []


def _typed(stage: Stage, text: bytes, *words: str) -> tuple[int, bytes]:
    """Run a command on a terminal, type a text, and return its exit code and what is seen."""
    command = [*stage.command, *words]
    child, terminal = pty.fork()
    if child == 0:
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


def test_a_terminal_needs_the_foreground(stage: Stage) -> None:
    done = stage("run", "-d", "-t", IMAGE, "sh")
    assert done.code == 125
    assert "--tty" in done.err
