"""The resumable record of a long job: a JSONL file, one whole line an item, appended when the item is done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from chronoedit.errors import OutputError
from chronoedit.media import atomic_path


def fingerprint(value: object) -> str:
    """SHA-256 of `value` as canonical JSON (sorted keys): equal content, equal fingerprint.

    Raises TypeError for a value that JSON cannot hold, ValueError for NaN and infinity.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def claim(path: Path, identity: Mapping[str, object], holds: str) -> None:
    """Write what the job in a folder is made of, or check that the file there says the same.

    `holds` names what another job's folder holds, for the message. Raises OutputError when it is another job's, or
    cannot be read or written.
    """
    mine = json.loads(json.dumps(identity))
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(mine, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read ({error}); choose another --output") from error
    different = [name for name, value in mine.items() if not isinstance(found, dict) or found.get(name) != value]
    if different:
        raise OutputError(
            f"{path.parent} holds {holds}: {', '.join(different)} differ; choose another --output, or remove that "
            "folder"
        )


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Within it a file is locked by this process, until it ends in whatever way: gives whether that could be had.

    The file is made where it is not there. Where there are no such locks (Windows), it can always be had. Raises
    OutputError for a file that cannot be opened.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise OutputError(f"cannot lock {path}: {error.strerror or error}; choose another --output") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


class Ledger:
    """Items done so far, by key; of two lines with one key the later counts.

    A job that is killed while it writes leaves at most one unfinished last line. It is cut off when the file is opened
    again, so that the item is done anew; any other line that cannot be read raises OutputError, because
    continuing would silently repeat or lose work.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._items: dict[str, dict] = {}
        if self.path.exists():
            self._read()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def get(self, key: str) -> dict | None:
        """The record of `key`, or None when that item is not done."""
        return self._items.get(key)

    def records(self) -> list[dict]:
        """Every item's record, in the order in which the items were first done."""
        return list(self._items.values())

    def append(self, key: str, record: Mapping[str, object]) -> None:
        """Record that `key` is done; on the disk before this returns. Raises OutputError when it cannot be written.

        `record` is JSON data without the name "key", which holds the key in the file.
        """
        if "key" in record:
            raise ValueError("a record holds no item 'key' of its own: that name is the ledger's")
        entry = {"key": key, **record}
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write(line.encode())
        except OSError as error:
            raise OutputError(f"cannot write the record {self.path}: {error.strerror or error}") from error
        self._items[key] = json.loads(line)

    def _write(self, line: bytes) -> None:
        with self.path.open("ab", buffering=0) as file:
            start = file.tell()
            try:
                left = memoryview(line)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                # A full disk may have taken half the line: the file must end with a whole one.
                os.ftruncate(file.fileno(), start)
                raise

    def _read(self) -> None:
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise OutputError(f"cannot read the record {self.path}: {error.strerror or error}") from error
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
                self._items[entry["key"]] = entry
            except (ValueError, TypeError, KeyError) as error:
                raise OutputError(
                    f"line {number} of {self.path} is not a record ({error}); repair or remove that line, "
                    "or remove the file to begin anew"
                ) from error
        if len(whole) < len(data):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
