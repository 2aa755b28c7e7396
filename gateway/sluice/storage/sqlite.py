"""An SQLite file that a store uses: with a connection of its own, in one thread of its own.

One thread does everything, one call after the other, so the event loop never waits for a disk and the
connection is never shared. WAL with synchronous=NORMAL loses nothing when the process dies; a power cut may
lose the last transactions, never the file. Several processes of one host, and several stores of one process,
may use one file (they wait for each other's writes); it must not be on a network file system.

A store's tables belong to a *part* of the file, which has a schema version of its own. Names begin with
`sluice_`, except those of the conversations, which came first and use `user_version`.
"""

import asyncio
import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

ERASING = 1.0
"""Maximum seconds that an erasure waits for other connections that read."""
PARTS = "CREATE TABLE IF NOT EXISTS sluice_part (name TEXT PRIMARY KEY, version INTEGER NOT NULL)"
STRANGERS = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sluice_%' LIMIT 1"
"""Finds a table that belongs to no part."""
CONVERSATIONS = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'conversation'"


class SqliteFile:
    """Opens `path`, or makes it; its directory must exist.

    `prepare` is called once, within the thread. `busy`: seconds to wait for another's write. Raises OSError,
    with `filename`, here if the file cannot be used, and from each `run` that the file cannot serve. SQLite
    overwrites deleted data (`secure_delete`); code that deletes messages has to call `erased`.
    """

    def __init__(
        self, path: Path, name: str, prepare: Callable[[sqlite3.Connection], None], *, busy: float
    ) -> None:
        self._path = path
        self._busy = busy
        self._in_log = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        try:
            self.database = self._thread.submit(_open, path, prepare, busy).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work` in the thread, where `database` may be used, and returns its result."""
        try:
            return await asyncio.wrap_future(self._thread.submit(self._run, partial(work, *args, **kwargs)))
        except sqlite3.Error as error:
            raise _failure(self._path, error) from error
        except UnicodeEncodeError as error:
            raise OSError(
                errno.EILSEQ, "text that is not Unicode cannot be stored", str(self._path)
            ) from error

    def erased(self) -> None:
        """Removes deleted data from the file's log, too. To be called within the thread, outside of a
        transaction.

        The log can be emptied only while no other connection reads. If one does for longer than ERASING, each
        `run` tries again.
        """
        self._empty_log(ERASING)

    def _run(self, work: Callable[[], T]) -> T:
        try:
            result = work()
        except sqlite3.OperationalError as error:
            if not str(error).startswith("Could not decode"):
                raise
            # Another program has put text here that is not UTF-8. From now on text is read leniently, which is slower.
            # Nothing is lost: the failed statement was a read, or was rolled back.
            self.database.text_factory = _lenient
            result = work()
        if self._in_log:
            self._empty_log(0.0)
        return result

    def _empty_log(self, patience: float) -> None:
        self.database.execute(f"PRAGMA busy_timeout = {round(patience * 1000)}")
        try:
            [busy, *_] = self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self.database.execute(f"PRAGMA busy_timeout = {round(self._busy * 1000)}")
        self._in_log = bool(busy)

    async def close(self) -> None:
        """Finishes what was begun, then closes the file. A second close does nothing."""
        try:
            closing = self._thread.submit(self.database.close)
        except RuntimeError:  # closed before
            return
        await asyncio.wrap_future(closing)
        self._thread.shutdown(wait=False)


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """A transaction: all or nothing. It takes the right to write at its beginning, because a transaction that
    needs it later, while another one writes, cannot wait."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # SQLite itself ends a transaction if the disk is full
            database.execute("ROLLBACK")
        raise


def migrate_part(database: sqlite3.Connection, path: Path, part: str, migrations: Sequence[str]) -> None:
    """Migrates the tables of `part` to the newest schema; each migration leads to the next version. Raises
    OSError."""
    with transaction(database):  # of several processes that start at once, one migrates
        if database.execute(STRANGERS).fetchone() and not database.execute(CONVERSATIONS).fetchone():
            raise another_programs(path)
        database.execute(PARTS)
        row = database.execute("SELECT version FROM sluice_part WHERE name = ?", (part,)).fetchone()
        version = row[0] if row is not None else 0
        if version > len(migrations):
            raise of_a_newer_version(path)
        for migration in migrations[version:]:
            for statement in migration.split(";"):
                database.execute(statement)
        database.execute(
            "INSERT OR REPLACE INTO sluice_part (name, version) VALUES (?, ?)", (part, len(migrations))
        )


def another_programs(path: Path) -> OSError:
    return OSError(errno.EINVAL, "the file is another program's database", str(path))


def of_a_newer_version(path: Path) -> OSError:
    return OSError(errno.EINVAL, "the file was written by a newer version", str(path))


def _lenient(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _open(path: Path, prepare: Callable[[sqlite3.Connection], None], busy: float) -> sqlite3.Connection:
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the directory of the file does not exist", str(path))
    _make_private(path)
    database = None
    try:
        # check_same_thread: made, used and closed in the store's thread, but also freed by whichever drops it
        # last
        database = sqlite3.connect(path, timeout=busy, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("PRAGMA secure_delete = ON")
        prepare(database)
    except BaseException as error:
        if database is not None:
            database.close()
        if isinstance(error, sqlite3.Error):
            raise _failure(path, error) from error
        raise
    return database


def _make_private(path: Path) -> None:
    """Makes the file, if need be, and lets only its owner open it, because it contains people's messages.
    SQLite gives its journals the same mode. A file that belongs to another user is left unchanged.

    An existing file is not opened here: closing it would release the locks of all connections that this
    process has to it (POSIX locks belong to the process, https://www.sqlite.org/howtocorrupt.html, 2.2). The
    next process to leave would then take itself for the last one, and delete the log that others are using.
    """
    try:
        os.close(os.open(path.resolve(), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if path.is_dir() or not os.access(path, os.R_OK | os.W_OK):
            os.close(os.open(path, os.O_RDWR))  # its error says why the file cannot be used
        if path.stat().st_mode & 0o077:
            with suppress(PermissionError):
                path.chmod(0o600)


def _failure(path: Path, error: sqlite3.Error) -> OSError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_NOTADB:
            return OSError(errno.EINVAL, "the file is not an SQLite database", str(path))
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_READONLY:
            return PermissionError(
                errno.EACCES, f"the database cannot be opened for writing ({error})", str(path)
            )
        case sqlite3.SQLITE_FULL:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return OSError(errno.EBUSY, f"SQLite: {error}", str(path))
    return OSError(errno.EIO, f"SQLite: {error}", str(path))
