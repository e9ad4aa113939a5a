"""A forked child goes on with the parent's open store, whatever the parent was at."""

from __future__ import annotations

import os
import threading

from hostspec.store import Store
from hostspec.store.graph_root import GraphRoot
from hostspec.testing.children import do_at_once


def test_a_child_may_make_what_a_thread_of_its_parent_is_making(graph_root: GraphRoot) -> None:
    def make() -> None:
        assert not graph_root.is_making("layer")
        with graph_root.making("layer"):
            assert graph_root.is_making("layer")

    with graph_root.making("layer"):
        do_at_once([make])
        assert graph_root.is_making("layer")


def test_a_child_uses_the_store_while_threads_of_its_parent_do(store: Store) -> None:
    # What is imported while a process forks, Python's own locks keep from the child for ever.
    store.delete_layer(store.create_layer().id)
    parent = os.getpid()
    stop = threading.Event()

    def keep_making() -> None:
        while not stop.is_set():
            store.delete_layer(store.create_layer().id)

    def make_in_threads() -> None:
        assert os.getpid() != parent
        threads = [threading.Thread(target=store.create_layer) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.close()

    threads = [threading.Thread(target=keep_making) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            do_at_once([make_in_threads])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(store.layers()) == 5 * 4
