"""The façade: what is no driver is refused by name, and no operation silently does nothing."""

# The hooks of a driver have the arguments that they have.
# ruff: noqa: ARG002

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from hostspec.driver import GraphDriver
from hostspec.errors import DriverBroken, DriverFailed, OperationNotSupported, Unknown
from hostspec.hookspecs import REQUIRED_HOOKS, hookimpl
from hostspec.idmap import IdMap
from hostspec.kernel.mountinfo import is_mountpoint
from hostspec.kernel.mounts import bind
from hostspec.observers import Operation
from hostspec.values import Capabilities, Change, DiskUsage, LayerRef, MountOptions
from tests.testing.minimal_driver.hostspec_minimal import MinimalDriver


class Recorder:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str, str | None]] = []

    def started(self, operation: Operation) -> None:
        self.events.append(("started", operation.name, operation.layer_id, None))

    def finished(self, operation: Operation, error: BaseException | None) -> None:
        failed = None if error is None else type(error).__name__
        self.events.append(("finished", operation.name, operation.layer_id, failed))


class Grumbler:
    """An observer that fails whatever it is told."""

    def started(self, operation: Operation) -> None:
        raise RuntimeError(operation.name)

    def finished(self, operation: Operation, error: BaseException | None) -> None:
        raise RuntimeError(operation.name) from error


def opened(directory: Path, implementation: object = None, **arguments: Any) -> GraphDriver:  # noqa: ANN401
    home, run_root = str(directory / "home"), str(directory / "run")
    if implementation is None:
        implementation = MinimalDriver(home, run_root, (), ())
    elif isinstance(implementation, type):
        implementation = implementation(home, run_root, (), ())
    return GraphDriver("minimal", implementation, home=home, run_root=run_root, **arguments)


# Who is no driver


@pytest.mark.parametrize("hook", sorted(REQUIRED_HOOKS))
def test_a_driver_that_lacks_a_required_hook_is_refused_by_name(tmp_path: Path, hook: str) -> None:
    with pytest.raises(DriverBroken, match=rf"required hooks {hook}$"):
        opened(tmp_path, masked=frozenset({hook}))


def test_an_object_without_any_hook_is_refused_with_all_that_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(DriverBroken) as refusal:
        opened(tmp_path, object())

    assert all(hook in refusal.value.reason for hook in REQUIRED_HOOKS)


def test_a_misspelt_hook_is_refused_by_name(tmp_path: Path) -> None:
    class Misspelt(MinimalDriver):
        @hookimpl
        def list_layer(self) -> Sequence[str]:
            return ()

    with pytest.raises(DriverBroken, match="list_layer"):
        opened(tmp_path, Misspelt)


def test_a_hook_with_an_argument_of_its_own_is_refused_by_name(tmp_path: Path) -> None:
    class Curious(MinimalDriver):
        @hookimpl
        def metadata(self, layer_id: str, verbose: bool) -> Sequence[tuple[str, str]]:
            return ((layer_id, str(verbose)),)

    with pytest.raises(DriverBroken, match=r"metadata.*verbose"):
        opened(tmp_path, Curious)


def test_a_method_with_a_hooks_name_but_no_marker_is_refused_by_name(tmp_path: Path) -> None:
    class Unmarked(MinimalDriver):
        def disk_usage(self, layer_id: str) -> DiskUsage:
            raise NotImplementedError(layer_id)

    with pytest.raises(DriverBroken, match=r"'disk_usage'.*hookimpl"):
        opened(tmp_path, Unmarked)


class MadeLater(MinimalDriver):
    @hookimpl
    def create(self, layer_id: str) -> Iterator[str]:  # type: ignore[override]
        yield layer_id


class MadeLaterStill(MinimalDriver):
    @hookimpl
    async def create(self, layer_id: str) -> None:  # type: ignore[override]
        """Do nothing until somebody waits for it."""


class MadeAroundNothing(MinimalDriver):
    @hookimpl(wrapper=True)
    def create(self, layer_id: str) -> Iterator[None]:  # type: ignore[override]
        yield


class MadeWithoutParent(MinimalDriver):
    @hookimpl
    def create(self, layer_id: str, parent: LayerRef | None = None) -> None:  # type: ignore[override]
        """Make a layer on no parent, whatever parent it was to have."""


@pytest.mark.parametrize(
    ("idle", "reason"),
    [
        (MadeLater, "a generator function"),
        (MadeLaterStill, "a coroutine function"),
        (MadeAroundNothing, "a wrapper"),
        (MadeWithoutParent, "a default for parent"),
    ],
)
def test_a_hook_whose_call_would_not_do_the_work_is_refused_by_name(
    tmp_path: Path, idle: type, reason: str
) -> None:
    with pytest.raises(DriverBroken, match=rf"'create'.*{reason}"):
        opened(tmp_path, idle)


def test_an_argument_of_the_drivers_own_may_have_a_default(tmp_path: Path) -> None:
    class Styled(MinimalDriver):
        @hookimpl
        def metadata(self, layer_id: str, style: str = "short") -> Sequence[tuple[str, str]]:
            return ((layer_id, style),)

    assert opened(tmp_path, Styled).metadata("layer") == (("layer", "short"),)


def test_a_class_is_no_driver(tmp_path: Path) -> None:
    with pytest.raises(DriverBroken, match="class MinimalDriver"):
        GraphDriver("minimal", MinimalDriver, home=str(tmp_path), run_root=str(tmp_path))


def test_an_older_hook_with_fewer_arguments_is_called(tmp_path: Path) -> None:
    class Older(MinimalDriver):
        @hookimpl
        def diff_size(self, layer: LayerRef) -> int:
            return len(layer.layer_id)

    assert opened(tmp_path, Older).diff_size(LayerRef("four")) == 4


# What is answered


@pytest.mark.parametrize("hook", ["exists", "list_layers", "mount", "capabilities"])
def test_a_required_hook_that_answers_nothing_is_an_error(tmp_path: Path, hook: str) -> None:
    def answer_nothing(self: object) -> None:
        """Forget to return."""

    forgetful = type("Forgetful", (MinimalDriver,), {hook: hookimpl(answer_nothing)})
    driver = opened(tmp_path, forgetful)
    calls: dict[str, Callable[[], object]] = {
        "exists": lambda: driver.exists("layer"),
        "list_layers": driver.list_layers,
        "mount": lambda: driver.mount("layer"),
        "capabilities": lambda: driver.capabilities,
    }

    with pytest.raises(DriverBroken, match=f"{hook}.*nothing"):
        calls[hook]()


@pytest.mark.parametrize(
    ("hook", "answer", "kinds"),
    [
        ("capabilities", {"stages_layers": True}, "dict, not a Capabilities"),
        ("exists", "yes", "str, not a bool"),
        ("list_layers", {"layer"}, "set, not a Sequence"),
        ("mount", Path("/layer"), "PosixPath, not a str"),
    ],
)
def test_an_answer_of_the_wrong_type_is_an_error_with_both_types(
    tmp_path: Path, hook: str, answer: object, kinds: str
) -> None:
    wrong = hookimpl(lambda _self: answer)
    driver = opened(tmp_path, type("Wrong", (MinimalDriver,), {hook: wrong}))
    calls: dict[str, Callable[[], object]] = {
        "exists": lambda: driver.exists("layer"),
        "list_layers": driver.list_layers,
        "mount": lambda: driver.mount("layer"),
        "capabilities": lambda: driver.capabilities,
    }

    with pytest.raises(DriverBroken, match=f"{hook}.*{kinds}"):
        calls[hook]()


@pytest.mark.skipif(os.geteuid() != 0, reason="layers have owners, which only root can give them")
def test_a_driver_that_declines_everything_is_as_one_without_optional_hooks(tmp_path: Path) -> None:
    class Declining(MinimalDriver):
        @hookimpl
        def changes(self, layer: LayerRef, parent: LayerRef | None) -> Iterable[Change] | None:
            return None

        @hookimpl
        def diff(self, layer: LayerRef, parent: LayerRef | None) -> AbstractContextManager[BinaryIO] | None:
            return None

        @hookimpl
        def disk_usage(self, layer_id: str) -> DiskUsage | None:
            return None

    driver = opened(tmp_path, Declining)
    driver.create("layer")
    Path(driver.mount("layer"), "file").write_text("content")

    assert [str(change) for change in driver.changes(LayerRef("layer"))] == ["Add /file"]
    with driver.diff(LayerRef("layer")) as stream:
        assert b"content" in stream.read()
    assert driver.disk_usage("layer").inodes == 2


def test_what_the_driver_answers_is_passed_on_unchanged(tmp_path: Path) -> None:
    usage = DiskUsage(exclusive_bytes=1, shared_bytes=2, inodes=3, limit_bytes=4, limit_inodes=5)

    class Exact(MinimalDriver):
        @hookimpl
        def disk_usage(self, layer_id: str) -> DiskUsage:
            return usage

    assert opened(tmp_path, Exact).disk_usage("layer") is usage


def test_zero_and_empty_are_answers(tmp_path: Path) -> None:
    class Empty(MinimalDriver):
        @hookimpl
        def reclaim(self) -> int:
            return 0

        @hookimpl
        def changes(self, layer: LayerRef, parent: LayerRef | None) -> Iterable[Change]:
            return ()

    driver = opened(tmp_path, Empty)
    driver.create("layer")
    Path(driver.mount("layer"), "file").touch()

    assert driver.reclaim() == 0
    assert list(driver.changes(LayerRef("layer"))) == []


def test_masking_a_hook_leaves_the_work_to_the_fallback(tmp_path: Path) -> None:
    class Wrong(MinimalDriver):
        @hookimpl
        def diff_size(self, layer: LayerRef, parent: LayerRef | None) -> int:
            return -1

    driver = opened(tmp_path, Wrong, masked=frozenset({"diff_size"}))
    driver.create("layer")

    assert driver.diff_size(LayerRef("layer")) == 0
    assert not driver.implements("diff_size")
    assert driver.implements("create")


def test_asking_for_the_fallback_copy_passes_the_driver_by(tmp_path: Path) -> None:
    class Native(MinimalDriver):
        @hookimpl
        def create_from_template(self, template: LayerRef) -> IdMap:
            raise AssertionError(template)

    driver = opened(tmp_path, Native)
    driver.create("template")

    assert driver.create_from_template("copy", LayerRef("template"), native=False) == IdMap()
    assert driver.exists("copy")


def test_dedup_without_a_driver_that_does_it_is_not_supported(tmp_path: Path) -> None:
    with pytest.raises(OperationNotSupported, match="'minimal': dedup"):
        opened(tmp_path).dedup([])


def test_two_drivers_never_answer_for_each_other(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "one"), opened(tmp_path / "two")
    first.create("layer")

    assert (first.exists("layer"), second.exists("layer")) == (True, False)


def test_a_mount_is_taken_down_when_its_block_fails(tmp_path: Path) -> None:
    unmounted: list[str] = []

    class Watching(MinimalDriver):
        @hookimpl
        def unmount(self, layer_id: str, path: str) -> None:
            unmounted.append(path)

    driver = opened(tmp_path, Watching)
    driver.create("layer")

    with pytest.raises(ZeroDivisionError), driver.mounted("layer") as path:
        raise ZeroDivisionError

    assert unmounted == [path]


def test_a_driver_that_cannot_mount_read_only_is_not_asked_to(tmp_path: Path) -> None:
    asked: list[MountOptions] = []

    class Watching(MinimalDriver):
        @hookimpl
        def mount(self, layer_id: str, options: MountOptions) -> str:
            asked.append(options)
            return self._directory(layer_id)

    driver = opened(tmp_path, Watching)
    driver.create("layer")
    with driver.mounted("layer", read_only=True):
        pass

    assert asked == [MountOptions()]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_private_mount_that_cannot_be_taken_down_is_the_drivers_error(tmp_path: Path) -> None:
    class Binding(MinimalDriver):
        @hookimpl
        def capabilities(self) -> Capabilities:
            return Capabilities(layers_are_whole=True)

        @hookimpl
        def mount(self, layer_id: str, options: MountOptions) -> str:
            assert options.target is not None
            bind(super().mount(layer_id, MountOptions()), options.target)
            return options.target

        @hookimpl
        def unmount(self, layer_id: str, path: str) -> None:
            raise DriverFailed(f"unmount layer {layer_id}", "somebody works there")

    driver = opened(tmp_path, Binding)
    driver.create("layer")

    with pytest.raises(DriverFailed, match="somebody works there"), driver.mounted("layer") as path:
        pass

    assert is_mountpoint(path)
    driver.close()
    assert not is_mountpoint(path)


# Observers


def test_observers_are_told_of_start_and_end(tmp_path: Path) -> None:
    recorder = Recorder()
    driver = opened(tmp_path, observers=[recorder])

    driver.create("layer")
    with pytest.raises(Unknown):
        driver.mount("nobody")

    assert recorder.events == [
        ("started", "create", "layer", None),
        ("finished", "create", "layer", None),
        ("started", "mount", "nobody", None),
        ("finished", "mount", "nobody", "Unknown"),
    ]


def test_a_stream_has_finished_when_it_is_closed(tmp_path: Path) -> None:
    recorder = Recorder()
    driver = opened(tmp_path, observers=[recorder])
    driver.create("layer")
    recorder.events.clear()

    with driver.diff(LayerRef("layer")) as stream:
        stream.read()
        while_open = [event for event in recorder.events if event[:2] == ("finished", "diff")]

    assert while_open == []
    assert recorder.events[-1] == ("finished", "diff", "layer", None)


def test_an_observer_that_fails_breaks_no_operation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    driver = opened(tmp_path, observers=[Grumbler(), recorder])

    driver.create("layer")
    with driver.diff(LayerRef("layer")) as stream:
        driver.create("copy")
        driver.apply_diff("copy", io.BytesIO(stream.read()))

    assert sorted(driver.list_layers()) == ["copy", "layer"]
    assert ("finished", "apply_diff", "copy", None) in recorder.events
    assert "failed on started" in caplog.text


def test_an_observer_that_fails_hides_no_error(tmp_path: Path) -> None:
    driver = opened(tmp_path, observers=[Grumbler()])

    with pytest.raises(Unknown, match="nobody"):
        driver.mount("nobody")
