"""Exports what is kept of a tenant as JSON lines, and deletes kept responses (right of access, and to
erasure).

Conversations are read page by page and message by message while the answer is sent, so an export of any size
takes a few megabytes of memory. It is no snapshot: messages that arrive meanwhile may be missing, and with
Redis a conversation may appear twice.
"""

from collections.abc import AsyncGenerator, Awaitable
from typing import Any, TypeVar

import msgspec

from sluice.api.admin_requests import AdminRequest, AdminRoute, Streamed, reply
from sluice.api.rendering import exported_conversation, exported_response, message_object
from sluice.conversations import Conversation, ConversationsFailed, ConversationStore
from sluice.errors import BadRequest, Unavailable
from sluice.frontends import Reply
from sluice.kept import ResponsesFailed, ResponseStore
from sluice.model.kept import KeptResponse

T = TypeVar("T")
PAGE = 100
"""Conversations, or ids of responses, that are requested together."""
MESSAGES = 200
"""Maximum messages per line; a longer conversation has several lines."""

_line = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class AdminExport:
    """`responses`: None if no responses are kept."""

    def __init__(self, conversations: ConversationStore, responses: ResponseStore | None) -> None:
        self._conversations = conversations
        self._responses = responses

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("GET", "/v1/admin/conversations/export", self.conversations),
            AdminRoute("GET", "/v1/admin/responses/export", self.responses),
            AdminRoute("DELETE", "/v1/admin/responses", self.forget_responses),
        ]

    async def conversations(self, request: AdminRequest) -> Streamed:
        """Exports the conversations of one tenant or of all, of its sessions those with a prefix or one."""
        names = ("tenant", "session", "session_prefix")
        request.only(*names)
        for name in names:
            if request.query.get(name) == "":  # the empty variable of a script must not mean all
                raise BadRequest(f"{name} is empty: leave it out", param=name)
        tenant, session, prefix = (request.query.get(name, "") for name in names)
        if session and (prefix or not tenant):
            raise BadRequest("session goes with tenant, and without session_prefix", param="session")
        lines = self._session_lines(tenant, session) if session else self._conversation_lines(tenant, prefix)
        return Streamed("application/x-ndjson", lines)

    async def responses(self, request: AdminRequest) -> Streamed:
        request.only("tenant")
        return Streamed("application/x-ndjson", self._response_lines(_tenant(request)))

    async def forget_responses(self, request: AdminRequest) -> Reply:
        request.only("tenant")
        tenant = _tenant(request)
        return reply(
            {
                "deleted": await _from_store(self._responses.delete_of(tenant))
                if self._responses is not None
                else 0
            }
        )

    async def _conversation_lines(self, tenant: str, prefix: str) -> AsyncGenerator[bytes, None]:
        after, more = "", True
        while more:
            page, after = await _from_store(self._conversations.page(after, PAGE, tenant))
            more = bool(after)
            for conversation in page:
                if conversation.session.startswith(prefix):
                    async for line in self._lines_of(conversation):
                        yield line

    async def _session_lines(self, tenant: str, session: str) -> AsyncGenerator[bytes, None]:
        id = await _from_store(self._conversations.open(tenant, session))
        found = await _from_store(self._conversations.get(id))
        if found is not None:
            async for line in self._lines_of(found[0]):
                yield line

    async def _lines_of(self, conversation: Conversation) -> AsyncGenerator[bytes, None]:
        first, more = 0, True
        while more:
            try:
                turns = await self._conversations.messages(conversation.id, first, MESSAGES)
            except ConversationsFailed as error:
                if error.reason not in ("key", "reply"):
                    raise _down() from error
                yield _written(exported_conversation(conversation), unreadable=True)
                return
            except OSError as error:
                raise _down() from error
            if turns or not first:
                messages = [message_object(turn) for turn in turns]
                yield _written(exported_conversation(conversation), first=first, messages=messages)
            first, more = first + len(turns), len(turns) == MESSAGES

    async def _response_lines(self, tenant: str) -> AsyncGenerator[bytes, None]:
        after, more = "", self._responses is not None
        while more and self._responses is not None:
            ids, after = await _from_store(self._responses.ids(tenant, after, PAGE))
            more = bool(after)
            for id in ids:
                try:
                    kept = await self._responses.get(tenant, id)
                except ResponsesFailed as error:
                    if error.reason not in ("key", "reply"):
                        raise _down() from error
                    yield _written({"tenant": tenant, "id": id}, unreadable=True)
                    continue
                except OSError as error:
                    raise _down() from error
                if kept is not None:
                    yield _response_line(tenant, kept)


def _response_line(tenant: str, kept: KeptResponse) -> bytes:
    """Returns the line of a kept response. Stored JSON is inserted unchanged, so it has to be valid."""
    try:
        _decode(kept.input)
        _decode(kept.response)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _written({"tenant": tenant, "id": kept.id}, unreadable=True)
    return _written(exported_response(tenant, kept))


def _written(fields: dict[str, Any], **more: Any) -> bytes:
    return _line(fields | more) + b"\n"


def _tenant(request: AdminRequest) -> str:
    tenant = request.query.get("tenant", "")
    if not tenant:
        raise BadRequest("Say whose: ?tenant=NAME", param="tenant")
    return tenant


async def _from_store(call: Awaitable[T]) -> T:
    try:
        return await call
    except OSError as error:
        raise _down() from error


def _down() -> Unavailable:
    return Unavailable("The store does not answer now")
