"""Conversations in PostgreSQL (13 or newer), for any number of hosts, also behind a pooler in transaction
mode.

    sluice_conversation   a session that has a turn; `done`: the holder that stored the last one
    sluice_turn           its messages, as `entries` writes them, in the order of `number`
    sluice_lease          who has the session's lease, and until when; of any session that ever had a turn lately
    sluice_lease_waiting  who waits for it, since when, and when they last asked

Texts are bytes, for PostgreSQL's texts cannot hold U+0000. Leases are unlogged: taking one waits for no disk,
and after a crash of the server there are none, which lets a turn that had one store (nobody can have taken it
since, without a row). `finish` is one statement, in which the row of the lease is what concurrent turns wait
for each other at. One index of `sluice_conversation` is unique, beside its key: with two, first turns that
come at once could lock each other out.
"""

import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from sluice.conversations import (
    LEASE,
    WAITING,
    Begun,
    Conversation,
    ConversationsFailed,
    Lease,
    Resealed,
    Retention,
    Swept,
    Turn,
    TurnSuperseded,
)
from sluice.conversations.entries import (
    RESEALED,
    RESEALINGS,
    Entries,
    Unstored,
    digest_in,
    digest_of,
    number_of,
    raw,
)
from sluice.storage import sealing
from sluice.storage.postgres import PostgresClient, PostgresFailed, StoreTables
from sluice.storage.postgres_address import address_of

TIMEOUT = 1.0
"""Seconds for one call of the store."""
CONNECTIONS = 8
MAX_TURNS = 1_000
"""The latest messages of a conversation that `get` returns; the tables keep them all."""

TABLES = StoreTables(
    "conversations",
    (
        """
        CREATE TABLE {s}.sluice_conversation (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            digest bytea NOT NULL UNIQUE,
            id text NOT NULL,
            tenant bytea NOT NULL,
            session bytea NOT NULL,
            tenant_digest bytea NOT NULL,
            created double precision NOT NULL,
            updated double precision NOT NULL,
            last_message bytea NOT NULL,
            done text NOT NULL,
            stored timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX sluice_conversation_id ON {s}.sluice_conversation (id);
        CREATE INDEX sluice_conversation_updated ON {s}.sluice_conversation (updated, number);
        CREATE INDEX sluice_conversation_stored ON {s}.sluice_conversation (stored);
        CREATE INDEX sluice_conversation_tenant ON {s}.sluice_conversation (tenant_digest);
        CREATE TABLE {s}.sluice_turn (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            conversation bigint NOT NULL REFERENCES {s}.sluice_conversation (number) ON DELETE CASCADE,
            data bytea NOT NULL
        );
        CREATE INDEX sluice_turn_conversation ON {s}.sluice_turn (conversation, number);
        CREATE UNLOGGED TABLE {s}.sluice_lease (
            digest bytea PRIMARY KEY,
            holder text NOT NULL,
            until timestamptz NOT NULL
        );
        CREATE INDEX sluice_lease_until ON {s}.sluice_lease (until);
        CREATE UNLOGGED TABLE {s}.sluice_lease_waiting (
            digest bytea NOT NULL,
            holder text NOT NULL,
            since timestamptz NOT NULL,
            asked timestamptz NOT NULL,
            PRIMARY KEY (digest, holder)
        )
        """,
        "CREATE INDEX sluice_conversation_of ON {s}.sluice_conversation (tenant_digest, updated, number)",
    ),
)

KEEP = """
    INSERT INTO {s}.sluice_conversation AS c
        (digest, id, tenant, session, tenant_digest, created, updated, last_message, done)
    SELECT $1, $3, $4, $5, $6, $7, $8, $9, $2 {from_mine}
    ON CONFLICT (digest) DO UPDATE
        SET updated = excluded.updated, last_message = excluded.last_message, done = excluded.done, stored = now()
        WHERE c.done <> excluded.done OR excluded.done = ''
    RETURNING number
"""
ADD = """
    INSERT INTO {s}.sluice_turn (conversation, data)
    SELECT kept.number, turn.data FROM kept, unnest($10::bytea[]) WITH ORDINALITY AS turn (data, place) ORDER BY turn.place
"""
APPEND = f"WITH kept AS ({KEEP.replace('{from_mine}', '')}) {ADD}"
FINISH = f"""
    WITH mine AS (
        INSERT INTO {{s}}.sluice_lease AS l (digest, holder, until) VALUES ($1, '', now())
        ON CONFLICT (digest) DO UPDATE SET holder = '', until = excluded.until WHERE l.holder = $2
        RETURNING holder
    ), kept AS ({KEEP.replace("{from_mine}", "FROM mine")}), added AS ({ADD})
    SELECT count(*) FROM mine
"""  # noqa: S608 (our own statements)
"""Returns how many turns had the lease, 1 or 0. A turn that was stored before adds nothing: `kept` is empty
then. Afterwards nobody has the lease, so that a renewal that was sent before and arrives later does not
take it again."""
STORED = "SELECT 1 FROM {s}.sluice_conversation WHERE digest = $1 AND done = $2"
TAKE = """
    INSERT INTO {s}.sluice_lease AS l (digest, holder, until)
    SELECT $1, $2, clock_timestamp() + make_interval(secs => $3)
    WHERE NOT EXISTS (
        SELECT FROM {s}.sluice_lease_waiting AS other
        WHERE other.digest = $1 AND other.holder <> $2
        AND other.asked > clock_timestamp() - make_interval(secs => $4)
        AND other.asked <= clock_timestamp() + make_interval(secs => $4)
        AND NOT EXISTS (
            SELECT FROM {s}.sluice_lease_waiting AS own
            WHERE own.digest = $1 AND own.holder = $2 AND (own.since, own.holder) < (other.since, other.holder)
        )
    )
    ON CONFLICT (digest) DO UPDATE SET holder = excluded.holder, until = excluded.until
        WHERE l.until <= clock_timestamp() OR l.holder = excluded.holder
    RETURNING 1
"""
WAIT = """
    WITH cut AS (
        UPDATE {s}.sluice_lease SET until = clock_timestamp() + make_interval(secs => $3)
        WHERE digest = $1 AND until > clock_timestamp() + make_interval(secs => $3)
    )
    INSERT INTO {s}.sluice_lease_waiting (digest, holder, since, asked) VALUES ($1, $2, clock_timestamp(), clock_timestamp())
    ON CONFLICT (digest, holder) DO UPDATE SET asked = excluded.asked
"""
"""Shortens a lease that ends later than any can (the server's clock was set back, or the row is not the
gateway's)."""
BEGIN = """
    WITH gone AS (DELETE FROM {s}.sluice_lease_waiting WHERE digest = $1 AND holder = $2)
    SELECT c.id, turn.data FROM {s}.sluice_conversation AS c LEFT JOIN LATERAL (
        SELECT number, data FROM {s}.sluice_turn WHERE conversation = c.number ORDER BY number DESC LIMIT $3
    ) AS turn ON true
    WHERE c.digest = $1 ORDER BY turn.number
"""
"""A statement of its own: turns that were stored while TAKE waited for its lock are not visible to TAKE."""
RENEW = """
    UPDATE {s}.sluice_lease SET until = clock_timestamp() + make_interval(secs => $3) WHERE digest = $1 AND holder = $2
    RETURNING 1
"""
LEAVE = """
    WITH gone AS (DELETE FROM {s}.sluice_lease_waiting WHERE digest = $1 AND holder = $2)
    UPDATE {s}.sluice_lease SET holder = '', until = '-infinity' WHERE digest = $1 AND holder = $2
"""
"""Afterwards nobody has the lease, as after FINISH."""
RECENT = """
    SELECT data FROM {s}.sluice_turn
    WHERE conversation = (SELECT number FROM {s}.sluice_conversation WHERE id = $1) ORDER BY number DESC LIMIT $2
"""
COLUMNS = "id, tenant, session, created, updated, last_message"
ONE = f"SELECT {COLUMNS} FROM {{s}}.sluice_conversation WHERE id = $1"  # noqa: S608
NEWEST = f"SELECT {COLUMNS} FROM {{s}}.sluice_conversation ORDER BY updated DESC, number DESC LIMIT $1"  # noqa: S608
COUNT = "SELECT count(*) FROM {s}.sluice_conversation"
DELETE = "DELETE FROM {s}.sluice_conversation WHERE id = $1 RETURNING 1"
DELETE_OF = """
    DELETE FROM {s}.sluice_conversation WHERE number IN (
        SELECT number FROM {s}.sluice_conversation
        WHERE tenant_digest = $1 AND substring(session FROM 1 FOR length($2::bytea)) = $2 LIMIT 500
    ) RETURNING 1
"""
PAGE = f"SELECT number, {COLUMNS} FROM {{s}}.sluice_conversation WHERE number > $1 ORDER BY number LIMIT $2"  # noqa: S608
PAGE_OF = f"""
    SELECT number, {COLUMNS} FROM {{s}}.sluice_conversation WHERE number > $1 AND tenant_digest = $3 ORDER BY number LIMIT $2
"""  # noqa: S608
MESSAGES = """
    SELECT data FROM {s}.sluice_turn WHERE conversation = (SELECT number FROM {s}.sluice_conversation WHERE id = $1)
    ORDER BY number OFFSET $2 LIMIT $3
"""
STORED_TURNS = """
    SELECT number, data FROM {s}.sluice_turn
    WHERE conversation = (SELECT number FROM {s}.sluice_conversation WHERE id = $1) AND number > $2 ORDER BY number LIMIT $3
"""
RESEAL = """
    UPDATE {s}.sluice_turn AS turn SET data = new.data
    FROM unnest($1::bigint[], $2::bytea[]) AS new (number, data) WHERE turn.number = new.number
"""
RESEAL_PREVIEW = (
    "UPDATE {s}.sluice_conversation SET last_message = $3 WHERE id = $1 AND last_message = $2 RETURNING 1"
)
STEP = 50
"""Maximum conversations that one statement of a sweep deletes, and that are examined together."""
STEP_MESSAGES = 1_000
OLD = """
    DELETE FROM {s}.sluice_conversation WHERE number IN (
        SELECT number FROM {s}.sluice_conversation WHERE updated < $1 ORDER BY updated LIMIT $2 FOR UPDATE SKIP LOCKED
    ) RETURNING 1
"""
WALK = """
    SELECT updated, number, tenant_digest FROM {s}.sluice_conversation
    WHERE (updated, number) > ($1, $2) ORDER BY updated, number LIMIT $3
"""
TRIM = """
    DELETE FROM {s}.sluice_turn WHERE number IN (
        SELECT turn.number FROM unnest($1::bigint[]) AS c (number), LATERAL (
            SELECT number FROM {s}.sluice_turn WHERE conversation = c.number ORDER BY number DESC OFFSET $2
        ) AS turn LIMIT $3
    ) RETURNING 1
"""
TOO_MANY = """
    DELETE FROM {s}.sluice_conversation WHERE number IN (
        SELECT old.number FROM unnest($1::bytea[]) AS t (digest), LATERAL (
            SELECT number FROM {s}.sluice_conversation WHERE tenant_digest = t.digest
            ORDER BY updated DESC, number DESC OFFSET $2
        ) AS old LIMIT $3
    ) RETURNING 1
"""
PRUNE = (
    "DELETE FROM {s}.sluice_lease WHERE until < clock_timestamp() - make_interval(secs => $1)",
    "DELETE FROM {s}.sluice_lease_waiting WHERE asked < clock_timestamp() - make_interval(secs => $1)",
)
FENCE = 3600.0
"""Seconds after which an ended lease is forgotten: no turn takes so long."""
OPEN = "SELECT id FROM {s}.sluice_conversation WHERE digest = $1"


class PostgresConversations:
    """`url` as `storage.postgres_address` reads it. `timeout` in seconds for each call; None: the address's,
    else TIMEOUT.

    Raises ConversationsFailed; OSError for text that is not Unicode.
    """

    def __init__(
        self, url: str, *, timeout: float | None = None, seals: sealing.Seals = sealing.NOTHING
    ) -> None:
        address = address_of(url)
        timeout = timeout if timeout is not None else address.timeout or TIMEOUT
        self._client = PostgresClient(address, TABLES, connections=CONNECTIONS, timeout=timeout)
        self._entries = Entries(seals)
        self._unstored = Unstored()
        self._swept = (-math.inf, 0)  # the last conversation that a sweep has examined

    # --- conversations

    async def open(self, tenant: str, session: str) -> str:
        digest = digest_of(tenant, session)
        found = await self._rows(OPEN, digest)
        return str(found[0][0]) if found else self._unstored.of(digest)

    async def recent(self, id: str, limit: int) -> list[Turn]:
        return self._turns(
            [data for (data,) in reversed(await self._rows(RECENT, _known(id), max(0, limit)))], digest_in(id)
        )

    async def append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
        if turns:
            await self._store(APPEND, Lease(tenant, session, ""), id, turns)

    def append_now(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> bool:
        return False

    async def newest(self, limit: int) -> tuple[list[Conversation], int]:
        [[count]] = await self._rows(COUNT)
        return self._conversations(await self._rows(NEWEST, max(0, limit))), count

    async def get(self, id: str) -> tuple[Conversation, list[Turn]] | None:
        found = await self._rows(ONE, _known(id))
        conversations = self._conversations(found)
        if found and not conversations:
            raise ConversationsFailed("reply")
        return (conversations[0], await self.recent(id, MAX_TURNS)) if found else None

    async def delete(self, id: str) -> bool:
        return bool(await self._rows(DELETE, _known(id)))

    async def delete_of(self, tenant: str, prefix: str = "") -> int:
        count, digest = 0, digest_of(tenant, "")
        while deleted := await self._rows(DELETE_OF, digest, raw(prefix)):
            count += len(deleted)
        return count

    async def page(self, after: str, limit: int, tenant: str = "") -> tuple[list[Conversation], str]:
        of = (
            (PAGE_OF, number_of(after), limit, digest_of(tenant, ""))
            if tenant
            else (PAGE, number_of(after), limit)
        )
        rows = await self._rows(*of)
        found = self._conversations([tuple(row)[1:] for row in rows])
        return found, str(rows[-1][0]) if len(rows) == limit else ""

    async def messages(self, id: str, start: int, limit: int) -> list[Turn]:
        return self._turns(
            [data for (data,) in await self._rows(MESSAGES, _known(id), start, limit)], digest_in(id)
        )

    async def reseal(self, id: str) -> Resealed:
        if not self._entries.seals.on:
            return Resealed()
        digest, after, done, unreadable, left = digest_in(id), 0, 0, 0, 0
        for _ in range(RESEALINGS):  # again where a turn is stored meanwhile, which changes the preview
            while rows := await self._rows(STORED_TURNS, _known(id), after, RESEALED):
                new, failed = self._entries.resealed([data for _, data in rows], digest)
                pairs = [
                    (number, data) for (number, _), data in zip(rows, new, strict=True) if data is not None
                ]
                if pairs:
                    await self._rows(RESEAL, [number for number, _ in pairs], [data for _, data in pairs])
                after, done, unreadable = rows[-1][0], done + len(pairs), unreadable + failed
            left = 0
            for *_, last in await self._rows(ONE, _known(id)):
                preview = self._entries.resealed_preview(last, digest)
                if preview is not None:
                    left = 1 - len(await self._rows(RESEAL_PREVIEW, _known(id), last, preview))
            if not left:
                break
        return Resealed(done, unreadable, left)

    async def sweep(self, retention: Retention, now: float) -> Swept:
        """Several gateways may sweep at once: conversations that one is deleting are skipped or waited for by
        the others."""
        old = len(await self._rows(OLD, now - retention.age, STEP)) if retention.age is not None else 0
        rows = await self._rows(WALK, *self._swept, STEP)
        trimmed = dropped = 0
        if rows and retention.messages is not None:
            numbers = [number for _, number, _ in rows]
            trimmed = len(await self._rows(TRIM, numbers, retention.messages, STEP_MESSAGES))
        if rows and retention.conversations is not None:
            tenants = sorted({digest for _, _, digest in rows})
            dropped = len(await self._rows(TOO_MANY, tenants, retention.conversations, STEP))
        again = trimmed == STEP_MESSAGES or dropped == STEP
        if rows and not again:
            self._swept = tuple(rows[-1])[:2]
        return Swept(old + dropped, trimmed, again or old == STEP or len(rows) == STEP)

    async def close(self) -> None:
        await self._client.close()

    # --- turns in order

    async def begin(self, lease: Lease, limit: int) -> Begun | None:
        digest = digest_of(lease.tenant, lease.session)
        if not await self._rows(TAKE, digest, lease.holder, LEASE, WAITING):
            await self._rows(WAIT, digest, lease.holder, LEASE)
            return None
        found = await self._rows(BEGIN, digest, lease.holder, max(0, limit))
        turns = self._turns([data for _, data in found if data is not None], digest)
        return Begun(found[0][0] if found else self._unstored.of(digest), turns)

    async def renew(self, lease: Lease) -> bool:
        return bool(await self._rows(RENEW, digest_of(lease.tenant, lease.session), lease.holder, LEASE))

    async def finish(self, lease: Lease, id: str, turns: Sequence[Turn]) -> None:
        [[had]] = await self._store(FINISH, lease, id, turns)
        if not had and not await self._rows(STORED, digest_of(lease.tenant, lease.session), lease.holder):
            raise TurnSuperseded

    async def leave(self, lease: Lease) -> None:
        await self._rows(LEAVE, digest_of(lease.tenant, lease.session), lease.holder)

    async def prune(self) -> None:
        for statement in PRUNE:
            await self._rows(statement, FENCE)

    # --- statements

    async def _store(self, statement: str, lease: Lease, id: str, turns: Sequence[Turn]) -> list[Any]:
        digest, last = digest_of(lease.tenant, lease.session), turns[-1]
        found = await self._rows(
            statement,
            digest,
            lease.holder,
            id,
            raw(lease.tenant),
            raw(lease.session),
            digest_of(lease.tenant, ""),
            turns[0].created,
            last.created,
            self._entries.preview(last, digest),
            [self._entries.written(turn, digest) for turn in turns],
        )
        self._unstored.stored(digest)
        return found

    def _turns(self, stored: Iterable[bytes], digest: bytes) -> list[Turn]:
        return [self._entries.read(data, digest) for data in stored]

    def _conversations(self, rows: Sequence[Sequence[Any]]) -> list[Conversation]:
        """Returns the conversations that can be read: rows with other bytes do not hide them."""
        found = []
        for row in rows:
            with suppress(ValueError):
                found.append(self._conversation(row))
        return found

    def _conversation(self, row: Sequence[Any]) -> Conversation:
        id, tenant, session, created, updated, last = row
        names = tenant.decode(), session.decode()
        return Conversation(id, *names, created, updated, self._entries.preview_of(last, digest_of(*names)))

    async def _rows(self, statement: str, *arguments: Any) -> list[Any]:
        async with self._asking() as connection:
            found: list[Any] = await connection.fetch(self._client.statement(statement), *arguments)
            return found

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[Any]:
        try:
            async with self._client.asking() as connection:
                yield connection
        except PostgresFailed as error:
            raise ConversationsFailed(error.reason) from error


def _known(id: str) -> str:
    """Returns the id; an id that matches nothing for a text that is not an id: PostgreSQL takes no U+0000 and
    no half of a surrogate pair."""
    return id if id.isascii() and "\0" not in id else ""
