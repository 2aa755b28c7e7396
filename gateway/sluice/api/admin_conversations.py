"""/v1/admin/conversations and /v1/admin/conversations/{conversationId}: reads and deletes the stored messages of
sessions."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sluice.api.admin_requests import AdminRequest, AdminRoute, reply
from sluice.api.rendering import conversation_object, identified_message
from sluice.conversations import Conversation, ConversationStore
from sluice.errors import BadRequest, Unavailable
from sluice.frontends import Reply

T = TypeVar("T")
PAGE = 200
MAX_SEARCHED = 2_000
"""Conversations that one request searches, give or take some."""
REENCRYPTED = 50
"""Conversations that one request encrypts anew."""
NO_STORE = "The store of conversations does not answer now"


class AdminConversations:
    """`encrypted`: whether new messages are stored encrypted."""

    def __init__(self, store: ConversationStore, encrypted: Callable[[], bool]) -> None:
        self._store = store
        self._encrypted = encrypted

    def routes(self) -> list[AdminRoute]:
        path = "/v1/admin/conversations"
        one = f"{path}/{{conversationId}}"
        return [
            AdminRoute("GET", path, self.newest),
            AdminRoute("DELETE", path, self.delete_of),
            AdminRoute("POST", f"{path}/reencrypt", self.reencrypt),
            AdminRoute("GET", one, self.one),
            AdminRoute("DELETE", one, self.delete),
        ]

    async def newest(self, request: AdminRequest) -> Reply:
        limit = request.limit
        if search := request.query.get("search", "").strip().casefold():
            return await self._searched(search, request)
        newest, total = await self._from_store(self._store.newest(limit))
        return reply({"conversations": [conversation_object(found) for found in newest], "total": total})

    async def _searched(self, search: str, request: AdminRequest) -> Reply:
        """Lists the conversations whose id, session or last message contains these words, among those that
        one request searches; `next` is where the next request continues. Raises BadRequest, Unavailable."""
        found: list[Conversation] = []
        after, looked = request.after, 0
        while True:
            try:
                page, after = await self._from_store(self._store.page(after, PAGE))
            except ValueError:
                raise BadRequest("after must be the next of an answer before", param="after") from None
            looked += len(page)
            found += [one for one in page if _has(one, search)]
            if not after or looked >= MAX_SEARCHED:
                break
        found.sort(key=lambda one: one.updated, reverse=True)
        _, total = await self._from_store(self._store.newest(1))
        conversations = [conversation_object(one) for one in found]
        return reply({"conversations": conversations, "total": total, "next": after or None})

    async def one(self, request: AdminRequest) -> Reply:
        found = await self._from_store(self._store.get(request.parameters["conversationId"]))
        if found is None:
            return _not_found(request)
        conversation, turns = found
        return reply(
            {
                "conversation": conversation_object(conversation),
                "messages": [identified_message(turn, conversation.id) for turn in turns],
            }
        )

    async def delete(self, request: AdminRequest) -> Reply:
        id = request.parameters["conversationId"]
        deleted = await self._from_store(self._store.delete(id))
        return reply({"id": id, "deleted": True}) if deleted else _not_found(request)

    async def reencrypt(self, request: AdminRequest) -> Reply:
        """Encrypts some conversations again, with the first key; `next` is where the next request continues.

        `unreadable` messages, those that are `left` because turns went on, and `failed` conversations are not
        encrypted with it: another request may do more.
        """
        if not self._encrypted():
            raise BadRequest("There is no key to encrypt with: set encryption.keys", param="encryption.keys")
        try:
            page, after = await self._from_store(self._store.page(request.after, REENCRYPTED))
        except ValueError:
            raise BadRequest("after must be the next of an answer before", param="after") from None
        done, failed, again = [], 0, False
        for conversation in page:
            try:
                done.append(await self._store.reseal(conversation.id))
                again = False
            except OSError as error:
                if again:  # one may be too much for the store; two in a row, and it is down
                    raise Unavailable(NO_STORE) from error
                failed, again = failed + 1, True
        body = {
            "conversations": len(page),
            "messages": sum([one.messages for one in done]),
            "unreadable": sum([one.unreadable for one in done]),
            "left": sum([one.left for one in done]),
            "failed": failed,
            "next": after or None,
        }
        return reply(body)

    async def delete_of(self, request: AdminRequest) -> Reply:
        """Deletes all conversations of one tenant, those of its sessions with a prefix, or one session's.
        Never those of all tenants.
        """
        request.only("tenant", "session", "session_prefix")
        tenant, session, prefix = (
            request.query.get(name) for name in ("tenant", "session", "session_prefix")
        )
        if not tenant:
            raise BadRequest("Say whose: ?tenant=NAME", param="tenant")
        if prefix == "" or (prefix and session is not None):
            raise BadRequest(
                "session_prefix: what sessions begin with, and not beside session", param="session_prefix"
            )
        if session is None:
            return reply({"deleted": await self._from_store(self._store.delete_of(tenant, prefix or ""))})
        deleted = await self._from_store(self._delete_session(tenant, session))
        return reply({"deleted": int(deleted)})

    async def _delete_session(self, tenant: str, session: str) -> bool:
        return await self._store.delete(await self._store.open(tenant, session))

    async def _from_store(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except OSError as error:
            raise Unavailable(NO_STORE) from error


def _has(conversation: Conversation, search: str) -> bool:
    texts = (conversation.id, conversation.session, conversation.last_message)
    return any(search in text.casefold() for text in texts)


def _not_found(request: AdminRequest) -> Reply:
    return reply({"error": "Conversation not found", "requestId": request.id}, 404)
