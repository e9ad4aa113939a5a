"""Private networks: addresses, names, and nothing left."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hostspec.errors import InvalidRequest
from hostspec.run import list_runs
from hostspec.run.leases import Bridge, leases_of
from hostspec.run.places import RunLock, RunPlace
from tests.run.stages import COMMAND, ENVIRONMENT, IMAGE, MAP, Stage

# From a file: a pipe may still be empty when the client closes its end, and that ends nc.
SERVE = "/bin/busybox nc -l -p 4000 < /served"


def test_containers_reach_each_other_and_the_host_by_address_and_name(stage: Stage) -> None:
    network = ("--network", "private", "--subnet", stage.subnet)
    serve = f"echo served > /served; {SERVE}; {SERVE}; sleep 1000"
    stage.good("run", "-d", "--rm", "--name", "server", *network, IMAGE, "sh", "-c", serve)
    (server,) = list_runs(stage.store)
    gateway = Bridge.of(stage.subnet).gateway
    script = f"""
for host in server {server.record.address}; do
    until /bin/busybox nc $host 4000 </dev/null; do sleep 0.05; done
done
for host in server {gateway}; do /bin/busybox ping -q -c 1 $host >/dev/null && echo pinged; done
"""
    out = stage.good("run", "--rm", "--uidmap", MAP, *network, IMAGE, "sh", "-c", script)
    assert out == "served\nserved\npinged\npinged\n"
    stage.good("rm", "-f", "server")
    assert stage.leftovers() == []


def test_without_pyroute2_a_private_network_says_what_to_install(stage: Stage) -> None:
    script = (
        "import sys; sys.modules['pyroute2'] = None; from hostspec.cli.main import main; sys.exit(main())"
    )
    words = (sys.executable, "-c", script, *stage.command[len(COMMAND) :], "run", "--network", "private")
    with stage.beside(*words, IMAGE, "sh") as process:
        _, errors = process.communicate()
    assert process.returncode == 125
    assert b"needs pyroute2; install hostspec[run]" in errors
    assert stage.containers() == []


def test_a_container_without_a_network_has_the_loopback_device_alone(stage: Stage) -> None:
    script = "cat /proc/net/dev | while read name rest; do echo $name; done"
    out = stage.good("run", "--rm", "--network", "none", IMAGE, "sh", "-c", script)
    assert [line for line in out.split() if line.endswith(":")] == ["lo:"]


@pytest.mark.parametrize("flags", [(), ("--uidmap", MAP)], ids=["unmapped", "mapped"])
def test_a_container_on_the_hosts_network_is_in_its_namespace(stage: Stage, flags: tuple[str, ...]) -> None:
    look = ("/bin/busybox", "readlink", "/proc/self/ns/net")
    out = stage.good("run", "--rm", "--network", "host", *flags, IMAGE, *look)
    assert out.strip() == os.readlink("/proc/self/ns/net")


def test_a_subnet_that_is_none_is_refused(stage: Stage) -> None:
    for subnet in ("10.0.0.0/31", "10.0.0.1/24", "fd00::/64", "everything"):
        done = stage("run", "--rm", "--network", "private", "--subnet", subnet, IMAGE, "sh")
        assert done.code == 125
        assert subnet in done.err


def test_hostspec_conf_says_the_subnet_for_which_no_flag_names_one(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "storage.conf"
    named.touch()
    (tmp_path / "hostspec.conf").write_text('[run]\nsubnet = "10.0.0.0/31"\n')
    monkeypatch.setitem(ENVIRONMENT, "CONTAINERS_STORAGE_CONF", str(named))
    done = stage("run", "--rm", "--network", "private", IMAGE, "sh")
    assert done.code == 125
    assert "10.0.0.0/31': is too small" in done.err


class Owners:
    """Runs, in a directory of their own, that a test owns or gives up."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack

    def __call__(self, name: str) -> tuple[RunPlace, RunLock]:
        place = RunPlace(name, str(self._directory / name), str(self._directory / f"{name}.note"))
        lock = place.acquire(wait=False)
        assert lock is not None
        self._stack.callback(lock.release)
        return place, lock


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    """A bridge on which there is no lease, neither before nor afterwards."""
    if os.geteuid() != 0:
        pytest.skip("leases are the machine's, which only root gives")
    found = Bridge.of(f"10.{240 + os.getpid() % 8}.{os.getpid() // 8 % 256}.0/29")
    yield found
    with leases_of(found) as leases:
        assert leases.all() == []


@pytest.fixture
def owners(tmp_path: Path, bridge: Bridge) -> Iterator[Owners]:
    del bridge  # on which the leases end with the owners
    with ExitStack() as stack:
        yield Owners(tmp_path, stack)


def test_every_run_gets_an_address_of_its_own_until_none_is_left(owners: Owners, bridge: Bridge) -> None:
    places = [owners(f"run-{number}") for number in range(6)]
    with leases_of(bridge) as leases:
        given = [leases.take(place, [place.container]).address for place, _ in places[:5]]
        assert len({*given, bridge.gateway}) == 6
        with pytest.raises(InvalidRequest, match="no free address"):
            leases.take(places[5][0], [])
        leases.drop(places[2][0].directory)
        assert leases.take(places[5][0], []).address == given[2]


def test_the_address_of_a_dead_run_is_given_to_the_next(owners: Owners, bridge: Bridge) -> None:
    place, lock = owners("dead")
    with leases_of(bridge) as leases:
        address = leases.take(place, ["dead"]).address
        lock.release()
        assert leases.all() == []
        assert leases.take(owners("next")[0], []).address == address
