"""Kept responses: puts the conversation that a request refers to before it, and keeps its answer when that is
complete.

Without a store, requests that refer to a response are refused, and all others pass. The end of an answer is
sent when it has been stored, so that a client that has read it can refer to it at once, at any process that
shares the store; if the store takes longer than `patience`, or fails, the end is sent anyway, and the answer is
sent to the store again while that is down (`sluice.storage.again`). Who refers to it meanwhile, in the same
process, waits for that; where the store has just failed, what it has not is 503, and not 404.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from sluice.errors import BadRequest, NotFound, Unavailable
from sluice.kept import ResponseStore
from sluice.model.kept import Item, Keep, KeptResponse
from sluice.proxy.call import Call
from sluice.storage.again import AGAIN, AGAIN_AFTER, STORE_SECONDS, stored

T = TypeVar("T")
STORE_ERRORS = (OSError, TimeoutError, RuntimeError, ValueError, msgspec.DecodeError)
"""The errors of a store, and those of reading what it has (ValueError, DecodeError: something else has
written there)."""
MAX_PREVIOUS_RESPONSES = 512
"""Maximum responses before a request that are followed."""
MAX_HELD_BYTES = 32 << 20
"""Maximum bytes of these responses, and of those that wait for a store that is down."""
MAX_REFERENCES = 1000
DOUBTFUL_SECONDS = AGAIN + 2.0
"""Seconds after a failure of the store during which a response that is not found is 503 instead of 404."""
CLOSING = 10.0
"""Seconds for which `close` waits for answers that are being stored."""

_encode = msgspec.json.Encoder().encode
_items = msgspec.json.Decoder(list[Any]).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


class KeptResponses:
    """The policy of kept responses.

    `failed` gets the name and error of a failed operation of the store. `wall` gives the time that responses
    are dated by (seconds since the epoch); `clock` is monotonic.
    `patience`: seconds for which the end of an answer waits until it is stored.
    """

    def __init__(
        self,
        store: ResponseStore | None,
        wall: Callable[[], float],
        failed: Callable[[str, Exception], object] = lambda operation, error: None,
        *,
        clock: Callable[[], float],
        patience: float = STORE_SECONDS,
    ) -> None:
        self.store = store
        self.patience = patience
        self._wall = wall
        self._failed = failed
        self._clock = clock
        self._failed_at = -math.inf  # by `clock`
        self._size = 0  # bytes of what is on its way to the store
        self._keeping: dict[asyncio.Task[None], str] = {}  # and whose answer it is

    def __call__(self, call: Call) -> AbstractAsyncContextManager[None] | None:
        keep = call.chat.keep
        if keep is None:
            return None
        if self.store is None:
            _refuse(keep)
            return None
        return (
            _KeptCall(self, self.store, call, keep)
            if keep.previous or keep.references or keep.wanted
            else None
        )

    async def completed(self, store: ResponseStore, call: Call, keep: Keep) -> None:
        """Puts the conversation that the request refers to before its messages. Raises BadRequest, NotFound;
        Unavailable if the store is down."""
        tenant, settled = call.principal.tenant, _SettledStore(self, store)
        named = await self.guarded(_named(settled, tenant, keep.references))
        before = await self.guarded(conversation(settled, tenant, keep.previous)) if keep.previous else []
        if named or before:
            keep.items = [named.get(_reference(item), item) for item in keep.items]
            call.chat = msgspec.structs.replace(keep.completed(before, named), keep=keep)

    async def guarded(self, operation: Awaitable[T]) -> T:
        """Awaits an operation of the store. Raises Unavailable if the store is down."""
        try:
            return await operation
        except STORE_ERRORS as error:
            self._note_failure()
            self._failed("get", error)
            raise Unavailable("The store of responses is not available") from None

    def keep(self, store: ResponseStore, call: Call, keep: Keep) -> "asyncio.Task[None] | None":
        """Starts to store the answer. Returns the task that does it; None if there is nothing to store."""
        response = keep.response
        if response is None or not isinstance(response.get("id"), str):
            return None
        output = response.get("output")
        ids = [item.get("id") for item in output if type(item) is dict] if type(output) is list else []
        kept = KeptResponse(
            response["id"], keep.previous, self._wall(), _encode(keep.items), _encode(response),
            tuple([id for id in ids if isinstance(id, str)]),
        )  # fmt: skip
        return self._begun(call.principal.tenant, self._put(store, call.principal.tenant, kept))

    def _begun(self, tenant: str, keeping: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(keeping)
        self._keeping[task] = tenant
        task.add_done_callback(self._keeping.pop)
        return task

    async def settled(self, tenant: str | None = None) -> bool:
        """Waits for the answers of this tenant, or of all, that are on their way to the store, for at most
        CLOSING seconds. Returns whether there were any."""
        any_yet = False
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING):
                while keeping := [task for task, whose in self._keeping.items() if tenant in (None, whose)]:
                    any_yet = True
                    await asyncio.wait(keeping)
        return any_yet

    def check(self) -> None:
        """Raises Unavailable if the store failed a moment ago: the response that was not found may still be
        on its way to it, from this process or another."""
        if self._clock() - self._failed_at < DOUBTFUL_SECONDS:
            raise Unavailable("The store of responses does not have it, and has just failed", retry_after=1.0)

    async def _put(self, store: ResponseStore, tenant: str, kept: KeptResponse) -> None:
        """Tries once, and the end of the answer waits for that; further tries are left to a task of their
        own."""
        try:
            await store.put(tenant, kept)
        except Exception as error:  # the caller has its answer
            size = len(kept.input) + len(kept.response)
            self._note_failure()
            if getattr(error, "reason", None) in AGAIN_AFTER and self._size + size <= MAX_HELD_BYTES:
                self._begun(tenant, self._again(store, tenant, kept, size))
            else:
                self._failed("append", error)

    async def _again(self, store: ResponseStore, tenant: str, kept: KeptResponse, size: int) -> None:
        self._size += size
        try:
            await stored(lambda: store.put(tenant, kept), clock=self._clock)
        except Exception as error:
            self._note_failure()
            self._failed("append", error)
        finally:
            self._size -= size

    def _note_failure(self) -> None:
        self._failed_at = self._clock()

    async def close(self) -> None:
        """Waits for the answers that are being stored, for at most CLOSING seconds, and closes the store."""
        await self.settled()
        for task in list(self._keeping):
            task.cancel()
        if self.store is not None:
            await self.store.close()


class _KeptCall:
    """The policy's context for one call: reads what the request refers to, and stores the answer."""

    __slots__ = ("_call", "_keep", "_keeping", "_policy", "_store")

    def __init__(self, policy: KeptResponses, store: ResponseStore, call: Call, keep: Keep) -> None:
        self._policy = policy
        self._store = store
        self._call = call
        self._keep = keep
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        call, keep = self._call, self._keep
        if keep.previous or keep.references:
            await self._policy.completed(self._store, call, keep)
        if keep.wanted:
            keep.kept = True
            call.store_turn = self._answered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._call.store_turn = None
        if (
            self._keeping is not None
            and not self._keeping.done()
            and (kind is None or issubclass(kind, Exception))
        ):
            await asyncio.wait([self._keeping], timeout=self._policy.patience)

    def _answered(self, text: str) -> "asyncio.Task[None] | None":
        self._keeping = self._policy.keep(self._store, self._call, self._keep)
        return self._keeping


class _SettledStore:
    """The store; where it has not what is asked for while answers of the tenant are still being stored, it
    waits for them and asks again."""

    __slots__ = ("_policy", "_store")

    def __init__(self, policy: KeptResponses, store: ResponseStore) -> None:
        self._policy = policy
        self._store = store

    async def get(self, tenant: str, id: str) -> KeptResponse | None:
        return await self._found(tenant, lambda: self._store.get(tenant, id))

    async def holder(self, tenant: str, item: str) -> KeptResponse | None:
        return await self._found(tenant, lambda: self._store.holder(tenant, item))

    async def delete(self, tenant: str, id: str) -> bool:
        return await self._found(tenant, lambda: self._store.delete(tenant, id))

    async def _found(self, tenant: str, ask: Callable[[], Awaitable[T]]) -> T:
        found = await ask()
        if not found and await self._policy.settled(tenant):
            found = await ask()
        if not found:
            self._policy.check()
        return found


class ResponsesOfTenant(msgspec.Struct, frozen=True, eq=False):
    """The kept responses of one tenant (`sluice.frontends.KeptForCaller`)."""

    _policy: KeptResponses
    _store: ResponseStore
    _tenant: str

    @property
    def _settled(self) -> "_SettledStore":
        return _SettledStore(self._policy, self._store)

    async def response(self, id: str) -> bytes:
        return await self._policy.guarded(self._response(id))

    async def input(self, id: str) -> list[Item]:
        return await self._policy.guarded(self._input(id))

    async def delete(self, id: str) -> None:
        if not await self._policy.guarded(self._settled.delete(self._tenant, id)):
            raise _unknown(id)

    async def _response(self, id: str) -> bytes:
        kept = await self._one(id)
        _object(kept.response)
        return kept.response

    async def _input(self, id: str) -> list[Item]:
        kept = await self._one(id)
        before = await conversation(self._settled, self._tenant, kept.previous) if kept.previous else []
        return [*before, *_items(kept.input)]

    async def _one(self, id: str) -> KeptResponse:
        kept = await self._settled.get(self._tenant, id)
        if kept is None:
            raise _unknown(id)
        return kept


def _unknown(id: str) -> NotFound:
    return NotFound(f"There is no response with the id {shown(id)}")


def _refuse(keep: Keep) -> None:
    if keep.previous:
        raise _refused(
            "previous_response_id", "no responses are kept here: send the whole conversation as input"
        )
    if keep.references:
        raise _refused(
            "input",
            "refers to an item by its id, and no items are kept here: send the item itself (store: false)",
        )


def _refused(param: str, reason: str) -> BadRequest:
    return BadRequest(f"{param}: {reason}", param=param, details=[{"field": param, "reason": reason}])


async def conversation(store: _SettledStore, tenant: str, id: str) -> list[Item]:
    """Returns all items up to the end of this response, its output included. Raises NotFound, BadRequest."""
    found: list[list[Item]] = []
    size = 0
    while id:
        kept = await store.get(tenant, id)
        if kept is None:
            raise NotFound(f"There is no response with the id {shown(id)}", param="previous_response_id")
        size += len(kept.input) + len(kept.response)
        if len(found) >= MAX_PREVIOUS_RESPONSES or size > MAX_HELD_BYTES:
            raise _refused("previous_response_id", "the conversation is too long to be kept here")
        found.append([*_items(kept.input), *_output(kept)])
        id = kept.previous
    return [item for turn in reversed(found) for item in turn]


async def _named(store: _SettledStore, tenant: str, references: Sequence[str]) -> Mapping[str, Item]:
    """Returns the items with these ids. Raises BadRequest if one is not kept."""
    if len(references) > MAX_REFERENCES:
        raise _refused("input", f"refers to more than {MAX_REFERENCES} items")
    found: dict[str, Item] = {}
    for id in references:
        if id in found:
            continue
        kept = await store.holder(tenant, id)
        if kept is None:
            raise _refused("input", f"there is no item with the id {shown(id)}")
        found |= {item["id"]: item for item in _output(kept) if isinstance(item.get("id"), str)}
    return {id: found[id] for id in references if id in found}


def _output(kept: KeptResponse) -> list[Item]:
    output = _object(kept.response).get("output")
    return [item for item in output if type(item) is dict] if type(output) is list else []


def _reference(item: Any) -> str:
    """Returns the id of the item that this one refers to; "" if it is an item itself."""
    match item:
        case {"type": "item_reference", "id": str(id)}:
            return id
        case {"id": str(id)} if item.get("type") is None and "role" not in item:
            return id
        case _:
            return ""


def shown(id: str) -> str:
    """Returns an id in the form that may be repeated in an error."""
    return (
        id
        if len(id) <= 128 and id.isascii() and id.replace("_", "").replace("-", "").isalnum()
        else "that was sent"
    )
