"""Conversations of one process, gone when it ends.

Bounded three ways: a conversation keeps its last `max_messages`; when there are more than `max_conversations`, or
their contents together have more than `max_characters`, those that have been silent longest are forgotten whole.
Nothing here suspends.
"""

import secrets
from collections import OrderedDict, deque
from collections.abc import Sequence
from heapq import nlargest
from itertools import islice

from gateway.conversations import Conversation, Turn
from gateway.conversations.ids import SECRET_BYTES, conversation_id

MAX_CONVERSATIONS = 10_000
MAX_MESSAGES = 200
MAX_CHARACTERS = 64 << 20


class _Kept:
    __slots__ = ("characters", "conversation", "turns")

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.turns: deque[Turn] = deque()
        self.characters = 0


class MemoryConversations:
    def __init__(
        self,
        *,
        max_conversations: int = MAX_CONVERSATIONS,
        max_messages: int = MAX_MESSAGES,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        self._max_conversations = max_conversations
        self._max_messages = max_messages
        self._max_characters = max_characters
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._characters = 0

    async def open(self, tenant: str, session: str) -> str:
        return conversation_id(self._secret, tenant, session)

    async def recent(self, id: str, limit: int) -> list[Turn]:
        kept = self._kept.get(id)
        return [] if kept is None else list(islice(kept.turns, max(0, len(kept.turns) - limit), None))

    async def append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
        """Raises ValueError for an id that is not this session's."""
        if id != conversation_id(self._secret, tenant, session):
            raise ValueError("this conversation belongs to another session")
        if not turns:
            return
        kept = self._kept.get(id)
        if kept is None:
            kept = self._kept[id] = _Kept(Conversation(id, tenant, session, turns[0].created, turns[0].created))
        self._kept.move_to_end(id)
        kept.turns.extend(turns)
        self._count(kept, sum(len(turn.content) for turn in turns))
        while len(kept.turns) > self._max_messages:
            self._count(kept, -len(kept.turns.popleft().content))
        before, last = kept.conversation, turns[-1]
        updated = max(before.updated, last.created)
        kept.conversation = Conversation(id, tenant, session, before.created, updated, last.content)
        self._forget()

    async def newest(self, limit: int) -> tuple[list[Conversation], int]:
        latest_first = (kept.conversation for kept in reversed(self._kept.values()))
        return nlargest(limit, latest_first, key=lambda conversation: conversation.updated), len(self._kept)

    async def get(self, id: str) -> tuple[Conversation, list[Turn]] | None:
        kept = self._kept.get(id)
        return None if kept is None else (kept.conversation, list(kept.turns))

    async def close(self) -> None:
        self._kept.clear()
        self._characters = 0

    def _count(self, kept: _Kept, characters: int) -> None:
        kept.characters += characters
        self._characters += characters

    def _forget(self) -> None:
        while len(self._kept) > self._max_conversations or (self._characters > self._max_characters and len(self._kept) > 1):
            _, silent = self._kept.popitem(last=False)
            self._characters -= silent.characters
