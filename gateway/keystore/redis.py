"""Dynamic keys in Redis 6.2 or newer or Valkey, for any number of hosts.

    {prefix}:keys            hash: epoch, generation
    {prefix}:keys:data       hash: id -> the key as JSON
    {prefix}:keys:revision   sorted set: id by its revision

`{prefix}` is a hash tag, so that the three share a slot of a cluster. The server should keep its data (appendonly) and
must not evict keys (`maxmemory-policy noeviction`).

Every call is bounded, and nothing is tried twice. A change carries a deadline by the server's own clock: what a frozen
server finds in its socket when it wakes up is too late, and not done behind the back of who was told that it was not.
"""

import asyncio
import secrets
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.keystore import PAGE, Changes, StoredKey, StoreFailed, decode, encode

TIMEOUT = 0.5
"""Seconds for one call."""
LATE = -1
CONNECTIONS = 4

CHANGES = """
local page = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local state = redis.call('HMGET', KEYS[1], 'epoch', 'generation')
local ids, revisions = {}, {}
for i = 1, #page, 2 do
  ids[#ids + 1] = page[i]
  revisions[#revisions + 1] = page[i + 1]
end
local data = #ids > 0 and redis.call('HMGET', KEYS[2], unpack(ids)) or {}
return {state[1] or '', state[2] or '0', redis.call('ZCARD', KEYS[3]), ids, revisions, data}
"""
PUT = """
local time = redis.call('TIME')
if tonumber(time[1]) * 1000000 + tonumber(time[2]) > tonumber(ARGV[1]) then return -1 end
if tonumber(redis.call('ZSCORE', KEYS[3], ARGV[2]) or 0) ~= tonumber(ARGV[3]) then return 0 end
redis.call('HSETNX', KEYS[1], 'epoch', ARGV[4])
local generation = redis.call('HINCRBY', KEYS[1], 'generation', 1)
redis.call('HSET', KEYS[2], ARGV[2], ARGV[5])
redis.call('ZADD', KEYS[3], generation, ARGV[2])
return generation
"""
DELETE = """
local time = redis.call('TIME')
if tonumber(time[1]) * 1000000 + tonumber(time[2]) > tonumber(ARGV[1]) then return -1 end
if redis.call('ZSCORE', KEYS[3], ARGV[2]) ~= ARGV[3] then return 0 end
redis.call('HINCRBY', KEYS[1], 'generation', 1)
redis.call('HDEL', KEYS[2], ARGV[2])
return redis.call('ZREM', KEYS[3], ARGV[2])
"""


class RedisKeys:
    """`url`: redis://, rediss:// or unix://, as redis-py reads it. `timeout` in seconds, for a call as a whole."""

    def __init__(self, url: str, *, prefix: str = "sluice", timeout: float = TIMEOUT) -> None:
        state = f"{{{prefix}}}:keys"
        self._state = state
        self._keys = (state, f"{state}:data", f"{state}:revision")
        self._timeout = timeout
        self._client: Any = redis.Redis.from_pool(
            redis.BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=timeout,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=None,  # the call's own deadline covers it
                socket_connect_timeout=timeout,
                protocol=2,
                driver_info=None,
            )
        )

    async def changes(self, since: int) -> Changes:
        """Where nothing has changed, one HMGET."""
        try:
            async with asyncio.timeout(self._timeout):
                epoch, generation = await self._client.hmget(self._state, "epoch", "generation")
                if int(generation or 0) <= since:
                    return Changes((epoch or b"").decode(), int(generation or 0))
                return _changes(*await self._evaluate(CHANGES, since, PAGE))
        except FAILURES as error:
            raise StoreFailed(type(error).__name__) from error

    async def ids(self) -> set[str]:
        try:
            async with asyncio.timeout(self._timeout):
                return {id.decode() for id in await self._client.zrange(self._keys[2], 0, -1)}
        except FAILURES as error:
            raise StoreFailed(type(error).__name__) from error

    async def put(self, key: StoredKey, revision: int) -> int | None:
        return await self._change(PUT, key.id, revision, secrets.token_hex(8), encode(key)) or None

    async def delete(self, id: str, revision: int) -> bool:
        return await self._change(DELETE, id, revision) > 0

    async def close(self) -> None:
        await self._client.aclose()

    async def _change(self, script: str, *arguments: Any) -> int:
        try:
            async with asyncio.timeout(self._timeout):
                seconds, micros = await self._client.time()
            async with asyncio.timeout(self._timeout):  # begins later than the server's deadline does
                deadline = seconds * 1_000_000 + micros + int(self._timeout * 1_000_000)
                outcome = int(await self._evaluate(script, deadline, *arguments))
        except FAILURES as error:
            raise StoreFailed(type(error).__name__) from error
        if outcome == LATE:
            raise StoreFailed("late")
        return outcome

    async def _evaluate(self, script: str, *arguments: Any) -> Any:
        return await self._client.eval(script, len(self._keys), *self._keys, *arguments)


FAILURES = (RedisError, OSError, TimeoutError, ValueError)
"""ValueError: what is there is not what we put there."""


def _changes(
    epoch: bytes, generation: bytes, total: int, ids: list[bytes], revisions: list[bytes], data: list[bytes | None]
) -> Changes:
    entries = [decode(id.decode(), int(revision), kept or b"") for id, revision, kept in zip(ids, revisions, data, strict=True)]
    read = entries[-1].revision if len(entries) == PAGE else int(generation)
    return Changes(epoch.decode(), read, entries, total)
