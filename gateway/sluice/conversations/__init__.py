"""The histories of conversations, by tenant and session, behind one protocol: memory, SQLite, Redis,
PostgreSQL. One test suite covers all stores.

Stores that several hosts share also put the turns of a session in order (`SharedConversations`): a turn has a
*lease* of its session from before its history is read until its messages are stored. When a lease runs out,
another turn may take it. Then the messages of the first turn are refused (storing them checks the lease's
*holder*), so that no turn is stored after one that it has not read.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from sluice.storage import Reason


class ConversationsFailed(OSError):
    """The store did not answer, or answered with an error: it is unknown whether the operation was done.
    `reason` is one of `sluice.storage.Reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class TurnSuperseded(Exception):
    """The lease has run out and another turn has begun since; nothing was stored."""


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One message of a history.

    `created`: seconds since the epoch. `thoughts`: the parts of an assistant's reasoning that its provider
    needs back, as JSON; "" if there are none.
    """

    role: Literal["user", "assistant"]
    content: str
    created: float
    interrupted: bool = False
    thoughts: str = ""


class Conversation(msgspec.Struct, frozen=True, gc=False):
    """A stored conversation. `id` is opaque, unguessable and stable for its tenant and session. Times are in
    seconds since the epoch."""

    id: str
    tenant: str
    session: str
    created: float
    updated: float
    last_message: str = ""


class Retention(msgspec.Struct, frozen=True):
    """How much is kept. `age`: seconds since the last turn. `messages`: the latest ones of a conversation.
    `conversations`: those of a tenant with the newest turns. None: no bound."""

    age: float | None = None
    messages: int | None = None
    conversations: int | None = None


class Swept(msgspec.Struct, frozen=True):
    """The numbers of conversations and messages that one step of a sweep has deleted. `more`: there may be
    more to delete or to examine now."""

    conversations: int = 0
    messages: int = 0
    more: bool = False


class Resealed(msgspec.Struct, frozen=True):
    """The result of encrypting messages again: how many were encrypted; how many could not be decrypted, and
    were left as they were; and how many were left for another reason, such as a turn that was stored
    meanwhile."""

    messages: int = 0
    unreadable: int = 0
    left: int = 0


class ConversationStore(Protocol):
    async def open(self, tenant: str, session: str) -> str:
        """Stores conversations."""
        ...

    async def recent(self, id: str, limit: int) -> list[Turn]:
        """Returns the last `limit` messages, oldest first."""
        ...

    async def append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
        """Stores the messages of one turn together: all or none."""
        ...

    def append_now(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> bool:
        """Like `append`, without a coroutine. Returns False if the store would have to wait: then nothing was
        stored."""
        ...

    async def newest(self, limit: int) -> tuple[list[Conversation], int]:
        """Returns the newest `limit` conversations (by `updated`), and the number of all."""
        ...

    async def get(self, id: str) -> tuple[Conversation, list[Turn]] | None: ...

    async def delete(self, id: str) -> bool:
        """Deletes a conversation with all its messages. Returns False if there is none."""
        ...

    async def delete_of(self, tenant: str, prefix: str = "") -> int:
        """Deletes all conversations of a tenant whose sessions begin with `prefix`. Returns how many there
        were. If it fails halfway, the part that was done stays done."""
        ...

    async def page(self, after: str, limit: int, tenant: str = "") -> tuple[list[Conversation], str]:
        """Returns about `limit` conversations after `after`, of one tenant or ("") of all; and the position
        after which the next page begins.

        The position of the first page is "", and so is the one after the last page. A page may be empty
        although others follow. A conversation that exists from the first page to the last is in one of them,
        or in two. Raises ValueError for an `after` that no page returned.
        """
        ...

    async def messages(self, id: str, start: int, limit: int) -> list[Turn]:
        """Returns at most `limit` messages in order, without the `start` oldest."""
        ...

    async def reseal(self, id: str) -> Resealed:
        """Encrypts the messages of a conversation with the first key, unless they are. Does nothing if there
        are no keys."""
        ...

    async def sweep(self, retention: Retention, now: float) -> Swept:
        """Does one bounded step of deleting what is not to be kept. `now`: seconds since the epoch."""
        ...

    async def close(self) -> None: ...


class Lease(msgspec.Struct, frozen=True, gc=False):
    """The right to add the next turn to a session. `holder` is random, and unique to the turn."""

    tenant: str
    session: str
    holder: str


class Begun(msgspec.Struct, frozen=True, gc=False):
    """A turn that has begun: the conversation's id, and its last messages, oldest first."""

    id: str
    turns: list[Turn]


class SharedConversations(ConversationStore, Protocol):
    """A store that the gateways of several hosts share. Every call is bounded in time and may raise
    ConversationsFailed."""

    async def begin(self, lease: Lease, limit: int) -> Begun | None:
        """Takes the lease, and reads the last `limit` messages. Returns None while another turn has it, or
        has waited longer for it. The request then has a place in the queue, which is kept for WAITING
        seconds after each request."""
        ...

    async def renew(self, lease: Lease) -> bool:
        """Holds the lease for LEASE seconds more. Returns False if another turn has it by now."""
        ...

    async def finish(self, lease: Lease, id: str, turns: Sequence[Turn]) -> None:
        """Stores the messages, all or none, and gives the lease back. It may be sent again until it is
        answered: they are stored once. Raises TurnSuperseded."""
        ...

    async def leave(self, lease: Lease) -> None:
        """Gives back the lease, or the place in the queue for it. Harmless if it has neither."""
        ...

    async def prune(self) -> None:
        """Deletes leases that ended long ago. To be called now and then."""
        ...


LEASE = 10.0
"""Seconds for which a lease is held without renewal. A session waits that long for a gateway that was killed.
"""
WAITING = 3.0
"""Seconds without a request after which a turn loses its place in the queue for a lease."""
