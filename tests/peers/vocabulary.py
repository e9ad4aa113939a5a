"""Random sequences of operations, as command lines that hostspec and containers-storage both understand.

IDs and names come from small pools, so that steps build on each other, collide, and miss now and then.
No ID is made of hexadecimal digits alone: it could be the beginning of one that a program makes up.
``@NAME`` stands for a file, and some steps are the test's own: ``write`` and ``remove`` change a mounted
container, and ``data`` sets an item of big data.
"""

from __future__ import annotations

from hypothesis import strategies as st

from tests.store.tars import MAP, OTHER_MAP, tar_of

__all__ = ["FILES", "FIRST_STEPS", "Step", "sequences"]

Step = tuple[str, ...]
"""One command line."""

_LAYERS = ("l0", "l1", "l2", "l3")


def _tars_for(layer: str) -> dict[str, bytes]:
    """Return what that layer may be made of; no two layers have files of the same content.

    The overlay driver of the Go library calls a file modified that came again as it was, hostspec does not.
    No entry at the top has a name of one character: those the Go library maps wrongly.
    """
    own = layer.encode()
    base = {"etc": None, "etc/name": b"base" + own, "etc/other": b"other" + own, "top": own}
    upper = {"etc/name": b"changed" + own, "etc/.wh.other": b"", "new": None, "new/file": own}
    opaque = {"etc": None, "etc/.wh..wh..opq": b"", "etc/only": b"only" + own}
    return {
        f"@base-{layer}": tar_of(base, uid=7),
        f"@upper-{layer}": tar_of(upper, gid=8),
        f"@opaque-{layer}": tar_of(opaque),
    }


FILES = {name: content for layer in _LAYERS for name, content in _tars_for(layer).items()}
"""Files that steps name: tars, and items of big data."""
FILES |= {"@item": b'{"schemaVersion": 2}', "@other-item": b"\0 any bytes \xff"}

FIRST_STEPS: tuple[Step, ...] = (
    ("import-layer", "-i", "l0", "-n", "base", "-r", "-f", "@base-l0"),
    ("import-layer", "-i", "l1", "-r", "-f", "@upper-l1", "l0"),
    ("create-image", "-i", "i0", "-n", "image", "-m", "text of the image", "l1"),
    ("create-container", "-i", "ct0", "-n", "plain", "-m", "text of the container", "i0"),
)
"""What every sequence begins with, so that there is something to work on."""

_layers = st.sampled_from(_LAYERS)
_images = st.sampled_from(("i0", "i1"))
_containers = st.sampled_from(("ct0", "ct1", "ct2"))
_names = st.sampled_from(("base", "image", "plain", "free", "other"))
_anything = st.one_of(_layers, _images, _containers, _names)
# Not by a layer's name, for which the peer looks in the driver, as if it were the layer's ID.
_mountable = st.one_of(_containers, _containers, _layers, _images)
_kinds_of_tar = st.sampled_from(("base", "upper", "opaque"))
_texts = st.sampled_from(("short", 'with "quotes" & <brackets>', "ünïcode \u2028"))
_maps = st.sampled_from(
    (
        (),
        (),
        ("--uidmap", MAP, "--gidmap", MAP),
        ("--uidmap", OTHER_MAP, "--gidmap", MAP),
        ("--hostuidmap", "--gidmap", OTHER_MAP),
    )
)
_keys = st.sampled_from(("manifest", "manifest-1", "sha256:0a", "plain.key", "An odd / key", "endsInX"))
_items = st.sampled_from(("@item", "@other-item"))
_named = st.one_of(st.just(()), st.builds(lambda name: ("-n", name), _names))
_parent = st.one_of(st.just(()), _layers.map(lambda each: (each,)))


def _step(*parts: str | st.SearchStrategy[object]) -> st.SearchStrategy[Step]:
    """Return steps of these words; a part may also stand for several words, or none."""
    return st.tuples(*(st.just(part) if isinstance(part, str) else part for part in parts)).map(_flat)


def _flat(parts: tuple[object, ...]) -> Step:
    words: list[str] = []
    for part in parts:
        words += part if isinstance(part, tuple) else [str(part)]
    return tuple(words)


def _filled(*words: str) -> st.SearchStrategy[Step]:
    """Return the beginning of a command line: a tar, and then these words and the layer that it is for."""
    command, *others = words
    return st.builds(
        lambda kind, layer: (command, "-f", f"@{kind}-{layer}", *others, layer), _kinds_of_tar, _layers
    )


_MAKING = (
    _step("create-layer", "-i", _layers, _named, _maps, _parent),
    _step(_filled("import-layer", "-r", "-i"), _named, _parent),
    _step(_filled("import-layer", "-i"), _maps, _parent),
    _step("create-image", "-i", _images, _named, "-m", _texts, _layers),
    _step("create-container", "-i", _containers, _named, "-m", _texts, _maps, _images),
    _step("create-container", "-i", _containers, _maps, _images),
)
_CHANGING = (
    _step("mount", _mountable),
    _step("unmount", _mountable),
    _step("unmount", "-f", _mountable),
    _step("write", _containers, st.sampled_from(("etc/name", "written", "etc/written"))),
    _step("remove", _containers, st.sampled_from(("etc/name", "written", "top"))),
    # Only a tar that deletes nothing: on overlay, the peer fails where the layer itself has what is to go.
    _step("applydiff", _layers.map(lambda layer: ("-f", f"@base-{layer}", layer))),
    _step("data", "layer", _layers, _keys, _items),
    _step("data", "image", _images, _keys, _items),
    _step("data", "container", _containers, _keys, _items),
    _step("add-names", "-n", _names, _anything),
    _step("set-names", "-n", _names, _anything),
    _step("set-metadata", "-m", _texts, _anything),
)
_REMOVING = (
    _step("delete-layer", _layers),
    _step("delete-image", _images),
    _step("delete-container", _containers),
    _step("delete", _containers),
)
_LOOKING = (
    _step("exists", _anything),
    _step("get-names", _anything),
    _step("metadata", _anything),
    _step("mounted", _mountable),
    _step("layer", _layers),
    _step("image", _images),
    _step("container", _containers),
    _step("changes", _layers),
    _step("changes", _layers, _layers),
    _step("diffsize", _layers),
)

_steps = st.one_of(*_MAKING, *_MAKING, *_CHANGING, *_REMOVING, *_LOOKING)


def sequences(longest: int) -> st.SearchStrategy[list[Step]]:
    """Return sequences of up to ``longest`` random steps."""
    return st.lists(_steps, min_size=3, max_size=longest)
