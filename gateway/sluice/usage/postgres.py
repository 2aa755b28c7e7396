"""Usage in PostgreSQL (13 or newer), for any number of hosts: tables that reports of one's own can read.

A batch and its number are one statement. Its rows come in one order, so that two gateways that add to the same rows wait for
each other and do not lock each other out.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any

import msgspec

from sluice.storage.postgres import PostgresClient, PostgresFailed, StoreTables
from sluice.storage.postgres_address import address_of
from sluice.usage import Figures, Row, RowRefused, Subject, UsageBatch, UsageFailed

TIMEOUT = 5.0
"""Seconds for one call of the store: nobody waits for it but the next batch."""
NAMES = Figures.__struct_fields__
SUBJECT = Subject._fields
LARGEST = 2**63 - 1

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
    ),
)

ADD = f"""
    WITH arrived AS (
        INSERT INTO {{s}}.sluice_usage_writer AS w (writer, number, day) VALUES ($1, $2, $3)
        ON CONFLICT (writer) DO UPDATE SET number = excluded.number, day = excluded.day WHERE w.number < excluded.number
        RETURNING day
    )
    INSERT INTO {{s}}.sluice_usage AS u ({", ".join((*SUBJECT, *NAMES))})
    SELECT arrived.day, row.key, row.tenant, row.alias, row.model, {", ".join(f"row.{name}" for name in NAMES)}
    FROM arrived, unnest(
        $4::text[], $5::text[], $6::text[], $7::text[], {", ".join(f"${number}::bigint[]" for number, _ in enumerate(NAMES, 8))}
    ) AS row (key, tenant, alias, model, {", ".join(NAMES)})
    ON CONFLICT (day, key, tenant, alias, model) DO UPDATE
    SET {", ".join(f"{name} = least(u.{name}::numeric + excluded.{name}, {LARGEST})::bigint" for name in NAMES)}
"""  # noqa: S608 (the names of our own fields)
"""A sum that is too large for an integer stops at the largest one."""
OF_DAY = f"SELECT key, tenant, alias, model, {', '.join(NAMES)} FROM {{s}}.sluice_usage WHERE day = $1"  # noqa: S608
PRUNE = "DELETE FROM {s}.sluice_usage WHERE day < $1", "DELETE FROM {s}.sluice_usage_writer WHERE day < $1"
UNKEEPABLE = ("22000", "22021", "22P05", "54000", "22003", "")
"""SQLSTATEs of what can never be kept: U+0000 in a text, a text too long for the index, a figure out of range; 22000 and
"": what the driver itself refuses."""


class PostgresUsage:
    """`url` as `storage.postgres_address` reads it. `timeout` in seconds for each call; None: the address's, else TIMEOUT."""

    def __init__(self, url: str, *, timeout: float | None = None) -> None:
        address = address_of(url)
        timeout = timeout if timeout is not None else address.timeout or TIMEOUT
        self._client = PostgresClient(address, TABLES, connections=2, timeout=timeout)

    async def add(self, batch: UsageBatch) -> None:
        rows = sorted(_added_up(batch.rows).items())
        columns: list[list[Any]] = [[subject[place] for subject, _ in rows] for place in range(1, len(SUBJECT))]
        columns += [[getattr(figures, name) for _, figures in rows] for name in NAMES]
        try:
            await self._rows(ADD, batch.writer, batch.number, date.fromisoformat(batch.day), *columns)
        except UsageFailed as error:
            cause = error.__cause__
            if error.reason == "reply" and isinstance(cause, PostgresFailed) and cause.state in UNKEEPABLE:
                raise RowRefused(error.reason) from error
            raise

    async def of_day(self, day: str) -> Sequence[Row]:
        found = await self._rows(OF_DAY, date.fromisoformat(day))
        return [(Subject(day, *row[:4]), Figures(*row[4:])) for row in map(tuple, found)]

    async def prune(self, before: str) -> None:
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
    """A row of the table may be touched once in a statement."""
    found: dict[Subject, Figures] = {}
    for subject, figures in rows:
        if (known := found.get(subject)) is not None:
            known.add(figures)
        else:
            found[subject] = msgspec.structs.replace(figures)
    return found
