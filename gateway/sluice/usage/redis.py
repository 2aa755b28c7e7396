"""Usage in Redis (6.2 or newer) or Valkey: a hash per day, which expires by itself.

Its fields are JSON arrays of key, tenant, alias, model and the name of a figure; each dimension of a day is a
hash of its own, whose fields have the dimension's value before that name. The number of the last batch of
each writer stands in the same hash (its field is an array of one), so a batch and its number are one script
on one key, and a cluster needs no hash tag.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec

from sluice.storage.address import address_of
from sluice.storage.redis import RedisClient, RedisFailed, answer_of_master
from sluice.usage import KEPT_DAYS, Figures, Row, RowRefused, Subject, UsageBatch, UsageFailed

TIMEOUT = 2.0
"""Seconds for one call of the store."""
DAY = 86400
SECONDS = (KEPT_DAYS + 1) * DAY
ADD = """
    local last = redis.call('HGET', KEYS[1], ARGV[1])
    if last and tonumber(last) >= tonumber(ARGV[2]) then return 0 end
    for i = 4, #ARGV, 2 do
        local sum = redis.pcall('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
        if type(sum) == 'table' then
            for j = 4, i - 2, 2 do
                local before = redis.call('HINCRBY', KEYS[1], ARGV[j], '-' .. ARGV[j + 1])
                if before == 0 then redis.call('HDEL', KEYS[1], ARGV[j]) end
            end
            if string.find(sum.err, 'overflow') or string.find(sum.err, 'not an integer') then return -1 end
            return sum
        end
    end
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
    redis.call('EXPIRE', KEYS[1], ARGV[3])
    return 1
"""
REFUSED = -1
"""The reply of ADD if a figure or its sum is no 64-bit integer: it has taken back what it had added before.
"""
NAMES = Figures.__struct_fields__
_json = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(list[str]).decode


class RedisUsage:
    """`url` as `storage.address` reads it. `timeout` in seconds for each call; None: the address's, else
    TIMEOUT."""

    def __init__(self, url: str, *, prefix: str = "sluice", timeout: float | None = None) -> None:
        address = address_of(url)
        self._prefix = prefix
        self._timeout = timeout if timeout is not None else address.timeout or TIMEOUT
        self._client = RedisClient(address, connections=2, wait=self._timeout)
        self._add = self._client.script(ADD)

    async def add(self, batch: UsageBatch) -> None:
        arguments: list[bytes | int] = [_json([batch.writer]), batch.number, (batch.days + 1) * DAY]
        fields = slice(1, None) if batch.dimension else slice(1, -1)
        try:
            for subject, figures in batch.rows:
                for name, value in zip(NAMES, msgspec.structs.astuple(figures), strict=True):
                    if value:
                        arguments += (_json([*subject[fields], name]), value)
        except UnicodeEncodeError as error:
            raise RowRefused(type(error).__name__) from error
        async with self._asking():
            added = await self._add([self._key(batch.day, batch.dimension)], arguments)
        if added == REFUSED:
            raise RowRefused("a figure or its sum is no 64-bit integer")

    async def of_day(self, day: str, dimension: str = "") -> Sequence[Row]:
        key = self._key(day, dimension)
        async with self._asking() as raw:
            pipeline = raw.pipeline(transaction=False)
            pipeline.hdel(key, "")
            pipeline.hgetall(key)
            found = answer_of_master(await pipeline.execute(raise_on_error=False))
            rows: dict[Subject, Figures] = {}
            for field, value in found.items():
                with suppress(ValueError, msgspec.DecodeError):  # somebody else's field hides no other
                    match _fields(field):
                        case [key, tenant, alias, model, *of, name] if name in NAMES and len(of) == bool(
                            dimension
                        ):
                            number = int(value)
                            figures = rows.setdefault(Subject(day, key, tenant, alias, model, *of), Figures())
                            setattr(figures, name, number)
        return list(rows.items())

    async def prune(self, before: str, dimension: str = "") -> None:
        """Does nothing: days expire by themselves."""

    async def close(self) -> None:
        await self._client.close()

    def _key(self, day: str, dimension: str) -> str:
        return f"{self._prefix}:usage:{day}:{dimension}" if dimension else f"{self._prefix}:usage:{day}"

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[Any]:
        try:
            async with self._client.asking(self._timeout) as raw:
                yield raw
        except RedisFailed as error:
            raise UsageFailed(error.reason, error.reason) from error
