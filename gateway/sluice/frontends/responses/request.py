"""Parses a Responses request.

Fields that are interpreted are checked one by one; all of them stay in `wire`. `previous_response_id`,
references to items and `store` concern the gateway's own store (`sluice.policies.kept`), and are never
forwarded, because at the provider all callers are one. `conversation` and `background` are refused. Names
that some servers would confuse with others are refused, as in Chat Completions (`sluice.frontends.checks`).
Standard: https://platform.openai.com/docs/api-reference/responses/create
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from sluice.frontends.checks import check_names, explained, refused, whole_number
from sluice.frontends.openai.reasoning import reasoning_of
from sluice.frontends.responses.fields import FIELDS
from sluice.frontends.responses.items import InputMessages
from sluice.frontends.responses.tools import Offered, ToolParam, choice_of, format_of, tools_of
from sluice.model.chat import ChatRequest, Message, Sampling, Text
from sluice.model.kept import Item, Keep

DIALECT = "responses"


class _Request(msgspec.Struct):
    """The fields that are interpreted."""

    input: str | list[Any] | None = None
    model: str | None = None
    instructions: str | list[Any] | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    max_output_tokens: float | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[ToolParam] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None


_TOP = frozenset(_Request.__struct_fields__)
_REASONING = frozenset({"effort", "summary"})


def chat_of(wire: dict[str, Any], body: bytes = b"") -> ChatRequest:
    """Returns the request in this JSON object. `body`: its text, if none of its names has an escaped letter.
    Raises BadRequest, whose `param` names the field: "input[0].role"."""
    if not wire.keys() <= _TOP:
        check_names(wire, _TOP, "")
    request = _typed(wire)
    _check_state(request)
    conversation = InputMessages()
    messages, unsaid = _messages(request, conversation)
    keep = Keep(
        [{"type": "message", "role": "user", "content": request.input}]
        if isinstance(request.input, str)
        else request.input or [],
        partial(_completed, wire),
        request.previous_response_id or "",
        tuple(conversation.references),
        request.store is not False,
    )
    offered = tools_of(request.tools, wire["tools"]) if request.tools else Offered()
    tools = tuple(offered.tools)
    choice, tools, of_choice = (
        choice_of(request.tool_choice, tools) if request.tool_choice is not None else (None, tools, "")
    )
    if request.reasoning is not None:
        check_names(request.reasoning, _REASONING, "reasoning.")
    return ChatRequest(
        DIALECT,
        request.model,
        messages,
        request.stream is True,
        sampling=Sampling(_limit(request, wire), request.temperature, request.top_p),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=request.parallel_tool_calls,
        response_format=format_of(request.text) if request.text is not None else None,
        include_usage=True,
        wire=wire,
        body=body,
        reasoning=reasoning_of(None, request.reasoning, None) if request.reasoning is not None else None,
        user=request.user or request.safety_identifier or "",
        dialect_only=unsaid or offered.unsaid or of_choice,
        own_tools=tuple(offered.own),
        keep=keep,
        fields=FIELDS,
    )


def _completed(wire: dict[str, Any], before: Sequence[Item], named: Mapping[str, Item]) -> ChatRequest:
    """Returns the request with the items of the response that it follows before its own items, and with the
    items that it refers to in their places."""
    given = wire.get("input")
    own = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given or []
    whole = {name: value for name, value in wire.items() if name != "previous_response_id"}
    return chat_of({**whole, "input": [*before, *(_item(item, named) for item in own)]})


def _item(item: Any, named: Mapping[str, Item]) -> Any:
    id = (
        item.get("id")
        if type(item) is dict and item.get("type") in (None, "item_reference") and "role" not in item
        else None
    )
    return named.get(id, item) if isinstance(id, str) else item


def _typed(wire: dict[str, Any]) -> _Request:
    try:
        return msgspec.convert(wire, _Request)
    except msgspec.ValidationError as error:
        raise explained(str(error)) from None


def _check_state(request: _Request) -> None:
    if request.model == "":
        raise refused("model", "must not be empty")
    if request.background:
        raise refused("background", "is not supported: answers are given to the request that asks for them")
    if request.conversation is not None:
        raise refused("conversation", "is not supported: send the whole conversation as input")


def _messages(request: _Request, conversation: InputMessages) -> tuple[tuple[Message, ...], str]:
    """Returns the messages, and the input that only OpenAI understands."""
    match request.instructions:
        case str(text) if text:
            conversation.messages.append(Message("system", (Text(text),)))
        case list(items):
            conversation.add(items)
    match request.input:
        case str(text):
            conversation.messages.append(Message("user", (Text(text),)))
        case None if request.prompt is None and request.previous_response_id is None:
            raise refused("input", "is required")
        case [] if request.previous_response_id is None:
            raise refused("input", "must not be an empty list")
        case list(items):
            conversation.add(items)
    unsaid = "prompt: a stored prompt" if request.prompt is not None else conversation.unsaid
    return tuple(conversation.messages), unsaid


def _limit(request: _Request, wire: dict[str, Any]) -> int | None:
    """Returns the maximum of output tokens; None if it is 0 or less, by which callers mean no maximum."""
    if request.max_output_tokens is None:
        return None
    limit = whole_number(max(wire["max_output_tokens"], 0), "max_output_tokens")
    return limit if limit > 0 else None
