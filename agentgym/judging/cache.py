"""What a judge has said before, on disk: a question is paid for once."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from agentgym.errors import StoredRunError

_SCHEMA = 1
_TABLE = "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, verdict TEXT NOT NULL) WITHOUT ROWID"


class VerdictCache:
    """Verdicts by key, shared by the processes of one machine.

    Written through at once: what a process put there is there when it is killed, and a half-written entry is none. The
    first verdict on a key stays, so that everyone who asks hears the same.

    Args:
        path: an SQLite file, made when missing; its folder exists, and is on a local disk.
        busy_s: how long to wait for another process that is writing.

    Raises:
        StoredRunError: it cannot be opened, or is something else. So does every method, when it cannot be read or
            written any more.
    """

    def __init__(self, path: Path, *, busy_s: float = 30.0) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=busy_s, isolation_level=None)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        try:
            version = self._open()
        except sqlite3.Error as error:
            self.close()
            raise self._failed(error) from error
        if version != _SCHEMA:
            self.close()
            raise StoredRunError(f"'{path}' is no verdict cache of version {_SCHEMA}; name another file")

    def get(self, key: str) -> str | None:
        """Return the verdict on ``key``, or None."""
        try:
            row = self._db.execute("SELECT verdict FROM verdicts WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return None if row is None else str(row[0])

    def put(self, key: str, verdict: str) -> str:
        """Keep ``verdict``, unless there is one; return the one kept."""
        try:
            self._db.execute("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", (key, verdict))
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return self.get(key) or verdict

    def close(self) -> None:
        """Close it; twice is fine."""
        self._db.close()

    def _open(self) -> int:
        """Return the version of what is in the file, once it is this one's where it was empty."""
        self._db.execute("PRAGMA journal_mode = WAL")  # readers and a writer do not wait for each other
        self._db.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last verdicts, never the file
        self._db.execute("BEGIN IMMEDIATE")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not version and not tables:
            self._db.execute(_TABLE)
            self._db.execute(f"PRAGMA user_version = {_SCHEMA}")
            version = _SCHEMA
        self._db.execute("COMMIT")
        return int(version)

    def _failed(self, error: sqlite3.Error) -> StoredRunError:
        return StoredRunError(f"the verdict cache '{self.path}': {error}; free or delete it, or name another file")


__all__ = ["VerdictCache"]
