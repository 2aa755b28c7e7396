"""Conversations in this process's memory, which are lost when it ends. Bounded: those without a turn for the
longest time are forgotten first."""

import secrets
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from sluice.conversations import Conversation, Resealed, Retention, Swept, Turn

MAX_CONVERSATIONS = 10_000
MAX_TURNS = 1_000
MAX_CHARACTERS = 64 << 20
"""Maximum characters of all messages together: some 64 to 256 MiB."""
PREVIEW = 200
"""Characters of the last message in a list of conversations."""


class _Kept(msgspec.Struct):
    conversation: Conversation
    turns: list[Turn]


class MemoryConversations:
    def __init__(
        self,
        *,
        conversations: int = MAX_CONVERSATIONS,
        turns: int = MAX_TURNS,
        characters: int = MAX_CHARACTERS,
    ) -> None:
        self._max = conversations
        self._max_characters = characters
        self._characters = 0
        self._max_turns = turns
        self._ids: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._new: OrderedDict[tuple[str, str], str] = (
            OrderedDict()
        )  # ids without a turn: they do not push stored conversations out
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # by id; the one that was updated last comes last

    async def open(self, tenant: str, session: str) -> str:
        key = (tenant, session)
        found = self._ids.get(key)
        if found is not None:
            self._ids.move_to_end(key)
            return found
        if key not in self._new:
            self._new[key] = secrets.token_urlsafe(18)
            if len(self._new) > self._max:
                self._new.popitem(last=False)
        return self._new[key]

    async def recent(self, id: str, limit: int) -> list[Turn]:
        kept = self._kept.get(id)
        return kept.turns[-limit:] if kept is not None and limit else []

    async def append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
        self.append_now(tenant, session, id, turns)

    def append_now(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> bool:
        if not turns:
            return True
        self._new.pop((tenant, session), None)
        self._ids[tenant, session] = id
        kept = self._kept.get(id)
        if kept is None:
            kept = self._kept[id] = _Kept(Conversation(id, tenant, session, turns[0].created, 0), [])
        kept.turns += turns
        self._characters += _size(turns)
        if len(kept.turns) > self._max_turns:
            self._trim(kept, self._max_turns)
        last = turns[-1]
        created = kept.conversation.created
        kept.conversation = Conversation(id, tenant, session, created, last.created, last.content[:PREVIEW])
        self._kept.move_to_end(id)
        self._forget()
        return True

    async def newest(self, limit: int) -> tuple[list[Conversation], int]:
        ids = [*reversed(self._kept)][:limit]
        return [self._kept[id].conversation for id in ids], len(self._kept)

    async def get(self, id: str) -> tuple[Conversation, list[Turn]] | None:
        kept = self._kept.get(id)
        return (kept.conversation, list(kept.turns)) if kept is not None else None

    async def delete(self, id: str) -> bool:
        kept = self._kept.get(id)
        if kept is None:
            return False
        self._ids.pop((kept.conversation.tenant, kept.conversation.session), None)
        self._drop(id)
        return True

    async def delete_of(self, tenant: str, prefix: str = "") -> int:
        ids = [found.id for found in self._of(tenant) if found.session.startswith(prefix)]
        return sum([await self.delete(id) for id in ids])

    async def page(self, after: str, limit: int, tenant: str = "") -> tuple[list[Conversation], str]:
        """Pages are ordered by id, because the order by last turn changes between two pages."""
        found = sorted([one for one in self._of(tenant) if one.id > after], key=lambda one: one.id)
        return found[:limit], found[limit - 1].id if len(found) > limit else ""

    async def messages(self, id: str, start: int, limit: int) -> list[Turn]:
        kept = self._kept.get(id)
        return kept.turns[start : start + limit] if kept is not None else []

    async def reseal(self, id: str) -> Resealed:
        """Does nothing: messages in memory are not encrypted."""
        return Resealed()

    async def sweep(self, retention: Retention, now: float) -> Swept:
        before, kept = len(self._kept), [*self._kept.values()]
        of: dict[str, int] = {}
        messages = 0
        for one in reversed(kept):
            found = one.conversation
            of[found.tenant] = place = of.get(found.tenant, 0) + 1
            old = retention.age is not None and found.updated < now - retention.age
            if old or (retention.conversations is not None and place > retention.conversations):
                await self.delete(found.id)
            elif retention.messages is not None and len(one.turns) > retention.messages:
                messages += len(one.turns) - retention.messages
                self._trim(one, retention.messages)
        return Swept(before - len(self._kept), messages)

    def _of(self, tenant: str) -> list[Conversation]:
        return [kept.conversation for kept in self._kept.values() if tenant in ("", kept.conversation.tenant)]

    def _trim(self, kept: _Kept, most: int) -> None:
        self._characters -= _size(kept.turns[:-most])
        del kept.turns[:-most]

    async def close(self) -> None:
        pass

    def _forget(self) -> None:
        while len(self._ids) > self._max:
            _, id = self._ids.popitem(last=False)
            self._drop(id)
        while self._characters > self._max_characters and len(self._kept) > 1:
            id = next(iter(self._kept))
            conversation = self._kept[id].conversation
            self._ids.pop((conversation.tenant, conversation.session), None)
            self._drop(id)

    def _drop(self, id: str) -> None:
        kept = self._kept.pop(id, None)
        if kept is not None:
            self._characters -= _size(kept.turns)


def _size(turns: Sequence[Turn]) -> int:
    return sum([len(turn.content) + len(turn.thoughts) for turn in turns])
