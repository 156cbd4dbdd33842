"""labels.jsonl: one whole line a row in the order of the set, so that a job goes on behind its last line."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from chronoedit.data.label_checks import essence, is_no_change
from chronoedit.errors import OutputError

COMMIT_EVERY_S = 1.0
LOCK_TIMEOUT_S = 1.0


class Seen:
    """Which row had a text first, in an SQLite file, so that a set of any length is remembered in little memory.

    The file is locked while it is open. Raises OutputError when it cannot be used, or another run has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level="IMMEDIATE")
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error
        self._run("PRAGMA locking_mode = EXCLUSIVE")
        self._run("PRAGMA synchronous = NORMAL")
        self._run("CREATE TABLE IF NOT EXISTS seen (text INTEGER PRIMARY KEY, n INTEGER)")
        self._run("CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY, lines INTEGER)")
        self._run("INSERT OR IGNORE INTO state VALUES (0, 0)")
        self.commit(self.lines)

    @property
    def lines(self) -> int:
        """How many lines of labels.jsonl it knows."""
        return int(self._run("SELECT lines FROM state")[0][0])

    def first(self, kind: str, text: str, n: int) -> int:
        """The row that had this text first: `n` itself if none had it before. Texts of two kinds never meet."""
        digest = hashlib.blake2b(f"{kind}:{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        number = int.from_bytes(digest, "big", signed=True)
        found = self._run("SELECT n FROM seen WHERE text = ?", number)
        if found:
            return int(found[0][0])
        self._run("INSERT INTO seen VALUES (?, ?)", number, n)
        return n

    def remember(self, line: Mapping[str, Any]) -> int | None:
        """Take in a line of labels.jsonl; the row that had its instruction first, None if it was this one, or none."""
        self.first("key", line["key"], line["n"])
        if line["problem"] is not None or line["caption"] is None or is_no_change(line["caption"]):
            return None
        first = self.first("caption", essence(line["caption"]), line["n"])
        return None if first == line["n"] else first

    def forget_from(self, n: int) -> None:
        """Forget the rows from `n` on."""
        self._run("DELETE FROM seen WHERE n >= ?", n)

    def clear(self) -> None:
        """Forget everything."""
        self._run("DELETE FROM seen")
        self.commit(0)

    def commit(self, lines: int) -> None:
        """Keep what is known, of so many lines."""
        self._run("UPDATE state SET lines = ?", lines)
        try:
            self._database.commit()
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Let go of the file; what was not committed is forgotten."""
        self._database.close()

    def _run(self, statement: str, *values: int) -> list[tuple[int, ...]]:
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> OutputError:
        return OutputError(
            f"{self.path} cannot be used ({error}); wait for the run that has it open, or delete it: it is made anew"
        )


class LabelFile:
    """labels.jsonl of a job, open for appending; a context that leaves it whole.

    Each line is with the operating system before `append` returns, so a job that is killed leaves at most one
    unfinished line, which is cut off here. `seen` remembers keys and captions beside it, and is brought up to them.
    Raises OutputError for a file that cannot be read or written, or is another run's.
    """

    def __init__(self, path: Path, seen: Path) -> None:
        self.path = path
        self.seen = Seen(seen)
        self.lines = 0
        self.last: dict[str, Any] | None = None
        self._recover()
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._committed_s = time.monotonic()

    def __enter__(self) -> LabelFile:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._commit()
        finally:
            self._file.close()
            self.seen.close()

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line. Raises OutputError, and then no part of it stays."""
        data = (json.dumps(line) + "\n").encode()
        start = self._file.seek(0, os.SEEK_END)
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._file.truncate(start)  # a full disk may have taken half the line
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}; free some space") from error
        self.lines += 1
        if time.monotonic() - self._committed_s > COMMIT_EVERY_S:
            self._commit()

    def _commit(self) -> None:
        """The lines first: what is remembered is never of a line that is not there."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}; free some space") from error
        self.seen.commit(self.lines)
        self._committed_s = time.monotonic()

    def _recover(self) -> None:
        """Cut an unfinished line off, and teach `seen` the lines that it does not know."""
        if self.path.exists():
            self.lines, size, last = _whole_lines(self.path)
            if size < self.path.stat().st_size:
                os.truncate(self.path, size)
            if self.lines:
                self.last = _parsed(last, self.lines, self.path)
        if self.seen.lines > self.lines:  # some were taken out by hand
            self.seen.clear()
        self.seen.forget_from(0 if self.last is None else self.last["n"] + 1)
        if self.seen.lines < self.lines:
            for line in read_labels(self.path, self.seen.lines):
                self.seen.remember(line)
        self.seen.commit(self.lines)


def read_labels(path: Path, skip: int = 0) -> Iterator[dict[str, Any]]:
    """The whole lines of a labels.jsonl after the first `skip`, one by one. Raises OutputError, naming the line."""
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if number > skip and text.endswith(b"\n"):
                    yield _parsed(text, number, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror or error}; check the path") from error


def _whole_lines(path: Path) -> tuple[int, int, bytes]:
    """(count, bytes, the last one) of the lines that end."""
    count, size, last = 0, 0, b""
    with path.open("rb") as file:
        for text in file:
            if text.endswith(b"\n"):
                count, size, last = count + 1, size + len(text), text
    return count, size, last


def _parsed(text: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        line = json.loads(text)
        if not isinstance(line["n"], int) or not isinstance(line["key"], str):
            raise ValueError("n is no whole number, or key no text")
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"line {number} of {path} is no label ({error!r}); cut the file off before that line, and it is done anew"
        ) from error
    return dict(line)
