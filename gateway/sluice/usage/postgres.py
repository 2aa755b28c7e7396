"""Usage in PostgreSQL (13 or newer), for any number of hosts, in tables that users' own reports can read.

A batch and its number are one statement. Its rows are sorted, so that two gateways that add to the same rows
wait for each other instead of causing a deadlock.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any

import msgspec

from sluice.storage.postgres import PostgresClient, PostgresFailed, StoreTables
from sluice.storage.postgres_address import address_of
from sluice.usage import SUBJECT, Figures, Row, RowRefused, Subject, UsageBatch, UsageFailed

TIMEOUT = 5.0
"""Seconds for one call of the store: only the next batch waits for it."""
NAMES = Figures.__struct_fields__
MAX_BIGINT = 2**63 - 1

TABLES = StoreTables(
    "usage",
    (
        f"""
        CREATE TABLE {{s}}.sluice_usage (
            day date NOT NULL, key text NOT NULL, tenant text NOT NULL, alias text NOT NULL, model text NOT NULL,
            {", ".join(f"{name} bigint NOT NULL" for name in NAMES)},
            PRIMARY KEY (day, key, tenant, alias, model)
        );
        CREATE TABLE {{s}}.sluice_usage_writer (
            writer text PRIMARY KEY, number bigint NOT NULL, day date NOT NULL
        )
        """,
        f"""
        CREATE TABLE {{s}}.sluice_usage_by (
            day date NOT NULL, dimension text NOT NULL, value text NOT NULL,
            key text NOT NULL, tenant text NOT NULL, alias text NOT NULL, model text NOT NULL,
            {", ".join(f"{name} bigint NOT NULL" for name in NAMES)},
            PRIMARY KEY (day, dimension, value, key, tenant, alias, model)
        )
        """,
    ),
)

_ARRIVED = """
    WITH arrived AS (
        INSERT INTO {s}.sluice_usage_writer AS w (writer, number, day) VALUES ($1, $2, $3)
        ON CONFLICT (writer) DO UPDATE SET number = excluded.number, day = excluded.day WHERE w.number < excluded.number
        RETURNING day
    )
"""
_ADDED = ", ".join(
    f"{name} = least(u.{name}::numeric + excluded.{name}, {MAX_BIGINT})::bigint" for name in NAMES
)
_SUMS = f"DO UPDATE SET {_ADDED}"
"""A sum that is too large for an integer becomes the largest one."""
_FIGURES = ", ".join(f"row.{name}" for name in NAMES)


def _columns(first: int) -> str:
    return ", ".join(f"${number}::bigint[]" for number, _ in enumerate(NAMES, first))


ADD = f"""
    {_ARRIVED}
    INSERT INTO {{s}}.sluice_usage AS u ({", ".join((*SUBJECT, *NAMES))})
    SELECT arrived.day, row.key, row.tenant, row.alias, row.model, {_FIGURES}
    FROM arrived, unnest($4::text[], $5::text[], $6::text[], $7::text[], {_columns(8)})
        AS row (key, tenant, alias, model, {", ".join(NAMES)})
    ON CONFLICT (day, key, tenant, alias, model) {_SUMS}
"""  # noqa: S608 (the names of our own fields)
ADD_BY = f"""
    {_ARRIVED}
    INSERT INTO {{s}}.sluice_usage_by AS u ({", ".join((*Subject._fields, "dimension", *NAMES))})
    SELECT arrived.day, row.key, row.tenant, row.alias, row.model, row.value, $4, {_FIGURES}
    FROM arrived, unnest($5::text[], $6::text[], $7::text[], $8::text[], $9::text[], {_columns(10)})
        AS row (key, tenant, alias, model, value, {", ".join(NAMES)})
    ON CONFLICT (day, dimension, value, key, tenant, alias, model) {_SUMS}
"""  # noqa: S608
OF_DAY = f"SELECT key, tenant, alias, model, '', {', '.join(NAMES)} FROM {{s}}.sluice_usage WHERE day = $1"  # noqa: S608
OF_DIMENSION = f"""
    SELECT key, tenant, alias, model, value, {", ".join(NAMES)} FROM {{s}}.sluice_usage_by WHERE day = $1 AND dimension = $2
"""  # noqa: S608
PRUNE = tuple(
    f"DELETE FROM {{s}}.{table} WHERE day < $1"  # noqa: S608
    for table in ("sluice_usage", "sluice_usage_by", "sluice_usage_writer")
)
PRUNE_DIMENSION = "DELETE FROM {s}.sluice_usage_by WHERE day < $1 AND dimension = $2"
UNKEEPABLE = ("22000", "22021", "22P05", "54000", "22003", "")
"""SQLSTATEs for rows that can never be kept: U+0000 in a text, a text too long for the index, a figure out of
range. 22000 and "": refused by the driver itself."""


class PostgresUsage:
    """`url` as `storage.postgres_address` reads it. `timeout` in seconds for each call; None: the address's,
    else TIMEOUT."""

    def __init__(self, url: str, *, timeout: float | None = None) -> None:
        address = address_of(url)
        timeout = timeout if timeout is not None else address.timeout or TIMEOUT
        self._client = PostgresClient(address, TABLES, connections=2, timeout=timeout)

    async def add(self, batch: UsageBatch) -> None:
        rows = sorted(_added_up(batch.rows).items())
        by = batch.dimension
        fields = Subject._fields if by else SUBJECT
        columns: list[list[Any]] = [
            [subject[place] for subject, _ in rows] for place in range(1, len(fields))
        ]
        columns += [[getattr(figures, name) for _, figures in rows] for name in NAMES]
        try:
            numbered = batch.writer, batch.number, date.fromisoformat(batch.day)
            await (
                self._rows(ADD_BY, *numbered, by, *columns) if by else self._rows(ADD, *numbered, *columns)
            )
        except UsageFailed as error:
            cause = error.__cause__
            if error.reason == "reply" and isinstance(cause, PostgresFailed) and cause.state in UNKEEPABLE:
                raise RowRefused(error.reason) from error
            raise

    async def of_day(self, day: str, dimension: str = "") -> Sequence[Row]:
        query = (
            (OF_DIMENSION, date.fromisoformat(day), dimension)
            if dimension
            else (OF_DAY, date.fromisoformat(day))
        )
        found = await self._rows(*query)
        return [(Subject(day, *row[:5]), Figures(*row[5:])) for row in map(tuple, found)]

    async def prune(self, before: str, dimension: str = "") -> None:
        if dimension:
            await self._rows(PRUNE_DIMENSION, date.fromisoformat(before), dimension)
            return
        for statement in PRUNE:
            await self._rows(statement, date.fromisoformat(before))

    async def close(self) -> None:
        await self._client.close()

    async def _rows(self, statement: str, *arguments: Any) -> list[Any]:
        try:
            async with self._client.asking() as connection:
                found: list[Any] = await connection.fetch(self._client.statement(statement), *arguments)
                return found
        except PostgresFailed as error:
            raise UsageFailed(error.reason, error.reason) from error


def _added_up(rows: Sequence[Row]) -> dict[Subject, Figures]:
    """Adds up rows with the same key: a statement may change a row of the table only once."""
    found: dict[Subject, Figures] = {}
    for subject, figures in rows:
        if (known := found.get(subject)) is not None:
            known.add(figures)
        else:
            found[subject] = msgspec.structs.replace(figures)
    return found
