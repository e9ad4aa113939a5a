"""What can be asked for, and what an image says where nothing is asked for."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from hostspec.errors import InvalidRequest
from hostspec.images import import_image
from hostspec.run import RunOptions, Volume
from hostspec.run.accounts import Account, find_account
from hostspec.run.bundle import arguments_of, environment_of
from hostspec.run.image_config import ImageConfig, image_config
from tests.images.layouts import Layout
from tests.run.stages import ENVIRONMENT, IMAGE, MAP, Stage

SCRIPT = "echo $GREETING from $PWD as $(/bin/busybox id -u)"
CONFIG = {
    "Entrypoint": ["/bin/sh", "-c"],
    "Cmd": [SCRIPT],
    "Env": ["GREETING=hello"],
    "WorkingDir": "/etc",
    "User": "5:6",
    "StopSignal": "SIGUSR1",
    "Volumes": {"/data": {}},
}


@pytest.fixture
def configured(stage: Stage, tmp_path: Path) -> str:
    """An image on the same layer whose configuration says much."""
    return _with_config(stage, tmp_path, CONFIG)


def _with_config(stage: Stage, tmp_path: Path, config: Mapping[str, object]) -> str:
    layout = Layout(tmp_path / "layout")
    plain = stage.store.image(IMAGE)
    assert plain.layer is not None
    with stage.store.diff(plain.layer) as stream:
        layer = stream.read()
    manifest = json.loads(layout.blob(layout.image(layer, listed=False)))
    document = {**json.loads(layout.blob(manifest["config"]["digest"])), "config": config}
    digest = layout.add(json.dumps(document).encode())
    manifest["config"] = {**manifest["config"], "digest": digest, "size": len(layout.blob(digest))}
    layout.list(layout.entry(layout.add(json.dumps(manifest).encode())))
    return import_image(stage.store, f"oci:{layout.path}", names=["configured"]).id


def test_an_image_says_what_runs_where_and_as_whom(stage: Stage, configured: str) -> None:
    found = image_config(stage.store, stage.store.image(configured))
    assert found == ImageConfig(
        entrypoint=("/bin/sh", "-c"),
        command=(SCRIPT,),
        environment=("GREETING=hello",),
        working_directory="/etc",
        user="5:6",
        stop_signal="SIGUSR1",
        volumes=("/data",),
    )
    assert stage.good("run", "--rm", "--uidmap", MAP, configured) == "hello from /etc as 5\n"


def test_what_is_asked_for_wins_over_the_image(stage: Stage, configured: str) -> None:
    flags = ("-e", "GREETING=bye", "-w", "/new/place", "-u", "0")
    script = "echo $GREETING $PWD $(/bin/busybox id -u)"
    assert stage.good("run", "--rm", *flags, configured, script) == "bye /new/place 0\n"
    echo = ("run", "--rm", "--entrypoint")
    assert stage.good(*echo, "/bin/echo", configured, "only") == "only\n"
    assert stage.good(*echo, '["/bin/echo", "one"]', configured, "two") == "one two\n"
    assert stage.good(*echo, "", configured, "/bin/echo", "bare") == "bare\n"


@pytest.mark.parametrize("text", ["[1]", '["/bin/echo"'])
def test_an_entry_point_that_is_no_list_of_words_is_the_name_of_a_program(stage: Stage, text: str) -> None:
    done = stage("run", "--rm", "--entrypoint", text, IMAGE)
    assert done.code == 127
    assert text.replace('"', '\\"') in done.err


@pytest.mark.parametrize("command", ["run", "exec"])
def test_a_working_directory_must_be_absolute(stage: Stage, command: str) -> None:
    done = stage(command, "-w", "etc", IMAGE, "sh")
    assert done.code == 125
    assert "working directory 'etc': must be an absolute path" in done.err


def test_a_name_alone_takes_the_value_that_the_variable_has_here(
    stage: Stage, configured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "HERE", "yes")
    flags = ("-e", "HERE", "-e", "GREETING", "-e", "NOWHERE")
    script = "echo $HERE $GREETING ${NOWHERE-unset}"
    assert stage.good("run", "--rm", *flags, configured, script) == "yes hello unset\n"


@pytest.mark.parametrize("command", ["run", "exec"])
def test_a_file_gives_variables_as_podman_reads_it_and_flags_win(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for name, value in (("HERE", "yes"), ("MANY_ONE", "1"), ("MANY_TWO", "2")):
        monkeypatch.setitem(ENVIRONMENT, name, value)
    file, other = tmp_path / "variables", tmp_path / "more"
    file.write_bytes(b"# said\n\n  A=b=c # d\nB=first\r\nHERE\nNOWHERE\nMANY_*\nB=second\r\nC=file\n")
    other.write_text("D=more")
    script = "echo $A-$B-$C-$D-$HERE-${NOWHERE-unset}-$MANY_ONE$MANY_TWO"
    words = ("--env-file", str(file), "-e", "C=flag", "--env-file", str(other))
    wanted = "b=c # d-second-flag-more-yes-unset-12\n"
    if command == "run":
        assert stage.good("run", "--rm", *words, IMAGE, "sh", "-c", script) == wanted
    else:
        stage.good("run", "-d", "--rm", "--name", "web", IMAGE, "sleep", "1000")
        assert stage.good("exec", *words, "web", "sh", "-c", script) == wanted
        stage.good("rm", "--force", "web")


@pytest.mark.parametrize("text", ["=x", "A B=1", "A\tB"])
@pytest.mark.parametrize("command", ["run", "exec"])
def test_a_variable_without_a_proper_name_is_refused(
    stage: Stage, tmp_path: Path, command: str, text: str
) -> None:
    file = tmp_path / "variables"
    file.write_text(f"{text}\n")
    done = stage(command, "--env-file", str(file), IMAGE, "sh")
    assert (done.code, done.err) == (125, f"hostspec: --env-file {file}: {text!r} is not NAME=VALUE\n")
    assert stage(command, "--env-file", f"{file}-not", IMAGE, "sh").err == (
        f"hostspec: {file}-not: No such file or directory\n"
    )


def test_the_image_says_how_it_is_stopped(stage: Stage, configured: str) -> None:
    script = "trap 'exit 8' USR1; while :; do sleep 0.05; done"
    stage.good("run", "-d", "--name", "web", configured, script)
    stage.good("stop", "-t", "9" * 20, "web")
    assert "ended (8)" in stage.good("ps", "-a")


@pytest.mark.parametrize(
    ("name", "number"), [("SIGRTMIN+3", signal.SIGRTMIN + 3), ("rtmax-2", signal.SIGRTMAX - 2)]
)
def test_an_image_may_name_a_signal_that_has_no_name_of_its_own(
    stage: Stage, tmp_path: Path, name: str, number: int
) -> None:
    image = _with_config(stage, tmp_path, {"StopSignal": name})
    script = f"trap 'exit 8' {number}; while :; do sleep 0.05; done"
    stage.good("run", "-d", "--name", "web", image, "sh", "-c", script)
    stage.good("stop", "web")
    assert "ended (8)" in stage.good("ps", "-a")


@pytest.mark.parametrize("name", ["99", "SIGNONE"])
def test_what_is_no_signal_stops_nothing_and_keeps_nobody_from_removing(
    stage: Stage, tmp_path: Path, name: str
) -> None:
    image = _with_config(stage, tmp_path, {"StopSignal": name})
    stage.good("run", "-d", "--name", "web", image, "sleep", "1000")
    done = stage("stop", "web")
    assert done.code == 1
    assert f"stop signal {name!r}: is no signal" in done.err
    stage.good("rm", "-f", "web")
    assert stage.containers() == []


def test_a_root_that_cannot_be_written_has_places_in_memory(stage: Stage, configured: str) -> None:
    script = "for each in / /tmp /data; do echo x > $each/file && echo $each; done 2>/dev/null; true"
    words = ("--read-only", "--user", "0", "--uidmap", MAP, configured, script)
    assert stage.good("run", "--rm", *words) == "/tmp\n/data\n"


def test_volumes_show_the_hosts_files(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/in").write_text("from the host\n")
    script = "cat /a/in; echo back > /a/out; echo x > /b/out 2>/dev/null || echo refused"
    volumes = ("-v", f"{tmp_path}/shared:/a", "-v", f"{tmp_path}/shared:/b:ro")
    assert stage.good("run", "--rm", *volumes, IMAGE, "sh", "-c", script) == "from the host\nrefused\n"
    assert (tmp_path / "shared/out").read_text() == "back\n"


@pytest.mark.parametrize(
    "text",
    [
        *("/etc", "etc:/etc", "/etc:etc", "/no/such/place:/etc", "/etc:/", "/etc://.."),
        *("/etc:/etc:rx", "/etc:/etc:ro,rw", "/etc:/etc:ro,"),
    ],
)
def test_a_volume_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        Volume.parse(text)


def test_a_volume_may_be_named_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Volume.parse("./shared:/a:ro") == Volume(f"{tmp_path}/shared", "/a", read_only=True)
    with pytest.raises(InvalidRequest, match=r"no volumes with names.* write \./shared"):
        Volume.parse("shared:/a")


def test_a_volume_may_be_restricted_further(stage: Stage) -> None:
    assert Volume.parse("/etc:/a:ro,noexec,nosuid,Z") == Volume(
        "/etc", "/a", read_only=True, restrictions=("noexec", "nosuid")
    )
    table = stage.good("run", "--rm", "-v", "/etc:/a:nosuid,nodev,noexec,z", IMAGE, "cat", "/proc/mounts")
    line = next(each for each in table.splitlines() if " /a " in each)
    assert "rw,nosuid,nodev,noexec" in line


@pytest.mark.parametrize("mode", ["rw", "ro"])
@pytest.mark.parametrize("volume", ["", ":ro", ":nosuid"])
def test_a_mapped_container_sees_a_volume_of_a_restricted_file_system(
    stage: Stage, tmp_path: Path, mode: str, volume: str
) -> None:
    mounting = f'mount -t tmpfs -o {mode},nosuid,nodev,noexec none {tmp_path} && exec "$@"'
    flags = ("--rm", "--uidmap", MAP, "-v", f"{tmp_path}:/a{volume}")
    words = (*stage.command, "run", *flags, IMAGE, "sh", "-c", "cat /proc/self/mountinfo")
    with stage.beside("unshare", "-m", "sh", "-c", mounting, "sh", *words) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    wanted = "ro" if "ro" in (mode, volume[1:]) else "rw"
    line = next(each for each in out.decode().splitlines() if " /a " in each)
    assert f" /a {wanted},nosuid,nodev,noexec" in line


def test_the_host_name_is_the_beginning_of_the_id_or_what_is_asked_for(stage: Stage) -> None:
    script = ("sh", "-c", "/bin/busybox hostname; cat /etc/hostname")
    assert stage.good("run", "--rm", "--hostname", "here", IMAGE, *script) == "here\nhere\n"


def test_an_option_for_the_layer_is_no_option_for_the_store(stage: Stage) -> None:
    done = stage("run", "--rm", "--storage-opt", "no-such-option=1", IMAGE, "sh")
    assert done.code == 125
    assert "no-such-option" in done.err
    assert stage.containers() == []


@pytest.mark.parametrize("stage", ["overlay", "vfs"], indirect=True)
def test_a_limit_that_cannot_be_kept_is_refused_before_anything_is_made(stage: Stage) -> None:
    for limit in ("size=64m", "inodes=100"):
        done = stage("run", "--storage-opt", limit, IMAGE, "sh")
        assert done.code == 125
        assert "no limits" in done.err or "no project quotas" in done.err
    assert stage.containers() == []


def test_an_entry_point_of_ones_own_does_without_the_images_command() -> None:
    config = ImageConfig(entrypoint=("one",), command=("two",))
    assert arguments_of(RunOptions(), config) == ("one", "two")
    assert arguments_of(RunOptions(command=("three",)), config) == ("one", "three")
    assert arguments_of(RunOptions(entrypoint=("zero",)), config) == ("zero",)
    assert arguments_of(RunOptions(entrypoint=("zero",), command=("three",)), config) == ("zero", "three")


def test_the_environment_asked_for_wins_over_the_images_and_that_over_the_usual() -> None:
    config = ImageConfig(environment=("PATH=/image", "A=image"))
    options = RunOptions(environment=("A=asked",))
    found = environment_of(options, config, hostname="here", home="/root")
    assert found == ("PATH=/image", "HOSTNAME=here", "HOME=/root", "A=asked")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:\nweb:x:33:34::/srv:\nbroken\n")
    (tmp_path / "etc/group").write_text("web:x:34:\nlogs:x:40:root,web\n")
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "account"),
    [
        ("", Account(0, 0, (40,), "/root")),
        ("web", Account(33, 34, (40,), "/srv")),
        ("33", Account(33, 34, (40,), "/srv")),
        ("web:logs", Account(33, 40, (), "/srv")),
        ("1000", Account(1000, 0, (), "/")),
        ("1000:7", Account(1000, 7, (), "/")),
    ],
)
def test_a_user_is_found_by_name_or_number(root: Path, wanted: str, account: Account) -> None:
    assert find_account(str(root), wanted) == account


@pytest.mark.parametrize("wanted", ["nobody", "web:nobody", "4294967295", "-1"])
def test_a_user_whom_nobody_knows_is_refused(root: Path, wanted: str) -> None:
    with pytest.raises(InvalidRequest):
        find_account(str(root), wanted)


def test_an_images_link_does_not_lead_to_the_hosts_accounts(root: Path, tmp_path: Path) -> None:
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("../../../../../../../../etc/passwd")
    with pytest.raises(InvalidRequest):
        find_account(str(tmp_path), "daemon")


def test_a_pipe_in_place_of_the_accounts_keeps_nobody_waiting(root: Path) -> None:
    (root / "etc/passwd").unlink()
    os.mkfifo(root / "etc/passwd")
    assert find_account(str(root), "0") == Account(0, 0)
