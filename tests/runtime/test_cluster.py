"""Work on a local Ray cluster of two workers: in order, each item once, though a worker is killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from chronoedit.errors import ChronoEditError, MissingExtraError
from chronoedit.runtime.cluster import LOCAL, ClusterSettings, check_room, in_cluster

ray = pytest.importorskip("ray")


@pytest.fixture(autouse=True)
def quiet_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    yield
    assert not ray.is_initialized()


def slow_square() -> Callable[[int], tuple[int, int]]:
    """Made in each worker: functions of a test's module cannot be imported there, so it is closed over."""

    def work(item: int) -> tuple[int, int]:
        time.sleep(0.02)
        return item * item, os.getpid()

    return work


def failing() -> Callable[[int], int]:
    def work(item: int) -> int:
        if item == 3:
            raise ValueError(f"item {item} cannot be done; leave it out")
        return item

    return work


def by_value(function: Callable) -> Callable:
    """Pickled with its code, as functions of a program's own file are."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
    return function


def test_a_killed_worker_loses_and_doubles_nothing() -> None:
    read = count()
    items = (next(read) for _ in range(120))
    settings = ClusterSettings(address=LOCAL, workers=2, threads=2)
    found, pids = [], []
    for item, (square, pid) in in_cluster(by_value(slow_square), items, settings):
        found.append((item, square))
        pids.append(pid)
        if len(found) == 20:
            assert next(read) <= 20 + 8 + 1  # items are read as they are needed
            killed = pid
            os.kill(killed, signal.SIGKILL)
    numbers = [item for item, _ in found]
    assert numbers == sorted(set(numbers)) and len(numbers) == 120
    assert all(square == item * item for item, square in found)
    assert len(set(pids)) == 3 and killed not in pids[40:]  # two workers, and the one that took the place


def test_an_exception_of_the_work_is_raised_here() -> None:
    settings = ClusterSettings(address=LOCAL, workers=1)
    found = in_cluster(by_value(failing), range(9), settings)
    assert [next(found)[1] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="item 3 cannot be done"):
        next(found)


def test_no_cluster_there() -> None:
    with pytest.raises(ChronoEditError, match=r"no Ray cluster at auto .*; start one with ray start --head"):
        next(in_cluster(by_value(failing), [1], ClusterSettings(address="auto")))


def test_a_cluster_that_is_too_small() -> None:
    settings = ClusterSettings(address=LOCAL, workers=2, gpus=0.5)
    check_room({"CPU": 2.0, "GPU": 1.0, "memory": 1e9}, settings)
    with pytest.raises(ChronoEditError, match=r"has 4 CPUs and 0 GPUs, and 2 workers need 2 and 1; ask for fewer"):
        check_room({"CPU": 4.0}, settings)


@pytest.mark.parametrize("settings", [{"workers": 0}, {"threads": 0}, {"gpus": -1}])
def test_counts_that_cannot_be(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="give 1 or more of the first two"):
        ClusterSettings(address=LOCAL, **settings)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'pip install "chronoedit\[cluster\]"'):
        next(in_cluster(failing, [1], ClusterSettings(address=LOCAL)))
