"""Dynamic keys in PostgreSQL (13 or newer), for any number of hosts.

A change locks the one row of `sluice_keys`, so changes are made, and seen, in the order of their generations.
Every call is bounded in time, and nothing is tried twice. A change is a transaction of several statements: a
server that was frozen gets no COMMIT from a client that has given up.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sluice.keystore import PAGE, Changes, KeyStoreFailed, StoredKey, decode, encode
from sluice.storage.postgres import PostgresClient, PostgresFailed, StoreTables
from sluice.storage.postgres_address import address_of

TIMEOUT = 0.5
"""Seconds for one call."""
CONNECTIONS = 4

TABLES = StoreTables(
    "keys",
    (
        """
        CREATE TABLE {s}.sluice_keys (one integer PRIMARY KEY CHECK (one = 1), generation bigint NOT NULL, epoch text NOT NULL);
        INSERT INTO {s}.sluice_keys VALUES (1, 0, md5(random()::text || clock_timestamp()::text));
        CREATE TABLE {s}.sluice_key (id text PRIMARY KEY, revision bigint NOT NULL UNIQUE, data bytea NOT NULL)
        """,
    ),
)
GENERATION = "SELECT epoch, generation FROM {s}.sluice_keys"
CHANGED = f"""
    SELECT epoch, generation, (SELECT count(*) FROM {{s}}.sluice_key), id, revision, data
    FROM {{s}}.sluice_keys LEFT JOIN LATERAL (
        SELECT id, revision, data FROM {{s}}.sluice_key WHERE revision > $1 ORDER BY revision LIMIT {PAGE}
    ) AS changed ON true
    ORDER BY revision
"""  # noqa: S608 (our own number)
LOCK = "SELECT generation FROM {s}.sluice_keys FOR UPDATE"
REVISION = "SELECT revision FROM {s}.sluice_key WHERE id = $1"
NEXT = "UPDATE {s}.sluice_keys SET generation = generation + 1 RETURNING generation"
PUT = """
    INSERT INTO {s}.sluice_key (id, revision, data) VALUES ($1, $2, $3)
    ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, data = excluded.data
"""
DELETE = "DELETE FROM {s}.sluice_key WHERE id = $1"


class PostgresKeys:
    """`url` as `storage.postgres_address` reads it. `timeout` in seconds, for a call as a whole; None: the
    address's, else TIMEOUT."""

    def __init__(self, url: str, *, timeout: float | None = None) -> None:
        address = address_of(url)
        timeout = timeout if timeout is not None else address.timeout or TIMEOUT
        self._client = PostgresClient(address, TABLES, connections=CONNECTIONS, timeout=timeout)

    async def changes(self, since: int) -> Changes:
        """Reads the changes; if there are none, with one statement that reads one row."""
        async with self._asking() as connection:
            epoch, generation = await connection.fetchrow(self._client.statement(GENERATION))
            if generation <= since:
                return Changes(epoch, generation)
            rows = await connection.fetch(self._client.statement(CHANGED), since)
        epoch, generation, total = tuple(rows[0])[:3]
        entries = [decode(*tuple(row)[3:]) for row in rows if row[3] is not None]
        read = entries[-1].revision if len(entries) == PAGE else generation
        return Changes(epoch, read, entries, total)

    async def ids(self) -> set[str]:
        async with self._asking() as connection:
            return {
                id
                for (id,) in await connection.fetch(self._client.statement("SELECT id FROM {s}.sluice_key"))
            }

    async def put(self, key: StoredKey, revision: int) -> int | None:
        async with self._changing(key.id, revision) as (connection, generation):
            if generation is not None:
                await connection.execute(self._client.statement(PUT), key.id, generation, encode(key))
            return generation

    async def delete(self, id: str, revision: int) -> bool:
        async with self._changing(id, revision or -1) as (connection, generation):
            if generation is not None:
                await connection.execute(self._client.statement(DELETE), id)
            return generation is not None

    async def close(self) -> None:
        await self._client.close()

    @asynccontextmanager
    async def _changing(self, id: str, revision: int) -> AsyncIterator[tuple[Any, int | None]]:
        """Begins a transaction. Yields the generation of the change; None if the key has another revision."""
        statement = self._client.statement
        async with self._asking() as connection, connection.transaction():
            await connection.fetchval(statement(LOCK))
            # a statement of its own, so that changes made while it waited for the lock are visible
            current = await connection.fetchval(statement(REVISION), id) or 0
            yield connection, await connection.fetchval(statement(NEXT)) if current == revision else None

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[Any]:
        try:
            async with self._client.asking() as connection:
                yield connection
        except PostgresFailed as error:
            raise KeyStoreFailed(error.reason) from error
