"""Addresses of stores as they stand in the configuration: one parser for all options that name one.

    memory                                           in this process
    shared:PATH                                      a file that the processes of one host share
    sqlite:PATH                                      an SQLite file
    redis://[[user]:password@]host[:port][/db][?options]     valkey:// is the same; rediss:// and valkeys:// speak TLS
    unix://[[user]:password@]/path/to/socket[?options]
    redis+sentinel://[[user]:password@]host[:port],host[:port]/service[/db][?options]     also rediss+sentinel:// …
    redis+cluster://[[user]:password@]host[:port],host[:port][?options]     rediss+cluster:// …; redis-cluster:// is the same
    postgresql://user[:password]@host[:port][,host[:port]]/database[?options]     see `postgres_address`

An address is checked whole and never quoted in an error, for it may hold a password: errors name the place by
its character.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, cast

import msgspec

from sluice.storage import postgres_address
from sluice.storage.parts import (
    decoded_text,
    flag_of,
    host_of,
    options_in,
    refuse_characters,
    seconds_of,
    some_text,
)
from sluice.storage.postgres_address import PostgresAddress

SCHEMES: Mapping[str, bool] = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}
"""The schemes, and whether they use TLS."""
SENTINEL, CLUSTER = "sentinel", "cluster"
PORT, SENTINEL_PORT = 6379, 26379
EXPECTED = "a redis://, rediss:// or unix:// URL"
MAX_DATABASES = 1 << 20


Kind = Literal["memory", "shared", "sqlite", "redis", "postgres"]
CONVERSATIONS: tuple[Kind, ...] = ("memory", "sqlite", "redis", "postgres")
"""The kinds of stores that can keep conversations; likewise responses, keys and usage."""
LIMITS: tuple[Kind, ...] = ("memory", "shared", "redis")
"""The kinds of stores that can keep the buckets of limits."""
RESUME: tuple[Kind, ...] = ("memory", "redis")
"""The kinds of stores that can keep resumable streams."""
DRIVERS: Mapping[Kind, tuple[str, str, str]] = {"postgres": ("asyncpg", "PostgreSQL", "postgres")}
"""Engines whose driver is an extra: the driver's module, the engine's name, and the extra."""
WRITTEN: Mapping[Kind, str] = {
    "memory": "memory",
    "shared": "shared:PATH",
    "sqlite": "sqlite:PATH",
    "redis": EXPECTED,
    "postgres": "a postgresql:// URL",
}


class Local(msgspec.Struct, frozen=True):
    """A store on this machine, in the file `path`; "" for "memory"."""

    kind: Literal["memory", "shared", "sqlite"]
    path: str = ""


class RedisAddress(msgspec.Struct, frozen=True):
    """The address of a Redis, and how to connect to it.

    `hosts` are the sentinels if `service` is set; if `cluster` is set, those nodes that are asked for the
    others. `path`: that of a Unix socket. `timeout` for one call and `connect_timeout` for a connection are
    in seconds; None: the store's default. `health_check_interval`: seconds after which an idle connection is
    checked before it is used; 0: never. `tls`: the options of ssl; None: no TLS.
    """

    kind: ClassVar[Literal["redis"]] = "redis"
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    cluster: bool = False
    path: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    timeout: float | None = None
    connect_timeout: float | None = None
    health_check_interval: float = 0.0
    tls: Mapping[str, Any] | None = None


def store_of(text: str, *kinds: Kind) -> Local | RedisAddress | PostgresAddress:
    """Returns the store at the address `text`. `kinds`: those that are allowed, in the order in which errors
    list them (none: any).

    Raises ValueError with what is expected, or with what is wrong and at which character. The address is
    never quoted.
    """
    kinds = kinds or tuple(WRITTEN)
    kind, _, path = text.partition(":")
    local = text == "memory" or (path and kind in ("shared", "sqlite"))
    if local and kind in kinds:
        return Local(cast(Literal["memory", "shared", "sqlite"], kind), path)
    for kind_of_url, (claims, read) in _URLS.items():
        if kind_of_url in kinds and claims(text):
            return read(text)
    *others, last = map(WRITTEN.__getitem__, kinds)
    raise ValueError(f"expected {', '.join(others)} or {last}")


def is_redis(text: str) -> bool:
    """Returns whether the text begins like an address of Redis; `address_of` reports what is wrong with it."""
    scheme, separator, _ = text.partition("://")
    base, form = _parts_of(scheme)
    return bool(separator) and (scheme == "unix" or (base in SCHEMES and form in ("", SENTINEL, CLUSTER)))


def _parts_of(scheme: str) -> tuple[str, str]:
    """Returns the scheme of a single server, and which servers there are: "sentinel", "cluster", or "" for
    one."""
    base, plus, form = scheme.partition("+")
    if not plus and base.endswith(f"-{CLUSTER}"):
        return base.removesuffix(f"-{CLUSTER}"), CLUSTER
    return base, form if form or not plus else plus


def address_of(text: str) -> RedisAddress:
    """Parses the address. Raises ValueError, with what is wrong and at which character, but without quoting
    the address."""
    scheme, _, rest = text.partition("://")
    if not is_redis(text):
        raise ValueError(f"expected {EXPECTED}")
    return _Reader(text, scheme, len(scheme) + 3, rest).address()


class _Reader:
    """Reads the parts of one address; `_at`: the position at which its authority begins."""

    def __init__(self, text: str, scheme: str, at: int, rest: str) -> None:
        self._text = text
        self._scheme = scheme
        self._at = at
        refuse_characters(text)
        if (hash_ := text.find("#")) >= 0:
            raise ValueError(f'character {hash_ + 1}: "#" must be written as %23')
        before, question, query = rest.partition("?")
        if question and "@" in query and query.partition("=")[0] not in OPTIONS:
            raise ValueError(f'character {at + len(before) + 1}: "?" in a password must be written as %3F')
        credentials, self._credentials, self._place = self._split(before)
        self._options = options_in(query, at + len(before) + 1, OPTIONS)
        self._username, self._password = self._login(credentials)

    def _split(self, before: str) -> tuple[str, bool, str]:
        """Returns the credentials, whether there are any, and the rest."""
        if self._scheme == "unix" and before.startswith("/"):
            self._place_at = self._at
            return "", False, before
        credentials, sign, place = before.rpartition("@")
        if (slash := credentials.find("/")) >= 0:
            raise ValueError(
                f'character {self._at + slash + 1}: "/" in a user or password must be written as %2F'
            )
        self._place_at = self._at + len(credentials) + len(sign)
        return credentials, bool(sign), place

    def _login(self, credentials: str) -> tuple[str | None, str | None]:
        user, colon, password = credentials.partition(":")
        if self._credentials and not colon:
            raise ValueError(
                f'character {self._place_at}: a password is written as ":password@", a user as "user:password@"'
            )
        return decoded_text(user, self._at) or None, decoded_text(password, self._at + len(user) + 1) or None

    def address(self) -> RedisAddress:
        options = self._options
        shared: dict[str, Any] = {
            "username": self._username,
            "password": self._password,
            "timeout": options.get("timeout"),
            "connect_timeout": options.get("connect_timeout"),
            "health_check_interval": options.get("health_check_interval", 0.0),
        }
        if self._scheme == "unix":
            self._only(options, *USUAL)
            if not self._place.startswith("/") or len(self._place) < 2:
                raise ValueError(
                    f"character {self._place_at + 1}: expected the path of a socket, such as unix:///run/redis.sock"
                )
            return RedisAddress(
                path=decoded_text(self._place, self._place_at), db=options.get("db", 0), **shared
            )
        scheme, form = _parts_of(self._scheme)
        tls = (
            {name: value for name, value in options.items() if name.startswith("ssl_")}
            if SCHEMES[scheme]
            else None
        )
        usual = (*USUAL, *(TLS if tls is not None else ()))
        hosts, _, path = self._place.partition("/")
        path_at = self._place_at + len(hosts) + 1
        if form == SENTINEL:
            self._only(options, *usual, "sentinel_username", "sentinel_password")
            service, _, db = path.partition("/")
            if not service:
                raise ValueError(
                    f"character {path_at + 1}: expected the name of the service, as {self._scheme}://host:port/service"
                )
            return RedisAddress(
                hosts=self._hosts(hosts, SENTINEL_PORT),
                service=decoded_text(service, path_at),
                db=self._database(db, path_at + len(service) + 1),
                sentinel_username=options.get("sentinel_username"),
                sentinel_password=options.get("sentinel_password"),
                tls=tls,
                **shared,
            )
        self._only(options, *usual)
        if form == CLUSTER:
            if self._database(path, path_at):
                raise ValueError("a cluster has the database 0 only")
            return RedisAddress(hosts=self._hosts(hosts, PORT), cluster=True, tls=tls, **shared)
        if "," in hosts:
            at = self._place_at + hosts.index(",") + 1
            raise ValueError(f"character {at}: several hosts are for redis+sentinel:// and redis+cluster://")
        return RedisAddress(
            hosts=self._hosts(hosts, PORT), db=self._database(path, path_at), tls=tls, **shared
        )

    def _only(self, options: Mapping[str, Any], *known: str) -> None:
        for name in options:
            if name not in known:
                raise ValueError(f"the option {name} is of no use in a {self._scheme}:// address")

    def _database(self, text: str, at: int) -> int:
        text = text.removesuffix("/")
        if not text:
            return int(self._options.get("db", 0))
        if "db" in self._options:
            raise ValueError("the database is named twice: as /db and as ?db=")
        return _number(text, at)

    def _hosts(self, text: str, port: int) -> tuple[tuple[str, int], ...]:
        found, at = [], self._place_at
        for part in text.split(","):
            found.append(host_of(part, port, at))
            at += len(part) + 1
        return tuple(found)


def _number(text: str, at: int) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or int(text) > MAX_DATABASES:
        raise ValueError(f"character {at + 1}: expected the number of a database, such as /0")
    return int(text)


# --- options


def _interval(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError("expected whole seconds, 0 for never")
    return float(text)


def _requirement(text: str) -> str:
    if text not in ("required", "optional", "none"):
        raise ValueError("expected required, optional or none")
    return text


def _db(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text):
        raise ValueError("expected the number of a database")
    return int(text)


USUAL = ("timeout", "connect_timeout", "db", "health_check_interval")
TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "timeout": seconds_of,
    "connect_timeout": seconds_of,
    "health_check_interval": _interval,
    "db": _db,
    "sentinel_username": some_text,
    "sentinel_password": some_text,
    "ssl_ca_certs": some_text,
    "ssl_certfile": some_text,
    "ssl_keyfile": some_text,
    "ssl_cert_reqs": _requirement,
    "ssl_check_hostname": flag_of,
}
_URLS: Mapping[Kind, tuple[Callable[[str], bool], Callable[[str], RedisAddress | PostgresAddress]]] = {
    "redis": (is_redis, address_of),
    "postgres": (postgres_address.is_postgres, postgres_address.address_of),
}
"""For engines that are named by a URL: a function that recognizes such a URL, and one that parses it."""
