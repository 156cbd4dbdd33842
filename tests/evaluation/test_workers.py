"""Batches done by several processes: all of them once, and what becomes of errors and of processes that end."""

from __future__ import annotations

import os

import pytest

from chronoedit.errors import ChronoEditError, OutputError
from chronoedit.evaluation.workers import done_by


class Doubling:
    """Doubles numbers; says in which process. Some numbers it refuses, some end it."""

    def __call__(self, batch: list[int]) -> tuple[list[int], int]:
        if 13 in batch:
            raise OutputError("13 is refused")
        if 99 in batch:
            os._exit(1)
        return [2 * number for number in batch], os.getpid()


class Unopenable:
    def __init__(self) -> None:
        raise ValueError("it cannot be opened")


def do(editor: Doubling, batch: list[int]) -> tuple[list[int], int]:
    return editor(batch)


BATCHES = [[1, 2], [3], [4, 5], [6], [7]]


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_every_batch_is_done_once(workers: int) -> None:
    results = list(done_by(workers, Doubling, do, BATCHES))
    assert sorted(results) == sorted(([2 * number for number in batch], pid) for batch, (_, pid) in _paired(results))
    assert sorted(number for numbers, _ in results for number in numbers) == [2, 4, 6, 8, 10, 12, 14]
    pids = {pid for _, pid in results}
    assert pids == {os.getpid()} if workers == 1 else os.getpid() not in pids and len(pids) <= 5


def _paired(results: list[tuple[list[int], int]]) -> list[tuple[list[int], tuple[list[int], int]]]:
    by_first = {numbers[0]: (numbers, pid) for numbers, pid in results}
    return [(batch, by_first[2 * batch[0]]) for batch in BATCHES]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_back(workers: int) -> None:
    with pytest.raises(OutputError, match="13 is refused"):
        list(done_by(workers, Doubling, do, [[1], [13], [2]]))
    with pytest.raises(ValueError, match="cannot be opened"):
        list(done_by(workers, Unopenable, do, [[1], [2]]))  # type: ignore[arg-type]


def test_a_worker_that_ends_is_told() -> None:
    results = done_by(2, Doubling, do, [[1], [99], [2]])
    with pytest.raises(ChronoEditError, match="ended before its work"):
        list(results)


def test_no_batches_need_no_editor() -> None:
    assert list(done_by(1, Unopenable, do, [])) == []  # type: ignore[arg-type]
    assert list(done_by(3, Unopenable, do, [])) == []  # type: ignore[arg-type]
