"""Objects that several snapshots share: each is made for the first snapshot that uses it, and closed after
the last.

During a reload the new snapshot exists beside the old one. If both need the same thing (such as the
connections to an upstream whose address has not changed) they get the same object, so connections stay open
and learned state is kept.
"""

from collections.abc import Awaitable, Callable, Hashable
from contextlib import AsyncExitStack
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class _Kept(msgspec.Struct, Generic[T], eq=False):
    terms: object
    value: T
    users: int = 0


class Shared(Generic[T]):
    """Keeps objects by name and terms: two of one name have different terms. `close` ends one that is no
    longer used.
    """

    def __init__(self, close: Callable[[T], Awaitable[object]] | None = None) -> None:
        self._close = close
        self._kept: dict[Hashable, list[_Kept[T]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def take(self, stack: AsyncExitStack, name: Hashable, terms: object, make: Callable[[], T]) -> T:
        """Returns the object of this name and these terms, made if there is none yet. It is released when
        `stack` is closed.
        """
        named = self._kept.get(name, [])
        kept = next((kept for kept in named if kept.terms == terms), None)
        if kept is None:
            kept = _Kept(terms, make())
            self._kept.setdefault(name, []).append(kept)
        kept.users += 1
        stack.push_async_callback(self._let_go, name, kept)
        return kept.value

    def named(self, name: Hashable) -> list[T]:
        """Returns all objects of this name that are in use, the newest last."""
        return [kept.value for kept in self._kept.get(name, ())]

    async def _let_go(self, name: Hashable, kept: _Kept[T]) -> None:
        kept.users -= 1
        if kept.users:
            return
        self._kept[name].remove(kept)
        if not self._kept[name]:
            del self._kept[name]
        if self._close is not None:
            await self._close(kept.value)
