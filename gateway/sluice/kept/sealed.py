"""Encrypts kept responses before they are stored, and reports their store's failures to its watch."""

from collections.abc import Awaitable
from typing import Protocol, TypeVar

import msgspec

from sluice.conversations.entries import digest_of
from sluice.kept import ResponsesFailed, ResponseStore
from sluice.model.kept import KeptResponse
from sluice.storage import Reason
from sluice.storage.sealing import Seals, Unreadable

T = TypeVar("T")


class SealedResponses:
    """Wraps `store`: inputs and responses are encrypted if there are keys.

    An entry can only be decrypted as the one that it was stored as: its tenant, its id and the response
    before it are authenticated. Raises ResponsesFailed("key") if that fails.
    """

    def __init__(self, store: ResponseStore, seals: Seals) -> None:
        self._store = store
        self._seals = seals

    async def put(self, tenant: str, kept: KeptResponse) -> None:
        await self._store.put(tenant, self._sealed(tenant, kept) if self._seals.on else kept)

    async def get(self, tenant: str, id: str) -> KeptResponse | None:
        return self._opened(tenant, await self._store.get(tenant, id))

    async def holder(self, tenant: str, item: str) -> KeptResponse | None:
        return self._opened(tenant, await self._store.holder(tenant, item))

    async def delete(self, tenant: str, id: str) -> bool:
        return await self._store.delete(tenant, id)

    async def delete_of(self, tenant: str) -> int:
        return await self._store.delete_of(tenant)

    async def ids(self, tenant: str, after: str, limit: int) -> tuple[list[str], str]:
        return await self._store.ids(tenant, after, limit)

    async def forget(self) -> bool:
        return await self._store.forget()

    async def close(self) -> None:
        await self._store.close()

    def _sealed(self, tenant: str, kept: KeptResponse) -> KeptResponse:
        owner, previous, seal = digest_of(tenant, kept.id), kept.previous.encode(), self._seals.seal
        return msgspec.structs.replace(
            kept,
            input=seal(kept.input, owner, b"input:" + previous),
            response=seal(kept.response, owner, b"response:" + previous),
        )

    def _opened(self, tenant: str, kept: KeptResponse | None) -> KeptResponse | None:
        if kept is None:
            return None
        owner, previous, opened = digest_of(tenant, kept.id), kept.previous.encode(), self._seals.open
        try:
            return msgspec.structs.replace(
                kept,
                input=opened(kept.input, owner, b"input:" + previous),
                response=opened(kept.response, owner, b"response:" + previous),
            )
        except Unreadable as error:
            raise ResponsesFailed("key") from error


class Watch(Protocol):
    """Is notified of each operation's outcome: `sluice.storage.watch.StoreWatch`."""

    def failed(self, reason: Reason) -> None: ...
    def succeeded(self) -> None: ...


class WatchedResponses:
    """Wraps `store`, and calls `watch` for each call that fails and each that succeeds."""

    def __init__(self, store: ResponseStore, watch: Watch) -> None:
        self._store = store
        self._watch = watch

    async def _watched(self, call: Awaitable[T]) -> T:
        try:
            result = await call
        except ResponsesFailed as error:
            self._watch.failed(error.reason)
            raise
        self._watch.succeeded()
        return result

    async def put(self, tenant: str, kept: KeptResponse) -> None:
        await self._watched(self._store.put(tenant, kept))

    async def get(self, tenant: str, id: str) -> KeptResponse | None:
        return await self._watched(self._store.get(tenant, id))

    async def holder(self, tenant: str, item: str) -> KeptResponse | None:
        return await self._watched(self._store.holder(tenant, item))

    async def delete(self, tenant: str, id: str) -> bool:
        return await self._watched(self._store.delete(tenant, id))

    async def delete_of(self, tenant: str) -> int:
        return await self._watched(self._store.delete_of(tenant))

    async def ids(self, tenant: str, after: str, limit: int) -> tuple[list[str], str]:
        return await self._watched(self._store.ids(tenant, after, limit))

    async def forget(self) -> bool:
        return await self._watched(self._store.forget())

    async def close(self) -> None:
        await self._store.close()
