"""Kept responses in Redis (6.2 or newer) or Valkey, for any number of hosts.

    {prefix}:response:{digest}            hash: id, previous, created, input, response, items (JSON)
    {prefix}:response:item:{digest}       the digest of the response whose output has this item
    {prefix}:responses:of:{tenant}        sorted set: ids of a tenant's responses, by when they were made

Digests are of the tenant and the id, which may come from an upstream and hold anything. Responses and items
expire `keep` seconds after the response was made, a list some time after its last one. What it refers to is
written before what refers to it; an id leaves the list with its response, so that all of a tenant can be found
to be forgotten, also after `keep` was lowered.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import msgspec

from sluice.conversations.entries import digest_of, letters, number_of, raw
from sluice.kept import ResponsesFailed
from sluice.model.kept import KeptResponse
from sluice.storage.address import address_of
from sluice.storage.redis import RedisClient, RedisFailed, answer_of_master, of_ours

TIMEOUT = 1.0
"""Seconds for one call of the store."""
CONNECTIONS = 4
PAGE = 200
"""Responses that are deleted together."""
LISTED = 86400.0
"""Seconds for which a list outlives its last response."""
MAX_LISTS = 1000
"""Maximum lists in which a process looks for old responses; other lists expire by themselves."""

_encode = msgspec.json.Encoder().encode
_items = msgspec.json.Decoder(tuple[str, ...]).decode


class RedisResponses:
    """`url` as `storage.address` reads it. `keep`: seconds after which a response is forgotten; `wall` in
    seconds since the epoch; `timeout` in seconds for each call; None: the address's, else TIMEOUT.

    Raises ResponsesFailed; OSError for text that is not Unicode.
    """

    def __init__(
        self,
        url: str,
        keep: float,
        wall: Callable[[], float],
        *,
        prefix: str = "sluice",
        timeout: float | None = None,
    ) -> None:
        address = address_of(url)
        self._keep = keep
        self._wall = wall
        self._prefix = prefix
        self._timeout = timeout if timeout is not None else address.timeout or TIMEOUT
        self._client = RedisClient(address, connections=CONNECTIONS, wait=self._timeout)
        self._lists: dict[str, str] = {}  # the lists that were written to, with their tenants
        scripts = files("sluice.conversations")
        self._drop, self._unlist = (
            self._client.script(scripts.joinpath(f"{name}.lua").read_text("utf-8"))
            for name in ("forget", "unlist")
        )

    async def put(self, tenant: str, kept: KeptResponse) -> None:
        name = letters(digest_of(tenant, kept.id))
        seconds = max(1, round(kept.created + self._keep - self._wall()))
        key, of = self._key(name), self._list_of(tenant)
        fields = {
            "id": raw(kept.id),
            "previous": raw(kept.previous),
            "created": repr(kept.created),
            "input": kept.input,
            "response": kept.response,
            "items": _encode(kept.items),
        }
        async with self._asking() as client:
            before = await client.hget(key, "items")
            pipeline = client.pipeline(transaction=False)
            if before is not None:
                self._drop_items(pipeline, tenant, set(_items_of(before)).difference(kept.items))
            pipeline.zadd(of, {raw(kept.id): kept.created})
            pipeline.expire(of, round(self._keep + LISTED))
            pipeline.hset(key, mapping=fields)
            pipeline.expire(key, seconds)
            for item in kept.items:
                pipeline.set(self._item(tenant, item), name, ex=seconds)
            await pipeline.execute()
        if len(self._lists) < MAX_LISTS:
            self._lists[of] = tenant

    async def get(self, tenant: str, id: str) -> KeptResponse | None:
        return await self._one(letters(digest_of(tenant, id)))

    async def holder(self, tenant: str, item: str) -> KeptResponse | None:
        key = self._item(tenant, item)
        async with self._asking() as client:
            pipeline = client.pipeline(transaction=False)
            pipeline.setrange(key, 0, "")  # see `answer_of_master`; it makes no key where there is none
            pipeline.get(key)
            name = answer_of_master(await pipeline.execute(raise_on_error=False))
        found = await self._one(name.decode("latin-1")) if name is not None else None
        return found if found is not None and item in found.items else None

    async def delete(self, tenant: str, id: str) -> bool:
        try:
            there = await self.get(tenant, id) is not None
        except ResponsesFailed as error:
            if error.reason != "reply":
                raise
            there = True  # what cannot be read can be deleted
        await self._delete(tenant, [raw(id)])
        return there

    async def delete_of(self, tenant: str) -> int:
        count, of = 0, self._list_of(tenant)
        while True:
            async with self._asking() as client:
                ids = await client.zrange(of, 0, PAGE - 1)
            if not ids:
                return count
            count += await self._delete(tenant, ids)

    async def ids(self, tenant: str, after: str, limit: int) -> tuple[list[str], str]:
        """By SCAN: responses that are stored or deleted meanwhile change the positions of others."""
        async with self._asking() as client:
            cursor, found = await client.zscan(self._list_of(tenant), cursor=number_of(after), count=limit)
        ids = [_text(id) for id, created in found if created > self._oldest()]
        return ids, str(cursor) if int(cursor) else ""

    async def forget(self) -> bool:
        """Most responses expire by themselves, so mostly ids are removed from a list: one list at a time."""
        if not self._lists:
            return False
        of, tenant = next(iter(self._lists.items()))
        oldest = self._oldest()
        async with self._asking() as client:
            old = await client.zrange(of, "-inf", oldest, byscore=True, offset=0, num=PAGE, withscores=True)
        keys = [self._key(letters(digest_of(tenant, _text(id)))) for id, _ in old]
        async with self._asking():
            await self._drop.each([([key], [repr(oldest), "created"]) for key in keys])
        if old:
            async with self._asking():
                await self._unlist([of], [value for id, at in old for value in (id, repr(at), "")])
        if len(old) < PAGE:
            self._lists.pop(of, None)
        return bool(self._lists)

    async def close(self) -> None:
        await self._client.close()

    async def _one(self, name: str) -> KeptResponse | None:
        key = self._key(name)
        async with self._asking() as client:
            pipeline = client.pipeline(transaction=False)
            pipeline.hdel(key, "")  # see `answer_of_master`
            pipeline.hgetall(key)
            fields = answer_of_master(await pipeline.execute(raise_on_error=False))
        if not fields or b"response" not in fields:
            return None
        try:
            kept = KeptResponse(
                fields[b"id"].decode(),
                fields[b"previous"].decode(),
                float(fields[b"created"]),
                fields[b"input"],
                fields[b"response"],
                _items(fields[b"items"]),
            )
        except (KeyError, ValueError, msgspec.DecodeError) as error:
            raise ResponsesFailed("reply") from error
        return kept if kept.created > self._oldest() else None

    async def _delete(self, tenant: str, ids: list[bytes]) -> int:
        """Returns the number of deleted responses."""
        keys = [self._key(letters(digest_of(tenant, _text(id)))) for id in ids]
        async with self._asking() as client:
            pipeline = client.pipeline(transaction=False)
            for key in keys:
                pipeline.hget(key, "items")
            found = of_ours(await pipeline.execute(raise_on_error=False))
            items = [_items_of(one) for one in found if one is not None]
            pipeline = client.pipeline(transaction=False)
            self._drop_items(pipeline, tenant, {item for found in items for item in found})
            for key in keys:
                pipeline.delete(key)
            await pipeline.execute()
            await client.zrem(
                self._list_of(tenant), *ids
            )  # last: a response that is not listed would not be found again
        return len(items)

    def _drop_items(self, pipeline: Any, tenant: str, items: set[str]) -> None:
        for item in items:
            pipeline.delete(self._item(tenant, item))

    def _oldest(self) -> float:
        return self._wall() - self._keep

    def _key(self, name: str) -> str:
        return f"{self._prefix}:response:{name}"

    def _item(self, tenant: str, item: str) -> str:
        return f"{self._prefix}:response:item:{letters(digest_of(tenant, item))}"

    def _list_of(self, tenant: str) -> str:
        return f"{self._prefix}:responses:of:{letters(digest_of(tenant, ''))}"

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[Any]:
        try:
            async with self._client.asking(self._timeout) as client:
                yield client
        except RedisFailed as error:
            raise ResponsesFailed(error.reason) from error


def _text(id: bytes) -> str:
    """Returns an id in a list; one that the gateway has not written is no response's."""
    return id.decode("utf-8", "replace")


def _items_of(data: bytes) -> tuple[str, ...]:
    """Returns the ids of a response's items, which are deleted with it; none if they cannot be parsed."""
    try:
        return _items(data)
    except (ValueError, msgspec.DecodeError):
        return ()
