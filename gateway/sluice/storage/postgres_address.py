"""Addresses of PostgreSQL as they stand in the configuration.

    postgresql://[user[:password]@]host[:port][,host[:port]][/database][?options]     postgres:// is the same

Of several hosts the first that takes writes is used. Options:

    sslmode           disable, prefer (the default), require, verify-ca, verify-full: as libpq has them
    sslrootcert       a file with the certificates of authorities; default: the system's
    sslcert, sslkey   the client's certificate and key
    schema            where the tables are; default: public
    timeout           for one call; connect_timeout: for a connection
    prepared          true: prepared statements are kept, which saves a round trip; not behind PgBouncer before 1.21

It is checked whole and never quoted in an error, for it may hold a password.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import msgspec

from sluice.storage.parts import (
    decoded_text,
    flag_of,
    host_of,
    options_in,
    refuse_characters,
    seconds_of,
    some_text,
)

SCHEMES = ("postgresql", "postgres")
PORT = 5432
Mode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
MODES: tuple[Mode, ...] = ("disable", "prefer", "require", "verify-ca", "verify-full")


class PostgresAddress(msgspec.Struct, frozen=True):
    """The address of a PostgreSQL, and how to connect to it. Times are in seconds; None: the store's default."""

    kind: ClassVar[Literal["postgres"]] = "postgres"
    hosts: tuple[tuple[str, int], ...]
    database: str
    user: str
    password: str | None = None
    schema: str = "public"
    timeout: float | None = None
    connect_timeout: float | None = None
    prepared: bool = False
    sslmode: Mode = "prefer"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None


def is_postgres(text: str) -> bool:
    """Returns whether the text begins like an address of PostgreSQL."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme in SCHEMES


def address_of(text: str) -> PostgresAddress:
    """Parses the address. Raises ValueError, with what is wrong and at which character, but without quoting
    the address."""
    if not is_postgres(text):
        raise ValueError("expected a postgresql:// URL")
    refuse_characters(text)
    if (at := text.find("#")) >= 0:
        raise ValueError(f'character {at + 1}: "#" must be written as %23')
    start = text.index("://") + 3
    before, _, query = text[start:].partition("?")
    credentials, sign, place = before.rpartition("@")
    if (slash := credentials.find("/")) >= 0:
        raise ValueError(f'character {start + slash + 1}: "/" in a user or password must be written as %2F')
    name, colon, password = credentials.partition(":")
    user = decoded_text(name, start) or "postgres"
    hosts, _, database = place.partition("/")
    place_at = start + len(credentials) + len(sign)
    if "/" in database:
        raise ValueError(
            f"character {place_at + len(hosts) + 2}: expected the name of a database, such as /sluice"
        )
    options = options_in(query, start + len(before) + 1, OPTIONS)
    if ("sslcert" in options) != ("sslkey" in options):
        raise ValueError("sslcert and sslkey belong together")
    return PostgresAddress(
        hosts=_hosts(hosts, place_at),
        database=decoded_text(database, place_at + len(hosts) + 1) or user,
        user=user,
        password=decoded_text(password, start + len(name) + 1) if colon else None,
        **options,
    )


def _hosts(text: str, at: int) -> tuple[tuple[str, int], ...]:
    found = []
    for part in text.split(","):
        found.append(host_of(part, PORT, at))
        at += len(part) + 1
    return tuple(found)


def _mode(text: str) -> Mode:
    if text not in MODES:
        raise ValueError(f"expected {', '.join(MODES[:-1])} or {MODES[-1]}")
    return text


def _schema(text: str) -> str:
    """Checks the schema's name. It becomes a part of statements, so it may only be a name that needs no
    quotes."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", text):
        raise ValueError("expected small letters, digits and _")
    return text


OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "sslmode": _mode,
    "sslrootcert": some_text,
    "sslcert": some_text,
    "sslkey": some_text,
    "schema": _schema,
    "timeout": seconds_of,
    "connect_timeout": seconds_of,
    "prepared": flag_of,
}
