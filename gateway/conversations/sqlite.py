"""Conversations in an SQLite file: they survive a restart, and any death of the process.

One thread of its own does everything, one call after the other, so the event loop never waits for a disk and the
connection is never shared. One transaction per turn: its messages are all there or none is. WAL with synchronous=NORMAL
loses nothing when the process dies; a power cut may cost the last turns, never the file. Several processes of one host
may use one file (they wait for each other's writes); a network file system may not hold it.

The schema's version stands in `user_version`; each entry of MIGRATIONS leads to the next one. Released entries never change.
"""

import asyncio
import errno
import os
import secrets
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from gateway.conversations import Conversation, Turn

P = ParamSpec("P")
T = TypeVar("T")

PREVIEW = 200
"""Characters of the last message in a list of conversations."""
MAX_TURNS = 1_000
"""The latest messages of a conversation that `get` returns; the file keeps them all."""
MAX_UNSTORED = 10_000
"""Ids given out for sessions that have no turn yet; the oldest is forgotten first."""
BUSY = 5.0
"""Seconds to wait for another process's write."""

MIGRATIONS = (
    """
    CREATE TABLE conversation (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        tenant TEXT NOT NULL,
        session TEXT NOT NULL,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        last_message TEXT NOT NULL,
        UNIQUE (tenant, session)
    );
    CREATE INDEX conversation_updated ON conversation (updated, number);
    CREATE TABLE turn (
        number INTEGER PRIMARY KEY,
        conversation INTEGER NOT NULL REFERENCES conversation (number),
        role TEXT NOT NULL,
        content TEXT NOT NULL,
        created REAL NOT NULL,
        interrupted INTEGER NOT NULL
    );
    CREATE INDEX turn_conversation ON turn (conversation, number);
    """,
)

KEEP = """
    INSERT INTO conversation (id, tenant, session, created, updated, last_message) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (tenant, session) DO UPDATE SET updated = excluded.updated, last_message = excluded.last_message
"""
ADD = "INSERT INTO turn (conversation, role, content, created, interrupted) VALUES (?, ?, ?, ?, ?)"
FIND = "SELECT id, number FROM conversation WHERE tenant = ? AND session = ?"
LATEST = """
    SELECT role, content, turn.created, interrupted FROM turn JOIN conversation ON conversation.number = turn.conversation
    WHERE id = ? ORDER BY turn.number DESC LIMIT ?
"""
COLUMNS = "SELECT id, tenant, session, created, updated, last_message FROM conversation"
NEWEST = f"{COLUMNS} ORDER BY updated DESC, number DESC LIMIT ?"
ONE = f"{COLUMNS} WHERE id = ?"


class SqliteConversations:
    """Opens `path`, or makes it; its directory must exist.

    Raises OSError, with `filename`, here where the file cannot be used and from each call that the file cannot serve.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unstored: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="conversations")
        try:
            self._database = self._thread.submit(_open, path).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def open(self, tenant: str, session: str) -> str:
        found = await self._run(self._find, tenant, session)
        key = (tenant, session)
        if found is None:
            found = self._unstored.setdefault(key, secrets.token_urlsafe(18))
            self._unstored.move_to_end(key)
            while len(self._unstored) > MAX_UNSTORED:
                self._unstored.popitem(last=False)
        return found

    async def recent(self, id: str, limit: int) -> list[Turn]:
        return await self._run(self._recent, id, limit)

    async def append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
        if turns:
            await self._run(self._append, tenant, session, id, list(turns))
            self._unstored.pop((tenant, session), None)

    async def newest(self, limit: int) -> tuple[list[Conversation], int]:
        return await self._run(self._newest, limit)

    async def get(self, id: str) -> tuple[Conversation, list[Turn]] | None:
        return await self._run(self._get, id)

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
        except sqlite3.Error as error:
            raise _failure(self._path, error) from error
        except UnicodeEncodeError as error:
            raise OSError(errno.EILSEQ, "text that is not Unicode cannot be stored", str(self._path)) from error

    # --- in the thread

    def _find(self, tenant: str, session: str) -> str | None:
        row = self._database.execute(FIND, (tenant, session)).fetchone()
        return row[0] if row is not None else None

    def _recent(self, id: str, limit: int) -> list[Turn]:
        rows = self._database.execute(LATEST, (id, max(0, limit))).fetchall()
        return [Turn(role, content, created, bool(interrupted)) for role, content, created, interrupted in reversed(rows)]

    def _append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
        last = turns[-1]
        conversation = (id, tenant, session, turns[0].created, last.created, last.content[:PREVIEW])
        with _transaction(self._database):
            self._database.execute(KEEP, conversation)
            [_, number] = self._database.execute(FIND, (tenant, session)).fetchone()
            rows = [(number, turn.role, turn.content, turn.created, turn.interrupted) for turn in turns]
            self._database.executemany(ADD, rows)

    def _newest(self, limit: int) -> tuple[list[Conversation], int]:
        [count] = self._database.execute("SELECT count(*) FROM conversation").fetchone()
        return [Conversation(*row) for row in self._database.execute(NEWEST, (max(0, limit),))], count

    def _get(self, id: str) -> tuple[Conversation, list[Turn]] | None:
        row = self._database.execute(ONE, (id,)).fetchone()
        return (Conversation(*row), self._recent(id, MAX_TURNS)) if row is not None else None


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or none. It begins with the right to write: one that finds out later that another writes cannot wait."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # SQLite has ended it itself where the disk was full
            database.execute("ROLLBACK")
        raise


def _open(path: Path) -> sqlite3.Connection:
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the directory of the file does not exist", str(path))
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # it holds what people said: for its owner only
    database = None
    try:
        # check_same_thread: made, used and closed in the store's thread, but also freed by whichever drops it last
        database = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA foreign_keys = ON")
        _migrate(database, path)
    except BaseException as error:
        if database is not None:
            database.close()
        if isinstance(error, sqlite3.Error):
            raise _failure(path, error) from error
        raise
    return database


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    with _transaction(database):  # of several processes that start at once, one migrates
        [version] = database.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise OSError(errno.EINVAL, "the file was written by a newer version", str(path))
        if version == 0 and database.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise OSError(errno.EINVAL, "the file is another program's database", str(path))
        for migration in MIGRATIONS[version:]:
            for statement in migration.split(";"):
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _failure(path: Path, error: sqlite3.Error) -> OSError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_NOTADB:
            return OSError(errno.EINVAL, "the file is not an SQLite database", str(path))
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_READONLY:
            return PermissionError(errno.EACCES, f"the database cannot be opened for writing ({error})", str(path))
        case sqlite3.SQLITE_FULL:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    return OSError(errno.EIO, f"SQLite: {error}", str(path))
