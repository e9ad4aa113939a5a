from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from hostspec.errors import Duplicate, InvalidRequest, StoreCorrupt, StoreReadOnly, Unknown
from hostspec.store.format.layout import Layout
from hostspec.store.format.records import Layer
from hostspec.store.graph_root import GraphRoot


def put(root: GraphRoot, *layers: Layer) -> None:
    with root.layers.writing() as edit:
        for layer in layers:
            edit.put(layer)
        edit.save()


def ids(root: GraphRoot) -> list[str]:
    return [layer.id for layer in root.layers.read()]


def table(layout: Layout) -> Path:
    return Path(layout.layers, "layers.json")


def test_reading_a_store_that_is_not_there_finds_nothing_and_makes_nothing(graph_root: GraphRoot) -> None:
    assert ids(graph_root) == []
    assert not os.path.exists(graph_root.layout.root)


def test_what_one_saves_the_other_sees(graph_root: GraphRoot, layout: Layout) -> None:
    other = GraphRoot(layout)
    assert ids(other) == []
    put(graph_root, Layer(id="a"), Layer(id="b"))
    assert ids(other) == ["a", "b"]


def test_what_is_not_saved_is_forgotten(graph_root: GraphRoot) -> None:
    with graph_root.layers.writing() as edit:
        edit.put(Layer(id="a"))
        assert "a" in edit
    assert ids(graph_root) == []


def test_nothing_is_read_again_while_nothing_has_changed(graph_root: GraphRoot, layout: Layout) -> None:
    put(GraphRoot(layout), Layer(id="a"))
    assert graph_root.layers.read() is graph_root.layers.read()


def test_what_one_has_saved_itself_is_not_read_again(graph_root: GraphRoot) -> None:
    put(graph_root, Layer(id="a"))
    first = graph_root.layers.read()
    assert graph_root.layers.read() is first


def test_a_file_that_somebody_edited_by_hand_is_read_again(graph_root: GraphRoot, layout: Layout) -> None:
    put(graph_root, Layer(id="a"))
    table(layout).write_text('[{"id":"a"},{"id":"edited"}]')
    assert ids(graph_root) == ["a", "edited"]


def test_a_snapshot_does_not_change(graph_root: GraphRoot) -> None:
    put(graph_root, Layer(id="a"))
    before = graph_root.layers.read()
    put(graph_root, Layer(id="b"))
    assert [layer.id for layer in before] == ["a"]


def test_records_of_volatile_layers_stay_in_their_own_file(graph_root: GraphRoot, layout: Layout) -> None:
    put(graph_root, Layer(id="a"))
    volatile = table(layout).with_name("volatile-layers.json")
    volatile.write_text('[{"id":"v"}]')
    with graph_root.layers.writing() as edit:
        edit.put(edit.get("v")._replace(metadata="changed"))
        edit.save()
    assert [each["id"] for each in json.loads(table(layout).read_text())] == ["a"]
    assert [each["metadata"] for each in json.loads(volatile.read_text())] == ["changed"]


def test_fields_that_are_not_known_stay(graph_root: GraphRoot, layout: Layout) -> None:
    put(graph_root)
    os.makedirs(layout.layers, exist_ok=True)
    table(layout).write_text('[{"id":"a","from-the-future":{"x":[1]}}]')
    put(graph_root, Layer(id="b"))
    assert json.loads(table(layout).read_text())[0]["from-the-future"] == {"x": [1]}


@pytest.mark.parametrize(
    ("content", "way_out"),
    [
        ('[{"id":"a"', "move it away"),
        ("\x80", "move it away"),
        ("[" * 100_000, "move it away"),
        ("{}", "newer"),
        ('[{"id":"a","x":NaN}]', "move it away"),
        ('[{"id":"a","x":1e999}]', "move it away"),
    ],
)
def test_a_file_that_is_no_table_is_named_with_the_way_out_and_never_written(
    graph_root: GraphRoot, layout: Layout, content: str, way_out: str
) -> None:
    os.makedirs(layout.layers)
    table(layout).write_bytes(content.encode("latin-1"))
    with pytest.raises(StoreCorrupt, match=way_out) as caught:
        graph_root.layers.read()
    assert caught.value.path == str(table(layout))
    with pytest.raises(StoreCorrupt), graph_root.layers.writing():
        pass
    assert table(layout).read_bytes() == content.encode("latin-1")


@pytest.mark.parametrize(
    "damaged",
    ["1", '"text"', '{"id":1}', '{"id":"d","names":3}', '{"name":"no ID"}', '{"id":".."}', '{"id":"../a"}'],
)
def test_a_damaged_record_does_not_take_the_others_with_it(
    graph_root: GraphRoot, layout: Layout, damaged: str
) -> None:
    os.makedirs(layout.layers)
    table(layout).write_text(f'[{{"id":"a"}},{damaged},{{"id":"b"}}]')
    found = graph_root.layers.read()
    assert [each.id for each in found] == ["a", "b"]
    assert [each.path for each in found.damage] == [str(table(layout))]
    assert "number 2 in the file" in str(found.damage[0])
    put(graph_root, Layer(id="c"))
    rows = json.loads(table(layout).read_text())
    assert json.loads(damaged) in rows
    assert [row["id"] for row in rows if row != json.loads(damaged)] == ["a", "b", "c"]


def test_text_that_is_not_utf_8_is_read_as_the_go_library_reads_it(
    graph_root: GraphRoot, layout: Layout
) -> None:
    os.makedirs(layout.layers)
    table(layout).write_bytes(b'[{"id":"a","metadata":"\xff"}]')
    assert graph_root.layers.read().get("a").metadata == "\N{REPLACEMENT CHARACTER}"


def test_half_a_character_is_read_as_the_go_library_reads_it_and_keeps_nobody_from_writing(
    graph_root: GraphRoot, layout: Layout
) -> None:
    os.makedirs(layout.layers)
    table(layout).write_text(r'[{"id":"a","metadata":"\ud800","new":["\ud83d\ude00"]}]')
    put(graph_root, Layer(id="b"))
    first = json.loads(table(layout).read_text(encoding="utf-8"))[0]
    assert (first["metadata"], first["new"]) == ("\N{REPLACEMENT CHARACTER}", ["\N{GRINNING FACE}"])


def test_of_records_with_one_id_the_last_counts_and_the_others_are_kept(
    graph_root: GraphRoot, layout: Layout
) -> None:
    os.makedirs(layout.layers)
    table(layout).write_text('[{"id":"a","metadata":"first"},{"id":"b"},{"id":"a","metadata":"last"}]')
    found = graph_root.layers.read()
    assert found.get("a").metadata == "last"
    assert "recorded more than once" in str(found.damage[0])
    put(graph_root, Layer(id="new"))
    rows = json.loads(table(layout).read_text())
    assert sorted(row.get("metadata", "") for row in rows if row["id"] == "a") == ["first", "last"]


def test_a_record_that_another_file_hides_is_kept(graph_root: GraphRoot, layout: Layout) -> None:
    os.makedirs(layout.layers)
    volatile = Path(layout.volatile_layers, "volatile-layers.json")
    table(layout).write_text('[{"id":"a","metadata":"seen"}]')
    volatile.write_text('[{"id":"a","metadata":"hidden"},{"id":"b"}]')
    found = graph_root.layers.read()
    assert found.get("a").metadata == "seen"
    assert found.damage == ()
    with graph_root.layers.writing() as edit:
        edit.remove("b")
        edit.save()
    assert [row["metadata"] for row in json.loads(volatile.read_text())] == ["hidden"]


@pytest.mark.parametrize("content", ["", "null", "[]"])
def test_an_empty_file_has_no_records(graph_root: GraphRoot, layout: Layout, content: str) -> None:
    os.makedirs(layout.layers)
    table(layout).write_text(content)
    assert ids(graph_root) == []


def test_a_store_opened_for_reading_is_not_written(layout: Layout) -> None:
    with pytest.raises(StoreReadOnly), GraphRoot(layout, read_only=True).layers.writing():
        pass
    assert not os.path.exists(layout.root)


def test_a_record_is_found_by_id_name_and_unique_beginning(graph_root: GraphRoot) -> None:
    put(graph_root, Layer(id="abc", names=("one",)), Layer(id="abd", names=("two", "ab")))
    layers = graph_root.layers.read()
    assert layers.get("abc").id == "abc"
    assert layers.get("two").id == "abd"
    assert layers.get("ab").id == "abd"
    with pytest.raises(Unknown):
        layers.get("a")
    with pytest.raises(Unknown):
        layers.get("")


def test_an_id_or_name_that_is_taken_is_refused(graph_root: GraphRoot) -> None:
    put(graph_root, Layer(id="abc", names=("one",)))
    layers = graph_root.layers.read()
    with pytest.raises(Duplicate, match="ID"):
        layers.refuse_taken("abc", ())
    with pytest.raises(Duplicate) as caught:
        layers.refuse_taken("new", ["one"])
    assert caught.value.holder == "abc"
    layers.refuse_taken("new", ["other"])


def test_a_name_that_two_records_claim_belongs_to_the_last(graph_root: GraphRoot, layout: Layout) -> None:
    os.makedirs(layout.layers)
    table(layout).write_text('[{"id":"a","names":["n","m"]},{"id":"b","names":["n"]}]')
    layers = graph_root.layers.read()
    assert layers.get("n").id == "b"
    assert layers.get("a").names == ("m",)


def test_taking_a_name_leaves_its_old_holder_the_others(graph_root: GraphRoot) -> None:
    put(graph_root, Layer(id="a", names=("n", "m")), Layer(id="b"))
    with graph_root.layers.writing() as edit:
        edit.take_names(["n", "free"], "b")
        assert edit.get("a").names == ("m",)
        assert edit.with_name("n") is None


def test_text_that_json_cannot_hold_is_refused_and_nothing_written(graph_root: GraphRoot) -> None:
    put(graph_root, Layer(id="a"))
    with pytest.raises(InvalidRequest, match="Unicode"):
        put(graph_root, Layer(id="b", metadata="\udcff"))
    assert ids(graph_root) == ["a"]


def test_threads_lose_nothing(graph_root: GraphRoot) -> None:
    def run(thread: int) -> None:
        for number in range(20):
            put(graph_root, Layer(id=f"{thread}-{number}"))
            assert f"{thread}-{number}" in graph_root.layers.read()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids(graph_root)) == 80
