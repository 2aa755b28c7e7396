"""Conversations in Redis (6.2 or newer) or Valkey, for any number of hosts.

    {prefix}:conversation:{digest}         hash: id, tenant, session, created, updated, last, bytes, done
    {prefix}:conversation:{digest}:turns   list: each message as `entries` writes it
    {prefix}:conversation:{digest}:lease   hash: holder, until, and when each holder that waits has last asked
    {prefix}:conversation:{digest}:queue   sorted set: holders that wait for the lease, by when they came
    {prefix}:conversations                 sorted set: the digests, by when their last turn was stored

The digest of (tenant, session) is a hash tag, so the keys of a session share a slot of a cluster, and everything that is
done to a session is one script and one round trip. The list of all conversations is elsewhere: a session stands there
from just before its first turn is stored, and who reads it skips what is not there.

A conversation expires `keep` seconds after its last turn; of a long one the oldest messages are dropped, beyond `messages`
or MAX_BYTES. The time is the server's. A lease outlives its end by FENCE seconds, so that a turn whose lease ran out long
ago finds out who has taken it; where the server has lost everything meanwhile, the turn begins the conversation anew.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from sluice.conversations import LEASE, WAITING, Begun, Conversation, ConversationsFailed, Lease, Turn, TurnLost
from sluice.conversations.entries import PREVIEW, Unstored, digest_of, letters, raw, read, written
from sluice.storage.address import address_of
from sluice.storage.redis import Client, RedisFailed, answer_of_master

TIMEOUT = 1.0
"""Seconds for one call of the store."""
CONNECTIONS = 8
KEEP = 30 * 86400.0
"""Seconds for which a conversation is kept after its last turn."""
MAX_TURNS = 1_000
"""The latest messages of a conversation that are kept."""
MAX_BYTES = 16 << 20
"""Of all messages of a conversation together; the latest turn is kept whatever its size."""
FENCE = 3600
"""Seconds for which it is known who had a session's lease last."""
LOST = -1
"""What `finish.lua` answers where another turn has begun since."""
PAGE = 200
"""Conversations looked at together."""


class RedisConversations:
    """`url` as `storage.address` reads it. `timeout` in seconds for each call; None: the address's, else TIMEOUT.

    `keep` in seconds. Raises ConversationsFailed; OSError for text that is not Unicode.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "sluice",
        timeout: float | None = None,
        keep: float = KEEP,
        messages: int = MAX_TURNS,
        size: int = MAX_BYTES,
    ) -> None:
        address = address_of(url)
        self._timeout = timeout if timeout is not None else address.timeout or TIMEOUT
        self._client = Client(address, connections=CONNECTIONS, wait=self._timeout)
        self._prefix = prefix
        self._list = f"{prefix}:conversations"
        self._bounds = (max(1, round(keep)), messages, size)
        self._unstored = Unstored()
        scripts = files("sluice.conversations")
        self._begin, self._finish, self._leave = (
            self._client.raw.register_script(scripts.joinpath(f"{name}.lua").read_text("utf-8"))
            for name in ("begin", "finish", "leave")
        )

    # --- conversations

    async def open(self, tenant: str, session: str) -> str:
        digest = digest_of(tenant, session)
        async with self._asking() as raw:
            found = await raw.hget(self._key(letters(digest)), "id")
        return found.decode() if found else self._unstored.of(digest)

    async def recent(self, id: str, limit: int) -> list[Turn]:
        key = self._key(_digest_in(id))
        async with self._asking() as raw:
            pipeline = raw.pipeline(transaction=False)
            pipeline.hdel(key, "")  # see `answer_of_master`
            pipeline.hget(key, "id")
            pipeline.lrange(f"{key}:turns", -limit if limit > 0 else 1, -1 if limit > 0 else 0)
            written, kept, turns = await pipeline.execute(raise_on_error=False)
            kept, turns = answer_of_master((written, kept)), answer_of_master((written, turns))
            return [read(turn) for turn in turns] if kept == id.encode() else []

    async def append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
        if turns:
            await self._store(Lease(tenant, session, ""), id, turns)

    def append_now(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> bool:
        return False

    async def newest(self, limit: int) -> tuple[list[Conversation], int]:
        """A conversation that has expired is counted until somebody asks later than that."""
        async with self._asking() as raw:
            pipeline = raw.pipeline(transaction=False)
            pipeline.zremrangebyscore(self._list, "-inf", time.time() - self._bounds[0])
            pipeline.zcard(self._list)
            pipeline.zrange(self._list, 0, limit - 1, desc=True)
            _, count, digests = await pipeline.execute()
            pipeline = raw.pipeline(transaction=False)
            for digest in digests if limit > 0 else ():
                pipeline.hgetall(self._key(digest.decode()))
            found = await pipeline.execute() if limit > 0 else []
        return [_conversation(fields) for fields in found if fields], count

    async def get(self, id: str) -> tuple[Conversation, list[Turn]] | None:
        key = self._key(_digest_in(id))
        async with self._asking() as raw:
            pipeline = raw.pipeline(transaction=False)
            pipeline.hgetall(key)
            pipeline.lrange(f"{key}:turns", 0, -1)
            fields, turns = await pipeline.execute()
            if fields.get(b"id") != id.encode():
                return None
            return _conversation(fields), [read(turn) for turn in turns]

    async def delete(self, id: str) -> bool:
        name = _digest_in(id)
        async with self._asking() as raw:
            if await raw.hget(self._key(name), "id") != id.encode():
                return False
            await raw.delete(*self._keys(name)[:2])
            await raw.zrem(self._list, name)
            return True

    async def delete_of(self, tenant: str) -> int:
        """Looks through the list of all conversations, for there is none by tenant."""
        count, mine, at = 0, raw(tenant), 0
        while True:
            async with self._asking() as client:
                digests = [name.decode() for name in await client.zrange(self._list, at, at + PAGE - 1)]
                pipeline = client.pipeline(transaction=False)
                for name in digests:
                    pipeline.hget(self._key(name), "tenant")
                found = await pipeline.execute() if digests else []
                theirs = [name for name, owner in zip(digests, found, strict=True) if owner == mine]
                for name in theirs:
                    await client.delete(*self._keys(name)[:2])
                if theirs:
                    await client.zrem(self._list, *theirs)
            count += len(theirs)
            at += len(digests) - len(theirs)
            if len(digests) < PAGE:
                return count

    async def close(self) -> None:
        await self._client.close()

    # --- turns in their order

    async def begin(self, lease: Lease, limit: int) -> Begun | None:
        digest = digest_of(lease.tenant, lease.session)
        times = (_milliseconds(LEASE), _milliseconds(WAITING), FENCE)
        async with self._asking():
            taken, *found = await self._begin(self._keys(letters(digest)), [lease.holder, *times, max(0, limit)])
            if not taken:
                return None
            [id, turns] = found
            return Begun(id.decode() if id else self._unstored.of(digest), [read(turn) for turn in turns])

    async def renew(self, lease: Lease) -> bool:
        return await self._left(lease, _milliseconds(LEASE))

    async def finish(self, lease: Lease, id: str, turns: Sequence[Turn]) -> None:
        if await self._store(lease, id, turns) == LOST:
            raise TurnLost

    async def leave(self, lease: Lease) -> None:
        await self._left(lease, 0)

    async def prune(self) -> None:
        """Leases expire by themselves."""

    # --- scripts

    async def _left(self, lease: Lease, milliseconds: int) -> bool:
        keys = self._keys(letters(digest_of(lease.tenant, lease.session)))
        async with self._asking():
            return bool(await self._leave(keys, [lease.holder, milliseconds, FENCE]))

    async def _store(self, lease: Lease, id: str, turns: Sequence[Turn]) -> int:
        digest = digest_of(lease.tenant, lease.session)
        name, last = letters(digest), turns[-1]
        of = (
            id,
            raw(lease.tenant),
            raw(lease.session),
            repr(turns[0].created),
            repr(last.created),
            raw(last.content[:PREVIEW]),
        )
        arguments = [lease.holder, *self._bounds, FENCE, *of, *[written(turn) for turn in turns]]
        async with self._asking() as client:
            # before the turn: it may be listed without one, which is skipped, but not be there without being listed
            await client.zadd(self._list, {name: time.time()})
            outcome = int(await self._finish(self._keys(name), arguments))
        self._unstored.stored(digest)
        return outcome

    def _key(self, digest: str) -> str:
        return f"{self._prefix}:conversation:{{{digest}}}"

    def _keys(self, digest: str) -> list[str]:
        key = self._key(digest)
        return [key, f"{key}:turns", f"{key}:lease", f"{key}:queue"]

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[Any]:
        try:
            async with self._client.asking(self._timeout) as raw:
                yield raw
        except RedisFailed as error:
            raise ConversationsFailed(error.reason) from error


def _digest_in(id: str) -> str:
    """What an id of ours ends with, and of any other text nothing that would be a part of a key."""
    _, _, digest = id.rpartition(".")
    return digest if len(digest) == 22 and digest.isascii() and "}" not in digest else "none"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _conversation(fields: dict[bytes, bytes]) -> Conversation:
    id, tenant, session, last = (fields[name].decode() for name in (b"id", b"tenant", b"session", b"last"))
    return Conversation(id, tenant, session, float(fields[b"created"]), float(fields[b"updated"]), last)
