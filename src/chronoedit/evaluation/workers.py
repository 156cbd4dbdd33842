"""Batches of work done by several processes, each with an editor of its own; the one that asks gets every result.

Nothing but this process writes the record of a job, so that a process that is killed loses what it was doing and no
more. A worker whose parent is killed finds its pipe closed, and ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from chronoedit.errors import ChronoEditError

logger = logging.getLogger(__name__)

Editor = TypeVar("Editor")
Batch = TypeVar("Batch")
Result = TypeVar("Result")


def done_by(
    workers: int, factory: Callable[[], Editor], do: Callable[[Editor, Batch], Result], batches: Sequence[Batch]
) -> Iterator[Result]:
    """`do(editor, batch)` of each batch, as they are done; with one worker here and in order, in processes with more.

    Then `factory`, `do`, the batches and the results are pickled. Raises what `factory` and `do` raise of ValueError
    and ChronoEditError, ChronoEditError when a process ends before its work.
    """
    if workers == 1:
        editor = factory() if batches else None
        for batch in batches:
            assert editor is not None
            yield do(editor, batch)
        return
    with ExitStack() as stack:
        lines = [stack.enter_context(_worker(factory, do)) for _ in batches[:workers]]
        left = iter(batches)
        for line, batch in zip(lines, left):  # noqa: B905  # as many batches as there are lines
            line.send(batch)
        yield from _results(lines, left)


def _results(lines: list[Connection], left: Iterator[Any]) -> Iterator[Any]:
    busy = list(lines)
    while busy:
        for line in wait(busy):
            assert isinstance(line, Connection)
            yield _received(line)
            batch = next(left, None)
            if batch is None:
                busy.remove(line)
            else:
                _send(line, batch)


def _received(line: Connection) -> Any:
    try:
        done, result = line.recv()
    except (EOFError, ConnectionResetError) as error:
        raise _ended() from error
    if not done:
        raise result
    return result


def _send(line: Connection, batch: object) -> None:
    try:
        line.send(batch)
    except BrokenPipeError as error:
        raise _ended() from error


def _ended() -> ChronoEditError:
    return ChronoEditError(
        "a worker process ended before its work (killed, or out of memory?); the same command goes on where it "
        "stopped, fewer --workers take less memory"
    )


@contextmanager
def _worker(factory: Callable[[], Any], do: Callable[[Any, Any], Any]) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(factory, do, theirs), daemon=True)
    process.start()
    theirs.close()  # the worker alone holds it: when that ends, ours says so
    try:
        yield ours
    finally:
        ours.close()
        process.terminate()
        process.join()


def _work(factory: Callable[[], Any], do: Callable[[Any, Any], Any], line: Connection) -> None:
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit())  # what it has started is ended with it
    try:
        editor = None
        while True:
            batch = line.recv()
            editor = factory() if editor is None else editor
            line.send((True, do(editor, batch)))
    except (ValueError, ChronoEditError) as error:
        logger.debug("a worker failed", exc_info=error)
        line.send((False, error))
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        return
