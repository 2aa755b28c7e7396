"""Kept responses in PostgreSQL (13 or newer), for any number of hosts, also behind a pooler in transaction
mode.

Digests are of the tenant and the id, which may come from an upstream and hold anything.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sluice.conversations.entries import digest_of, number_of, raw
from sluice.kept import ResponsesFailed
from sluice.model.kept import KeptResponse
from sluice.storage.postgres import PostgresClient, PostgresFailed, StoreTables
from sluice.storage.postgres_address import address_of

TIMEOUT = 1.0
"""Seconds for one call of the store."""
CONNECTIONS = 4
DELETED_AT_ONCE = 500
"""Responses that are deleted together."""

TABLES = StoreTables(
    "responses",
    (
        """
        CREATE TABLE {s}.sluice_response (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            digest bytea NOT NULL UNIQUE,
            tenant_digest bytea NOT NULL,
            id bytea NOT NULL,
            previous bytea NOT NULL,
            created double precision NOT NULL,
            input bytea NOT NULL,
            response bytea NOT NULL,
            items bytea[] NOT NULL
        );
        CREATE INDEX sluice_response_created ON {s}.sluice_response (created);
        CREATE INDEX sluice_response_tenant ON {s}.sluice_response (tenant_digest, number);
        CREATE TABLE {s}.sluice_response_item (
            digest bytea PRIMARY KEY,
            response bigint NOT NULL REFERENCES {s}.sluice_response (number) ON DELETE CASCADE
        );
        CREATE INDEX sluice_response_item_response ON {s}.sluice_response_item (response)
        """,
    ),
)
ADD = """
    WITH kept AS (
        INSERT INTO {s}.sluice_response (digest, tenant_digest, id, previous, created, input, response, items)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (digest) DO UPDATE SET previous = excluded.previous, created = excluded.created, input = excluded.input,
            response = excluded.response, items = excluded.items
        RETURNING number
    )
    INSERT INTO {s}.sluice_response_item (digest, response)
    SELECT item.digest, kept.number FROM kept, unnest($9::bytea[]) AS item (digest)
    ON CONFLICT (digest) DO UPDATE SET response = excluded.response
"""
COLUMNS = "id, previous, created, input, response, items"
FIND = f"SELECT {COLUMNS} FROM {{s}}.sluice_response WHERE digest = $1 AND created > $2"  # noqa: S608 (our own columns)
HOLDER = f"""
    SELECT {COLUMNS} FROM {{s}}.sluice_response
    WHERE number = (SELECT response FROM {{s}}.sluice_response_item WHERE digest = $1) AND created > $2
"""  # noqa: S608
DELETE = "DELETE FROM {s}.sluice_response WHERE digest = $1 RETURNING created"
DELETE_OF = """
    DELETE FROM {s}.sluice_response WHERE number IN (
        SELECT number FROM {s}.sluice_response WHERE tenant_digest = $1 LIMIT $2
    ) RETURNING 1
"""
FORGET = """
    DELETE FROM {s}.sluice_response WHERE number IN (
        SELECT number FROM {s}.sluice_response WHERE created <= $1 ORDER BY created LIMIT $2 FOR UPDATE SKIP LOCKED
    ) RETURNING 1
"""
IDS = """
    SELECT number, id FROM {s}.sluice_response WHERE tenant_digest = $1 AND number > $2 AND created > $3
    ORDER BY number LIMIT $4
"""


class PostgresResponses:
    """`url` as `storage.postgres_address` reads it. `keep`: seconds after which a response is forgotten;
    `wall` in seconds since the epoch; `timeout` in seconds for each call; None: the address's, else TIMEOUT.

    Raises ResponsesFailed; OSError for text that is not Unicode.
    """

    def __init__(
        self, url: str, keep: float, wall: Callable[[], float], *, timeout: float | None = None
    ) -> None:
        address = address_of(url)
        timeout = timeout if timeout is not None else address.timeout or TIMEOUT
        self._client = PostgresClient(address, TABLES, connections=CONNECTIONS, timeout=timeout)
        self._keep = keep
        self._wall = wall

    async def put(self, tenant: str, kept: KeptResponse) -> None:
        digest = digest_of(tenant, kept.id)
        row = (
            digest,
            digest_of(tenant, ""),
            raw(kept.id),
            raw(kept.previous),
            kept.created,
            kept.input,
            kept.response,
        )
        items = dict.fromkeys(kept.items)  # an id that comes twice can be inserted once
        digests = [digest_of(tenant, item) for item in items]
        statement = self._client.statement
        async with self._asking() as connection, connection.transaction():
            await connection.execute(statement(DELETE), digest)
            await connection.execute(statement(ADD), *row, [raw(item) for item in kept.items], digests)

    async def get(self, tenant: str, id: str) -> KeptResponse | None:
        return await self._one(FIND, digest_of(tenant, id))

    async def holder(self, tenant: str, item: str) -> KeptResponse | None:
        return await self._one(HOLDER, digest_of(tenant, item))

    async def delete(self, tenant: str, id: str) -> bool:
        found = await self._rows(DELETE, digest_of(tenant, id))
        return bool(found) and found[0][0] > self._oldest()

    async def delete_of(self, tenant: str) -> int:
        count, digest = 0, digest_of(tenant, "")
        while deleted := await self._rows(DELETE_OF, digest, DELETED_AT_ONCE):
            count += len(deleted)
        return count

    async def ids(self, tenant: str, after: str, limit: int) -> tuple[list[str], str]:
        rows = await self._rows(IDS, digest_of(tenant, ""), number_of(after), self._oldest(), limit)
        return [id.decode("utf-8", "replace") for _, id in rows], str(rows[-1][0]) if len(
            rows
        ) == limit else ""

    async def forget(self) -> bool:
        """Deletes responses that are too old, except those that another gateway is deleting."""
        return len(await self._rows(FORGET, self._oldest(), DELETED_AT_ONCE)) == DELETED_AT_ONCE

    async def close(self) -> None:
        await self._client.close()

    async def _one(self, statement: str, digest: bytes) -> KeptResponse | None:
        rows = await self._rows(statement, digest, self._oldest())
        if not rows:
            return None
        id, previous, created, input, response, items = rows[0]
        try:
            names = id.decode(), previous.decode(), tuple([item.decode() for item in items])
        except ValueError as error:  # a row that the gateway has not written
            raise ResponsesFailed("reply") from error
        return KeptResponse(*names[:2], created, input, response, names[2])

    def _oldest(self) -> float:
        return self._wall() - self._keep

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
            raise ResponsesFailed(error.reason) from error
