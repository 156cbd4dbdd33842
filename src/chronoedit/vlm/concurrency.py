"""Several questions at once, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[tuple[T, R]]:
    """Each item with `work(item)`, in the order of `items`, which are read as they are needed.

    `workers` threads work, and at most twice as many items are under way. The first exception of `work` propagates, and
    what has not begun is then left. Raises ValueError for fewer than one worker.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers; give 1 or more")
    return _results(work, iter(items), workers)


def _results(work: Callable[[T], R], items: Iterator[T], workers: int) -> Iterator[tuple[T, R]]:
    with ThreadPoolExecutor(workers, thread_name_prefix="asking") as pool:
        under_way: deque[tuple[T, Future[R]]] = deque()
        try:
            for item in islice(items, 2 * workers):
                under_way.append((item, pool.submit(work, item)))
            while under_way:
                item, future = under_way.popleft()
                yield item, future.result()
                for following in islice(items, 1):
                    under_way.append((following, pool.submit(work, following)))
        finally:
            for _, future in under_way:
                future.cancel()
