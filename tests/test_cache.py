from __future__ import annotations

import threading

import numpy as np
import pytest

from chronoedit.cache import MemoryCache, content_key, size_bytes


def kilobytes(count: int) -> np.ndarray:
    return np.zeros(count * 1024, np.uint8)


def test_second_look_up_makes_nothing() -> None:
    cache = MemoryCache()
    first = cache.get_or_make("a", lambda: kilobytes(1))
    assert cache.get_or_make("a", lambda: pytest.fail("made twice")) is first
    assert (cache.hits, cache.misses, len(cache), cache.used_bytes) == (1, 1, 1, 1024)


def test_the_value_used_longest_ago_leaves_first() -> None:
    cache = MemoryCache(max_bytes=3 * 1024)
    for key in "abc":
        cache.get_or_make(key, lambda: kilobytes(1))
    cache.get_or_make("a", lambda: pytest.fail("a is still there"))
    cache.get_or_make("d", lambda: kilobytes(1))
    assert [key in cache for key in "abcd"] == [True, False, True, True]
    assert cache.used_bytes == 3 * 1024


def test_a_value_that_does_not_fit_is_returned_and_not_kept() -> None:
    cache = MemoryCache(max_bytes=1024)
    cache.get_or_make("small", lambda: kilobytes(1))
    assert cache.get_or_make("large", lambda: kilobytes(2)).nbytes == 2048
    assert "large" not in cache and "small" in cache


def test_clear_forgets_everything() -> None:
    cache = MemoryCache()
    cache.get_or_make("a", lambda: kilobytes(1))
    cache.clear()
    assert len(cache) == 0 and cache.used_bytes == 0


def test_a_failure_stores_nothing() -> None:
    cache = MemoryCache()
    with pytest.raises(KeyError):
        cache.get_or_make("a", lambda: {}["missing"])
    assert cache.get_or_make("a", lambda: 3) == 3


def test_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="max_bytes is -1"):
        MemoryCache(max_bytes=-1)


def test_size_counts_nested_arrays() -> None:
    assert size_bytes((kilobytes(1), [kilobytes(2), {"x": kilobytes(3)}], 7, "text")) == 6 * 1024


def test_keys_tell_apart_what_differs() -> None:
    keys = [
        content_key("text", "a", "b"),
        content_key("text", "ab"),
        content_key("text", "a,b"),
        content_key("text", 'a", "b'),
        content_key("text", 1),
        content_key("text", "1"),
        content_key("image", "a", "b"),
        content_key("text", "\ud800"),
    ]
    assert len(set(keys)) == len(keys)
    assert content_key("text", "é", 3) == content_key("text", "é", 3)


def test_threads_share_one_cache() -> None:
    cache = MemoryCache(max_bytes=64 * 1024)
    threads = [
        threading.Thread(target=lambda: [cache.get_or_make(str(i % 100), lambda: kilobytes(1)) for i in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.used_bytes == len(cache) * 1024 <= 64 * 1024
    assert cache.hits + cache.misses == 2000
