"""Usage in an SQLite file, which may be that of conversations or keys: its tables are its own, its connection too.

As there, one thread does everything, and several processes of one host may use one file. A batch and its number are one
transaction. The tables are made where they are missing and never change; another layout will have other names.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from gateway.usage import Batch, Figures, Row, Subject, UsageFailed

P = ParamSpec("P")
T = TypeVar("T")

BUSY = 5.0
"""Seconds to wait for another process's write."""
NAMES = Figures.__struct_fields__
TABLES = (
    f"""
    CREATE TABLE IF NOT EXISTS sluice_usage (
        day TEXT NOT NULL, key TEXT NOT NULL, tenant TEXT NOT NULL, alias TEXT NOT NULL, model TEXT NOT NULL,
        {", ".join(f"{name} INTEGER NOT NULL" for name in NAMES)},
        PRIMARY KEY (day, key, tenant, alias, model)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS sluice_usage_writer (
        writer TEXT NOT NULL PRIMARY KEY, number INTEGER NOT NULL, day TEXT NOT NULL
    ) WITHOUT ROWID
    """,
)
ARRIVED = """
    INSERT INTO sluice_usage_writer VALUES (?, ?, ?)
    ON CONFLICT (writer) DO UPDATE SET number = excluded.number, day = excluded.day WHERE number < excluded.number
"""
ADD = f"""
    INSERT INTO sluice_usage VALUES (?, ?, ?, ?, ?, {", ".join("?" for _ in NAMES)})
    ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in NAMES)}
"""  # noqa: S608 (the names of our own fields)
OF_DAY = f"SELECT day, key, tenant, alias, model, {', '.join(NAMES)} FROM sluice_usage WHERE day = ?"  # noqa: S608


class SqliteUsage:
    """Opens `path`, or makes it; its directory must exist. Raises OSError here where the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="usage")
        try:
            self._database = self._thread.submit(_open, path).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def add(self, batch: Batch) -> None:
        await self._run(self._add, batch)

    async def of_day(self, day: str) -> Sequence[Row]:
        return await self._run(self._of_day, day)

    async def prune(self, before: str) -> None:
        await self._run(self._prune, before)

    async def close(self) -> None:
        """Ends what was begun, then closes the file. A second close does nothing."""
        try:
            closing = self._thread.submit(self._database.close)
        except RuntimeError:  # closed before
            return
        await asyncio.wrap_future(closing)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.wrap_future(self._thread.submit(work, *args, **kwargs))
        except (sqlite3.Error, UnicodeEncodeError, OverflowError, RuntimeError) as error:
            raise UsageFailed(str(error)) from error

    # --- in the thread

    def _add(self, batch: Batch) -> None:
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            if database.execute(ARRIVED, (batch.writer, batch.number, batch.day)).rowcount:
                rows = [(*subject, *msgspec.structs.astuple(figures)) for subject, figures in batch.rows]
                database.executemany(ADD, rows)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _of_day(self, day: str) -> list[Row]:
        return [(Subject(*row[:5]), Figures(*row[5:])) for row in self._database.execute(OF_DAY, (day,))]

    def _prune(self, before: str) -> None:
        for table in ("sluice_usage", "sluice_usage_writer"):
            self._database.execute(f"DELETE FROM {table} WHERE day < ?", (before,))  # noqa: S608


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    # check_same_thread: made, used and closed in the store's thread, but also freed by whichever drops it last
    database = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        for table in TABLES:
            database.execute(table)
    except sqlite3.Error as error:
        database.close()
        raise OSError(0, f"SQLite: {error}", str(path)) from error
    except BaseException:
        database.close()
        raise
    return database
