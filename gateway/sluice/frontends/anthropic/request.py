"""A request of the Messages API -> ChatRequest. What we interpret is checked, field by field; the rest passes
through `wire`.

`wire` goes to upstreams of Anthropic's dialect as it came. Others get what the vocabulary has: see `content`
for messages. Tools that are not the caller's own functions (`type` other than custom: web_search,
code_execution, bash, text_editor, computer …) and MCP servers are Anthropic's alone: such a request is of its
dialect only, and refused elsewhere; but a tool that searches among the tools (`SEARCH`) is left out. So are
fields that change nothing in what is answered (metadata, service_tier, context_management, container), and
`thread` where it begins a thread (a conversation that the provider keeps for minutes, as far as it can). One
that continues a thread has only what is new of the conversation, and is refused (`THREAD`).

Refused are names that some servers would take for another, as `sluice.frontends.checks.check_names` says.

Standard: https://platform.claude.com/docs/en/api/messages/create
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sluice.frontends.anthropic.content import (
    MESSAGES,
    Block,
    OddInput,
    texts_of,
    unknown_role,
    with_inputs,
)
from sluice.frontends.anthropic.fields import FIELDS
from sluice.frontends.checks import MAX_SAFE_INTEGER, cache_of, check_names, explained, refused, whole_number
from sluice.model.chat import ChatRequest, Message, Part, Reasoning, Sampling, Text, Tool
from sluice.model.rules import Effort


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]]


class _Request(msgspec.Struct):
    messages: list[_Message]
    model: str | None = None
    max_tokens: float | None = None
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    stop_sequences: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    output_format: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    mcp_servers: list[dict[str, Any]] | None = None
    cache_control: Any = None
    thread: dict[str, Any] | None = None
    compaction: dict[str, Any] | None = None


class _TextMessage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: Literal["user", "assistant"]
    content: str


class _TextRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The form of most requests without tools: texts alone, without any name that could be misspelt."""

    messages: Annotated[list[_TextMessage], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_SAFE_INTEGER)]
    model: Annotated[str, Meta(min_length=1)] | None = None
    system: str | None = None
    stream: bool | None = None
    temperature: float | None = None


_USUAL = frozenset(_TextRequest.__struct_fields__)
_TOP = frozenset(_Request.__struct_fields__)
_MESSAGE = frozenset(_Message.__struct_fields__)
_TOOL = frozenset({"type", "name", "description", "input_schema", "cache_control", "strict"})
_CHOICE = frozenset({"type", "name", "disable_parallel_tool_use"})
_THINKING = frozenset({"type", "budget_tokens", "display"})
_CONFIG = frozenset({"effort", "format"})
_THREAD = frozenset({"type", "previous_message_id"})
_EFFORTS: Mapping[str, Effort] = {
    "none": "none", "minimal": "minimal", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max",
}  # fmt: skip
NAME_OF_SCHEMA = "answer"
"""The name of a JSON Schema in OpenAI's `response_format`, which requires one."""
THREAD = "thread"
"""The field of message threads, whose standard is
https://platform.claude.com/docs/en/build-with-claude/message-threads. Where it stands in `dialect_only` and
there is no such thread, callers get an error in the provider's form and replay the conversation."""
ATTRIBUTION = "x-anthropic-billing-header:"
SEARCH = "tool_search_tool"
"""How the types of the tools begin that find the tools whose loading is deferred. Other vendors are given all
tools at once, so there is nothing to be found.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/tool-search-tool"""
MAX_KIND_SHOWN = 64
"""Characters of a tool's type that are repeated in an error."""


def chat_of(wire: dict[str, Any], body: bytes = b"") -> ChatRequest:
    """Returns the request in this JSON object. `body`: its text, if none of its names has an escaped letter.
    Raises BadRequest, whose `param` names the field: "messages[0].content[1].text"."""
    if wire.keys() <= _USUAL and (texts := _texts(wire)) is not None:
        return _chat_of_texts(texts, wire, body)
    request = _typed(wire)
    check_names(wire, _TOP, "")
    if request.model == "":
        raise refused("model", "must not be empty")
    thread = _thread(request.thread)
    if not request.messages and not thread:  # an unfinished turn of a thread is continued without any
        raise refused("messages", "must not be empty")
    tools, bound = _tools(request.tools or [])
    if request.mcp_servers and not bound:
        bound = "mcp_servers: MCP servers that the provider itself calls"
    if request.compaction is not None:  # a summary is wanted instead of an answer
        bound = "compaction: a summary of the conversation"
    choice, parallel = _tool_choice(request.tool_choice)
    try:
        messages = _messages(request, wire["messages"])
    except OddInput:
        return chat_of(with_inputs(wire))
    return ChatRequest(
        "anthropic",
        request.model,
        messages,
        request.stream is True,
        sampling=Sampling(
            _positive(request.max_tokens, "max_tokens"),
            request.temperature,
            request.top_p,
            tuple(request.stop_sequences or ()),
            top_k=_positive(request.top_k, "top_k"),
        ),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=_format(request),
        include_usage=True,
        wire=wire,
        body=body,
        reasoning=_reasoning(request),
        cache=cache_of(request.cache_control),
        user=_user(request.metadata),
        dialect_only=thread or bound,
        fields=FIELDS,
    )


def _texts(wire: dict[str, Any]) -> _TextRequest | None:
    try:
        return msgspec.convert(wire, _TextRequest)
    except msgspec.ValidationError:
        return None


def _chat_of_texts(request: _TextRequest, wire: dict[str, Any], body: bytes) -> ChatRequest:
    messages = [Message(message.role, (Text(message.content),)) for message in request.messages]
    if request.system and (texts := _unattributed((Text(request.system),))):
        messages.insert(0, Message("system", texts))
    return ChatRequest(
        "anthropic",
        request.model,
        tuple(messages),
        request.stream is True,
        None,  # session
        Sampling(request.max_tokens, request.temperature),
        include_usage=True,
        wire=wire,
        body=body,
        only_texts=True,
        fields=FIELDS,
    )


def _typed(wire: dict[str, Any]) -> _Request:
    try:
        return msgspec.convert(wire, _Request)
    except msgspec.ValidationError as error:
        raise explained(str(error)) from None


def _positive(value: float | None, name: str) -> int | None:
    """Returns the number; None if it means no bound, for which some callers write 0 and negative numbers."""
    found = None if value is None else whole_number(max(value, 0), name)
    return found or None


def _messages(request: _Request, raw: list[dict[str, Any]]) -> tuple[Message, ...]:
    found: list[Message] = []
    if request.system and (texts := _unattributed(texts_of(request.system, "system"))):
        found.append(Message("system", texts))
    for index, message in enumerate(request.messages):
        at = f"messages[{index}]"
        check_names(raw[index], _MESSAGE, f"{at}.")
        translate = MESSAGES.get(message.role)
        if translate is None:
            raise unknown_role(at)
        found += translate(message.content, f"{at}.content")
    return tuple(found)


def _unattributed(texts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Returns the texts of a system prompt without the block that Claude Code puts first.

    The block has the client's version and a fingerprint of the conversation, and is for Anthropic alone,
    which removes it before the model sees it. For other models it would be the beginning of the prompt, and
    no two conversations would share a prompt cache.
    https://code.claude.com/docs/en/llm-gateway-protocol#system-prompt-attribution-block
    """
    match texts:
        case (Text(text=text), *_) if text.startswith(ATTRIBUTION) and "\n" not in text:
            return texts[1:]
        case _:
            return texts


def _thread(thread: Block | None) -> str:
    """Returns the part of a thread that no other dialect can express; "" if there is none, or the thread
    begins here."""
    if thread is None:
        return ""
    check_names(thread, _THREAD, f"{THREAD}.")
    match thread:
        case {"type": "create"}:
            return ""
        case {"type": "continue", "previous_message_id": str(id)} if id:
            return f"{THREAD}: a conversation that the provider keeps"
        case {"type": "continue"}:
            raise refused(f"{THREAD}.previous_message_id", "must be a string that is not empty")
        case {"type": str(kind)}:  # a newer type than this code
            return f"{THREAD}: {kind[:MAX_KIND_SHOWN]}"
        case _:
            raise refused(f"{THREAD}.type", "must be a string")


def _tools(tools: list[Block]) -> tuple[tuple[Tool, ...], str]:
    """Returns the caller's functions, and the first tool of another kind, which no other dialect can express."""
    found: list[Tool] = []
    bound = ""
    for index, tool in enumerate(tools):
        at = f"tools[{index}]"
        check_names(tool, _TOOL, f"{at}.")
        kind, name = tool.get("type"), tool.get("name")
        if kind not in (None, "custom"):
            if not isinstance(kind, str):
                raise refused(f"{at}.type", "must be a string")
            if kind.startswith(SEARCH):
                continue
            shown = kind[:MAX_KIND_SHOWN]
            # Claude Code repeats the request without its advisor if the error has the API's own words for an unknown tool
            bound = bound or f"{at}: a tool of type {shown} (Input tag '{shown}')"
            continue
        if not isinstance(name, str) or not name:
            raise refused(f"{at}.name", "must be a string that is not empty")
        schema, description = tool.get("input_schema"), tool.get("description")
        if not (schema is None or isinstance(schema, dict)):
            raise refused(f"{at}.input_schema", "must be an object")
        if not (description is None or isinstance(description, str)):
            raise refused(f"{at}.description", "must be a string")
        strict = True if tool.get("strict") is True else None
        found.append(Tool(name, description or "", schema, cache_of(tool.get("cache_control")), strict))
    return tuple(found), bound


def _tool_choice(choice: Block | None) -> tuple[str | tuple[str, str] | None, bool | None]:
    """Returns the choice, and whether calls may be parallel (None: not given)."""
    if choice is None:
        return None, None
    check_names(choice, _CHOICE, "tool_choice.")
    parallel = False if choice.get("disable_parallel_tool_use") is True else None
    match choice:
        case {"type": "auto"}:
            return "auto", parallel
        case {"type": "any"}:
            return "required", parallel
        case {"type": "none"}:
            return "none", None
        case {"type": "tool", "name": str(name)} if name:
            return ("function", name), parallel
        case {"type": "tool"}:
            raise refused("tool_choice.name", "must be a string")
        case _:
            raise refused("tool_choice.type", "must be one of auto, any, tool, none")


def _reasoning(request: _Request) -> Reasoning | None:
    """Returns the reasoning to request: a budget, or the effort of `output_config`, which may also stand
    alone."""
    config, thinking = request.output_config or {}, request.thinking
    if config:
        check_names(config, _CONFIG, "output_config.")
    word = config.get("effort")
    effort = _EFFORTS.get(word, "") if isinstance(word, str) else ""
    if thinking is None:
        return Reasoning(effort) if effort else None
    check_names(thinking, _THINKING, "thinking.")
    match thinking:
        case {"type": "disabled"}:
            return Reasoning("none")
        case {"type": "enabled", "budget_tokens": int(budget)} if budget > 0 and type(budget) is int:
            return Reasoning(effort, budget)
        case {"type": "enabled" | "adaptive"}:
            return Reasoning(effort or "high")
        case {"type": str()}:  # a newer type than this code
            return Reasoning(effort) if effort else None
        case _:
            raise refused("thinking.type", "must be a string")


def _format(request: _Request) -> dict[str, Any] | None:
    """Returns the format of structured outputs in OpenAI's form; `output_format` is their former name."""
    wanted = (request.output_config or {}).get("format") or request.output_format
    match wanted:
        case {"type": "json_schema", "schema": dict(schema)}:
            return {"type": "json_schema", "json_schema": {"name": NAME_OF_SCHEMA, "schema": schema}}
        case _:
            return None


def _user(metadata: Block | None) -> str:
    name = (metadata or {}).get("user_id")
    return name if isinstance(name, str) else ""
