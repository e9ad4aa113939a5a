"""A stream is read ahead of its user and followed meanwhile, in few buffers."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from threading import Event
from typing import cast

import pytest

from hostspec.errors import DriverFailed
from hostspec.store.read_ahead import BUFFERED_BYTES, Place, ReadAhead
from tests.thread_limit import no_more_threads

SECONDS = 60.0
CONTENT = bytes(range(256)) * (BUFFERED_BYTES // 256 + 5000)


class Pieces(io.RawIOBase):
    """A source whose reads are short, and that counts what was taken from it."""

    def __init__(self, content: bytes, *, most: int = 1 << 30, error: Exception | None = None) -> None:
        super().__init__()
        self._content = io.BytesIO(content)
        self._most = most
        self._error = error
        self.taken = 0

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._content.readinto(buffer[: self._most])
        if not count and self._error is not None:
            raise self._error
        self.taken += count
        return count


class Endless:
    """A source that never ends."""

    def readinto(self, buffer: memoryview) -> int:
        return len(buffer)


class Copying:
    """A follower that keeps what it reads."""

    def __init__(self) -> None:
        self.content = b""

    def __call__(self, place: Place) -> None:
        self.content = place.read()


def viewed(place: Place) -> bytes:
    return b"".join(bytes(view) for view in place.views())


@pytest.mark.parametrize("most", [1, 1000, 1 << 30])
def test_user_and_followers_all_read_the_same(most: int) -> None:
    content = CONTENT[:3000] if most == 1 else CONTENT
    seen: list[bytes] = []
    copying = Copying()
    source = Pieces(content, most=most)
    with ReadAhead(source, (copying, lambda place: seen.append(viewed(place)))) as stream:
        assert stream.read() == content
        assert stream.read(1) == b""
        assert copying.content == content
        assert seen == [content]


def test_the_user_may_read_and_look_in_turn() -> None:
    with ReadAhead(Pieces(CONTENT, most=1000), ()) as stream:
        seen = b""
        while view := stream.next_view():
            seen += bytes(view) + (stream.read(300) or b"")
        assert seen == CONTENT
        assert not stream.next_view()


def test_who_has_read_to_the_end_knows_that_followers_have_too() -> None:
    finished = Event()

    def follow(place: Place) -> None:
        place.read()
        finished.set()

    with ReadAhead(Pieces(CONTENT), (follow,)) as stream:
        stream.read()
        assert finished.is_set()


def test_no_more_is_read_ahead_than_the_buffers_hold_however_slow_a_follower_is() -> None:
    go_on = Event()

    def follow(place: Place) -> None:
        assert go_on.wait(SECONDS)
        place.read()

    source = Pieces(CONTENT)
    assert len(CONTENT) > BUFFERED_BYTES
    with ReadAhead(source, (follow,)) as stream:
        start = b""
        while len(start) < BUFFERED_BYTES:
            start += stream.read(BUFFERED_BYTES - len(start))
        assert source.taken == BUFFERED_BYTES
        go_on.set()
        assert start + stream.read() == CONTENT


def test_no_more_is_read_ahead_than_the_buffers_hold_however_slow_the_user_is() -> None:
    read = Event()

    def follow(place: Place) -> None:
        place.read(BUFFERED_BYTES // 2)
        read.set()
        place.read()

    source = Pieces(CONTENT)
    with ReadAhead(source, (follow,)) as stream:
        assert read.wait(SECONDS)
        assert source.taken <= BUFFERED_BYTES
        assert stream.read() == CONTENT


def test_what_the_source_raises_comes_after_what_it_gave() -> None:
    copying = Copying()
    with ReadAhead(Pieces(b"before", error=OSError("no more")), (copying,)) as stream:
        assert stream.read(100) == b"before"
        for _ in range(2):
            with pytest.raises(OSError, match="no more"):
                stream.read(100)


def test_what_a_follower_raises_reaches_the_user() -> None:
    def follow(_: Place) -> None:
        raise OSError("cannot follow")

    with ReadAhead(Endless(), (follow,)) as stream, Path(os.devnull).open("wb") as sink:  # noqa: SIM117
        with pytest.raises(OSError, match="cannot follow"):
            shutil.copyfileobj(stream, sink)


def test_a_follower_that_stops_early_holds_nobody_up() -> None:
    with ReadAhead(Pieces(CONTENT), (lambda place: cast(None, place.read(10)),)) as stream:
        assert stream.read() == CONTENT


def test_closing_ends_followers_of_a_stream_without_end() -> None:
    ended = Event()

    def follow(place: Place) -> None:
        try:
            for _ in place.views():
                pass
        finally:
            ended.set()

    stream = ReadAhead(Endless(), (follow,))
    stream.read(10)
    stream.close()
    stream.close()
    assert ended.wait(SECONDS)


def test_closing_does_not_wait_for_a_source_that_keeps_silent() -> None:
    go_on, returned = Event(), Event()

    class Silent:
        def readinto(self, _: memoryview) -> int:
            go_on.wait(SECONDS)
            returned.set()
            return 0

    ReadAhead(Silent(), ()).close()
    assert not returned.is_set()
    go_on.set()


def test_where_no_thread_may_start_that_is_the_error() -> None:
    with no_more_threads(), pytest.raises(DriverFailed, match="can't start new thread"):
        ReadAhead(Endless(), (Copying(),))
