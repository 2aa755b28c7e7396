"""One turn of a conversation: its place in the queue, the history before it, and what is kept of it afterwards.

User and assistant messages are stored together, once the answer has ended: a call that said nothing leaves nothing,
and one that was cut short is kept as what was delivered, marked as interrupted.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from types import TracebackType
from typing import Any

from gateway.call import Call
from gateway.chat import Message, Text
from gateway.config import History
from gateway.conversations import ConversationStore, Turn
from gateway.conversations.turnstile import Place, Turnstile

COMPLETE = frozenset({"done", "length", "content_filter"})
BROKEN = (OSError, TimeoutError, RuntimeError)
CHARACTERS_PER_TOKEN = 4


class Turns:
    """`failed` is told the name of a store's operation that failed: the caller has its answer and is not told."""

    def __init__(
        self,
        store: ConversationStore,
        turnstile: Turnstile,
        wall: Callable[[], float],
        failed: Callable[[str, Exception], Any],
    ) -> None:
        self._store = store
        self._turnstile = turnstile
        self._wall = wall
        self._failed = failed

    def __call__(self, call: Call) -> AbstractAsyncContextManager[None] | None:
        return None if call.chat.session is None else _Turn(self, call, call.chat.session)

    def turn(self, call: Call, session: str) -> Place:
        return self._turnstile.turn(call.principal.tenant, session, call.route.waiting)

    async def prepare(self, call: Call, session: str) -> Turn:
        """Put the history before what is asked. Returns the turn that this call adds."""
        asked, asked_at = call.chat.messages[-1], self._wall()
        turns = await self._history(call, call.principal.tenant, session)
        # a session has no `wire`, so the messages are all there is
        call.chat.messages = (*_system(call.route.config.system), *_window(turns, call.route.config.history), asked)
        return Turn("user", asked.text, asked_at)

    async def _history(self, call: Call, tenant: str, session: str) -> list[Turn]:
        """What was said before. A store that is down costs the history, not the answer; the caller is told in a header."""
        try:
            id = await self._store.open(tenant, session)
            turns = await self._store.recent(id, call.route.config.history.messages)
        except BROKEN as error:
            self._failed("open", error)
            call.headers.append(("x-sluice-history", "unavailable"))
            return []
        call.conversation = id
        return turns

    async def keep(self, call: Call, session: str, asked: Turn) -> None:
        """Store what was asked and what was answered, if anything was."""
        if not (call.conversation and (call.end in COMPLETE or call.text)):
            return
        answered = Turn("assistant", call.text.strip(), self._wall(), interrupted=call.end not in COMPLETE)
        try:
            await self._store.append(call.principal.tenant, session, call.conversation, [asked, answered])
        except BROKEN as error:
            self._failed("append", error)


class _Turn:
    """One call's turn. It is kept before the next one may begin."""

    __slots__ = ("_asked", "_call", "_place", "_session", "_turns")

    def __init__(self, turns: Turns, call: Call, session: str) -> None:
        self._turns = turns
        self._call = call
        self._session = session
        self._place = turns.turn(call, session)

    async def __aenter__(self) -> None:
        await self._place.__aenter__()
        try:
            self._asked = await self._turns.prepare(self._call, self._session)
        except BaseException:
            self._place.leave()
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            await self._turns.keep(self._call, self._session, self._asked)
        finally:
            self._place.leave()


@lru_cache(1024)
def _system(text: str) -> tuple[Message, ...]:
    """The alias's own message; the aliases of a configuration are few."""
    return (Message("system", (Text(text),)),) if text else ()


def _window(turns: list[Turn], history: History) -> list[Message]:
    """The most recent messages within the token budget (estimated), beginning with a user's."""
    if not turns:
        return []
    budget = history.tokens * CHARACTERS_PER_TOKEN
    kept: list[Message] = []
    for turn in reversed(turns):
        budget -= len(turn.content)
        if budget < 0:
            break
        if turn.content:
            kept.append(Message(turn.role, (Text(turn.content),)))
    while kept and kept[-1].role == "assistant":
        kept.pop()
    return kept[::-1]
