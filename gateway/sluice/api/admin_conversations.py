"""GET /v1/admin/conversations and GET /v1/admin/conversations/{id}: what widgets' sessions have said, and been told."""

from sluice.api.admin_requests import AdminRequest, AdminRoute, reply
from sluice.api.rendering import conversation_object, message_object
from sluice.conversations import ConversationStore
from sluice.frontends import Reply


class AdminConversations:
    def __init__(self, store: ConversationStore) -> None:
        self._store = store

    def routes(self) -> list[AdminRoute]:
        path = "/v1/admin/conversations"
        return [AdminRoute("GET", path, self.newest), AdminRoute("GET", f"{path}/{{id}}", self.one)]

    async def newest(self, request: AdminRequest) -> Reply:
        newest, total = await self._store.newest(request.limit)
        return reply({"conversations": [conversation_object(found) for found in newest], "total": total})

    async def one(self, request: AdminRequest) -> Reply:
        found = await self._store.get(request.parameters["id"])
        if found is None:
            return reply({"error": "Conversation not found", "requestId": request.id}, 404)
        conversation, turns = found
        return reply({"conversation": conversation_object(conversation), "messages": [message_object(turn) for turn in turns]})
