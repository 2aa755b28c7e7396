"""Runs the turns of a session one after another, adds the history to each request, and stores each turn
afterwards.

User and assistant messages are stored together, once the answer has ended: a call without text stores
nothing, and a cut answer is stored as far as it was delivered, marked as interrupted.

If the store has to wait, it does so in a task of its own, which is not cancelled with the call's task (when
its client has left). The session's next turn begins when that task has ended. The last bytes of a complete
answer are also sent after it, so that a client that has read the end finds the turn in every process that
shares the store; if the store takes longer than `patience` they are sent anyway.

A store that several hosts share gives each turn a lease of its session (`sluice.conversations.leases`), which
it holds from before its history is read until it is stored: so turns follow one another over all hosts.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from types import TracebackType
from typing import Any

import msgspec

from sluice.config.types import History
from sluice.conversations import ConversationStore, Lease, Turn
from sluice.conversations.leases import Leases
from sluice.conversations.turnstile import TurnPlace, Turnstile
from sluice.errors import Forbidden, Unavailable
from sluice.identity.principal import NOT_OF_THE_PREFIX, Principal
from sluice.model.chat import Message, Text, Thought
from sluice.proxy.call import Call
from sluice.storage.again import STORE_SECONDS

COMPLETE = frozenset({"done", "length", "content_filter"})
BROKEN = (OSError, TimeoutError, RuntimeError)
CHARACTERS_PER_TOKEN = 4
MAX_HISTORY_CHARACTERS = 4 << 20
"""Maximum characters of the earlier messages that one request gets; the oldest are left out. The newest
message is always included."""
CLOSING = 10.0
"""Seconds for which `close` waits for turns that are being stored."""


class Turns:
    """The policy for calls with a session. `failed` gets the name and error of a failed store operation: the
    caller has its answer by then. `patience`: seconds for which the end of an answer waits for its turn to be stored."""

    def __init__(
        self,
        store: ConversationStore,
        turnstile: Turnstile,
        wall: Callable[[], float],
        failed: Callable[[str, Exception], Any],
        *,
        leases: Leases | None = None,
        patience: float = STORE_SECONDS,
    ) -> None:
        self._store = store
        self._leases = leases
        self._turnstile = turnstile
        self._wall = wall
        self._failed = failed
        self._storing: set[asyncio.Task[None]] = set()
        self.patience = patience

    def __call__(self, call: Call) -> AbstractAsyncContextManager[None] | None:
        return None if call.chat.session is None else _Turn(self, call, call.chat.session)

    def turn(self, call: Call, session: str) -> TurnPlace:
        return self._turnstile.turn(call.principal.tenant, session, call.waiting)

    async def prepare(self, call: Call, session: str) -> tuple[Turn, Lease | None]:
        """Puts the history before the user's message. Returns the turn that this call adds, and its lease."""
        message, sent_at = call.chat.messages[-1], self._wall()
        turns, lease = await self._history(call, call.principal.tenant, session)
        # a session has no `wire`, so the messages are all there is
        call.chat.messages = (
            *_system(call.route.config.system),
            *_window(turns, call.route.config.history),
            message,
        )
        return Turn("user", message.text, sent_at), lease

    async def _history(self, call: Call, tenant: str, session: str) -> tuple[list[Turn], Lease | None]:
        """Returns the session's earlier turns. If the store is down, the call goes on without them, and a
        header reports it.
        """
        limit = call.route.config.history.messages
        try:
            if self._leases is not None:
                lease, begun = await self._leases.begin(tenant, session, limit, call.waiting)
                call.conversation = begun.id
                return begun.turns, lease
            id = await self._store.open(tenant, session)
            turns = await self._store.recent(id, limit)
        except BROKEN as error:
            self._failed("open", error)
            call.headers.append(("x-sluice-history", "unavailable"))
            return [], None
        call.conversation = id
        return turns, None

    async def past(self, tenant: str, session: str, limit: int) -> list[Turn]:
        """Returns the last `limit` messages of a session, oldest first, within MAX_HISTORY_CHARACTERS. It waits for no
        turn that is running. Raises Unavailable if the store is down.
        """
        try:
            turns = await self._store.recent(await self._store.open(tenant, session), limit)
        except BROKEN as error:
            self._failed("recent", error)
            raise Unavailable("The store of conversations does not answer now") from None
        left = MAX_HISTORY_CHARACTERS
        for at in reversed(range(len(turns))):
            left -= len(turns[at].content)
            if left < 0:
                return turns[min(at + 1, len(turns) - 1) :]
        return turns

    def store(
        self, call: Call, session: str, question: Turn, text: str, *, complete: bool, lease: Lease | None
    ) -> "asyncio.Task[None] | None":
        """Stores the question and the answer, if there is one, and releases the lease.

        Returns the task that does it; None: there is nothing to wait for.
        """
        if not (call.conversation and (complete or text)):
            return None if lease is None or self._leases is None else self._leases.leave(lease)
        answer = text.strip()
        thoughts = (
            _written(call.thoughts) if complete and answer == text else ""
        )  # a signature holds for the unchanged text only
        turns = [
            question,
            Turn("assistant", answer, self._wall(), interrupted=not complete, thoughts=thoughts),
        ]
        tenant, id = call.principal.tenant, call.conversation
        if lease is not None and self._leases is not None:
            return self._begun(self._appending(self._leases.finish(lease, id, turns)))
        try:
            if self._store.append_now(tenant, session, id, turns):
                return None
        except Exception as error:
            self._failed("append", error)
            return None
        return self._begun(self._appending(self._store.append(tenant, session, id, turns)))

    def _begun(self, storing: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(storing)
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)
        return task

    async def _appending(self, append: Awaitable[None]) -> None:
        try:
            await append
        except (
            Exception
        ) as error:  # whatever a store raises, the next turn must not wait for this one for ever
            self._failed("append", error)

    async def close(self) -> None:
        """Waits for the turns that are being stored, for at most CLOSING seconds; those left then are
        reported as failed.
        """
        if self._storing:
            _, late = await asyncio.wait(list(self._storing), timeout=CLOSING)
            for task in late:
                self._failed("append", TimeoutError())
                task.cancel()
        if self._leases is not None:
            await self._leases.close()


class HistoryOfCaller(msgspec.Struct, frozen=True, eq=False):
    """The conversations of one caller (`sluice.frontends.HistoryForCaller`): those of its tenant, and of a page's
    token the sessions that it may chat in."""

    _turns: Turns
    _principal: Principal

    async def messages(self, session: str, limit: int) -> Sequence[Turn]:
        """Raises Forbidden, also where there is no such session; Unavailable."""
        own = self._principal.session(session)
        if own is None:
            raise Forbidden(NOT_OF_THE_PREFIX)
        return await self._turns.past(self._principal.tenant, own, limit)


class _Turn:
    """The context of one call's turn, which is stored before the next turn may begin."""

    __slots__ = ("_call", "_ended", "_lease", "_place", "_question", "_session", "_storing", "_turns")

    def __init__(self, turns: Turns, call: Call, session: str) -> None:
        self._turns = turns
        self._call = call
        self._session = session
        self._place = turns.turn(call, session)
        self._ended = False
        self._storing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        await self._place.__aenter__()
        try:
            self._question, self._lease = await self._turns.prepare(self._call, self._session)
        except BaseException:
            self._place.leave()
            raise
        self._call.store_turn = self._answered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        call = self._call
        call.store_turn = None
        storing = self._end(call.text, complete=call.end in COMPLETE)
        if storing is None or storing.done():
            self._place.leave()
            return
        storing.add_done_callback(self._leave)
        if kind is None or issubclass(
            kind, Exception
        ):  # else the task is cancelled, and nobody waits for this answer
            await asyncio.wait([storing], timeout=self._turns.patience)

    def _answered(self, text: str) -> "asyncio.Task[None] | None":
        return self._end(text, complete=True)

    def _end(self, text: str, *, complete: bool) -> "asyncio.Task[None] | None":
        """Stores the turn, at the first call only."""
        if not self._ended:
            self._ended = True
            self._storing = self._turns.store(
                self._call, self._session, self._question, text, complete=complete, lease=self._lease
            )
        return self._storing

    def _leave(self, _: object) -> None:
        self._place.leave()


@lru_cache(1024)
def _system(text: str) -> tuple[Message, ...]:
    """Returns the alias's own system message. Cached: the aliases of a configuration are few."""
    return (Message("system", (Text(text),)),) if text else ()


def _window(turns: list[Turn], history: History) -> list[Message]:
    """Returns the most recent messages within the token budget (estimated), beginning with a user's."""
    if not turns:
        return []
    budget = history.tokens * CHARACTERS_PER_TOKEN
    kept: list[Message] = []
    whole = len(turns) < history.messages
    for turn in reversed(turns):
        budget -= len(turn.content)
        if budget < 0:
            whole = False
            break
        if turn.content:
            kept.append(Message(turn.role, (Text(turn.content),), thoughts=_read(turn.thoughts)))
    while kept and kept[-1].role == "assistant":
        kept.pop()
    if not whole:  # newer models refuse a signature behind another beginning than it was made behind
        kept = [
            message if not message.thoughts else msgspec.structs.replace(message, thoughts=())
            for message in kept
        ]
    return kept[::-1]


MAX_THOUGHTS = 256 << 10
"""Characters of one answer's signed reasoning that the history keeps; a longer one is left out."""


def _written(thoughts: Sequence[Thought]) -> str:
    """Returns the thoughts in the history's format, JSON; "" for none."""
    if not thoughts:
        return ""
    text = msgspec.json.encode(
        [[thought.text, thought.signature, thought.redacted] for thought in thoughts]
    ).decode()
    return text if len(text) <= MAX_THOUGHTS else ""


def _read(text: str) -> tuple[Thought, ...]:
    """Parses the thoughts of a stored message. Text in another form gives none: the provider then only loses
    a saving."""
    try:
        return tuple([Thought(*entry) for entry in _entries(text)]) if text else ()
    except (msgspec.DecodeError, UnicodeError):
        return ()


_entries = msgspec.json.Decoder(list[tuple[str, str, str]]).decode
