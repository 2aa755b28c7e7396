"""The client of PostgreSQL for conversations, keys and usage, and the migrations of their tables.

Connections are kept here instead of in the driver's pool, which asks the server to reset a connection after
each use: that is one more round trip, for state that this code does not leave behind. A call that is
interrupted (its time is over, or its caller was cancelled) closes its connection, because the next reply on
it could be any. Nothing is tried twice here. Every call is one statement or one transaction, and statements
are not prepared unless the address says so, so a pooler in transaction mode may be in between.

Tables belong to a *part*, whose version is stored in `sluice_part`. Migrations only lead forward, and only
add: a gateway of the previous version continues beside one that has migrated, and can be started again. The
first migration with which an older version cannot work is marked (`StoreTables.breaks`), and such a version
refuses to use the tables.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec

from sluice.storage import LEAVE, ODD_REPLIES, Reason
from sluice.storage.postgres_address import PostgresAddress

CONNECT = 2.0
"""Seconds for a connection, if the address does not say."""
MIGRATE = 30.0
"""Seconds for the migrations, including the wait for another gateway's."""
ADVISORY = 0x736C7569
"""The key of the lock that migrations hold: "slui"."""
STATEMENTS = 100
"""Prepared statements that a connection keeps, if the address allows them."""

_CLASSES: dict[str, Reason] = {"08": "connection", "28": "wrongpass", "53": "busy", "57": "loading"}
"""Classes of SQLSTATE (PostgreSQL's documentation, appendix A)."""
_CODES: dict[str, Reason] = {
    "3D000": "database", "42501": "noperm", "25006": "readonly", "53100": "full", "53200": "oom", "57014": "timeout",
    "40001": "busy", "40P01": "busy", "55P03": "busy", "3F000": "database", "53300": "connection", "57P01": "connection",
    "57P02": "connection",
}  # fmt: skip
FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, ValueError)
"""The errors of a call. TimeoutError is an OSError; ValueError: a row that the gateway has not written."""


class PostgresFailed(Exception):
    """PostgreSQL did not do it, or it is unknown whether it did. The text is the reason and nothing else.
    `state`: the SQLSTATE, "" if the server has not answered."""

    def __init__(self, reason: Reason, state: str = "") -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.state = state


class StoreTables(msgspec.Struct, frozen=True):
    """The tables of one store. `{s}` in a migration stands for the schema. `breaks`: the latest version (from
    1) with which a gateway that knows fewer versions cannot work."""

    name: str
    migrations: Sequence[str]
    breaks: int = 1


def reason_of(error: BaseException) -> Reason:
    """Returns the store's error for one of asyncpg's, or of the socket below it."""
    state = getattr(error, "sqlstate", None)
    if isinstance(error, asyncpg.PostgresError) and isinstance(state, str):
        return _CODES.get(state) or _CLASSES.get(state[:2], "reply")
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLError) or "SSL" in str(error)[:200]:
        return "tls"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "readonly"
    if isinstance(error, (ValueError, *ODD_REPLIES)):
        return "reply"
    return "connection"


class PostgresClient:
    """At most `connections` to the PostgreSQL at `address`, each made when it is needed. `schema`: that of
    the tables. `part`: its tables are migrated to their newest version before the first call."""

    def __init__(
        self, address: PostgresAddress, part: StoreTables, *, connections: int, timeout: float
    ) -> None:
        self._address = address
        self._hosts = deque(address.hosts)
        self._part = part
        self.timeout = timeout
        self.schema = address.schema
        self._free = asyncio.Semaphore(connections)
        self._idle: deque[Any] = deque()
        self._ready = False
        self._preparing = asyncio.Lock()
        self._closed = False

    def statement(self, text: str) -> str:
        """Returns the statement with the schema in place of {s}."""
        return text.replace("{s}", self.schema)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Any]:
        """Yields a connection of asyncpg's, for a call that takes at most `timeout` seconds. Raises
        PostgresFailed."""
        try:
            if not self._ready:
                await self._prepare()
            async with asyncio.timeout(self.timeout), self._connection() as connection:
                yield connection
        except (*FAILURES, *ODD_REPLIES) as error:
            reason = reason_of(error)
            if reason in LEAVE:
                self._leave()
            raise PostgresFailed(reason, str(getattr(error, "sqlstate", None) or "")) from error

    async def close(self) -> None:
        self._closed = True
        self._leave()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        async with self._free:
            connection = await self._idle_or_new()
            sound = False
            try:
                yield connection
                sound = True
            except asyncpg.PostgresError:
                sound = True  # the server has answered
                raise
            finally:
                if (
                    sound
                    and not connection.is_closed()
                    and not connection.is_in_transaction()
                    and not self._closed
                ):
                    self._idle.append(connection)
                else:
                    connection.terminate()

    async def _idle_or_new(self) -> Any:
        if self._closed:
            raise ConnectionError("the store is closed")
        while self._idle:
            connection = (
                self._idle.pop()
            )  # the one that was used last: others may have been closed by a proxy in between
            if not connection.is_closed():
                return connection
        first, made = self._hosts[0], False
        try:
            connection = await self._new()
            made = True
        finally:
            # A host that is gone does not answer at all, so the next attempt begins with another one. Of several calls that
            # fail together only one moves on, or they could come back to the first host.
            if not made and self._hosts[0] is first:
                self._hosts.rotate(-1)
        return connection

    async def _new(self) -> Any:
        address = self._address
        hosts, ports = zip(*self._hosts, strict=True)
        return await asyncpg.connect(
            host=list(hosts),
            port=list(ports),
            user=address.user,
            password=address.password,
            database=address.database,
            timeout=address.connect_timeout or max(CONNECT, address.timeout or 0.0),
            statement_cache_size=STATEMENTS if address.prepared else 0,
            ssl=_tls(address),
            target_session_attrs="read-write" if len(hosts) > 1 else "any",
            server_settings={"application_name": "sluice"},
        )

    def _leave(self) -> None:
        while self._idle:
            self._idle.pop().terminate()

    # --- migrations

    async def _prepare(self) -> None:
        async with self._preparing:
            if not self._ready:
                async with asyncio.timeout(self.timeout), self._connection() as connection:
                    current = await self._version(connection)
                if current is None or current[0] < len(self._part.migrations):
                    async with asyncio.timeout(MIGRATE), self._connection() as connection:
                        current = await self._migrate(connection)
                if current[1] > len(self._part.migrations):
                    raise ValueError("the tables are of a newer version, which this one cannot live with")
                self._ready = True

    async def _version(self, connection: Any) -> tuple[int, int] | None:
        """Returns the schema version of the part, and the minimum version that a gateway must know."""
        found = await connection.fetchval("SELECT to_regclass($1)::text", f"{self.schema}.sluice_part")
        if found is None:
            return None
        row = await connection.fetchrow(
            self.statement("SELECT version, least FROM {s}.sluice_part WHERE name = $1"), self._part.name
        )
        return (row[0], row[1]) if row is not None else None

    async def _migrate(self, connection: Any) -> tuple[int, int]:
        """Creates and migrates the tables. If several gateways start at once, one of them migrates and the
        others wait."""
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", ADVISORY)
            if not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", self.schema):
                await connection.execute(f"CREATE SCHEMA {self.schema}")
            await connection.execute(self.statement(PARTS))
            version, least = await self._version(connection) or (0, 0)
            part = self._part
            if version >= len(part.migrations):
                return version, least
            for migration in part.migrations[version:]:
                for statement in migration.split(";"):
                    if statement.strip():
                        await connection.execute(self.statement(statement))
            await connection.execute(
                self.statement(NOTE), part.name, len(part.migrations), max(part.breaks, least)
            )
            return len(part.migrations), max(part.breaks, least)


PARTS = """
    CREATE TABLE IF NOT EXISTS {s}.sluice_part (name text PRIMARY KEY, version integer NOT NULL, least integer NOT NULL)
"""
NOTE = """
    INSERT INTO {s}.sluice_part (name, version, least) VALUES ($1, $2, $3)
    ON CONFLICT (name) DO UPDATE SET version = excluded.version, least = excluded.least
"""


def _tls(address: PostgresAddress) -> Any:
    """Returns asyncpg's `ssl` argument. `verify-…` without `sslrootcert`: by the system's authorities."""
    if not address.sslmode.startswith("verify") and address.sslcert is None:
        return False if address.sslmode == "disable" else address.sslmode
    context = ssl.create_default_context(cafile=address.sslrootcert)
    context.check_hostname = address.sslmode == "verify-full"
    if not address.sslmode.startswith("verify"):
        context.verify_mode = ssl.CERT_NONE
    if address.sslcert is not None:
        context.load_cert_chain(address.sslcert, address.sslkey)
    return context
