"""Usage in Redis (6.2 or newer) or Valkey: a hash per day, which expires by itself.

Its fields are JSON arrays of key, tenant, alias, model and the name of a figure. The number of the last batch of each
writer stands in the same hash (its field is an array of one), so a batch and its number are one script on one key, and a
cluster needs no hash tag.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar, cast

import msgspec
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.usage import KEPT_DAYS, Batch, Figures, Row, Subject, UsageFailed

T = TypeVar("T")

TIMEOUT = 2.0
"""Seconds for one call of the store."""
SECONDS = (KEPT_DAYS + 1) * 86400
ADD = """
    local last = redis.call('HGET', KEYS[1], ARGV[1])
    if last and tonumber(last) >= tonumber(ARGV[2]) then return 0 end
    for i = 4, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
    redis.call('EXPIRE', KEYS[1], ARGV[3])
    return 1
"""
NAMES = Figures.__struct_fields__
_json = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(list[str]).decode


class RedisUsage:
    """`url`: redis://, rediss:// or unix://, as redis-py reads it."""

    def __init__(self, url: str, *, prefix: str = "sluice", timeout: float = TIMEOUT) -> None:
        self._prefix = prefix
        self._timeout = timeout
        self._client: Any = redis.Redis.from_pool(
            redis.BlockingConnectionPool.from_url(
                url,
                max_connections=2,
                timeout=timeout,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                protocol=2,
                driver_info=None,
            )
        )
        self._add = self._client.register_script(ADD)

    async def add(self, batch: Batch) -> None:
        arguments: list[bytes | int] = [_json([batch.writer]), batch.number, SECONDS]
        for subject, figures in batch.rows:
            for name, value in zip(NAMES, msgspec.structs.astuple(figures), strict=True):
                if value:
                    arguments += (_json([*subject[1:], name]), value)
        await self._ask(self._add(keys=[self._key(batch.day)], args=arguments))

    async def of_day(self, day: str) -> Sequence[Row]:
        found = await self._ask(cast(Awaitable[dict[bytes, bytes]], self._client.hgetall(self._key(day))))
        rows: dict[Subject, Figures] = {}
        for field, value in found.items():
            match _fields(field):
                case [key, tenant, alias, model, name] if name in NAMES:
                    figures = rows.setdefault(Subject(day, key, tenant, alias, model), Figures())
                    setattr(figures, name, int(value))
        return list(rows.items())

    async def prune(self, before: str) -> None:
        """Days expire by themselves."""

    async def close(self) -> None:
        await self._client.aclose()

    def _key(self, day: str) -> str:
        return f"{self._prefix}:usage:{day}"

    async def _ask(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except (RedisError, OSError, TimeoutError) as error:
            raise UsageFailed(type(error).__name__) from error
