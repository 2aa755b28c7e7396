"""Wraps a conversation store: measures the time of its calls, and passes its errors on."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from sluice.conversations import (
    Begun,
    Conversation,
    ConversationsFailed,
    ConversationStore,
    Lease,
    Resealed,
    Retention,
    SharedConversations,
    Swept,
    Turn,
)
from sluice.storage import Reason

T = TypeVar("T")
OPERATIONS = (
    "open",
    "recent",
    "append",
    "newest",
    "get",
    "delete",
    "page",
    "sweep",
    "reseal",
    "begin",
    "renew",
    "finish",
    "leave",
)


class Series(Protocol):
    """Receives the durations: `sluice.telemetry.metrics.Metrics`."""

    def children(self, name: str, before: Sequence[str], last: Sequence[str]) -> dict[str, Any]: ...


class Measured:
    """A store whose calls are timed. `kind`: the store's name in metrics. `clock`: monotonic seconds."""

    def __init__(
        self, store: ConversationStore, series: Series, kind: str, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._clock = clock
        self._seconds = series.children("conversation_store_seconds", (kind,), OPERATIONS)

    async def _timed(self, operation: str, call: Awaitable[T]) -> T:
        began = self._clock()
        result = await call
        self._seconds[operation].observe(self._clock() - began)
        return result

    def open(self, tenant: str, session: str) -> Coroutine[Any, Any, str]:
        return self._timed("open", self._store.open(tenant, session))

    def recent(self, id: str, limit: int) -> Coroutine[Any, Any, list[Turn]]:
        return self._timed("recent", self._store.recent(id, limit))

    def append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> Coroutine[Any, Any, None]:
        return self._timed("append", self._store.append(tenant, session, id, turns))

    def append_now(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> bool:
        began = self._clock()
        stored = self._store.append_now(tenant, session, id, turns)
        if stored:
            self._seconds["append"].observe(self._clock() - began)
        return stored

    def newest(self, limit: int) -> Coroutine[Any, Any, tuple[list[Conversation], int]]:
        return self._timed("newest", self._store.newest(limit))

    def get(self, id: str) -> Coroutine[Any, Any, tuple[Conversation, list[Turn]] | None]:
        return self._timed("get", self._store.get(id))

    def delete(self, id: str) -> Coroutine[Any, Any, bool]:
        return self._timed("delete", self._store.delete(id))

    def delete_of(self, tenant: str, prefix: str = "") -> Coroutine[Any, Any, int]:
        return self._timed("delete", self._store.delete_of(tenant, prefix))

    def page(
        self, after: str, limit: int, tenant: str = ""
    ) -> Coroutine[Any, Any, tuple[list[Conversation], str]]:
        return self._timed("page", self._store.page(after, limit, tenant))

    def messages(self, id: str, start: int, limit: int) -> Coroutine[Any, Any, list[Turn]]:
        return self._timed("recent", self._store.messages(id, start, limit))

    def reseal(self, id: str) -> Coroutine[Any, Any, Resealed]:
        return self._timed("reseal", self._store.reseal(id))

    def sweep(self, retention: Retention, now: float) -> Coroutine[Any, Any, Swept]:
        return self._timed("sweep", self._store.sweep(retention, now))

    async def close(self) -> None:
        await self._store.close()


class Watch(Protocol):
    """Is notified of each operation's outcome: `sluice.storage.watch.StoreWatch`."""

    def failed(self, reason: Reason) -> None: ...
    def succeeded(self) -> None: ...


class MeasuredFile(Measured):
    """Like `Measured`, for a store that may fail. `reason_of` returns the reason of an OSError."""

    def __init__(
        self,
        store: ConversationStore,
        series: Series,
        kind: str,
        clock: Callable[[], float],
        *,
        watch: Watch,
        reason_of: Callable[[OSError], Reason] | None = None,
    ) -> None:
        super().__init__(store, series, kind, clock)
        self._watch = watch
        self._reason_of = reason_of

    async def _timed(self, operation: str, call: Awaitable[T]) -> T:
        try:
            result = await super()._timed(operation, call)
        except ConversationsFailed as error:
            self._watch.failed(error.reason)
            raise
        except OSError as error:
            if self._reason_of is not None:
                self._watch.failed(self._reason_of(error))
            raise
        self._watch.succeeded()
        return result


class MeasuredShared(MeasuredFile):
    """Like `MeasuredFile`, for a store that puts turns in order itself."""

    def __init__(
        self,
        store: SharedConversations,
        series: Series,
        kind: str,
        clock: Callable[[], float],
        *,
        watch: Watch,
    ) -> None:
        super().__init__(store, series, kind, clock, watch=watch)
        self._shared = store

    def begin(self, lease: Lease, limit: int) -> Coroutine[Any, Any, Begun | None]:
        return self._timed("begin", self._shared.begin(lease, limit))

    def renew(self, lease: Lease) -> Coroutine[Any, Any, bool]:
        return self._timed("renew", self._shared.renew(lease))

    def finish(self, lease: Lease, id: str, turns: Sequence[Turn]) -> Coroutine[Any, Any, None]:
        return self._timed("finish", self._shared.finish(lease, id, turns))

    def leave(self, lease: Lease) -> Coroutine[Any, Any, None]:
        return self._timed("leave", self._shared.leave(lease))

    async def prune(self) -> None:
        await self._shared.prune()
