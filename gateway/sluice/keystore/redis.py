"""Dynamic keys in Redis 6.2 or newer or Valkey, for any number of hosts.

    {prefix}:keys            hash: epoch, generation
    {prefix}:keys:data       hash: id -> the key as JSON
    {prefix}:keys:revision   sorted set: id by its revision

`{prefix}` is a hash tag, so that the three share a slot of a cluster. The server should keep its data
(appendonly) and must not evict keys (`maxmemory-policy noeviction`).

Every call is bounded, and nothing is tried twice. A change carries a deadline by the server's own clock: what
a frozen server finds in its socket when it wakes up is too late, and not done behind the back of who was told
that it was not.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sluice.keystore import PAGE, Changes, KeyStoreFailed, StoredKey, decode, encode
from sluice.storage.address import address_of
from sluice.storage.redis import RedisClient, RedisFailed, answer_of_master

TIMEOUT = 0.5
"""Seconds for one call."""
LATE = -1
CONNECTIONS = 4
MAX_REVISION = 2.0**53

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
TIME = "return redis.call('TIME')"
"""A script that is given the keys, so that in a cluster it reads the clock of their node."""
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
    """`url` as `storage.address` reads it. `timeout` in seconds, for a call as a whole; None: the address's,
    else TIMEOUT."""

    def __init__(self, url: str, *, prefix: str = "sluice", timeout: float | None = None) -> None:
        address = address_of(url)
        state = f"{{{prefix}}}:keys"
        self._state = state
        self._keys = (state, f"{state}:data", f"{state}:revision")
        self._timeout = timeout if timeout is not None else address.timeout or TIMEOUT
        self._client = RedisClient(address, connections=CONNECTIONS, wait=self._timeout)

    async def changes(self, since: int) -> Changes:
        """Reads the changes; one round trip if there are none. It begins with a write that changes nothing,
        because a demoted master would still answer reads."""
        async with self._asking() as raw:
            pipeline = raw.pipeline(transaction=False)
            pipeline.hdel(self._state, "")
            pipeline.hmget(self._state, "epoch", "generation")
            epoch, generation = answer_of_master(await pipeline.execute(raise_on_error=False))
            if int(generation or 0) <= since:
                return Changes((epoch or b"").decode(), int(generation or 0))
            return _changes(await self._evaluate(raw, CHANGES, since, PAGE))

    async def ids(self) -> set[str]:
        async with self._asking() as raw:
            return {id.decode("utf-8", "replace") for id in await raw.zrange(self._keys[2], 0, -1)}

    async def put(self, key: StoredKey, revision: int) -> int | None:
        return await self._change(PUT, key.id, revision, secrets.token_hex(8), encode(key)) or None

    async def delete(self, id: str, revision: int) -> bool:
        return await self._change(DELETE, id, revision) > 0

    async def close(self) -> None:
        await self._client.close()

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[Any]:
        try:
            async with self._client.asking(self._timeout) as raw:
                yield raw
        except RedisFailed as error:
            raise KeyStoreFailed(error.reason) from error

    async def _change(self, script: str, *arguments: Any) -> int:
        async with self._asking() as raw:
            seconds, micros = map(int, await self._evaluate(raw, TIME))
        async with self._asking() as raw:  # begins later than the server's deadline does
            deadline = seconds * 1_000_000 + micros + int(self._timeout * 1_000_000)
            outcome = int(await self._evaluate(raw, script, deadline, *arguments))
        if outcome == LATE:
            raise KeyStoreFailed("timeout")
        return outcome

    async def _evaluate(self, raw: Any, script: str, *arguments: Any) -> Any:
        return await raw.eval(script, len(self._keys), *self._keys, *arguments)


def _changes(reply: tuple[bytes, bytes, int, list[bytes], list[bytes], list[bytes | None]]) -> Changes:
    epoch, generation, total, ids, revisions, data = reply
    entries = [
        decode(id.decode("utf-8", "replace"), _revision(revision), kept or b"")
        for id, revision, kept in zip(ids, revisions, data, strict=True)
    ]
    read = entries[-1].revision if len(entries) == PAGE else int(generation)
    return Changes(epoch.decode(), read, entries, total)


def _revision(score: bytes) -> int:
    """Returns a key's revision; for a member that the gateway has not written (infinite, or not a whole
    number) one that does not hide others."""
    return int(min(max(0.0, float(score)), MAX_REVISION))
