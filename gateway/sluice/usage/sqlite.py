"""Usage in an SQLite file, which may be that of conversations or keys: it has its own tables and its own
connection. `sluice.storage.sqlite` opens the file and runs the statements.

A batch and its number are one transaction. The tables are made if they are missing and never change; another
layout will have other names.
"""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from sluice.storage import reason_of_file
from sluice.storage.sqlite import SqliteFile, transaction
from sluice.usage import Figures, Row, RowRefused, Subject, UsageBatch, UsageFailed, legible

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
    f"""
    CREATE TABLE IF NOT EXISTS sluice_usage_by (
        day TEXT NOT NULL, dimension TEXT NOT NULL, value TEXT NOT NULL,
        key TEXT NOT NULL, tenant TEXT NOT NULL, alias TEXT NOT NULL, model TEXT NOT NULL,
        {", ".join(f"{name} INTEGER NOT NULL" for name in NAMES)},
        PRIMARY KEY (day, dimension, value, key, tenant, alias, model)
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
_SUMS = f"""
    {", ".join("?" for _ in NAMES)})
    ON CONFLICT DO UPDATE SET {", ".join(f"{name} = min({name} + excluded.{name}, {2**63 - 1})" for name in NAMES)}
"""
"""A sum that is too large for an integer would become a float, and stay one, so it becomes the largest
integer."""
ADD = f"INSERT INTO sluice_usage VALUES (?, ?, ?, ?, ?, {_SUMS}"  # noqa: S608 (the names of our own fields)
ADD_BY = f"""
    INSERT INTO sluice_usage_by (day, key, tenant, alias, model, value, dimension, {", ".join(NAMES)})
    VALUES (?, ?, ?, ?, ?, ?, ?, {_SUMS}
"""  # noqa: S608
OF_DAY = f"SELECT day, key, tenant, alias, model, '', {', '.join(NAMES)} FROM sluice_usage WHERE day = ?"  # noqa: S608
OF_DIMENSION = f"""
    SELECT day, key, tenant, alias, model, value, {", ".join(NAMES)} FROM sluice_usage_by WHERE day = ? AND dimension = ?
"""  # noqa: S608


UNKEEPABLE = (
    OverflowError,
    UnicodeEncodeError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
)
"""The errors of binding a value that is too large for a column, is not valid Unicode, or has a type that
SQLite lacks."""


class SqliteUsage:
    """Opens `path`, or makes it; its directory must exist. Raises OSError here where the file cannot be
    used."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, "usage", _make_tables, busy=BUSY)
        self._database = self._file.database

    async def add(self, batch: UsageBatch) -> None:
        await self._run(self._add, batch)

    async def of_day(self, day: str, dimension: str = "") -> Sequence[Row]:
        return await self._run(self._of_day, day, dimension)

    async def prune(self, before: str, dimension: str = "") -> None:
        await self._run(self._prune, before, dimension)

    async def close(self) -> None:
        """Finishes what was begun, then closes the file. A second close does nothing."""
        await self._file.close()

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self._file.run(work, *args, **kwargs)
        except (OSError, RuntimeError) as error:  # RuntimeError: it is closed
            raise UsageFailed(str(error), reason_of_file(error)) from error

    # --- in the thread

    def _add(self, batch: UsageBatch) -> None:
        database = self._database
        of = batch.dimension
        rows = [
            (*(subject if of else subject[:5]), *([of] if of else ()), *msgspec.structs.astuple(figures))
            for subject, figures in batch.rows
        ]
        with transaction(database):
            if database.execute(ARRIVED, (batch.writer, batch.number, batch.day)).rowcount:
                try:
                    database.executemany(ADD_BY if of else ADD, rows)
                except UNKEEPABLE as error:
                    raise RowRefused(type(error).__name__) from error

    def _of_day(self, day: str, dimension: str) -> list[Row]:
        query = (OF_DIMENSION, (day, dimension)) if dimension else (OF_DAY, (day,))
        rows = [(Subject(*row[:6]), Figures(*row[6:])) for row in self._database.execute(*query)]
        return [row for row in rows if legible(row)]

    def _prune(self, before: str, dimension: str) -> None:
        if dimension:
            self._database.execute(
                "DELETE FROM sluice_usage_by WHERE day < ? AND dimension = ?", (before, dimension)
            )
            return
        for table in ("sluice_usage", "sluice_usage_by", "sluice_usage_writer"):
            self._database.execute(f"DELETE FROM {table} WHERE day < ?", (before,))  # noqa: S608


def _make_tables(database: sqlite3.Connection) -> None:
    for table in TABLES:
        database.execute(table)
