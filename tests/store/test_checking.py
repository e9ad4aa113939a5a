from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostspec.idmap import IdMap
from hostspec.store import Container, Image, Store, open_store
from hostspec.store.upkeep.findings import Problem
from tests.store.tars import MAP, tar_of

FILES = {"etc": None, "etc/name": b"base\n", "etc/old": b"gone soon", "a": b"short name"}
TOP = {"etc/name": b"top\n", "etc/.wh.old": b"", "d": None, "d/.wh..wh..opq": b""}
DAY = 86_400


class Sample:
    """A store with a healthy image, beside what a test damages."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.healthy = self._image("healthy", b"")
        self.image = self._image("image", b"other")
        self.before = self.state()

    def _image(self, name: str, salt: bytes) -> Image:
        base = self.store.import_layer(io.BytesIO(tar_of({**FILES, "salt": salt})))
        top = self.store.import_layer(io.BytesIO(tar_of(TOP, uid=10, gid=20)), base.id)
        items = {"manifest": b"{}" + salt, "sha256:config": b"[]"}
        return self.store.create_image(top.id, names=[name], big_data=items)

    def state(self) -> tuple[object, ...]:
        store = self.store
        return store.layers(), store.images(), store.containers(), sorted(store.driver.list_layers())

    def tree(self, layer_id: str) -> Path:
        """Where the layer's own files are."""
        home = Path(self.store.root, self.store.driver_name)
        return home / "dir" / layer_id if self.store.driver_name == "vfs" else home / layer_id / "diff"

    def problems(self, *, quick: bool = False, max_age: float = DAY) -> set[tuple[str, str, Problem]]:
        report = self.store.check(quick=quick, max_age=max_age)
        return {(each.kind, each.id, each.problem) for each in report.findings}

    def repair(self, *, containers: bool = False) -> list[str]:
        report = self.store.check()
        return [str(each) for each in self.store.repair(report, containers=containers)]

    def check_only_the_healthy_is_left(self) -> None:
        """The damaged image is gone, the other one untouched, and nothing is wrong any more."""
        assert not self.store.check(max_age=0)
        assert self.store.images() == (self.healthy,)
        assert len(self.store.layers()) == len(self.store.driver.list_layers()) == 2
        with self.store.mounting(self.healthy.id, read_only=True) as path:
            assert sorted(os.listdir(path)) == ["a", "d", "etc", "salt"]


@pytest.fixture(params=["vfs", "overlay"])
def sample(request: pytest.FixtureRequest, ext4_directory: str) -> Iterator[Sample]:
    if os.geteuid() != 0:
        pytest.skip("layers have owners, which only root can give them")
    root, run_root = f"{ext4_directory}/graph", f"{ext4_directory}/run"
    with open_store(root=root, run_root=run_root, driver=request.param) as store:
        yield Sample(store)
        store.wipe()


def test_a_healthy_store_has_no_findings_and_repair_leaves_it_alone(sample: Sample) -> None:
    idmap = IdMap.parse([MAP])
    sample.store.create_container(sample.image.id, idmap=idmap, strategy="template")
    sample.store.create_container(sample.image.id)
    sample.store.create_container()
    before = sample.state()
    report = sample.store.check()
    assert report.findings == ()
    assert not report
    assert sample.store.repair(report, containers=True) == ()
    assert sample.state() == before


def test_a_container_in_use_has_no_findings(sample: Sample) -> None:
    container = sample.store.create_container(sample.image.id)
    with sample.store.mounting(container.id) as path:
        Path(path, "a").write_bytes(b"written by the container")
        assert sample.problems() == set()
        assert Path(path, "a").read_bytes() == b"written by the container"


@pytest.mark.parametrize("content", [b"TOP\n", b"longer than it was\n"])
def test_a_changed_file_is_found_and_its_image_removed(sample: Sample, content: bytes) -> None:
    top = sample.image.layer or ""
    (sample.tree(top) / "etc/name").write_bytes(content)
    assert ("layer", top, Problem.LAYER_DIGEST) in sample.problems(quick=True)
    found = sample.problems()
    assert ("layer", top, Problem.LAYER_DIGEST) in found
    assert ("image", sample.image.id, Problem.IMAGE_LAYER_DAMAGED) in found
    assert {identifier for _, identifier, _ in found} == {top, sample.image.id}
    assert sample.state() == sample.before, "a check changes nothing"
    assert sample.repair() == []
    sample.check_only_the_healthy_is_left()


def test_what_nobody_brought_is_found_only_by_the_thorough_check(sample: Sample) -> None:
    top = sample.image.layer or ""
    (sample.tree(top) / "etc/intruder").write_bytes(b"x")
    assert sample.problems(quick=True) == set()
    report = sample.store.check()
    (finding,) = report.having(Problem.LAYER_MODIFIED)
    assert str(finding) == f"layer {top}: +/etc/intruder, layer content modified"
    assert sample.repair() == []
    sample.check_only_the_healthy_is_left()


def test_another_mode_or_owner_is_found(sample: Sample) -> None:
    top = sample.image.layer or ""
    name = sample.tree(top) / "etc/name"
    os.chown(name, 11, 20)
    name.chmod(0o4755)
    (finding,) = sample.store.check().having(Problem.LAYER_MODIFIED)
    assert finding.detail == "/etc/name(uid:10→11,mode:0644→4755)"


def test_a_missing_file_is_found(sample: Sample) -> None:
    top = sample.image.layer or ""
    (sample.tree(top) / "etc/name").unlink()
    assert ("layer", top, Problem.LAYER_DIGEST) in sample.problems()
    assert sample.repair() == []
    sample.check_only_the_healthy_is_left()


def test_a_broken_tar_split_file_is_found(sample: Sample) -> None:
    top = sample.image.layer or ""
    path = Path(sample.store.root, f"{sample.store.driver_name}-layers", f"{top}.tar-split.gz")
    path.write_bytes(gzip.compress(b"no tar-split"))
    assert ("layer", top, Problem.LAYER_DIGEST) in sample.problems()
    assert sample.repair() == []
    sample.check_only_the_healthy_is_left()


@pytest.mark.parametrize("quick", [False, True])
def test_without_a_tar_split_file_another_digest_says_nothing(sample: Sample, *, quick: bool) -> None:
    """What is packed anew is not packed as its maker did, and there is no such file for some tars."""
    twice = io.BytesIO(tar_of({"file": b"first"})[:1024] + tar_of({"./file": b"second"}))
    layer = sample.store.import_layer(twice)
    sample.store.create_image(layer.id)
    top = sample.store.layer(sample.image.layer or "")
    for each in (top.id, top.parent):
        Path(sample.store.root, f"{sample.store.driver_name}-layers", f"{each}.tar-split.gz").unlink()
    before = sample.state()
    assert sample.problems(quick=quick) == set()
    assert sample.repair(containers=True) == []
    assert sample.state() == before


def test_a_container_may_change_what_was_unpacked_into_it(sample: Sample) -> None:
    container = sample.store.create_container(sample.image.id)
    sample.store.apply_diff(container.layer, io.BytesIO(tar_of({"new": b"unpacked"})))
    with sample.store.mounting(container.id) as path:
        Path(path, "new").write_text("changed")
    assert sample.problems() == set()
    assert sample.repair(containers=True) == []
    assert sample.store.containers() == (container,)


def test_a_layer_that_the_driver_lost_is_found(sample: Sample) -> None:
    top = sample.image.layer or ""
    sample.store.driver.remove(top)
    sample.store.driver.reclaim()
    assert ("layer", top, Problem.LAYER_NOT_IN_DRIVER) in sample.problems()
    assert sample.repair() == []
    sample.check_only_the_healthy_is_left()


def test_a_driver_layer_without_record_is_found_and_removed(sample: Sample) -> None:
    driver = sample.store.driver
    driver.create("stray")
    driver.commit("stray")
    assert sample.problems() == {("layer", "stray", Problem.LAYER_UNACCOUNTED)}
    assert sample.repair() == []
    assert sample.state() == sample.before


def test_a_layer_whose_parent_has_no_record_is_found(sample: Sample) -> None:
    top = sample.store.layer(sample.image.layer or "")
    with sample.store._root.editing() as edits:
        edits.layers.remove(top.parent or "")
        edits.layers.save()
    found = sample.problems()
    assert ("layer", top.id, Problem.PARENT_MISSING) in found
    assert ("layer", top.parent, Problem.LAYER_UNACCOUNTED) in found
    assert ("image", sample.image.id, Problem.IMAGE_LAYER_DAMAGED) in found
    assert sample.repair() == []
    sample.check_only_the_healthy_is_left()


def test_an_image_whose_layer_has_no_record_is_found(sample: Sample) -> None:
    top = sample.store.layer(sample.image.layer or "")
    with sample.store._root.editing() as edits:
        edits.layers.remove(top.id)
        edits.layers.save()
    assert ("image", sample.image.id, Problem.IMAGE_LAYER_MISSING) in sample.problems()
    assert sample.repair() == []
    assert sample.store.images() == (sample.healthy,)
    assert [layer.id for layer in sample.store.layers() if layer.id == top.parent] == [top.parent]
    assert sample.problems(max_age=0) == {("layer", top.parent, Problem.LAYER_UNREFERENCED)}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, Problem.IMAGE_DATA_MISSING),
        (b"longer", Problem.IMAGE_DATA_SIZE),
        (b"{}", Problem.IMAGE_DATA_DIGEST),
    ],
)
def test_damaged_data_of_an_image_is_found(sample: Sample, content: bytes | None, problem: Problem) -> None:
    directory = Path(sample.store.root, f"{sample.store.driver_name}-images", sample.image.id)
    (item,) = (each for each in directory.iterdir() if each.name.startswith("="))
    if content is None:
        item.unlink()
    else:
        item.write_bytes(content)
    assert sample.problems() == {("image", sample.image.id, problem)}
    (finding,) = sample.store.check().findings
    (key,) = (each for each in sample.image.big_data if not each.isalnum())
    assert str(finding).startswith(f'image {sample.image.id}: data item "{key}": {problem.value}')
    assert sample.repair() == []
    sample.check_only_the_healthy_is_left()


def test_missing_data_of_a_layer_is_found(sample: Sample) -> None:
    top = sample.store.layer(sample.image.layer or "")
    sample.store.set_big_data(top, "item", b"x")
    assert sample.problems() == set()
    shutil.rmtree(Path(sample.store.root, f"{sample.store.driver_name}-layers", top.id))
    (finding,) = sample.store.check().having(Problem.LAYER_DATA_MISSING)
    assert str(finding).startswith(f'layer {top.id}: data item "item": layer data item is missing')


def _damage_container(sample: Sample) -> Container:
    container = sample.store.create_container(sample.image.id, names=["damaged"])
    sample.store.create_container(sample.healthy.id, names=["well"])
    (sample.tree(sample.image.layer or "") / "etc/name").write_bytes(b"TOP\n")
    return container


def test_a_container_on_a_damaged_image_stays_unless_forced(sample: Sample) -> None:
    container = _damage_container(sample)
    assert ("container", container.id, Problem.CONTAINER_IMAGE_DAMAGED) in sample.problems()
    errors = sample.repair()
    assert any("in use" in error for error in errors)
    assert sample.store.has_container("damaged")
    assert sample.store.has_image(sample.image.id)
    assert sample.repair(containers=True) == []
    assert [each.names for each in sample.store.containers()] == [("well",)]
    assert sample.store.images() == (sample.healthy,)
    assert not sample.store.check()


def test_a_container_without_its_layer_or_image_is_found(sample: Sample) -> None:
    container = sample.store.create_container(sample.image.id)
    with sample.store._root.editing() as edits:
        edits.layers.remove(container.layer)
        edits.images.remove(sample.image.id)
        edits.layers.save()
        edits.images.save()
    found = sample.problems()
    assert ("container", container.id, Problem.CONTAINER_LAYER_MISSING) in found
    assert ("container", container.id, Problem.CONTAINER_IMAGE_MISSING) in found
    assert sample.repair(containers=True) == []
    assert sample.store.containers() == ()


def test_damaged_data_of_a_container_is_found(sample: Sample) -> None:
    container = sample.store.create_container(sample.image.id)
    sample.store.set_big_data(container, "item", b"x")
    path = Path(sample.store.root, f"{sample.store.driver_name}-containers", container.id, "item")
    path.write_bytes(b"y")
    assert sample.problems() == {("container", container.id, Problem.CONTAINER_DATA_DIGEST)}
    path.write_bytes(b"yy")
    assert sample.problems() == {("container", container.id, Problem.CONTAINER_DATA_SIZE)}
    path.unlink()
    assert sample.problems() == {("container", container.id, Problem.CONTAINER_DATA_MISSING)}


def test_a_mapped_copy_that_is_not_there_is_forgotten_and_its_image_stays(sample: Sample) -> None:
    with sample.store._root.editing() as edits:
        image = edits.images.get(sample.image.id)
        edits.images.put(image._replace(mapped_layers=("gone",)))
        edits.images.save()
    assert sample.problems() == {("image", sample.image.id, Problem.IMAGE_COPY_MISSING)}
    assert sample.repair() == []
    assert sample.state() == sample.before


def test_a_damaged_mapped_copy_goes_and_its_image_stays(sample: Sample) -> None:
    container = sample.store.create_container(sample.image.id, idmap=IdMap.parse([MAP]), strategy="template")
    sample.store.delete_container(container.id)
    (copy,) = sample.store.image(sample.image.id).mapped_layers
    # On overlay an ownership pass leaves its result in a directory beside the one for what comes later.
    own = sample.tree(copy) if sample.store.driver_name == "vfs" else sample.tree(copy).parent
    (name,) = own.rglob("etc/name")
    name.write_bytes(b"TOP\n")
    assert {each[:2] for each in sample.problems()} == {("layer", copy)}
    assert sample.repair() == []
    assert sample.state() == sample.before


def test_an_old_layer_that_nothing_uses_is_removed_and_a_young_one_stays(sample: Sample) -> None:
    layer = sample.store.create_layer()
    assert sample.problems() == set()
    report = sample.store.check(max_age=0)
    assert {(each.id, each.problem) for each in report.findings} == {(layer.id, Problem.LAYER_UNREFERENCED)}
    assert sample.store.repair(report) == ()
    assert sample.state() == sample.before


def test_with_a_record_that_cannot_be_read_nothing_counts_as_unused(sample: Sample) -> None:
    table = Path(sample.store.root, f"{sample.store.driver_name}-images", "images.json")
    table.write_bytes(table.read_bytes().replace(b'"layer":', b'"layer":7,"no":'))
    report = sample.store.check(max_age=0)
    assert report.damage
    assert not list(report.having(Problem.LAYER_UNREFERENCED, Problem.LAYER_UNACCOUNTED))
    before = sorted(sample.store.driver.list_layers())
    sample.store.repair(report, containers=True)
    assert sorted(sample.store.driver.list_layers()) == before
    table.write_bytes(table.read_bytes().replace(b'"layer":7,"no":', b'"layer":'))


def test_tars_that_lead_through_symbolic_links_are_no_damage(sample: Sample) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, kind, link in (
            ("usr", tarfile.DIRTYPE, ""),
            ("usr/lib", tarfile.DIRTYPE, ""),
            ("lib", tarfile.SYMTYPE, "usr/lib"),
            ("usr/lib/one", tarfile.REGTYPE, ""),
            ("two", tarfile.LNKTYPE, "usr/lib/one"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = kind, link, 0o755
            tar.addfile(member)
    base = sample.store.import_layer(io.BytesIO(target.getvalue()))
    top = sample.store.import_layer(io.BytesIO(tar_of({"lib/three": b"3", "new/deep": b"x"})), base.id)
    sample.store.create_image(top.id)
    assert sample.problems() == set()


def _with_additional_store(sample: Sample, directory: str) -> Store:
    return open_store(
        root=f"{directory}/own",
        run_root=f"{directory}/run-own",
        driver=sample.store.driver_name,
        options=[f"{sample.store.driver_name}.imagestore={sample.store.root}"],
    )


def test_damage_in_an_additional_store_is_told_and_left_alone(sample: Sample, ext4_directory: str) -> None:
    top = sample.image.layer or ""
    with _with_additional_store(sample, ext4_directory) as own:
        own.create_container(sample.healthy.id)
        assert not own.check(max_age=0)
        (sample.tree(top) / "etc/name").write_bytes(b"TOP\n")
        report = own.check(max_age=0)
        assert set(report.of("layer", read_only=True)) == {top}
        assert set(report.of("image", read_only=True)) == {sample.image.id}
        assert not report.of("layer")
        assert not report.of("image")
        assert str(report.findings[0]).startswith(f"read-only layer {top}: ")
        assert own.repair(report, containers=True) == ()
        assert own.collect_garbage() == ()
        own.wipe()
    assert sample.state() == sample.before


@pytest.mark.skipif(os.geteuid() != 0, reason="layers have owners, which only root can give them")
def test_a_store_with_images_of_their_own_root_is_checked_as_a_whole(ext4_directory: str) -> None:
    with open_store(
        root=f"{ext4_directory}/graph",
        run_root=f"{ext4_directory}/run",
        image_store=f"{ext4_directory}/images",
        driver="overlay",
    ) as store:
        sample = Sample(store)
        store.create_container(sample.healthy.id)
        assert not store.check(max_age=0)
        assert store.collect_garbage() == ()
        top = sample.image.layer or ""
        Path(ext4_directory, "images/overlay", top, "diff/etc/name").write_bytes(b"TOP\n")
        assert sample.repair() == []
        assert store.images() == (sample.healthy,)
        assert not store.check(max_age=0)
        store.wipe()
