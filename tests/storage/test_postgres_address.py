"""Addresses of PostgreSQL: what they say, and what is wrong with others, which are never quoted."""

from typing import Any

import pytest

from sluice.storage.address import store_of
from sluice.storage.postgres_address import PostgresAddress, address_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://db", {"hosts": (("db", 5432),), "database": "postgres", "user": "postgres"}),
        ("postgres://u@db:1/x", {"hosts": (("db", 1),), "database": "x", "user": "u"}),
        ("postgresql://u@db", {"hosts": (("db", 5432),), "database": "u", "user": "u"}),
        (
            "postgresql://u%40v:p%2F%3F@a,[::1]:9/d%20b?sslmode=verify-full&sslrootcert=/ca.pem&schema=sluice_1",
            {
                "hosts": (("a", 5432), ("::1", 9)), "database": "d b", "user": "u@v", "password": "p/?",
                "sslmode": "verify-full", "sslrootcert": "/ca.pem", "schema": "sluice_1",
            },
        ),
        (
            "postgresql://u:@h/d?timeout=500ms&connect_timeout=3&prepared=true",
            {
                "hosts": (("h", 5432),), "database": "d", "user": "u", "password": "",
                "timeout": 0.5, "connect_timeout": 3.0, "prepared": True,
            },
        ),
    ],
)  # fmt: skip
def test_says_where_it_is_and_how_to_speak_to_it(text: str, expected: dict[str, Any]) -> None:
    assert address_of(text) == PostgresAddress(**expected)
    assert store_of(text, "postgres") == address_of(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mysql://x", "expected a postgresql:// URL"),
        ("postgresql://", "character 14: expected host"),
        ("postgresql://u:secret@h:99999/d", "expected a port from 1 to 65535"),
        ("postgresql://u:sec/ret@h/d", 'character 19: "/" in a user or password'),
        ("postgresql://u:sec#ret@h/d", 'character 19: "#" must be'),
        ("postgresql://u:sec%ret@h/d", 'character 19: "%" must be'),
        ("postgresql://u:s ecret@h/d", "white space"),
        ("postgresql://u:secret@h/d/e", "name of a database"),
        ("postgresql://h/d?sslmode=on", "sslmode: expected disable, prefer"),
        ("postgresql://h/d?schema=x;drop", "schema: expected small letters"),
        ("postgresql://h/d?schema=Public", "schema: expected small letters"),
        ("postgresql://h/d?sslcert=/c.pem", "belong together"),
        ("postgresql://h/d?timeout=0", "timeout: expected more than 0"),
        ("postgresql://h/d?options=-c", "unknown option"),
        ("postgresql://h/d?schema=a&schema=b", "stands there twice"),
    ],
)
def test_what_is_wrong_is_said_and_never_quoted(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        address_of(text)
    assert problem in str(caught.value)
    assert "sec" not in str(caught.value)
