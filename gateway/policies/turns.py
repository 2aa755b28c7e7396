"""One turn of a conversation: its place in the queue, the history before it, and what is kept of it afterwards.

User and assistant messages are stored together, once the answer has ended: a call that said nothing leaves nothing,
and one that was cut short is kept as what was delivered, marked as interrupted.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from gateway.call import Call
from gateway.chat import Message, Text
from gateway.config import History
from gateway.conversations import ConversationStore, Turn
from gateway.conversations.turnstile import Turnstile

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
        return None if call.chat.session is None else self._turn(call, call.chat.session)

    @asynccontextmanager
    async def _turn(self, call: Call, session: str) -> AsyncIterator[None]:
        tenant = call.principal.tenant
        async with self._turnstile.turn(tenant, session, call.route.waiting):
            asked, asked_at = call.chat.messages[-1], self._wall()
            turns = await self._history(call, tenant, session)
            call.chat.messages = (*_system(call.route.config.system), *_window(turns, call.route.config.history), asked)
            try:
                yield
            finally:
                if call.conversation and (call.end in COMPLETE or call.text):
                    await self._keep(call, tenant, session, Turn("user", asked.text, asked_at))

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

    async def _keep(self, call: Call, tenant: str, session: str, asked: Turn) -> None:
        answered = Turn("assistant", call.text.strip(), self._wall(), interrupted=call.end not in COMPLETE)
        try:
            await self._store.append(tenant, session, call.conversation, [asked, answered])
        except BROKEN as error:
            self._failed("append", error)


def _system(text: str) -> tuple[Message, ...]:
    return (Message("system", (Text(text),)),) if text else ()


def _window(turns: list[Turn], history: History) -> list[Message]:
    """The most recent messages within the token budget (estimated), beginning with a user's."""
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
