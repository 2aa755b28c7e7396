"""Kept responses in this process's memory, which are lost when it ends. Bounded: the oldest are deleted
first."""

from collections import OrderedDict
from collections.abc import Callable

from sluice.model.kept import KeptResponse

MAX_RESPONSES = 10_000
MAX_BYTES = 64 << 20
"""Maximum bytes of all responses together."""

Key = tuple[str, str]


class MemoryResponses:
    """`keep`: seconds after which a response is forgotten; `wall` in seconds since the epoch."""

    def __init__(
        self, keep: float, wall: Callable[[], float], *, responses: int = MAX_RESPONSES, size: int = MAX_BYTES
    ) -> None:
        self._keep = keep
        self._wall = wall
        self._max = responses
        self._max_size = size
        self._size = 0
        self._kept: OrderedDict[Key, KeptResponse] = OrderedDict()  # the one that was stored last comes last
        self._holders: dict[Key, str] = {}

    async def put(self, tenant: str, kept: KeptResponse) -> None:
        self._drop((tenant, kept.id))
        self._kept[tenant, kept.id] = kept
        self._holders.update(((tenant, item), kept.id) for item in kept.items)
        self._size += _size(kept)
        while self._kept and (len(self._kept) > self._max or self._size > self._max_size or self._is_old()):
            self._drop(next(iter(self._kept)))

    async def get(self, tenant: str, id: str) -> KeptResponse | None:
        kept = self._kept.get((tenant, id))
        return kept if kept is not None and kept.created > self._wall() - self._keep else None

    async def holder(self, tenant: str, item: str) -> KeptResponse | None:
        return await self.get(tenant, self._holders.get((tenant, item), ""))

    async def delete(self, tenant: str, id: str) -> bool:
        there = await self.get(tenant, id) is not None
        self._drop((tenant, id))
        return there

    async def delete_of(self, tenant: str) -> int:
        keys = [key for key in self._kept if key[0] == tenant]
        for key in keys:
            self._drop(key)
        return len(keys)

    async def ids(self, tenant: str, after: str, limit: int) -> tuple[list[str], str]:
        oldest = self._wall() - self._keep
        found = sorted(
            [
                id
                for (of, id), kept in self._kept.items()
                if of == tenant and id > after and kept.created > oldest
            ]
        )
        return found[:limit], found[limit - 1] if len(found) > limit else ""

    async def forget(self) -> bool:
        """Does nothing: `put` drops responses that are too old."""
        return False

    async def close(self) -> None:
        pass

    def _is_old(self) -> bool:
        return next(iter(self._kept.values())).created <= self._wall() - self._keep

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= _size(kept)
            for item in kept.items:
                self._holders.pop((key[0], item), None)


def _size(kept: KeptResponse) -> int:
    return len(kept.input) + len(kept.response)
