"""Conversations in Redis (6.2 or newer) or Valkey, for any number of hosts.

    {prefix}:conversation:{digest}         hash: id, tenant, session, created, updated, last, bytes, done
    {prefix}:conversation:{digest}:turns   list: each message as `entries` writes it
    {prefix}:conversation:{digest}:lease   hash: holder, until, and when each holder that waits has last asked
    {prefix}:conversation:{digest}:queue   sorted set: holders that wait for the lease, by when they came
    {prefix}:conversations                 sorted set: the digests, by when their last turn was stored
    {prefix}:conversations:tenants         sorted set: digests of tenants, by when a turn of theirs was last stored
    {prefix}:conversations:of:{tenant}     sorted set: as {prefix}:conversations, of one tenant

The digest of (tenant, session) is a hash tag, so the keys of a session share a slot of a cluster, and
everything that is done to a session is one script and one round trip. The list of all conversations is
elsewhere: a session stands there from just before its first turn is stored, and who reads it skips what is
not there. The lists by tenant are kept only where conversations are counted by tenant (`by_tenant`).

What is not listed can neither be exported nor forgotten on demand, so a name leaves a list only when its
conversation was found to be gone, and only if it still has the time that was read there (`unlist.lua`): a turn
that is stored meanwhile has listed it anew. Should the name go between that and the turn itself, the turn finds
that it is the conversation's first one, and lists it once more.

A conversation expires `keep` seconds after its last turn; of a long one the oldest messages are dropped,
beyond `messages` or MAX_BYTES. The time is the server's. A lease outlives its end by FENCE seconds, so that a
turn whose lease ran out long ago finds out who has taken it; where the server has lost everything meanwhile,
the turn begins the conversation anew.

What somebody else has put under one of these keys is passed over where several are read, so that it hides no
other; where it is asked for by itself, the store has failed with the reason "reply".
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from time import time as now
from typing import Any, NamedTuple

from sluice.conversations import (
    LEASE,
    WAITING,
    Begun,
    Conversation,
    ConversationsFailed,
    Lease,
    Resealed,
    Retention,
    Swept,
    Turn,
    TurnSuperseded,
)
from sluice.conversations.entries import (
    RESEALED,
    RESEALINGS,
    Entries,
    Unstored,
    digest_in,
    digest_of,
    letters,
    number_of,
    raw,
)
from sluice.storage import sealing
from sluice.storage.address import address_of
from sluice.storage.redis import RedisClient, RedisFailed, answer_of_master, of_ours

TIMEOUT = 1.0
"""Seconds for one call of the store."""
CONNECTIONS = 8
KEEP = 30 * 86400.0
"""Seconds for which a conversation is kept after its last turn."""
MAX_TURNS = 1_000
"""The latest messages of a conversation that are kept."""
MAX_BYTES = 16 << 20
"""Maximum bytes of all messages of a conversation together; the latest turn is kept whatever its size."""
FENCE = 3600
"""Seconds for which the last holder of a session's lease is known."""
SUPERSEDED, FIRST = -1, 2
"""Replies of `finish.lua`: another turn has begun since; there was no turn before."""
STEP = 100
"""Maximum conversations that one step of a sweep deletes, and tenants that it examines."""
PAGE = 200
"""Conversations examined together."""


class Listed(NamedTuple):
    """A conversation as a list of conversations has it: its name and time; another list that it is in; and,
    as text, the latest time of its last turn with which it may be deleted ("": any)."""

    name: bytes
    at: float
    of: str = ""
    until: str = ""


class RedisConversations:
    """`url` as `storage.address` reads it. `timeout` in seconds for each call; None: the address's, else
    TIMEOUT.

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
        by_tenant: bool = False,
        seals: sealing.Seals = sealing.NOTHING,
    ) -> None:
        address = address_of(url)
        self._timeout = timeout if timeout is not None else address.timeout or TIMEOUT
        self._client = RedisClient(address, connections=CONNECTIONS, wait=self._timeout)
        self._prefix = prefix
        self._list = f"{prefix}:conversations"
        self._tenants = f"{prefix}:conversations:tenants"
        self._by_tenant = by_tenant
        self._swept = 0.0  # the time up to which tenants have been examined
        self._pruned = 0.0  # the time up to which conversations that may have expired have been examined
        self._bounds = (max(1, round(keep)), messages, size)
        self._entries = Entries(seals)
        self._unstored = Unstored()
        scripts = files("sluice.conversations")
        self._begin, self._finish, self._leave, self._forget, self._unlist, self._reseal = (
            self._client.script(scripts.joinpath(f"{name}.lua").read_text("utf-8"))
            for name in ("begin", "finish", "leave", "forget", "unlist", "reseal")
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
        return self._turns(turns, digest_in(id)) if kept == id.encode() else []

    async def append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
        if turns:
            await self._store(Lease(tenant, session, ""), id, turns)

    def append_now(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> bool:
        return False

    async def newest(self, limit: int) -> tuple[list[Conversation], int]:
        """An expired conversation is counted until a later call or `prune` notices it."""
        await self.prune()
        async with self._asking() as raw:
            pipeline = raw.pipeline(transaction=False)
            pipeline.zcard(self._list)
            pipeline.zrange(self._list, 0, limit - 1, desc=True)
            count, digests = await pipeline.execute()
            pipeline = raw.pipeline(transaction=False)
            for digest in digests if limit > 0 else ():
                pipeline.hgetall(self._key(_text(digest)))
            found = of_ours(await pipeline.execute(raise_on_error=False)) if limit > 0 else []
        return self._conversations(found), count

    async def get(self, id: str) -> tuple[Conversation, list[Turn]] | None:
        key = self._key(_digest_in(id))
        async with self._asking() as raw:
            pipeline = raw.pipeline(transaction=False)
            pipeline.hgetall(key)
            pipeline.lrange(f"{key}:turns", 0, -1)
            fields, turns = await pipeline.execute()
            if fields.get(b"id") != id.encode():
                return None
            conversation = self._conversation(fields)
        return conversation, self._turns(turns, digest_in(id))

    async def delete(self, id: str) -> bool:
        name = _digest_in(id)
        async with self._asking() as raw:
            pipeline = raw.pipeline(transaction=False)
            pipeline.hmget(self._key(name), "id", "tenant")
            pipeline.zscore(self._list, name)
            (kept, tenant), at = await pipeline.execute()
        if kept != id.encode():
            return False
        return await self._drop([Listed(name.encode(), at or 0.0, self._list_of(tenant or b""))]) > 0

    async def delete_of(self, tenant: str, prefix: str = "") -> int:
        """Searches the list of all conversations, because there may be none by tenant. By SCAN: conversations
        that are removed or get a turn meanwhile change the positions of others."""
        count, mine, beginning, cursor = 0, raw(tenant), raw(prefix), 0
        of = self._list_of(mine)
        while True:
            async with self._asking() as client:
                cursor, entries = await client.zscan(self._list, cursor=cursor, count=PAGE)
                pipeline = client.pipeline(transaction=False)
                for name, _ in entries:
                    pipeline.hmget(self._key(_text(name)), "tenant", "session")
                found = of_ours(await pipeline.execute(raise_on_error=False)) if entries else []
            theirs = [
                Listed(name, at, of)
                for (name, at), fields in zip(entries, found, strict=True)
                if fields and fields[0] == mine and (fields[1] or b"").startswith(beginning)
            ]
            count += await self._drop(theirs)
            if not int(cursor):
                return count

    async def page(self, after: str, limit: int, tenant: str = "") -> tuple[list[Conversation], str]:
        """By SCAN, because the order of the list changes with every turn: pages have about `limit` entries,
        and fewer for one tenant."""
        mine = raw(tenant)
        async with self._asking() as client:
            cursor, entries = await client.zscan(self._list, cursor=number_of(after), count=limit)
            pipeline = client.pipeline(transaction=False)
            for name, _ in entries:
                pipeline.hgetall(self._key(_text(name)))
            found = of_ours(await pipeline.execute(raise_on_error=False)) if entries else []
        theirs = [fields for fields in found if fields and (not mine or fields.get(b"tenant") == mine)]
        return self._conversations(theirs), str(cursor) if int(cursor) else ""

    async def messages(self, id: str, start: int, limit: int) -> list[Turn]:
        key = self._key(_digest_in(id))
        async with self._asking() as client:
            pipeline = client.pipeline(transaction=False)
            pipeline.hget(key, "id")
            pipeline.lrange(f"{key}:turns", start, start + limit - 1)
            kept, turns = await pipeline.execute()
        return self._turns(turns, digest_in(id)) if kept == id.encode() else []

    async def reseal(self, id: str) -> Resealed:
        """A turn that is stored meanwhile may push messages out, which changes the positions of others: then
        all messages are examined again."""
        if not self._entries.seals.on:
            return Resealed()
        done, found = 0, Resealed()
        for _ in range(RESEALINGS):
            found = await self._resealed(id)
            done += found.messages
            if not found.left:
                break
        return Resealed(done, found.unreadable, found.left)

    async def _resealed(self, id: str) -> Resealed:
        """Examines the messages once. `left` is at least 1 if some may have been missed."""
        keys, digest = self._keys(_digest_in(id))[:2], digest_in(id)
        start, done, unreadable, left, first = 0, 0, 0, 0, None
        while True:
            async with self._asking() as client:
                pipeline = client.pipeline(transaction=False)
                pipeline.hmget(keys[0], "id", "last", "updated", "done")
                pipeline.lrange(keys[1], start, start + RESEALED - 1)
                (kept, last, *turn), turns = await pipeline.execute()
            if kept != id.encode():
                return Resealed(done, unreadable)
            new, failed = self._entries.resealed(turns, digest)
            preview = self._entries.resealed_preview(last, digest) if start == 0 else None
            arguments: list[Any] = [last, preview] if preview is not None else ["", ""]
            for place, (old, fresh) in enumerate(zip(turns, new, strict=True), start):
                if fresh is not None:
                    arguments += [place, old, fresh]
            async with self._asking():
                replaced, previewed = await self._reseal(keys, arguments)
            done, unreadable = done + replaced, unreadable + failed
            left += len(arguments[2:]) // 3 - replaced + (preview is not None and not previewed)
            if first is not None and turn != first:
                left = max(1, left)
            start, first = start + len(turns), first or turn
            if len(turns) < RESEALED:
                return Resealed(done, unreadable, left)

    async def sweep(self, retention: Retention, now: float) -> Swept:
        """Long conversations are cut when turns are stored, and most of the old ones expire by themselves."""
        dropped = 0
        if retention.age is not None:
            until = now - retention.age
            async with self._asking() as client:
                old = await client.zrange(
                    self._list, "-inf", until, byscore=True, offset=0, num=STEP, withscores=True
                )
            dropped += await self._drop([Listed(name, at, until=repr(until)) for name, at in old])
            if len(old) == STEP:
                return Swept(dropped, more=True)
        if retention.conversations is None:
            return Swept(dropped)
        surplus, more = await self._surplus(retention.conversations)
        return Swept(dropped + await self._drop(surplus), more=more)

    async def _surplus(self, most: int) -> tuple[list[Listed], bool]:
        """Returns up to STEP conversations of tenants that have more than `most`, the oldest ones; and
        whether there may be more."""
        async with self._asking() as client:
            tenants = await client.zrange(
                self._tenants, self._swept, "+inf", byscore=True, offset=0, num=STEP, withscores=True
            )
            pipeline = client.pipeline(transaction=False)
            for tenant, _ in tenants:
                pipeline.zcard(f"{self._list}:of:{_text(tenant)}")
            counts = of_ours(await pipeline.execute(raise_on_error=False)) if tenants else []
        counts = [count or 0 for count in counts]
        wanted, chosen, looked_at, more = {}, 0, self._swept, len(tenants) == STEP
        for (tenant, at), count in zip(tenants, counts, strict=True):
            some = min(max(0, count - most), STEP - chosen)
            if some:
                wanted[f"{self._list}:of:{_text(tenant)}"] = some
            chosen += some
            if some < count - most:
                more = True
                break
            looked_at = at
        async with self._asking() as client:
            pipeline = client.pipeline(transaction=False)
            for of, some in wanted.items():
                pipeline.zrange(of, 0, some - 1, withscores=True)
            oldest = await pipeline.execute() if wanted else []
        empty = [entry for entry, count in zip(tenants, counts, strict=True) if not count]
        await self._take_out(self._tenants, empty)
        self._swept = looked_at
        return [
            Listed(name, at, of, repr(at))
            for of, names in zip(wanted, oldest, strict=True)
            for name, at in names
        ], more

    async def _drop(self, listed: Sequence[Listed]) -> int:
        """Deletes these conversations, and removes from the lists what does not exist. Returns how many were
        deleted."""
        dropped = 0
        for first in range(0, len(listed), STEP):
            some = listed[first : first + STEP]
            async with self._asking():
                outcomes = await self._forget.each(
                    [(self._keys(_text(one.name))[:2], [one.until, "updated"]) for one in some]
                )
            dropped += outcomes.count(1)
            lists: dict[str, list[Any]] = {self._list: []}
            for one, outcome in zip(some, outcomes, strict=True):
                # conversations that stay are listed by their last turn from now on, so that the next step finds others
                unlisted = [one.name, repr(one.at), "" if outcome in (0, 1) else outcome]
                lists[self._list] += unlisted
                if self._by_tenant and one.of:
                    lists.setdefault(one.of, []).extend(unlisted)
            async with self._asking():
                await self._unlist.each([([key], unlisted) for key, unlisted in lists.items()])
        return dropped

    async def _take_out(self, key: str, gone: Sequence[tuple[bytes, float]]) -> None:
        """Removes names from a list, if they still have the times that were read there."""
        if gone:
            async with self._asking():
                await self._unlist([key], [value for name, at in gone for value in (name, repr(at), "")])

    async def close(self) -> None:
        await self._client.close()

    # --- turns in their order

    async def begin(self, lease: Lease, limit: int) -> Begun | None:
        digest = digest_of(lease.tenant, lease.session)
        times = (_milliseconds(LEASE), _milliseconds(WAITING), FENCE)
        async with self._asking():
            taken, *found = await self._begin(
                self._keys(letters(digest)), [lease.holder, *times, max(0, limit)]
            )
            if taken is None:
                raise TypeError("a reply of other types")
            if not taken:
                return None
            [id, turns] = found
            id = id.decode() if id else self._unstored.of(digest)
        return Begun(id, self._turns(turns, digest))

    async def renew(self, lease: Lease) -> bool:
        return await self._left(lease, _milliseconds(LEASE))

    async def finish(self, lease: Lease, id: str, turns: Sequence[Turn]) -> None:
        if await self._store(lease, id, turns) == SUPERSEDED:
            raise TurnSuperseded

    async def leave(self, lease: Lease) -> None:
        await self._left(lease, 0)

    async def prune(self) -> None:
        """Leases and conversations expire by themselves; some expired conversations are searched for and
        removed from the lists."""
        until = now() - self._bounds[0]
        async with self._asking() as client:
            old = await client.zrange(
                self._list, self._pruned, until, byscore=True, offset=0, num=STEP, withscores=True
            )
            pipeline = client.pipeline(transaction=False)
            for name, _ in old:
                pipeline.exists(self._key(_text(name)))
            there = await pipeline.execute() if old else []
        gone = [entry for entry, exists in zip(old, there, strict=True) if not exists]
        await self._take_out(self._list, gone)
        self._pruned = old[-1][1] if len(old) == STEP else 0.0

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
            self._entries.preview(last, digest),
        )
        arguments = [
            lease.holder,
            *self._bounds,
            FENCE,
            *of,
            *[self._entries.written(turn, digest) for turn in turns],
        ]
        async with self._asking() as client:
            # before the turn: a listed conversation without a turn is skipped, but one with turns must be listed
            await self._put_on_lists(client, raw(lease.tenant), name)
            outcome = int(await self._finish(self._keys(name), arguments))
            if outcome == FIRST:  # a sweep may have removed it from the list before that
                await self._put_on_lists(client, raw(lease.tenant), name)
        self._unstored.stored(digest)
        return outcome

    async def _put_on_lists(self, client: Any, tenant: bytes, name: str) -> None:
        at = now()
        pipeline = client.pipeline(transaction=False)
        pipeline.zadd(self._list, {name: at})
        if self._by_tenant:
            of = self._list_of(tenant)
            pipeline.zadd(of, {name: at})
            pipeline.expire(of, max(self._bounds[0], round(KEEP)))
            pipeline.zadd(self._tenants, {of.rpartition(":")[2]: at})
        await pipeline.execute()

    def _list_of(self, tenant: bytes) -> str:
        return f"{self._list}:of:{letters(hashlib.sha256(tenant).digest()[:16])}"

    def _turns(self, stored: Sequence[bytes], digest: bytes) -> list[Turn]:
        return [self._entries.read(data, digest) for data in stored]

    def _conversations(self, found: Sequence[dict[bytes, bytes] | None]) -> list[Conversation]:
        """Returns the conversations that exist and can be read."""
        conversations = []
        for fields in found:
            if fields:
                with suppress(ValueError):
                    conversations.append(self._conversation(fields))
        return conversations

    def _conversation(self, fields: dict[bytes, bytes]) -> Conversation:
        """Raises ValueError for a hash that is not a conversation's."""
        names = (b"id", b"tenant", b"session", b"last", b"created", b"updated")
        if any(name not in fields for name in names):
            raise ValueError("not a conversation of ours")
        id, tenant, session = (fields[name].decode() for name in names[:3])
        last = self._entries.preview_of(fields[b"last"], digest_of(tenant, session))
        return Conversation(id, tenant, session, float(fields[b"created"]), float(fields[b"updated"]), last)

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
    """Returns the end of an id that the gateway made; "none" for any other text, for it becomes part of a key."""
    _, _, digest = id.rpartition(".")
    return digest if len(digest) == 22 and digest.isascii() and "}" not in digest else "none"


def _text(name: bytes) -> str:
    """Returns a name of a list as a part of a key, which does not exist for other programs' names."""
    return name.decode("latin-1")


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
