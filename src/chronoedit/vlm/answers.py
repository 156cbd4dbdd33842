"""Answers that were paid for once, in a file: found again in any later run, whatever killed the one before."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from chronoedit.errors import OutputError


class Answers:
    """Answers by key in an SQLite file with a write-ahead log: each is on the disk before `put` returns.

    Several threads, and several processes, may share a file. Raises OutputError for one that cannot be used.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    def __len__(self) -> int:
        return int(self._run("SELECT count(*) FROM answers")[0][0])

    def get(self, key: str) -> str | None:
        """The answer of a key, or None."""
        rows = self._run("SELECT text FROM answers WHERE key = ?", key)
        return str(rows[0][0]) if rows else None

    def put(self, key: str, model: str, text: str) -> None:
        """Keep an answer; the first of a key stays."""
        self._run("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", key, model, text)

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _run(self, statement: str, *values: str) -> list[tuple]:
        with self._lock:
            try:
                if self._database is None:
                    self._database = self._open()
                return self._database.execute(statement, values).fetchall()
            except (sqlite3.Error, OSError) as error:
                damaged = type(error) is sqlite3.DatabaseError  # whose subclasses are locks, permissions and the like
                remedy = "; it is damaged: move it away, and what it held is asked again" if damaged else ""
                raise OutputError(f"the file of answers {self.path} cannot be used: {error}{remedy}") from error

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, timeout=60.0, check_same_thread=False, isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, model TEXT, text TEXT) WITHOUT ROWID"
        )
        return database
