from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostspec.idmap import IdMap
from hostspec.store.format.record_json import (
    Json,
    Malformed,
    container_from_json,
    container_to_json,
    image_from_json,
    image_to_json,
    layer_from_json,
    layer_to_json,
)
from hostspec.store.format.records import Container, Image, Layer

# Written by containers-storage 1.43, as they stand in its files.
LAYER = (
    '{"id":"3958","names":["a name"],"parent":"2094","metadata":"m","mountlabel":"l",'
    '"created":"2026-11-23T20:04:39.635366074Z","compressed-diff-digest":"sha256:9479","compressed-size":143,'
    '"diff-digest":"sha256:754e","diff-size":10240,"compression":2,"uidset":[0,10],"gidset":[0],'
    '"flags":{"incomplete":true},"uidmap":[{"container_id":0,"host_id":1000,"size":10}],'
    '"gidmap":[{"container_id":0,"host_id":1000,"size":5},{"container_id":5,"host_id":2000,"size":5}],'
    '"big-data-names":["foo:Bar"]}'
)
IMAGE = (
    '{"id":"51d1","digest":"sha256:ca3d","names":["img3"],"names-history":["img3","img1"],"layer":"b846",'
    '"mapped-layers":["3958"],"metadata":"{}","big-data-names":["manifest"],"big-data-sizes":{"manifest":3},'
    '"big-data-digests":{"manifest":"sha256:ca3d"},"created":"2026-11-23T20:04:39.615637023Z"}'
)
CONTAINER = (
    '{"id":"18c0","names":["c1"],"image":"51d1","layer":"60ee","big-data-names":["k"],"big-data-sizes":{"k":3},'
    '"big-data-digests":{"k":"sha256:ca3d"},"created":"2026-11-23T20:04:39.64358332Z",'
    '"uidmap":[{"container_id":0,"host_id":1000,"size":10}],'
    '"gidmap":[{"container_id":0,"host_id":1000,"size":10}],'
    '"flags":{"MountLabel":"","ProcessLabel":"","Volatile":true}}'
)

texts = st.text(st.characters(exclude_categories=["Cs"]))
names = st.lists(texts, unique=True).map(tuple)
# Of IDs, files get their names.
ids = texts.filter(lambda text: text not in {"", ".", ".."} and not {"/", "\0"} & set(text))
digests = st.none() | texts.filter(bool)
flags = st.dictionaries(texts, st.booleans() | texts | st.integers())
extra = st.dictionaries(texts.map("new-".__add__), st.integers() | texts | st.lists(texts))
starts = st.integers(0, 2**31)
# Where a record lies is no part of it.
_where: Mapping[str, st.SearchStrategy[object]] = {
    "read_only": st.just(value=False),
    "elsewhere": st.just(""),
}
idmaps = st.builds(
    lambda uid, gid, size: IdMap([(0, uid, size)], [(0, gid, size)]), starts, starts, st.integers(1, 2**30)
)


def compact(fields: Json) -> str:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        (LAYER, lambda fields: layer_to_json(layer_from_json(fields))),
        (IMAGE, lambda fields: image_to_json(image_from_json(fields))),
        (CONTAINER, lambda fields: container_to_json(container_from_json(fields))),
    ],
    ids=["layer", "image", "container"],
)
def test_what_the_go_library_wrote_is_written_back_byte_for_byte(
    text: str, rewritten: Callable[[Json], Json]
) -> None:
    assert compact(rewritten(json.loads(text))) == text


def test_a_layer_is_understood() -> None:
    layer = layer_from_json(json.loads(LAYER))
    assert layer.parent == "2094"
    assert layer.diff_size == 10240
    assert layer.uids == (0, 10)
    assert layer.incomplete
    assert layer.idmap == IdMap([(0, 1000, 10)], [(0, 1000, 5), (5, 2000, 5)])


def test_an_image_is_found_by_the_digests_of_its_manifests() -> None:
    image = Image(
        id="a",
        digest="sha256:1",
        big_data_digests={"manifest": "sha256:2", "manifest-sha256:1": "sha256:1", "signature": "sha256:3"},
    )
    assert image.digests == ("sha256:1", "sha256:2")


def test_a_container_is_understood() -> None:
    container = container_from_json(json.loads(CONTAINER))
    assert container.volatile
    assert container.mount_label == ""
    assert container.mount_options == ()


@given(
    st.builds(
        Layer,
        id=ids,
        **_where,
        names=names,
        parent=digests,
        metadata=texts,
        mount_label=texts,
        diff_digest=texts.filter(bool),
        diff_size=st.integers(0, 2**62),
        compressed_digest=texts.filter(bool),
        compressed_size=st.integers(0, 2**62),
        toc_digest=digests,
        compression=st.integers(0, 4),
        uids=st.lists(st.integers(0, 2**32 - 2)).map(tuple),
        flags=flags,
        idmap=idmaps | st.just(IdMap()),
        big_data=names,
        created=ids,
        gids=st.just((0, 4_294_967_294)),
        extra=extra,
    )
)
def test_a_layer_survives_being_written_and_read(layer: Layer) -> None:
    assert layer_from_json(json.loads(compact(layer_to_json(layer)))) == layer


@given(
    st.builds(
        Image,
        id=ids,
        **_where,
        digest=digests,
        names=names,
        names_history=names,
        layer=digests,
        mapped_layers=names,
        metadata=texts,
        big_data=names,
        big_data_sizes=st.dictionaries(texts, st.integers(0, 2**62)),
        big_data_digests=st.dictionaries(texts, texts),
        created=ids,
        flags=flags,
        extra=extra,
    )
)
def test_an_image_survives_being_written_and_read(image: Image) -> None:
    assert image_from_json(json.loads(compact(image_to_json(image)))) == image


@given(
    st.builds(
        Container,
        id=ids,
        names=names,
        image=digests,
        layer=texts,
        metadata=texts,
        idmap=idmaps | st.just(IdMap()),
        big_data=names,
        big_data_sizes=st.dictionaries(texts, st.integers(0, 2**62)),
        big_data_digests=st.dictionaries(texts, texts),
        created=ids,
        flags=flags,
        extra=extra,
    )
)
def test_a_container_survives_being_written_and_read(container: Container) -> None:
    assert container_from_json(json.loads(compact(container_to_json(container)))) == container


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"id": 1},
        {"id": "a", "names": "b"},
        {"id": "a", "names": [1]},
        {"id": "a", "uidset": ["0"]},
        {"id": "a", "diff-size": "1"},
        {"id": "a", "flags": []},
        {"id": "a", "uidmap": {"container_id": 0}},
        {"id": "a", "uidmap": [1]},
        {"id": "a", "uidmap": [{"container_id": 0, "host_id": 0, "size": 0}]},
    ],
)
def test_a_field_of_the_wrong_type_is_noticed(fields: Json) -> None:
    with pytest.raises(Malformed):
        layer_from_json(fields)


def test_null_is_as_good_as_nothing() -> None:
    assert layer_from_json({"id": "a", "names": None, "flags": None, "uidmap": None}) == Layer(id="a")
