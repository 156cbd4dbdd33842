"""A batch job by several processes: each keeps a ledger of its own, which the first takes into `results.jsonl`.

A part is locked by whoever writes it, until that process ends in whatever way. What a killed process had done is taken
in when the folder is opened again, by however many processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chronoedit.ledger import Ledger, locked

PARTS = "results.part-*.jsonl"


@contextmanager
def part_of(folder: Path) -> Iterator[Ledger]:
    """A ledger of this process alone, in the folder of the job."""
    path = folder / PARTS.replace("*", os.urandom(6).hex())
    with locked(path):
        yield Ledger(path)


def take_in(folder: Path, ledger: Ledger) -> None:
    """Append to the ledger what processes that have ended had done, and remove their parts. Raises OutputError.

    An item that two processes have done counts once, as the first of them did it; a failure does not outlast a success.
    """
    for path in sorted(folder.glob(PARTS)):
        with locked(path) as is_ours:
            if not is_ours:
                continue
            for entry in Ledger(path).records():
                known = ledger.get(entry["key"])
                if known is None or (known["status"] != "done" and known != entry):
                    ledger.append(entry["key"], {name: value for name, value in entry.items() if name != "key"})
            path.unlink(missing_ok=True)


def any_at_work(folder: Path) -> bool:
    """Whether a process still writes a part."""
    for path in folder.glob(PARTS):
        with locked(path) as is_ours:
            if not is_ours:
                return True
    return False
