"""Dynamic keys in an SQLite file, for all processes of one host. `sluice.storage.sqlite` opens the file and
runs the statements."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sluice.keystore import PAGE, Changes, KeyEntry, KeyStoreFailed, StoredKey, decode, encode
from sluice.storage import reason_of_file
from sluice.storage.sqlite import SqliteFile, migrate_part, transaction

P = ParamSpec("P")
T = TypeVar("T")

BUSY = 0.5
"""Seconds to wait for another process's write; meanwhile this process notices no changes."""

MIGRATIONS = (
    """
    CREATE TABLE sluice_keys (one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL);
    INSERT INTO sluice_keys VALUES (1, 0);
    CREATE TABLE sluice_key (id TEXT PRIMARY KEY, revision INTEGER NOT NULL UNIQUE, data BLOB NOT NULL)
    """,
)

GENERATION = "SELECT generation FROM sluice_keys"
NEXT = "UPDATE sluice_keys SET generation = generation + 1"
COUNT = "SELECT count(*) FROM sluice_key"
CHANGED = "SELECT id, revision, data FROM sluice_key WHERE revision > ? ORDER BY revision LIMIT ?"
REVISION = "SELECT revision FROM sluice_key WHERE id = ?"
PUT = "INSERT OR REPLACE INTO sluice_key (id, revision, data) VALUES (?, ?, ?)"


class SqliteKeys:
    """Opens `path`, or makes it; its directory must exist. Raises OSError where the file cannot be used."""

    def __init__(self, path: Path) -> None:
        prepare = partial(migrate_part, path=path, part="keys", migrations=MIGRATIONS)
        self._file = SqliteFile(path, "keys", prepare, busy=BUSY)
        self._database = self._file.database

    async def changes(self, since: int) -> Changes:
        return await self._run(self._changes, since)

    async def ids(self) -> set[str]:
        return await self._run(self._ids)

    async def put(self, key: StoredKey, revision: int) -> int | None:
        return await self._run(self._put, key, revision)

    async def delete(self, id: str, revision: int) -> bool:
        return await self._run(self._delete, id, revision)

    async def close(self) -> None:
        await self._file.close()

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self._file.run(work, *args, **kwargs)
        except (OSError, RuntimeError) as error:  # RuntimeError: it is closed
            raise KeyStoreFailed(reason_of_file(error)) from error

    # --- in the thread

    def _changes(self, since: int) -> Changes:
        self._database.execute("BEGIN")
        try:
            [generation] = self._database.execute(GENERATION).fetchone()
            if generation == since:
                rows, total = [], 0
            else:
                rows = self._database.execute(CHANGED, (since, PAGE)).fetchall()
                [total] = self._database.execute(COUNT).fetchone()
        finally:
            self._database.execute("ROLLBACK")
        if len(rows) == PAGE:
            generation = rows[-1][1]
        return Changes("", generation, [_entry(*row) for row in rows], total)

    def _ids(self) -> set[str]:
        return {_text(id) for (id,) in self._database.execute("SELECT id FROM sluice_key")}

    def _put(self, key: StoredKey, revision: int) -> int | None:
        with transaction(self._database):
            if self._revision(key.id) != revision:
                return None
            generation = self._next()
            self._database.execute(PUT, (key.id, generation, encode(key)))
            return generation

    def _delete(self, id: str, revision: int) -> bool:
        with transaction(self._database):
            if revision == 0 or self._revision(id) != revision:
                return False
            self._next()
            self._database.execute("DELETE FROM sluice_key WHERE id = ?", (id,))
            return True

    def _revision(self, id: str) -> int:
        row = self._database.execute(REVISION, (id,)).fetchone()
        return row[0] if row is not None else 0

    def _next(self) -> int:
        self._database.execute(NEXT)
        number: int
        [number] = self._database.execute(GENERATION).fetchone()
        return number


def _entry(id: Any, revision: Any, data: Any) -> KeyEntry:
    """Returns the entry of a row. SQLite keeps values of any type in any column; a row with other types gives
    an entry without a key."""
    ours = type(revision) is int and type(data) in (bytes, str)
    return decode(_text(id), revision, data) if ours else KeyEntry(_text(id), 0, None)


def _text(id: Any) -> str:
    return id if type(id) is str else repr(id)
