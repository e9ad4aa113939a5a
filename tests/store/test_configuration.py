from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hostspec.errors import InvalidRequest
from hostspec.idmap import IdMap
from hostspec.store.configuration.default_store import load_configuration
from hostspec.store.configuration.keys import Configuration
from hostspec.store.opening import split_options
from hostspec.testing.requirements import require_or_skip

A_USER = 1234

Load = Callable[..., Configuration]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads the configuration of a machine that has the files below ``tmp_path``."""

    def run(environment: Mapping[str, str] | None = None, *, uid: int = 0) -> Configuration:
        everybody = (str(tmp_path / "usr"), str(tmp_path / "etc"))
        home = {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "runtime")}
        return load_configuration({**home, **(environment or {})}, uid=uid, system=everybody)

    return run


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_without_files_the_system_has_the_go_librarys_places(load: Load) -> None:
    found = load()
    assert found.root == "/var/lib/containers/storage"
    assert found.run_root == "/run/containers/storage"
    assert found.driver is None
    assert found.options_for("overlay") == ()


def test_without_files_a_user_has_places_of_his_own(load: Load, tmp_path: Path) -> None:
    found = load(uid=A_USER)
    assert found.root == str(tmp_path / "home/.local/share/containers/storage")
    assert found.run_root == str(tmp_path / "runtime/containers")


def test_a_users_data_directory_can_be_elsewhere(load: Load) -> None:
    assert load({"XDG_DATA_HOME": "/data"}, uid=A_USER).root == "/data/containers/storage"


def test_the_administrators_file_hides_the_distributions(load: Load, tmp_path: Path) -> None:
    write(tmp_path / "usr/storage.conf", '[storage]\ndriver = "vfs"\ngraphroot = "/usr-root"\n')
    assert load().root == "/usr-root"
    write(tmp_path / "etc/storage.conf", '[storage]\ndriver = "btrfs"\n')
    assert load().driver == "btrfs"
    assert load().root == "/var/lib/containers/storage"


def test_the_named_file_hides_all_others(load: Load, tmp_path: Path) -> None:
    write(tmp_path / "etc/storage.conf", '[storage]\ndriver = "btrfs"\n')
    write(tmp_path / "etc/storage.conf.d/more.conf", '[storage]\ngraphroot = "/dropped-in"\n')
    named = write(tmp_path / "my.conf", '[storage]\ndriver = "vfs"\n')
    found = load({"CONTAINERS_STORAGE_CONF": named})
    assert (found.driver, found.root) == ("vfs", "/var/lib/containers/storage")
    assert found.files == (named,)


def test_a_named_file_that_does_not_exist_is_an_error(load: Load) -> None:
    with pytest.raises(InvalidRequest, match=r"/no/such\.conf: .*CONTAINERS_STORAGE_CONF"):
        load({"CONTAINERS_STORAGE_CONF": "/no/such.conf"})


def test_drop_in_files_change_single_keys_in_the_order_of_their_names(load: Load, tmp_path: Path) -> None:
    write(tmp_path / "etc/storage.conf", '[storage]\ndriver = "vfs"\ngraphroot = "/a"\nrunroot = "/r"\n')
    write(tmp_path / "usr/storage.conf.d/10-a.conf", '[storage]\ngraphroot = "/hidden"\n')
    write(tmp_path / "etc/storage.conf.d/10-a.conf", '[storage]\ngraphroot = "/b"\n')
    write(tmp_path / "etc/storage.conf.d/20-b.conf", '[storage.options.vfs]\nignore_chown_errors = "true"\n')
    write(tmp_path / "etc/storage.conf.d/30-not.txt", '[storage]\ngraphroot = "/c"\n')
    write(tmp_path / "etc/storage.rootless.conf.d/40.conf", '[storage]\ngraphroot = "/d"\n')
    found = load()
    assert (found.driver, found.root, found.run_root) == ("vfs", "/b", "/r")
    assert found.options_for("vfs") == ("vfs.ignore_chown_errors=true",)


def test_the_environment_has_the_last_word_on_driver_and_options(load: Load, tmp_path: Path) -> None:
    write(
        tmp_path / "etc/storage.conf",
        '[storage]\ndriver = "vfs"\n[storage.options.overlay]\nmountopt = "nodev"\n',
    )
    assert load({"STORAGE_DRIVER": "overlay"}).driver == "overlay"
    assert load({"STORAGE_DRIVER": "overlay"}).options_for("overlay") == ("overlay.mountopt=nodev",)
    changed = load({"STORAGE_OPTS": "overlay.mountopt=nosuid,.size=1G"})
    assert changed.options_for("overlay") == ("overlay.mountopt=nosuid", ".size=1G")
    assert load({"STORAGE_OPTS": ""}).options_for("overlay") == ()


def test_a_drivers_own_table_counts_more_than_what_holds_for_all(load: Load, tmp_path: Path) -> None:
    write(
        tmp_path / "etc/storage.conf",
        '[storage]\ndriver = "overlay"\n'
        '[storage.options]\nadditionalimagestores = ["/one", "/two"]\nmountopt = "nodev"\n'
        '[storage.options.overlay]\nmountopt = "nosuid"\n'
        '[storage.options.vfs]\nignore_chown_errors = "true"\n',
    )
    assert load().options_for("overlay") == (
        "overlay.imagestore=/one",
        "overlay.imagestore=/two",
        "overlay.mountopt=nodev",
        "overlay.mountopt=nosuid",
    )


def test_a_file_of_hostspecs_own_says_what_only_hostspec_obeys(load: Load, tmp_path: Path) -> None:
    path = write(
        tmp_path / "etc/hostspec.conf",
        'shift = "native-only"\nremove_mapped_unused_for = "7d"\n'
        '[overlay]\nhostspec_mount_api = "classic"\n[vfs]\nhostspec_shifting = false\n',
    )
    own = ("hostspec.shift=native-only", "hostspec.remove_mapped_unused_for=7d")
    for uid in (0, A_USER):
        found = load(uid=uid)
        assert found.all_files == (path,)
        assert found.options_for("overlay") == ("overlay.hostspec_mount_api=classic", *own)
        assert found.options_for("vfs") == ("vfs.hostspec_shifting=false", *own)
        assert found.options_for("btrfs") == own


def test_of_the_files_of_hostspecs_own_each_key_of_the_last_counts(load: Load, tmp_path: Path) -> None:
    first = write(tmp_path / "usr/hostspec.conf", 'shift = "native-only"\non_slow_path = "warn"\n')
    write(tmp_path / "etc/storage.conf", '[storage]\ndriver = "vfs"\n')
    second = write(tmp_path / "etc/hostspec.conf", 'on_slow_path = "refuse"\nidmap_strategy = "copy"\n')
    third = write(tmp_path / "home/.config/containers/hostspec.conf", 'idmap_strategy = "shift"\n')
    found = load(uid=A_USER)
    assert found.own.files == (first, second, third)
    assert found.own.values == {"shift": "native-only", "on_slow_path": "refuse", "idmap_strategy": "shift"}
    assert load().own.values["idmap_strategy"] == "copy"
    write(tmp_path / "xdg/containers/hostspec.conf", 'idmap_strategy = "template"\n')
    for uid in (0, A_USER):
        there = load({"XDG_CONFIG_HOME": str(tmp_path / "xdg")}, uid=uid)
        assert there.own.values["idmap_strategy"] == "template"


def test_beside_a_named_file_lies_the_only_one_of_hostspecs_own(load: Load, tmp_path: Path) -> None:
    write(tmp_path / "etc/hostspec.conf", 'shift = "native-only"\n')
    named = write(tmp_path / "mine/my.conf", "")
    assert load({"CONTAINERS_STORAGE_CONF": named}).options_for("vfs") == ()
    beside = write(tmp_path / "mine/hostspec.conf", 'on_slow_path = "warn"\n')
    found = load({"CONTAINERS_STORAGE_CONF": named})
    assert found.all_files == (named, beside)
    assert found.options_for("vfs") == ("hostspec.on_slow_path=warn",)


def test_options_of_the_environment_leave_hostspecs_own_and_count_more(load: Load, tmp_path: Path) -> None:
    write(tmp_path / "etc/hostspec.conf", 'shift = "native-only"\non_slow_path = "warn"\n')
    found = load({"STORAGE_OPTS": "hostspec.shift=auto"}).options_for("vfs")
    policy = split_options("vfs", found).policy
    assert (policy.shift, policy.on_slow_path) == ("auto", "warn")


def test_a_driver_that_the_format_does_not_know_has_its_options_in_hostspecs_own(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site/fourth-1.dist-info"
    write(installed / "METADATA", "Name: fourth\nVersion: 1\n")
    write(installed / "entry_points.txt", "[hostspec.drivers]\nfourth = fourth:open_driver\n")
    monkeypatch.syspath_prepend(str(installed.parent))
    table = "whatever = 7\nmore = true\n"
    write(tmp_path / "etc/storage.conf", f'[storage]\ndriver = "fourth"\n[storage.options.fourth]\n{table}')
    own = write(tmp_path / "etc/hostspec.conf", f"[fourth]\n{table}[fifth]\n{table}")
    found = load()
    assert found.options_for("fourth") == ("fourth.whatever=7", "fourth.more=true")
    assert [each.key for each in found.unknown] == ["storage.options.fourth", "fifth"]
    assert found.unknown[-1].source == own


def test_keys_that_hostspec_does_not_know_are_listed_with_their_file(load: Load, tmp_path: Path) -> None:
    first = write(
        tmp_path / "usr/hostspec.conf", 'shfit = "auto"\n[run]\nsubnet = "10.1.0.0/24"\nsubnte = 1\n'
    )
    second = write(tmp_path / "etc/hostspec.conf", '[storage.options.hostspec]\nshift = "auto"\n')
    found = load()
    assert found.unknown == ((first, "shfit"), (first, "run.subnte"), (second, "storage"))
    assert found.options_for("vfs") == ()
    assert found.own.subnet == "10.1.0.0/24"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("shift", "is no TOML"),
        ('shift = "never"\n', r"shift = 'never' must be one of auto, native-only"),
        ("on_slow_path = []\n", "on_slow_path must be text"),
        ('remove_mapped_unused_for = "soon"\n', "remove_mapped_unused_for = 'soon' must be a time"),
        ('[run]\nsubnet = "10.1.0.1/24"\n', "run.subnet must be a network's address: 10.1.0.1/24"),
        ('[overlay]\nmountopt = "nodev"\n', r"overlay.mountopt belongs into \[storage.options.overlay\]"),
        ("[vfs.more]\nkey = 1\n", "vfs.more must be text"),
    ],
)
def test_a_wrong_value_in_hostspecs_own_file_is_named_with_file_and_key(
    load: Load, tmp_path: Path, text: str, complaint: str
) -> None:
    write(tmp_path / "usr/hostspec.conf", 'shift = "auto"\n')
    path = write(tmp_path / "etc/hostspec.conf", text)
    with pytest.raises(InvalidRequest, match=complaint) as caught:
        load()
    assert caught.value.subject == path


def test_keys_that_no_version_knows_are_listed_and_change_nothing(load: Load, tmp_path: Path) -> None:
    write(
        tmp_path / "etc/storage.conf",
        '[storage]\ndriver = "overlay"\ngraphrot = "/x"\n'
        '[storage.options]\nmountop = "nodev"\n'
        '[storage.options.overlay]\nmountop = "nodev"\nhostspec_mount_api = "classic"\n'
        '[storage.options.zfs]\nfsname = "z"\nanything = 1\n'
        '[storage.options.hostspec]\nshift = "native-only"\n'
        '[storage.options.thinpool]\nbasesize = "1G"\n[else]\nkey = 1\n',
    )
    found = load()
    assert [each.key for each in found.unknown] == [
        "else",
        "storage.graphrot",
        "storage.options.mountop",
        "storage.options.overlay.mountop",
        "storage.options.overlay.hostspec_mount_api",
        "storage.options.hostspec",
    ]
    assert {each.source for each in found.unknown} == set(found.files)
    assert found.options_for("overlay") == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[storage", "is no TOML"),
        ('[storage]\ndriver = ["vfs"]\n', r"storage\.driver must be text"),
        ("storage = 3\n", "storage must be a table"),
        ('[storage.options]\nadditionalimagestores = "/a"\n', "additionalimagestores must be a list"),
        ('[storage]\ntransient_store = "perhaps"\n', "transient_store must be true or false"),
        ("[storage.options]\nauto-userns-min-size = -1\n", "auto-userns-min-size must be a whole number"),
        ('[storage.options]\nremap-uids = "0:1"\n', "remap-uids must be CONTAINER:HOST:SIZE"),
        ('[storage]\ngraphroot = "/a"\nimagestore = "/a"\n', "imagestore must be another directory"),
        ("[storage.options]\nstrip_suid_sgid = true\n", "strip_suid_sgid is not supported"),
    ],
)
def test_a_file_that_cannot_be_understood_is_named(
    load: Load, tmp_path: Path, text: str, complaint: str
) -> None:
    path = write(tmp_path / "etc/storage.conf", text)
    with pytest.raises(InvalidRequest, match=complaint) as caught:
        load()
    assert path in str(caught.value)


def test_a_file_that_is_no_text_is_named(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "etc/storage.conf"
    path.parent.mkdir()
    path.write_bytes(b'[storage]\ndriver = "\xff"\n')
    with pytest.raises(InvalidRequest, match="is no TOML"):
        load()


def test_variables_in_paths_are_replaced_and_links_followed(load: Load, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(
        tmp_path / "etc/storage.conf",
        f'[storage]\ngraphroot = "{tmp_path}/link/$UID/${{NAME}}"\nrunroot = "$NAME/$NOT_SET/run"\n',
    )
    found = load({"NAME": "/somebody"})
    assert found.root == str(tmp_path / "real/0/somebody")
    assert found.run_root == "/somebody/run"


def test_the_systems_roots_are_not_for_users(load: Load, tmp_path: Path) -> None:
    write(
        tmp_path / "etc/storage.conf",
        '[storage]\ndriver = "overlay"\ngraphroot = "/system"\nrunroot = "/system-run"\n'
        'rootless_storage_path = "/users/$UID"\n'
        '[storage.options]\nadditionalimagestores = ["/shared"]\n'
        '[storage.options.overlay]\nignore_chown_errors = "true"\nmountopt = "nodev"\n',
    )
    found = load(uid=A_USER)
    assert found.root == "/users/1234"
    assert found.run_root == str(tmp_path / "runtime/containers")
    assert found.driver == "overlay"
    assert found.options_for("overlay") == ("overlay.ignore_chown_errors=true",)


def test_a_users_own_file_says_everything(load: Load, tmp_path: Path) -> None:
    write(
        tmp_path / "etc/storage.conf",
        '[storage]\ndriver = "overlay"\nrootless_storage_path = "/users/$UID"\n',
    )
    own = write(
        tmp_path / "home/.config/containers/storage.conf",
        '[storage]\nrunroot = "/own-run"\n[storage.options.vfs]\nignore_chown_errors = "true"\n',
    )
    found = load(uid=A_USER)
    assert found.files == (own,)
    assert (found.root, found.run_root, found.driver) == ("/users/1234", "/own-run", None)
    elsewhere = write(tmp_path / "xdg/containers/storage.conf", '[storage]\ngraphroot = "/mine"\n')
    assert load({"XDG_CONFIG_HOME": str(tmp_path / "xdg")}, uid=A_USER).files == (elsewhere,)
    assert load({"XDG_CONFIG_HOME": str(tmp_path / "xdg")}).root == "/mine"


def test_ranges_to_remap_to_become_a_map(load: Load, tmp_path: Path) -> None:
    write(
        tmp_path / "etc/storage.conf",
        '[storage.options]\nremap-uids = "0:1000:10,10:2000:5"\nremap-gids = "0:3000:15"\n',
    )
    assert load().idmap == IdMap([(0, 1000, 10), (10, 2000, 5)], [(0, 3000, 15)])


def test_other_keys_are_kept_for_those_who_ask(load: Load, tmp_path: Path) -> None:
    write(
        tmp_path / "etc/storage.conf",
        '[storage]\ndriver_priority = ["btrfs", "vfs"]\nimagestore = "/images"\ntransient_store = true\n'
        "[storage.options]\ndisable-volatile = true\n"
        'root-auto-userns-user = "storage"\nauto-userns-min-size = 1024\nauto-userns-max-size = 65536\n'
        'pull_options = {enable_partial_images = "true", use_hard_links = "false"}\n',
    )
    found = load()
    assert found.driver_priority == ("btrfs", "vfs")
    assert found.image_store == "/images"
    assert found.transient
    assert found.disable_volatile
    assert (found.auto_userns_user, found.auto_userns_sizes) == ("storage", (1024, 65536))
    assert found.pull_options == {"enable_partial_images": "true", "use_hard_links": "false"}


@pytest.mark.skipif(os.geteuid() != 0, reason="the Go command needs root")
@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("overlay", ""),
        ("overlay", '[storage.options.overlay]\nmountopt = "nodev"\n'),
        (
            "overlay",
            '[storage.options]\nmountopt = "nodev"\n[storage.options.overlay]\nmountopt = "nosuid"\n',
        ),
        ("overlay", '[storage.options]\nskip_mount_home = "true"\n'),
        ("overlay", '[storage.options]\nadditionalimagestores = ["PLACE/images"]\n'),
        ("vfs", '[storage.options]\nadditionalimagestores = ["PLACE/images"]\n'),
        ("vfs", '[storage.options.vfs]\nignore_chown_errors = "true"\n[storage.options.zfs]\nfsname = "z"\n'),
    ],
)
@pytest.mark.parametrize("opts", [None, "", ".ignore_chown_errors=true"])
def test_the_go_command_finds_the_same_in_the_same_file(
    tmp_path: Path, driver: str, options: str, opts: str | None
) -> None:
    if shutil.which("containers-storage") is None:
        require_or_skip("containers-storage", "is not installed; Debian's package has the same name")
    (tmp_path / "images").mkdir()
    path = write(
        tmp_path / "storage.conf",
        '[storage]\ndriver = "btrfs"\n'
        'graphroot = "$HOME/graph"\nrunroot = "$HOME/run/$UID"\n' + options.replace("PLACE", str(tmp_path)),
    )
    variables = {"HOME": str(tmp_path), "CONTAINERS_STORAGE_CONF": path, "STORAGE_DRIVER": driver}
    if opts is not None:
        variables["STORAGE_OPTS"] = opts
    done = subprocess.run(
        ["containers-storage", "status"],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = dict(line.split(": ", 1) for line in done.stderr.splitlines() if ": " in line)
    ours = load_configuration(variables, uid=0)
    assert theirs["Root"] == ours.root
    assert theirs["Run Root"] == ours.run_root
    assert theirs["Driver Name"] == ours.driver == driver
    listed = re.fullmatch(r"\[(.*)\]", theirs["Driver Options"])
    assert listed is not None
    assert effective(listed[1].split()) == effective(ours.options_for(driver))


def effective(options: object) -> dict[str, str]:
    """Return the options by name; of one given twice, the last counts."""
    assert isinstance(options, (list, tuple))
    return dict(each.split("=", 1) for each in options)
