"""Whatever a table's file holds, looking at the store neither fails nor loses a record."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostspec.cli.main import main
from hostspec.store import open_store
from hostspec.store.format.layout import Layout

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("names", "parent", "metadata", "created", "layer", "image", "flags", "uidmap", "gidmap",
          "big-data-names", "big-data-sizes", "big-data-digests", "compression", "diff-size",
          "mapped-layers", "names-history", "uidset", "digest")  # fmt: skip
RECORDS = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4)
WHOLE = {"id": "whole", "layer": "none", "created": "2024-01-01T00:00:00Z", "names": ["name"]}
KINDS = ("layer", "image", "container")
LOOKS = (
    ["layers"], ["layers", "-t"], ["layers", "-j"], ["images"], ["images", "-j"], ["containers"],
    ["containers", "-j"], ["layer", "whole"], ["exists", "whole"],
    ["get-names", "whole"], ["metadata", "whole"],
)  # fmt: skip

some = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def _table(directory: str, kind: str) -> Path:
    layout = Layout(f"{directory}/graph", f"{directory}/run", "vfs")
    where = {"layer": layout.layers, "image": layout.images, "container": layout.containers}[kind]
    table = Path(where, f"{kind}s.json")
    table.parent.mkdir(parents=True)
    return table


def _look(directory: str) -> None:
    """Run every command that only reads; each says what it can, and none crashes."""
    store = ["-g", f"{directory}/graph", "-R", f"{directory}/run", "-s", "vfs"]
    for words in LOOKS:
        assert main([*store, *words]) in {0, 1}


@pytest.mark.parametrize("kind", KINDS)
@some
@given(raw=st.one_of(JSON, RECORDS, RECORDS.map(lambda fields: {"id": "odd", **fields})))
def test_a_garbled_record_hides_no_other_and_is_kept(
    kind: str, raw: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        table = _table(directory, kind)
        table.write_text(json.dumps([raw, WHOLE]))
        _look(directory)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        with open_store(root=f"{directory}/graph", run_root=f"{directory}/run", driver="vfs") as store:
            assert "whole" in {each.id for each in getattr(store, f"{kind}s")()}
            store.set_metadata("whole", "changed")
        written = json.loads(table.read_text())
        assert len(written) == 2
        assert {**WHOLE, "metadata": "changed"}.items() <= _of_whole(written).items()
        # What has no ID is no record, and is kept to the letter.
        assert (isinstance(raw, dict) and "id" in raw) or raw in written


def _of_whole(rows: list[object]) -> dict[str, object]:
    return next(each for each in rows if isinstance(each, dict) and each.get("id") == "whole")


@pytest.mark.parametrize("kind", KINDS)
@some
@given(end=st.integers(0, 120), noise=st.binary(max_size=12))
def test_a_truncated_or_overwritten_file_is_reported_and_left_as_it_is(
    kind: str, end: int, noise: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.dumps([WHOLE]).encode()[:end] + noise
    with tempfile.TemporaryDirectory() as directory:
        table = _table(directory, kind)
        table.write_bytes(content)
        _look(directory)
        assert "Traceback" not in capsys.readouterr().err
        with open_store(root=f"{directory}/graph", run_root=f"{directory}/run", driver="vfs") as store:
            complaints = [str(each) for each in store.damage([kind])]
            assert all(str(table) in each for each in complaints)
        assert table.read_bytes() == content
