"""Where Sentinel watches over the server: redis+sentinel://[user:password@]host:port,host:port/service[/db].

The credentials are the server's; the sentinels' own password, where they have one, is `?sentinel_password=`.
"""

from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

SCHEME = "redis+sentinel"
PORT = 26379


class Sentinels(msgspec.Struct, frozen=True):
    hosts: tuple[tuple[str, int], ...]
    service: str
    db: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_password: str | None = None


def sentinels_of(url: str) -> Sentinels:
    """Raises ValueError, which does not quote the URL: it may hold a password."""
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    service, _, db = parts.path.strip("/").partition("/")
    if parts.scheme != SCHEME or not hosts or not service or not (db or "0").isdecimal():
        raise ValueError("expected redis+sentinel://host:port,host:port/service/db")
    return Sentinels(
        tuple(_address(host) for host in hosts.split(",")),
        unquote(service),
        int(db or 0),
        unquote(username) or None,
        unquote(password) or None,
        parse_qs(parts.query).get("sentinel_password", [None])[0],
    )


def _address(text: str) -> tuple[str, int]:
    address = urlsplit(f"//{text}")
    if not address.hostname:
        raise ValueError("a sentinel without a host")
    return address.hostname, address.port or PORT
