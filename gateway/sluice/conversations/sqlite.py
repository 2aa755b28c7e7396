"""Conversations in an SQLite file, which survive a restart and a kill of the process.

An encrypted turn is a BLOB in `content`, as `entries` encodes it whole; so is an encrypted preview in
`last_message`. `sluice.storage.sqlite` opens the file and runs the statements. Each turn is one transaction:
all of its messages are stored, or none. The schema's version is `user_version`; each entry of MIGRATIONS
leads to the next version. Released entries never change.
"""

import math
import secrets
import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sluice.conversations import Conversation, ConversationsFailed, Resealed, Retention, Swept, Turn
from sluice.conversations.entries import RESEALED, Entries, digest_of, number_of
from sluice.storage import sealing
from sluice.storage.sqlite import STRANGERS, SqliteFile, another_programs, of_a_newer_version, transaction

PREVIEW = 200
"""Characters of the last message in a list of conversations."""
MAX_TURNS = 1_000
"""The latest messages of a conversation that `get` returns; the file keeps them all."""
MAX_UNSTORED = 10_000
"""Maximum ids of sessions without a turn; the oldest is forgotten first."""
BUSY = 5.0
"""Seconds to wait for another process's write."""
ROLES, TIMES = ("user", "assistant"), {float, int}
"""Conditions for rows of the gateway's: SQLite keeps values of any type in any column."""

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
    "ALTER TABLE turn ADD COLUMN thoughts TEXT NOT NULL DEFAULT ''",
)

KEEP = """
    INSERT INTO conversation (id, tenant, session, created, updated, last_message) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (tenant, session) DO UPDATE SET updated = excluded.updated, last_message = excluded.last_message
"""
ADD = (
    "INSERT INTO turn (conversation, role, content, created, interrupted, thoughts) VALUES (?, ?, ?, ?, ?, ?)"
)
FIND = "SELECT id, number FROM conversation WHERE tenant = ? AND session = ?"
LATEST = """
    SELECT role, content, turn.created, interrupted, thoughts
    FROM turn JOIN conversation ON conversation.number = turn.conversation
    WHERE id = ? ORDER BY turn.number DESC LIMIT ?
"""
STEP = 100
"""Maximum conversations that one step of a sweep deletes, and examines."""
STEP_MESSAGES = 1_000
"""Maximum messages of one conversation that a step deletes."""
OLD = "SELECT number FROM conversation WHERE updated < ? ORDER BY updated LIMIT ?"
WALK = """
    SELECT updated, number, tenant FROM conversation WHERE (updated, number) > (?, ?) ORDER BY updated, number LIMIT ?
"""
TRIM = """
    DELETE FROM turn WHERE number IN (
        SELECT number FROM turn WHERE conversation = ?1 AND number <= (
            SELECT number FROM turn WHERE conversation = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2
        ) ORDER BY number LIMIT ?3
    )
"""
TOO_MANY = (
    "SELECT number FROM conversation WHERE tenant = ? ORDER BY updated DESC, number DESC LIMIT ? OFFSET ?"
)
BY_TENANT = "CREATE INDEX IF NOT EXISTS conversation_tenant_updated ON conversation (tenant, updated, number)"
"""Made if conversations are counted by tenant. It is not a version of the schema, because that would keep
older gateways out."""
COLUMNS = "SELECT id, tenant, session, created, updated, last_message FROM conversation"
NEWEST = f"{COLUMNS} ORDER BY updated DESC, number DESC LIMIT ?"
NAMES = "SELECT tenant, session FROM conversation WHERE id = ?"
ONE = f"{COLUMNS} WHERE id = ?"
PAGE = "SELECT number, id, tenant, session, created, updated, last_message FROM conversation WHERE number > ?"
STORED_TURNS = """
    SELECT turn.number, role, content, turn.created, interrupted, thoughts
    FROM turn JOIN conversation ON conversation.number = turn.conversation
    WHERE id = ? AND turn.number > ? ORDER BY turn.number LIMIT ?
"""
MESSAGES = """
    SELECT role, content, turn.created, interrupted, thoughts
    FROM turn JOIN conversation ON conversation.number = turn.conversation
    WHERE id = ? ORDER BY turn.number LIMIT ? OFFSET ?
"""


class SqliteConversations:
    """Opens `path`, or makes it; its directory must exist.

    Raises OSError, with `filename`, here where the file cannot be used and from each call that the file
    cannot serve.
    """

    def __init__(self, path: Path, seals: sealing.Seals = sealing.NOTHING) -> None:
        self._seals = seals
        self._entries = Entries(seals)
        self._unstored: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._file = SqliteFile(path, "conversations", partial(_migrate, path=path), busy=BUSY)
        self._database = self._file.database
        self._swept = (-math.inf, 0)  # the last conversation that a sweep has examined

    async def open(self, tenant: str, session: str) -> str:
        found = await self._file.run(self._find, tenant, session)
        key = (tenant, session)
        if found is None:
            found = self._unstored.setdefault(key, secrets.token_urlsafe(18))
            self._unstored.move_to_end(key)
            while len(self._unstored) > MAX_UNSTORED:
                self._unstored.popitem(last=False)
        return found

    async def recent(self, id: str, limit: int) -> list[Turn]:
        return await self._file.run(self._recent, id, limit)

    async def append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
        if turns:
            await self._file.run(self._append, tenant, session, id, list(turns))
            self._unstored.pop((tenant, session), None)

    def append_now(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> bool:
        return False

    async def newest(self, limit: int) -> tuple[list[Conversation], int]:
        return await self._file.run(self._newest, limit)

    async def get(self, id: str) -> tuple[Conversation, list[Turn]] | None:
        return await self._file.run(self._get, id)

    async def delete(self, id: str) -> bool:
        return await self._file.run(self._delete, "id = ?", id) > 0

    async def delete_of(self, tenant: str, prefix: str = "") -> int:
        return await self._file.run(
            self._delete, "tenant = ? AND substr(session, 1, ?) = ?", tenant, len(prefix), prefix
        )

    async def page(self, after: str, limit: int, tenant: str = "") -> tuple[list[Conversation], str]:
        return await self._file.run(self._page, number_of(after), limit, tenant)

    async def messages(self, id: str, start: int, limit: int) -> list[Turn]:
        return await self._file.run(self._messages, id, start, limit)

    async def reseal(self, id: str) -> Resealed:
        done = unreadable = 0
        after: int | None = 0
        while after is not None and self._seals.on:
            written, failed, after = await self._file.run(self._reseal, id, after)
            done, unreadable = done + written, unreadable + failed
        if done:
            await self._file.run(self._file.erased)
        return Resealed(done, unreadable)

    async def sweep(self, retention: Retention, now: float) -> Swept:
        return await self._file.run(self._sweep, retention, now)

    async def close(self) -> None:
        """Finishes what was begun, then closes the file. A second close does nothing."""
        await self._file.close()

    # --- in the thread

    def _find(self, tenant: str, session: str) -> str | None:
        row = self._database.execute(FIND, (tenant, session)).fetchone()
        return row[0] if row is not None else None

    def _recent(self, id: str, limit: int) -> list[Turn]:
        rows = self._database.execute(LATEST, (id, max(0, limit))).fetchall()
        return self._turns(id, rows[::-1])

    def _messages(self, id: str, start: int, limit: int) -> list[Turn]:
        return self._turns(id, self._database.execute(MESSAGES, (id, limit, start)).fetchall())

    def _turns(self, id: str, rows: Sequence[Sequence[Any]]) -> list[Turn]:
        if not self._seals.on and all(type(content) is str for _, content, *_ in rows):
            return [_turn(row) for row in rows]
        digest = digest_of(*self._database.execute(NAMES, (id,)).fetchone()) if rows else b""
        return [self._sealed(row, digest) for row in rows]

    def _sealed(self, row: Sequence[Any], digest: bytes) -> Turn:
        content = row[1]
        if type(content) is bytes:
            return self._entries.read(content, digest)
        try:
            self._seals.check_unsealed_allowed()
        except sealing.Unreadable as error:
            raise ConversationsFailed("key") from error
        return _turn(row)

    def _all_listed(self, rows: Sequence[Sequence[Any]]) -> list[Conversation]:
        """Returns the conversations that can be read: other rows do not hide them."""
        found = []
        for row in rows:
            with suppress(ConversationsFailed):
                found.append(self._listed(row))
        return found

    def _listed(self, row: Sequence[Any]) -> Conversation:
        """Raises ConversationsFailed."""
        id, tenant, session, created, updated, last = row
        if not (
            {str} == {type(id), type(tenant), type(session)}
            and {type(created), type(updated)} <= TIMES
            and type(last) in (str, bytes)
        ):
            raise ConversationsFailed("reply")
        if type(last) is bytes or self._seals.on:
            last = self._entries.preview_of(
                last if type(last) is bytes else last.encode(), digest_of(tenant, session)
            )
        return Conversation(id, tenant, session, created, updated, last)

    def _page(self, after: int, limit: int, tenant: str) -> tuple[list[Conversation], str]:
        wanted, values = (" AND tenant = ?", (after, tenant)) if tenant else ("", (after,))
        rows = self._database.execute(f"{PAGE}{wanted} ORDER BY number LIMIT ?", (*values, limit)).fetchall()
        return self._all_listed([row[1:] for row in rows]), str(rows[-1][0]) if len(rows) == limit else ""

    def _append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
        last = turns[-1]
        preview: str | bytes = last.content[:PREVIEW]
        contents: list[tuple[str | bytes, str]] = [(turn.content, turn.thoughts) for turn in turns]
        if self._seals.on:
            digest = digest_of(tenant, session)
            preview = self._entries.preview(last, digest)
            contents = [(self._entries.written(turn, digest), "") for turn in turns]
        conversation = (id, tenant, session, turns[0].created, last.created, preview)
        with transaction(self._database):
            self._database.execute(KEEP, conversation)
            [_, number] = self._database.execute(FIND, (tenant, session)).fetchone()
            rows = [
                (number, turn.role, content, turn.created, turn.interrupted, thoughts)
                for turn, (content, thoughts) in zip(turns, contents, strict=True)
            ]
            self._database.executemany(ADD, rows)

    def _newest(self, limit: int) -> tuple[list[Conversation], int]:
        [count] = self._database.execute("SELECT count(*) FROM conversation").fetchone()
        return self._all_listed(self._database.execute(NEWEST, (max(0, limit),)).fetchall()), count

    def _get(self, id: str) -> tuple[Conversation, list[Turn]] | None:
        row = self._database.execute(ONE, (id,)).fetchone()
        return (self._listed(row), self._recent(id, MAX_TURNS)) if row is not None else None

    def _delete(self, which: str, *values: object) -> int:
        database = self._database
        with transaction(database):
            of = f"(SELECT number FROM conversation WHERE {which})"  # noqa: S608 (one of ours)
            database.execute(f"DELETE FROM turn WHERE conversation IN {of}", values)  # noqa: S608
            count = database.execute(f"DELETE FROM conversation WHERE {which}", values).rowcount  # noqa: S608
        self._file.erased()
        return count

    def _sweep(self, retention: Retention, now: float) -> Swept:
        database = self._database
        conversations = messages = 0
        more = False
        with transaction(database):
            if retention.conversations is not None:
                database.execute(BY_TENANT)
            if retention.age is not None:
                conversations = self._drop(OLD, now - retention.age, STEP)
                more = conversations == STEP
            rows = database.execute(WALK, (*self._swept, STEP)).fetchall()
            for updated, number, tenant in rows:
                trimmed = dropped = 0
                if retention.messages is not None:
                    trimmed = database.execute(TRIM, (number, retention.messages, STEP_MESSAGES)).rowcount
                if retention.conversations is not None:
                    dropped = self._drop(TOO_MANY, tenant, STEP, retention.conversations)
                messages, conversations = messages + trimmed, conversations + dropped
                if more := more or trimmed == STEP_MESSAGES or dropped == STEP:
                    break  # the next step continues with this one
                self._swept = (updated, number)
        if conversations or messages:
            self._file.erased()
        return Swept(conversations, messages, more or len(rows) == STEP)

    def _reseal(self, id: str, after: int) -> tuple[int, int, int | None]:
        """Encrypts some messages after `after` again. Returns how many were written, how many could not be,
        and the position after which the next ones come."""
        with transaction(self._database):
            names = self._database.execute(NAMES, (id,)).fetchone()
            if names is None:
                return 0, 0, None
            digest, done, unreadable = digest_of(*names), 0, 0
            rows = self._database.execute(STORED_TURNS, (id, after, RESEALED)).fetchall()
            for number, *row in rows:
                if type(row[1]) is bytes and self._seals.is_current(row[1]):
                    continue
                try:
                    data = self._entries.written(self._sealed(row, digest), digest)
                except ConversationsFailed:
                    unreadable += 1
                    continue
                self._database.execute(
                    "UPDATE turn SET content = ?, thoughts = '' WHERE number = ?", (data, number)
                )
                done += 1
            [last] = self._database.execute(
                "SELECT last_message FROM conversation WHERE id = ?", (id,)
            ).fetchone()
            preview = self._entries.resealed_preview(last if type(last) is bytes else last.encode(), digest)
            if preview is not None:
                self._database.execute("UPDATE conversation SET last_message = ? WHERE id = ?", (preview, id))
        return done, unreadable, rows[-1][0] if len(rows) == RESEALED else None

    def _drop(self, query: str, *values: object) -> int:
        numbers = self._database.execute(query, values).fetchall()
        self._database.executemany("DELETE FROM turn WHERE conversation = ?", numbers)
        self._database.executemany("DELETE FROM conversation WHERE number = ?", numbers)
        return len(numbers)


def _turn(row: Sequence[Any]) -> Turn:
    """Raises ConversationsFailed."""
    role, content, created, interrupted, thoughts = row
    if (
        role not in ROLES
        or type(content) is not str
        or type(created) not in TIMES
        or type(thoughts) is not str
    ):
        raise ConversationsFailed("reply")
    return Turn(role, content, created, bool(interrupted), thoughts)


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    with transaction(database):  # of several processes that start at once, one migrates
        [version] = database.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise of_a_newer_version(path)
        if version == 0 and database.execute(STRANGERS).fetchone():
            raise another_programs(path)
        for migration in MIGRATIONS[version:]:
            for statement in migration.split(";"):
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
