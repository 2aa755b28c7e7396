"""Conversations in one SQLite file (3.35 or newer): they survive restarts, and the workers of one host may share it.

All work is done by one thread, in the order of asking, so the event loop never waits for the disk. Write-ahead log
with synchronous=NORMAL (https://www.sqlite.org/wal.html): a turn is one transaction and survives kill -9; a power cut
may take the last turns, never half of one. A call that is cancelled is done whole or not at all.

Texts are UTF-8 as they are, lone surrogates included. The file is created for its owner only: it holds prompts, and
the secret that conversation ids are derived from. Nothing is ever deleted here.
"""

import asyncio
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

from gateway.conversations import Conversation, Turn
from gateway.conversations.ids import SECRET_BYTES, conversation_id
from gateway.errors import ConfigError, Unavailable

T = TypeVar("T")
BUSY_TIMEOUT = 5.0
"""Seconds that a write waits for another process's."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
        """CREATE TABLE conversations (
            id TEXT PRIMARY KEY, tenant TEXT NOT NULL, session TEXT NOT NULL, created REAL NOT NULL, updated REAL NOT NULL,
            last_message TEXT NOT NULL, appended INTEGER NOT NULL, UNIQUE (tenant, session))""",
        "CREATE INDEX conversations_newest ON conversations (updated, appended)",
        """CREATE TABLE messages (
            number INTEGER PRIMARY KEY, conversation TEXT NOT NULL REFERENCES conversations (id), role TEXT NOT NULL,
            content TEXT NOT NULL, created REAL NOT NULL, interrupted INTEGER NOT NULL)""",
        "CREATE INDEX messages_of ON messages (conversation, number)",
    ),
)
"""One step from each `user_version` to the next. Never edit a step that was released; add one."""

CONVERSATION = "SELECT id, tenant, session, created, updated, last_message FROM conversations"
MESSAGES = "SELECT role, content, created, interrupted FROM messages WHERE conversation = ?"


class HistoryFailed(Unavailable, RuntimeError):
    """The file cannot be read or written now."""

    def __init__(self) -> None:
        super().__init__("The conversation's history is not available now")


class SqliteConversations:
    """Opens the file, making it where it does not exist. Raises ConfigError for one that cannot be used."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="conversations")
        try:
            self._file, self._secret = self._thread.submit(_open, path).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def open(self, tenant: str, session: str) -> str:
        return conversation_id(self._secret, tenant, session)

    async def recent(self, id: str, limit: int) -> list[Turn]:
        return await self._do(lambda: _turns(self._file, f"{MESSAGES} ORDER BY number DESC LIMIT ?", id, limit)[::-1])

    async def append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
        """Raises ValueError for an id that is not this session's."""
        if id != conversation_id(self._secret, tenant, session):
            raise ValueError("this conversation belongs to another session")
        if turns:
            await self._do(lambda: _append(self._file, tenant, session, id, turns))

    async def newest(self, limit: int) -> tuple[list[Conversation], int]:
        return await self._do(lambda: _newest(self._file, limit))

    async def get(self, id: str) -> tuple[Conversation, list[Turn]] | None:
        return await self._do(lambda: _get(self._file, id))

    async def close(self) -> None:
        """What was asked before is done first."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown(wait=False)

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise HistoryFailed from error


# --- on the thread


def _open(path: Path) -> tuple[sqlite3.Connection, bytes]:
    if not path.parent.is_dir():
        raise ConfigError([f"state: the directory {path.parent} of the SQLite file does not exist"])
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        file = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        file.text_factory = lambda data: data.decode("utf-8", "surrogatepass")
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        _migrate(file, path)
        return file, cast(bytes, file.execute("SELECT value FROM secrets WHERE name = 'conversation'").fetchone()[0])
    except (sqlite3.Error, OSError) as error:
        raise ConfigError([f"state: the SQLite file {path} cannot be used: {error}"]) from error


def _migrate(file: sqlite3.Connection, path: Path) -> None:
    with _transaction(file):
        version = file.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise ConfigError([f"state: the SQLite file {path} was written by a newer version of this program"])
        for step in MIGRATIONS[version:]:
            for statement in step:
                file.execute(statement)
        file.execute("INSERT OR IGNORE INTO secrets VALUES ('conversation', ?)", (secrets.token_bytes(SECRET_BYTES),))
        file.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


@contextmanager
def _transaction(file: sqlite3.Connection) -> Iterator[None]:
    """All or nothing. IMMEDIATE: it waits for its turn to write before it reads, so it can never find itself too late."""
    file.execute("BEGIN IMMEDIATE")
    try:
        yield
        file.execute("COMMIT")
    finally:
        if file.in_transaction:
            file.execute("ROLLBACK")


def _text(text: str) -> bytes:
    """For CAST(? AS TEXT): the driver itself refuses lone surrogates."""
    return text.encode("utf-8", "surrogatepass")


def _append(file: sqlite3.Connection, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
    first, last = turns[0], turns[-1]
    rows = [(id, turn.role, _text(turn.content), turn.created, turn.interrupted) for turn in turns]
    with _transaction(file):
        file.execute(
            """INSERT INTO conversations
                VALUES (?, CAST(? AS TEXT), CAST(? AS TEXT), ?, max(?, ?), CAST(? AS TEXT),
                        (SELECT coalesce(max(number), 0) FROM messages))
                ON CONFLICT (id) DO UPDATE SET updated = max(updated, excluded.updated),
                        last_message = excluded.last_message, appended = excluded.appended""",
            (id, _text(tenant), _text(session), first.created, first.created, last.created, _text(last.content)),
        )
        file.executemany(
            """INSERT INTO messages (conversation, role, content, created, interrupted)
                VALUES (?, ?, CAST(? AS TEXT), ?, ?)""",
            rows,
        )


def _turns(file: sqlite3.Connection, query: str, *parameters: object) -> list[Turn]:
    return [Turn(role, content, created, bool(cut)) for role, content, created, cut in file.execute(query, parameters)]


def _newest(file: sqlite3.Connection, limit: int) -> tuple[list[Conversation], int]:
    rows = file.execute(f"{CONVERSATION} ORDER BY updated DESC, appended DESC LIMIT ?", (limit,)).fetchall()
    return [Conversation(*row) for row in rows], file.execute("SELECT count(*) FROM conversations").fetchone()[0]


def _get(file: sqlite3.Connection, id: str) -> tuple[Conversation, list[Turn]] | None:
    row = file.execute(f"{CONVERSATION} WHERE id = ?", (id,)).fetchone()
    return None if row is None else (Conversation(*row), _turns(file, f"{MESSAGES} ORDER BY number", id))
