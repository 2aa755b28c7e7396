"""Kept responses in an SQLite file, which may be the conversations' file. They survive a restart and a kill
of the process. `sluice.storage.sqlite` opens the file and runs the statements."""

from collections.abc import Callable
from pathlib import Path

from sluice.conversations.entries import number_of
from sluice.kept import ResponsesFailed
from sluice.model.kept import KeptResponse
from sluice.storage.sqlite import SqliteFile, migrate_part, transaction

BUSY = 5.0
"""Seconds to wait for another process's write."""
DELETED_AT_ONCE = 500
"""Responses that are deleted together."""
MIGRATIONS = (
    """
    CREATE TABLE sluice_response (
        number INTEGER PRIMARY KEY,
        tenant TEXT NOT NULL,
        id TEXT NOT NULL,
        previous TEXT NOT NULL,
        created REAL NOT NULL,
        input BLOB NOT NULL,
        response BLOB NOT NULL,
        UNIQUE (tenant, id)
    );
    CREATE INDEX sluice_response_created ON sluice_response (created);
    CREATE TABLE sluice_response_item (
        tenant TEXT NOT NULL,
        item TEXT NOT NULL,
        response INTEGER NOT NULL REFERENCES sluice_response (number) ON DELETE CASCADE,
        PRIMARY KEY (tenant, item)
    ) WITHOUT ROWID;
    CREATE INDEX sluice_response_item_response ON sluice_response_item (response)
    """,
)
FIND = """
    SELECT id, previous, created, input, response, number FROM sluice_response WHERE tenant = ? AND id = ? AND created > ?
"""
HOLDER = """
    SELECT id, previous, created, input, sluice_response.response, number
    FROM sluice_response JOIN sluice_response_item ON sluice_response_item.response = number
    WHERE sluice_response_item.tenant = ? AND item = ? AND created > ?
"""
ITEMS = "SELECT item FROM sluice_response_item WHERE response = ? ORDER BY item"
DELETE = "DELETE FROM sluice_response WHERE tenant = ? AND id = ?"
FORGET = """
    DELETE FROM sluice_response WHERE number IN (
        SELECT number FROM sluice_response WHERE created <= ? ORDER BY created LIMIT ?
    )
"""
IDS = "SELECT number, id FROM sluice_response WHERE tenant = ? AND number > ? AND created > ? ORDER BY number LIMIT ?"
ADD = "INSERT INTO sluice_response (tenant, id, previous, created, input, response) VALUES (?, ?, ?, ?, ?, ?)"
ADD_ITEM = "INSERT OR REPLACE INTO sluice_response_item (tenant, item, response) VALUES (?, ?, ?)"


class SqliteResponses:
    """Opens `path`, or makes it; its directory must exist. `keep`: seconds after which a response is
    forgotten; `wall` in seconds since the epoch.

    Raises OSError, with `filename`, here where the file cannot be used and from each call that the file
    cannot serve.
    """

    def __init__(self, path: Path, keep: float, wall: Callable[[], float]) -> None:
        self._keep = keep
        self._wall = wall
        self._file = SqliteFile(
            path,
            "responses",
            lambda database: migrate_part(database, path, "responses", MIGRATIONS),
            busy=BUSY,
        )
        self._database = self._file.database

    async def put(self, tenant: str, kept: KeptResponse) -> None:
        await self._file.run(self._put, tenant, kept)

    async def get(self, tenant: str, id: str) -> KeptResponse | None:
        return await self._file.run(self._one, FIND, tenant, id)

    async def holder(self, tenant: str, item: str) -> KeptResponse | None:
        return await self._file.run(self._one, HOLDER, tenant, item)

    async def delete(self, tenant: str, id: str) -> bool:
        return await self._file.run(self._delete, tenant, id)

    async def delete_of(self, tenant: str) -> int:
        return await self._file.run(self._delete_of, tenant)

    async def ids(self, tenant: str, after: str, limit: int) -> tuple[list[str], str]:
        return await self._file.run(self._ids, tenant, number_of(after), limit)

    async def forget(self) -> bool:
        return await self._file.run(self._forget)

    async def close(self) -> None:
        """Finishes what was begun, then closes the file. A second close does nothing."""
        await self._file.close()

    # --- in the thread

    def _put(self, tenant: str, kept: KeptResponse) -> None:
        row = (tenant, kept.id, kept.previous, kept.created, kept.input, kept.response)
        with transaction(self._database):
            self._database.execute(DELETE, (tenant, kept.id))
            number = self._database.execute(ADD, row).lastrowid
            self._database.executemany(ADD_ITEM, [(tenant, item, number) for item in kept.items])

    def _one(self, query: str, tenant: str, name: str) -> KeptResponse | None:
        row = self._database.execute(query, (tenant, name, self._oldest())).fetchone()
        if row is None:
            return None
        id, previous, created, input, response, number = row
        items = tuple([item for (item,) in self._database.execute(ITEMS, (number,)).fetchall()])
        texts, times, blobs = {type(id), type(previous)}, {type(created)}, {type(input), type(response)}
        if not (texts == {str} and times <= {float, int} and blobs <= {bytes, str}):
            raise ResponsesFailed("reply")  # SQLite keeps any type in any column
        input, response = (blob.encode() if type(blob) is str else blob for blob in (input, response))
        return KeptResponse(id, previous, created, input, response, items)

    def _delete(self, tenant: str, id: str) -> bool:
        there = self._one(FIND, tenant, id) is not None
        self._erase(DELETE, tenant, id)
        return there

    def _delete_of(self, tenant: str) -> int:
        return self._erase("DELETE FROM sluice_response WHERE tenant = ?", tenant)

    def _forget(self) -> bool:
        return self._erase(FORGET, self._oldest(), DELETED_AT_ONCE) == DELETED_AT_ONCE

    def _erase(self, statement: str, *values: object) -> int:
        count = self._database.execute(statement, values).rowcount
        if count:
            self._file.erased()
        return count

    def _ids(self, tenant: str, after: int, limit: int) -> tuple[list[str], str]:
        rows = self._database.execute(IDS, (tenant, after, self._oldest(), limit)).fetchall()
        return [id for _, id in rows], str(rows[-1][0]) if len(rows) == limit else ""

    def _oldest(self) -> float:
        return self._wall() - self._keep
