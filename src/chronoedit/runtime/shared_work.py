"""Work that several processes share, each taking the next piece when it is free, over a store that all of them reach.

The first process offers the pieces and hears of what became of them; it may work too. A store is what a launcher of
processes has anyway (`torch.distributed.Store`): no tensor is exchanged, and nobody waits for a slower one.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from chronoedit.errors import ChronoEditError

if TYPE_CHECKING:
    from torch.distributed import Store

T = TypeVar("T")

POLL_S = 0.05


class SharedWork(Generic[T]):
    """This process's view of the work: `rank` of `count` processes, those of one launch over one store.

    The pieces are pickled. Every method raises ChronoEditError when the store is gone, and its launcher with it.
    """

    def __init__(self, store: Store, rank: int, count: int) -> None:
        self.rank = rank
        self.count = count
        self._store = store
        self._heard = [0] * count
        self._said = 0

    @property
    def is_first(self) -> bool:
        """Whether this one offers the work, and hears of it."""
        return self.rank == 0

    def offer(self, pieces: Sequence[T], about: object = None) -> None:
        """Give all processes these pieces to share, and something to know beforehand. The first alone, once."""
        with self._reached():
            for number, piece in enumerate(pieces):
                self._store.set(f"piece/{number}", pickle.dumps(piece))  # type: ignore[arg-type]  # bytes are taken too
            self._store.set("offer", pickle.dumps((len(pieces), about)))  # type: ignore[arg-type]

    def about(self) -> Any:
        """What the first gave to know; waits until it has made its offer."""
        return self._offer()[1]

    def taken(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[T]:
        """Pieces for this process, each claimed when it is asked for; none after it was asked to stop."""
        total = self._offer()[0]
        while not should_stop():
            with self._reached():
                number = self._store.add("next", 1) - 1
                if number >= total:
                    return
                data = self._store.get(f"piece/{number}")
            yield pickle.loads(data)

    def tell(self, message: dict[str, Any]) -> None:
        """Tell the first something, as JSON."""
        with self._reached():
            self._store.set(f"said/{self.rank}/{self._said}", json.dumps(message))
            self._said = self._store.add(f"said/{self.rank}", 1)  # only then is it looked for

    def told(self) -> list[dict[str, Any]]:
        """What the others have told since it was asked last, without waiting."""
        found = []
        with self._reached():
            for rank in range(self.count):
                said = self._store.add(f"said/{rank}", 0)
                keys = [f"said/{rank}/{number}" for number in range(self._heard[rank], said)]
                found += [json.loads(self._store.get(key)) for key in keys]
                self._heard[rank] = said
        return found

    def leave(self) -> None:
        """Say that this process does no more of it."""
        with self._reached():
            self._store.add("left", 1)

    def all_left(self) -> bool:
        """Whether every process does no more of it."""
        with self._reached():
            return self._store.add("left", 0) >= self.count

    def _offer(self) -> tuple[int, Any]:
        with self._reached():
            while not self._store.check(["offer"]):  # a `get` that waits could not be interrupted
                time.sleep(POLL_S)
            count, about = pickle.loads(self._store.get("offer"))
        return count, about

    @contextmanager
    def _reached(self) -> Iterator[None]:
        from torch.distributed import DistError

        try:
            yield
        except DistError as error:
            raise ChronoEditError(
                "the launcher of these processes is gone; the same command goes on where it stopped"
            ) from error
