"""The same work on many machines: a Ray cluster whose workers may die without an item being lost or done twice."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from chronoedit.errors import ChronoEditError, MissingExtraError

T = TypeVar("T")
R = TypeVar("R")

LOCAL = "local"
"""The address of a cluster that is started on this machine, for one job."""


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """A cluster: its address ("local", "auto", "ray://host:10001", "host:6379"), and the workers that a job has there.

    Each worker is a process with `threads` threads, one CPU and `gpus` GPUs of its own. One that dies is started again
    up to `max_restarts` times, and its items are done anew. Raises ValueError for counts below 1.
    """

    address: str
    workers: int = 1
    threads: int = 1
    gpus: float = 0.0
    max_restarts: int = 20

    def __post_init__(self) -> None:
        if self.workers < 1 or self.threads < 1 or self.gpus < 0:
            raise ValueError(
                f"{self.workers} workers with {self.threads} threads and {self.gpus:g} GPUs each; give 1 or more of "
                "the first two, and no negative number of GPUs"
            )


def in_cluster(
    make_work: Callable[[], Callable[[T], R]], items: Iterable[T], settings: ClusterSettings
) -> Iterator[tuple[T, R]]:
    """Each item with `work(item)`, in the order of `items`, which are read as they are needed.

    `make_work` and the items are pickled; each worker calls `make_work` once. At most twice as many items are under way
    as there are threads in all. The first exception of `work` propagates. The connection is closed in the end, and a
    local cluster with it. Raises MissingExtraError without ray, ChronoEditError when there is no such cluster, when it
    is too small, or when its workers are lost for good.
    """
    with _connected(settings) as ray:
        check_room(ray.cluster_resources(), settings)
        workers = [_start(ray, make_work, settings) for _ in range(settings.workers)]
        try:
            yield from _results(ray, workers, iter(items), settings)
        finally:
            for worker in workers:
                ray.kill(worker)


@contextmanager
def _connected(settings: ClusterSettings) -> Iterator[Any]:
    """The module ray, connected."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError('a cluster needs ray: pip install "chronoedit[cluster]"') from error
    local: dict[str, Any] = {}
    if settings.address == LOCAL:
        local = {"num_cpus": settings.workers, "include_dashboard": False}
    try:
        ray.init(address=settings.address, log_to_driver=False, logging_level=logging.WARNING, **local)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError; and a start that times out is a plain one
        raise ChronoEditError(
            f"there is no Ray cluster at {settings.address} ({error}); start one with ray start --head, or give "
            f'"{LOCAL}" for one on this machine'
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def check_room(resources: Mapping[str, float], settings: ClusterSettings) -> None:
    """Raise ChronoEditError for a cluster that is too small: its workers would be waited for without end."""
    cpus, gpus = (resources.get(name, 0.0) for name in ("CPU", "GPU"))
    if cpus < settings.workers or gpus < settings.workers * settings.gpus:
        raise ChronoEditError(
            f"the cluster has {cpus:g} CPUs and {gpus:g} GPUs, and {settings.workers} workers need "
            f"{settings.workers} and {settings.workers * settings.gpus:g}; ask for fewer, or add machines"
        )


class _Worker:
    """What runs in a worker's process."""

    def __init__(self, make_work: Callable[[], Callable[[Any], Any]]) -> None:
        self._work = make_work()

    def do(self, item: Any) -> Any:
        return self._work(item)


def _start(ray: Any, make_work: Callable[[], Callable[[T], R]], settings: ClusterSettings) -> Any:
    kind = ray.remote(_Worker).options(
        num_cpus=1,
        num_gpus=settings.gpus,
        max_concurrency=settings.threads,
        max_restarts=settings.max_restarts,
        max_task_retries=-1,  # as long as there are restarts
    )
    return kind.remote(make_work)


def _results(ray: Any, workers: list[Any], items: Iterator[T], settings: ClusterSettings) -> Iterator[tuple[T, R]]:
    """Hand items to the workers in turn, and take the results in the order of the items."""
    under_way: deque[tuple[T, Any, int]] = deque()
    load = [0] * len(workers)

    def hand_out(count: int) -> None:
        for item in islice(items, count):
            chosen = load.index(min(load))
            load[chosen] += 1
            under_way.append((item, workers[chosen].do.remote(item), chosen))

    hand_out(2 * settings.workers * settings.threads)
    while under_way:
        item, reference, chosen = under_way.popleft()
        try:
            result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise ChronoEditError(
                f"a worker of the cluster is lost ({type(error).__name__}); the same command goes on where it stopped"
            ) from error
        load[chosen] -= 1
        yield item, result
        hand_out(1)


def resources_of(address: str) -> dict[str, float]:
    """What a cluster that is there has in all, such as {"CPU": 32.0, "GPU": 8.0}. Raises as `in_cluster`."""
    with _connected(ClusterSettings(address=address)) as ray:
        return dict(ray.cluster_resources())
