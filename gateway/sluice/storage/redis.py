"""The client of Redis for limits, keys, usage and resumable streams, and the rule when it leaves a server.

The rule: if a connection is lost, or the server turns out to be a replica (`storage.LEAVE`), all connections
are dropped (those in use when their call is over), and the next one is made anew. It asks all sentinels for
the current master if the address names some, otherwise it resolves the host's name again. So everybody leaves
a demoted master that keeps its connections with the first call that it refuses. In a cluster the failed nodes
are left, and its map is looked up again.

Nothing is tried twice here, and no error has the server's message, because that may quote keys. `reason_of`
returns its meaning.
"""

import asyncio
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as NoReply

from sluice.storage import LEAVE, ODD_REPLIES, Reason
from sluice.storage.address import RedisAddress

CONNECT = 1.0
"""Seconds for a connection, with its password and database, if the address does not say."""
FAILURES = (RedisError, OSError, TimeoutError, ValueError)
"""The errors of a call of Redis. ValueError: a value that the gateway has not written."""

_CODES: dict[str, Reason] = {
    "NOAUTH": "noauth", "WRONGPASS": "wrongpass", "NOPERM": "noperm", "READONLY": "readonly", "LOADING": "loading",
    "MOVED": "moved", "ASK": "moved", "CROSSSLOT": "moved", "CLUSTERDOWN": "clusterdown", "MASTERDOWN": "masterdown",
    "NOREPLICAS": "noreplicas", "MISCONF": "misconf", "OOM": "oom", "BUSY": "busy", "TRYAGAIN": "busy",
}  # fmt: skip
_WORDS: tuple[tuple[str, Reason], ...] = (
    ("db index is out of range", "database"),
    ("select is not allowed in cluster mode", "database"),
    ("cluster support disabled", "no_cluster"),
    ("without any password configured", "wrongpass"),
    ("no password is set", "wrongpass"),
    ("invalid password", "wrongpass"),
    ("authentication required", "noauth"),
    (
        "unauthenticated",
        "noauth",
    ),  # for a command that is too large on a connection without a password: "unauthenticated multibulk length"
    ("invalid username-password pair", "wrongpass"),
    ("user executing the script can't", "noperm"),
    ("acl failure", "noperm"),
    ("no permissions to", "noperm"),
    ("this user has no permissions", "noperm"),
    ("command not allowed when used memory", "oom"),
    ("you can't write against a read only replica", "readonly"),
    ("can't write against a read only", "readonly"),
    ("loading the dataset in memory", "loading"),
)
"""Errors whose code is not at their beginning: those of a script are wrapped, and redis-py cuts off the codes
that it knows."""
_CODE = re.compile(r"(?<![A-Z])(" + "|".join(_CODES) + r")\b")


class RedisFailed(Exception):
    """Redis did not do it, or it is unknown whether it did. The text is the reason and nothing else."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


def reason_of(error: BaseException) -> Reason:
    """Returns the reason, for metrics, of an error of redis-py, of the socket below it, or of an unexpected
    reply."""
    if isinstance(error, RedisFailed):
        return error.reason
    for one in _causes(error):
        if isinstance(one, ssl.SSLError):
            return "tls"
        if isinstance(one, MasterNotFoundError):
            return "no_master"
    code = getattr(error, "status_code", None)
    if isinstance(code, str) and code in _CODES:
        return _CODES[code]
    text = str(error)[:500]
    if isinstance(error, RedisError):
        lower = text.lower()
        if found := next((reason for words, reason in _WORDS if words in lower), None):
            return found
        if code := _CODE.search(text):
            return _CODES[code[1]]
    if isinstance(error, NoReply | TimeoutError):
        return "timeout"
    if isinstance(error, NoConnection | OSError):
        return "connection"
    return "reply"


def _causes(error: BaseException) -> Iterator[BaseException]:
    at: BaseException | None = error
    for _ in range(8):
        if at is None:
            return
        yield at
        at = at.__cause__ or at.__context__


def answer_of_master(replies: Sequence[Any]) -> Any:
    """Returns the reply to a read that was sent after a write that changes nothing. Raises the error of
    either.

    A demoted master continues to answer reads with its old data, but refuses writes. Other reasons to refuse
    writes are no reason not to read.
    """
    written, answer = replies
    if isinstance(written, Exception) and reason_of(written) in LEAVE:
        raise written
    if isinstance(answer, Exception):
        raise answer
    return answer


def of_ours(replies: Sequence[Any]) -> list[Any]:
    """Returns the replies of a pipeline; None for a key whose value has another type, so that it does not
    hide the others. Raises any other error."""
    for reply in replies:
        if isinstance(reply, Exception) and reason_of(reply) != "reply":
            raise reply
    return [None if isinstance(reply, Exception) else reply for reply in replies]


class RedisClient:
    """Connections to the Redis at `address`: at most `connections`, for which a call waits up to `wait`
    seconds.

    `raw` is redis-py's client, for code that handles deadlines and errors itself. Waiting for a reply has no
    deadline of its own (redis-py's costs a task per write), so the caller has to have one.
    """

    def __init__(self, address: RedisAddress, *, connections: int, wait: float, **options: Any) -> None:
        connect = (
            address.connect_timeout
            if address.connect_timeout is not None
            else max(CONNECT, address.timeout or 0.0)
        )
        self._sentinel: Sentinel | None = None
        usual: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,
            "socket_connect_timeout": connect,
            "protocol": 2,
            "driver_info": None,
            "db": address.db,
            "username": address.username,
            "password": address.password,
            "health_check_interval": address.health_check_interval,
            **options,
        }
        self.raw: Any
        self._cluster: Any = None
        if address.cluster:
            self._cluster = self.raw = _cluster(
                address, {**usual, "max_connections": connections, "timeout": wait}
            )
            return
        kind: type[Any] = redis.Connection
        if address.path:
            kind, usual["path"] = redis.UnixDomainSocketConnection, address.path
        elif address.service:
            self._sentinel = _sentinel(address, connect)
            kind = _TlsMasterConnection if address.tls is not None else _MasterConnection
            usual |= {"ask": partial(_master, self._sentinel), "service": address.service}
        else:
            kind = redis.SSLConnection if address.tls is not None else redis.Connection
            [(usual["host"], usual["port"])] = address.hosts
        if not address.path:
            usual |= address.tls or {}
        self._pool: Any = redis.BlockingConnectionPool(
            max_connections=connections, timeout=wait, connection_class=kind, **usual
        )
        self.raw = redis.Redis.from_pool(self._pool)

    @asynccontextmanager
    async def asking(self, timeout: float) -> AsyncIterator[Any]:
        """Yields `raw`, for calls that take at most `timeout` seconds. Raises RedisFailed, after applying the
        rule for leaving a server."""
        try:
            async with asyncio.timeout(timeout):
                yield self.raw
        except (*FAILURES, *ODD_REPLIES) as error:
            reason = reason_of(error)
            if reason in LEAVE:
                await self.leave()
            raise RedisFailed(reason) from error

    def script(self, text: str) -> "RedisScript":
        return RedisScript(self.raw, text)

    async def leave(self) -> None:
        """Drops all connections: idle ones now, those in use when their call is over. In a cluster: those to
        failed nodes."""
        await (self._cluster.leave() if self._cluster is not None else _drop(self._pool))

    async def close(self) -> None:
        await self.raw.aclose()
        for sentinel in self._sentinel.sentinels if self._sentinel is not None else ():
            await sentinel.aclose()


class RedisScript:
    """A script that servers know by its digest; a server that does not know it yet is sent the text."""

    def __init__(self, raw: Any, text: str) -> None:
        self._raw = raw
        self._text = text
        self._digest = hashlib.sha1(
            text.encode(), usedforsecurity=False
        ).hexdigest()  # the name EVALSHA knows it by

    async def __call__(self, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Raises what redis-py does. In a cluster all keys must be in one slot."""
        try:
            return await self._raw.evalsha(self._digest, len(keys), *keys, *arguments)
        except NoScriptError:  # a new server, or its scripts were flushed
            return await self._raw.eval(self._text, len(keys), *keys, *arguments)

    async def each(self, runs: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> list[Any]:
        """Returns the replies of one run for each of these keys and arguments, which are sent together in a
        pipeline. Raises the first error, when the others are done."""
        replies = await self._sent("EVALSHA", self._digest, runs)
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        for at, reply in zip(
            unknown, await self._sent("EVAL", self._text, [runs[at] for at in unknown]), strict=True
        ):
            replies[at] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def _sent(
        self, command: str, script: str, runs: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    ) -> list[Any]:
        if not runs:
            return []
        pipeline = self._raw.pipeline(transaction=False)
        for keys, arguments in runs:
            pipeline.execute_command(command, script, len(keys), *keys, *arguments)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies


async def _drop(pool: Any) -> None:
    for connection in pool._in_use_connections:
        connection.mark_for_reconnect()
    try:
        await pool.disconnect(inuse_connections=False)
    except FAILURES:  # it was lost already
        return


def _cluster(address: RedisAddress, options: dict[str, Any]) -> Any:
    from sluice.storage.redis_cluster import Cluster

    kind = redis.SSLConnection if address.tls is not None else redis.Connection
    del options["db"]  # a cluster has only one

    def pool(host: str, port: int) -> Any:
        usual = {**options, **(address.tls or {}), "host": host, "port": port}
        return redis.BlockingConnectionPool(connection_class=kind, **usual)

    return Cluster(address.hosts, pool, _drop, patience=options["socket_connect_timeout"])


def _sentinel(address: RedisAddress, timeout: float) -> Sentinel:
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "username": address.sentinel_username,
        "password": address.sentinel_password,
    }
    if address.tls is not None:
        options |= {"ssl": True, **address.tls}
    return Sentinel(list(address.hosts), sentinel_kwargs=options)  # type: ignore[no-untyped-call]


async def _master(sentinel: Sentinel, service: str) -> tuple[str, int]:
    """Returns the address of the master that the first sentinel to answer knows. Raises MasterNotFoundError,
    or a RedisError that a sentinel answered with.

    All are asked at once. redis-py asks one after another, and the sentinel on a host that is gone does not
    answer at all: a caller whose deadline is not longer than that wait would never reach the others.
    """
    problems: list[Exception] = []

    async def ask(one: Any) -> tuple[str, int] | None:
        try:
            state = (await one.sentinel_masters()).get(service)
        except (RedisError, OSError) as error:
            problems.append(error)
            return None
        known = state is not None and sentinel.check_master_state(state, service)
        return (state["ip"], state["port"]) if known else None

    asking = [asyncio.create_task(ask(one)) for one in sentinel.sentinels]
    try:
        for answer in asyncio.as_completed(asking):
            if (found := await answer) is not None:
                return found
    finally:
        for task in asking:
            task.cancel()
    answered = [one for one in problems if not isinstance(one, NoConnection | NoReply | OSError)]
    if answered:
        raise answered[0]
    raise MasterNotFoundError(f"No sentinel knows a master of {service!r}")


class _ToMaster:
    """A connection that asks the sentinels for the master, each time that it is made."""

    def __init__(self, *, ask: Callable[[str], Any], service: str, **options: Any) -> None:
        super().__init__(**options)
        self._ask = ask
        self._service = service

    async def connect(self) -> None:
        if not self.is_connected:  # type: ignore[attr-defined]
            self.host, self.port = await self._ask(self._service)
        await super().connect()  # type: ignore[misc]


class _MasterConnection(_ToMaster, redis.Connection):
    pass


class _TlsMasterConnection(_ToMaster, redis.SSLConnection):
    pass
