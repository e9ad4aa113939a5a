"""What a program in a container does to files of the layers below, by system calls and through one mount."""

# The name of a test is its sentence.
# ruff: noqa: D102

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from socket import AF_UNIX, SOCK_STREAM, socket
from typing import Final

import pytest

from hostspec.driver import GraphDriver
from hostspec.testing.children import do_at_once
from hostspec.testing.layers import Layers, Made
from hostspec.testing.opening import DriverFixtures, natively
from hostspec.testing.tree import Kind, Tree, directory, file
from hostspec.values import LayerRef

__all__ = ["Writing"]

BELOW: Final = Tree(
    {
        "/etc": directory(mode=0o700),
        "/etc/hosts": file(b"one"),
        "/etc/profile": file(b"PATH=/usr/bin"),
        "/opt": directory(),
        "/opt/a": directory(mode=0o700),
        "/opt/a/file": file(b"hello"),
        "/somefiles": directory(),
        "/somefiles/f1": file(b"was here first"),
        "/somefiles/f2": file(b"nothing interesting"),
    }
)


class Writing(DriverFixtures):
    """What worked on a plain directory works on a layer, and is there in the next layer."""

    @pytest.fixture
    def below(self, layers: Layers) -> Made:
        """The layer on which the container stands."""
        return layers.make("below", BELOW)

    @natively
    def test_a_file_overwritten_with_as_many_bytes_is_another(self, layers: Layers, below: Made) -> None:
        with _container(layers, below) as root:
            _write(f"{root}/etc/hosts", b"two")
            os.chmod(f"{root}/etc/profile", 0o666)

        found = _found_above(layers)
        assert found["/etc/hosts"].content == b"two"
        assert (found["/etc/profile"].content, found["/etc/profile"].mode) == (b"PATH=/usr/bin", 0o666)
        layers.check(below)

    @natively
    def test_a_new_owner_reaches_directories_and_files(self, layers: Layers, below: Made) -> None:
        paths = ("/opt", "/opt/a", "/opt/a/file")
        with _container(layers, below) as root:
            for path in paths:
                os.chown(root + path, 1, 2)

        found = _found_above(layers)
        assert [(found[path].uid, found[path].gid, found[path].mode) for path in paths] == [
            (1, 2, BELOW[path].mode) for path in paths
        ]
        layers.check(below)

    @natively
    def test_directories_keep_their_permissions_when_others_are_made_anew(
        self, layers: Layers, below: Made
    ) -> None:
        with _container(layers, below) as root:
            os.unlink(f"{root}/opt/a/file")
            os.rmdir(f"{root}/opt/a")
            os.mkdir(f"{root}/opt/a", 0o711)
            os.chown(f"{root}/opt/a", 1, 1)
            os.chmod(f"{root}/opt", 0o2775)

        found = _found_above(layers)
        assert (found["/opt/a"].mode, found["/opt/a"].uid, found["/opt"].mode) == (0o711, 1, 0o2775)
        assert found["/etc"].mode == 0o700
        assert "/opt/a/file" not in found

    @natively
    def test_a_new_file_renamed_over_an_old_one_takes_its_place(self, layers: Layers, below: Made) -> None:
        with _container(layers, below) as root:
            _write(f"{root}/somefiles/new", b"new content")
            os.rename(f"{root}/somefiles/new", f"{root}/somefiles/f1")
            os.rename(f"{root}/somefiles/f2", f"{root}/somefiles/f3")

        found = _found_above(layers)
        assert [path for path in found if path.startswith("/somefiles/")] == [
            "/somefiles/f1",
            "/somefiles/f3",
        ]
        assert found["/somefiles/f1"].content == b"new content"
        assert found["/somefiles/f3"].content == b"nothing interesting"

    @natively
    def test_a_file_linked_elsewhere_survives_its_first_name(self, layers: Layers, below: Made) -> None:
        with _container(layers, below) as root:
            os.mkdir(f"{root}/new")
            os.link(f"{root}/somefiles/f2", f"{root}/new/f2")
            os.unlink(f"{root}/somefiles/f2")

        found = _found_above(layers)
        assert found["/new/f2"].content == b"nothing interesting"
        assert "/somefiles/f2" not in found
        layers.check(below)

    @natively
    def test_a_socket_listens_and_answers(self, layers: Layers, below: Made) -> None:
        with _container(layers, below) as root, _listening(f"{root}/etc/socket"):
            pass

        assert _found_above(layers)["/etc/socket"].kind is Kind.SOCKET

    @natively
    def test_a_file_that_is_open_can_be_deleted_and_read_on(self, layers: Layers, below: Made) -> None:
        with _container(layers, below) as root, open(f"{root}/opt/a/file", "r+b") as held:
            os.unlink(f"{root}/opt/a/file")
            held.seek(0, os.SEEK_END)
            held.write(b" again")
            held.seek(0)

            assert held.read() == b"hello again"
        layers.check(below)

    @natively
    def test_an_open_directory_stays_the_same_one_while_it_is_changed(
        self, layers: Layers, below: Made
    ) -> None:
        with _container(layers, below) as root:
            descriptor = os.open(f"{root}/opt/a", os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.chmod(f"{root}/opt/a", 0o755)
                _write(f"{root}/opt/a/new", b"new")
                assert os.stat("new", dir_fd=descriptor).st_size == len(b"new")
                assert os.path.samestat(os.fstat(descriptor), os.stat(f"{root}/opt/a"))
            finally:
                os.close(descriptor)

    @natively
    def test_a_process_in_a_directory_of_a_layer_knows_where_it_is(self, layers: Layers, below: Made) -> None:
        with _container(layers, below) as root:

            def look_around() -> None:
                os.chdir(f"{root}/opt/a")
                os.mkdir("made-here")
                assert os.getcwd() == os.path.realpath(f"{root}/opt/a")

            do_at_once([look_around])

        assert _found_above(layers)["/opt/a/made-here"].kind is Kind.DIRECTORY

    @natively
    @pytest.mark.parametrize("layer_id", ["empty", "child"])
    def test_the_root_directory_may_be_entered_by_everybody(
        self, driver: GraphDriver, below: Made, layer_id: str
    ) -> None:
        driver.create(layer_id, below.layer if layer_id == "child" else None)
        with driver.mounted(layer_id, read_only=False) as root:
            assert os.stat(root).st_mode & 0o7777 == 0o755

    @natively
    def test_a_root_directory_made_private_is_private_in_the_next_layer(
        self, layers: Layers, below: Made
    ) -> None:
        with _container(layers, below) as root:
            os.chmod(root, 0o711)

        assert _found_above(layers)["/"].mode == 0o711


@contextmanager
def _container(layers: Layers, below: Made) -> Iterator[str]:
    """Give the tree of a container's layer to work in, and commit it then."""
    layers.driver.create("container", below.layer)
    with layers.driver.mounted("container", read_only=False) as root:
        yield root
    layers.driver.commit("container")


def _found_above(layers: Layers) -> Tree:
    """Return what a further layer shows."""
    container = Made(LayerRef("container"), BELOW, None)
    seen = layers.read(container)
    return layers.read(layers.make("above", seen, container._replace(tree=seen)))


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as opened:
        opened.write(content)


@contextmanager
def _listening(path: str) -> Iterator[None]:
    """Talk through a Unix domain socket at a path, which may be longer than an address."""
    parent, name = os.path.split(path)
    descriptor = os.open(parent, os.O_PATH | os.O_DIRECTORY)
    address = f"/proc/self/fd/{descriptor}/{name}"
    try:
        with socket(AF_UNIX, SOCK_STREAM) as server, socket(AF_UNIX, SOCK_STREAM) as client:
            server.bind(address)
            server.listen()
            client.connect(address)
            with server.accept()[0] as connection:
                connection.sendall(b"hello")
                assert client.recv(5) == b"hello"
            yield
    finally:
        os.close(descriptor)
