"""The cache that is bounded in bytes."""

from __future__ import annotations

import random
import threading

import pytest
from segmed.imaging.store import ByteBoundedStore


def _keys(store: ByteBoundedStore[int], keys: str) -> str:
    return "".join(k for k in keys if store.get(k) is not None)


def test_the_longest_unused_goes_first() -> None:
    store: ByteBoundedStore[int] = ByteBoundedStore(30)
    for n, key in enumerate("abc"):
        store.put(key, n, 10)
    assert store.get("a") == 0  # now b is the longest unused
    store.put("d", 3, 10)
    assert store.get("b") is None
    assert _keys(store, "abcd") == "acd"
    assert (len(store), store.nbytes) == (3, 30)


def test_a_large_value_pushes_out_several() -> None:
    store: ByteBoundedStore[int] = ByteBoundedStore(30)
    for n, key in enumerate("abc"):
        store.put(key, n, 10)
    store.put("d", 3, 20)
    assert _keys(store, "abcd") == "cd"
    assert store.nbytes == 30


def test_a_value_above_the_bound_is_not_kept_and_pushes_nothing_out() -> None:
    store: ByteBoundedStore[int] = ByteBoundedStore(30)
    store.put("a", 1, 30)
    store.put("b", 2, 31)
    assert store.get("b") is None
    assert store.get("a") == 1
    assert store.nbytes == 30


def test_an_outgrown_value_does_not_stay_behind() -> None:
    store: ByteBoundedStore[int] = ByteBoundedStore(30)
    store.put("a", 1, 10)
    store.put("a", 2, 31)
    assert store.get("a") is None
    assert (len(store), store.nbytes) == (0, 0)


def test_replacing_counts_bytes_once() -> None:
    store: ByteBoundedStore[int] = ByteBoundedStore(30)
    for value in range(5):
        store.put("a", value, 12)
    store.put("b", 9, 6)
    assert store.get("a") == 4
    assert (len(store), store.nbytes) == (2, 18)
    store.put("a", 5, 3)
    assert store.nbytes == 9


def test_a_bound_of_zero_keeps_nothing() -> None:
    store: ByteBoundedStore[int] = ByteBoundedStore(0)
    store.put("a", 1, 1)
    assert store.get("a") is None
    assert store.nbytes == 0


def test_clear() -> None:
    store: ByteBoundedStore[int] = ByteBoundedStore(30)
    store.put("a", 1, 10)
    store.clear()
    assert (store.get("a"), len(store), store.nbytes) == (None, 0, 0)


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="A cache of -1 bytes is not possible; give 0"):
        ByteBoundedStore(-1)


def test_threads_leave_the_count_right() -> None:
    store: ByteBoundedStore[int] = ByteBoundedStore(1000)
    start, errors = threading.Barrier(8), []

    def hammer(seed: int) -> None:
        rng = random.Random(seed)
        start.wait()
        try:
            for _ in range(2000):
                key, size = rng.randrange(40), rng.randrange(1, 120)
                store.put(key, size, size)
                store.get(rng.randrange(40))
                if store.nbytes < 0:
                    errors.append("negative")
        except Exception as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=hammer, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = [size for key in range(40) if (size := store.get(key)) is not None]
    assert errors == []
    assert len(store) == len(kept) > 0
    assert store.nbytes == sum(kept) <= 1000
