"""OpenAI's Responses API as a client dialect: what Codex, openai-agents and the AI SDK's `openai(…)` send and
read by default.

The request is `request.py` (its items `items.py`, its tools `tools.py`), answers are `stream.py` over
`output.py`. Where the upstream speaks the same dialect, its answers are passed on as they came
(`passed_on.py`).

Standard: https://platform.openai.com/docs/api-reference/responses
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from sluice.errors import BadRequest, GatewayError, NotFound
from sluice.frontends import (
    Answer,
    CallRoute,
    Encoder,
    Endpoint,
    Frontend,
    Inquiry,
    KeptForCaller,
    Reply,
    RequestHead,
    Route,
)
from sluice.frontends.checks import refused
from sluice.frontends.openai.errors import error_object
from sluice.frontends.responses.counting import counted
from sluice.frontends.responses.passed_on import PassedOn, PassedOnWhole, Renamed
from sluice.frontends.responses.request import DIALECT, chat_of
from sluice.frontends.responses.stream import Stream, Whole
from sluice.model.chat import ChatRequest
from sluice.wire.jsontext import checked_object, unambiguous_object

DEFAULT_ITEMS, MOST_ITEMS = 20, 100
_json = msgspec.json.Encoder().encode
UPGRADE = (
    b'{"error":{"message":"Responses are streamed over HTTP here","type":"invalid_request_error",'
    b'"param":null,"code":null}}'
)


class Responses(Frontend):
    """Returns the paths with and without their /v1: many clients have a base URL that lacks it."""

    name: ClassVar[str] = "responses"
    dialect: ClassVar[str] = DIALECT
    numbered: ClassVar[bool] = True
    claims: ClassVar[tuple[str, ...]] = ("/v1/responses", "/responses")
    paths: ClassVar[tuple[str, ...]] = ("/v1/responses", "/responses")

    def routes(self) -> Sequence[Route]:
        def at(ending: str = "") -> dict[str, Any]:
            first, *others = [path + ending for path in self.paths]
            return {"path": first, "also": tuple(others)}

        return (
            CallRoute(**at(), parse=self.parse),
            CallRoute(**at("/input_tokens"), parse=counted, operation="count_tokens"),
            Endpoint(**at(), answer=self.no_socket),
            Endpoint(**at("/compact"), answer=self.no_compaction, methods=("POST",)),
            Endpoint(**at("/{id}"), answer=self.kept, methods=("GET", "DELETE")),
            Endpoint(**at("/{id}/input_items"), answer=self.input_items),
        )

    def parse(self, body: bytes, head: RequestHead) -> ChatRequest:
        wire = unambiguous_object(body)
        return chat_of(checked_object(body)) if wire is None else chat_of(wire, body)

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder:
        if verbatim:
            kind = PassedOn if answer.reveal else Renamed
            return kind(chat, answer) if chat.stream else PassedOnWhole(chat, answer)
        return Stream(chat, answer) if chat.stream else Whole(chat, answer)

    def error(self, error: GatewayError, request_id: str) -> dict[str, Any]:
        return error_object(error)

    async def no_socket(self, inquiry: Inquiry) -> Reply:
        """Codex tries a WebSocket first, and uses HTTP if that is answered 426 (RFC 9110 15.5.22)."""
        return Reply(UPGRADE, 426, (("upgrade", "HTTP/1.1"),))

    async def no_compaction(self, inquiry: Inquiry) -> Reply:
        raise BadRequest(
            "Compaction of a conversation is not supported: let the client summarize it",
            code="unsupported_operation",
        )

    async def kept(self, inquiry: Inquiry) -> Reply:
        id = inquiry.head.parameters["id"]
        if inquiry.head.query.get("stream") == "true":
            raise refused("stream", "what is kept is not streamed again: leave it out")
        if inquiry.method != "DELETE":
            return Reply(await _kept_for(inquiry).response(id))
        await _kept_for(inquiry).delete(id)
        return Reply(_json({"id": id, "object": "response", "deleted": True}))

    async def input_items(self, inquiry: Inquiry) -> Reply:
        """Lists the items that a kept response answered, in pages: `limit`, `order` (desc, asc) and `after`
        as in OpenAI's API.
        """
        items = await _kept_for(inquiry).input(inquiry.head.parameters["id"])
        listed = [{"id": f"item_{place}", **_listed(item)} for place, item in enumerate(items)]
        return Reply(_json(_page(listed, inquiry.head.query)))


def _kept_for(inquiry: Inquiry) -> KeptForCaller:
    kept = inquiry.kept
    if kept is None:
        raise NotFound("Responses are not kept here, so there is none with this id")
    return kept


def _listed(item: dict[str, Any]) -> dict[str, Any]:
    """Returns an item in the form of lists: the content of a message is a list of parts, however it was sent."""
    text = item.get("content")
    if not isinstance(text, str) or item.get("type", "message") != "message":
        return item
    said = item.get("role") == "assistant"
    part = (
        {"type": "output_text", "text": text, "annotations": []}
        if said
        else {"type": "input_text", "text": text}
    )
    return {**item, "type": "message", "status": "completed", "content": [part]}


def _page(items: list[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    given = query.get("limit", "")
    limit = min(max(int(given), 1), MOST_ITEMS) if given.isdecimal() and len(given) < 9 else DEFAULT_ITEMS
    if query.get("order") != "asc":
        items = items[::-1]
    if after := query.get("after"):
        place = next((place for place, item in enumerate(items) if item["id"] == after), -1)
        items = items[place + 1 :]
    page = items[:limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, **ends, "has_more": len(items) > limit}
