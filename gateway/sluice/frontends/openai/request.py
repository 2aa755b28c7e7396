"""A Chat Completions request -> ChatRequest. What we interpret is checked, field by field; the rest passes
through `wire`.

Checked are the types of the fields below and what the vocabulary needs of messages and tools. Ranges
(temperature, how many stops …) are the provider's to judge: they differ, and its answer is passed on. Reasons
name fields, never values.

Refused are names that some servers would take for another: Go's encoding/json and others read `Model` as
`model`, and the last one counts, so that a caller could choose another model, or longer answers, than what is
checked here. That holds for all objects that are interpreted; a tool's JSON Schema, metadata and what only a
provider knows are none of ours.

Standard: https://platform.openai.com/docs/api-reference/chat/create
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sluice.frontends.checks import MAX_SAFE_INTEGER, cache_of, cache_of_breakpoint
from sluice.frontends.checks import check_names as _check_names
from sluice.frontends.checks import explained as _explained
from sluice.frontends.checks import refused as _bad
from sluice.frontends.checks import whole_number as _whole
from sluice.frontends.openai.fields import FIELDS
from sluice.frontends.openai.reasoning import THINKING, reasoning_of, thoughts_of
from sluice.frontends.openai.tools import Definition, FunctionTool, choice_of, functions_of
from sluice.model.chat import (
    Cache,
    ChatRequest,
    Image,
    Message,
    Other,
    Part,
    Reasoning,
    Role,
    Sampling,
    Text,
    Thought,
    ToolCall,
    transcript_of,
)
from sluice.model.rules import LIMITS

# the types of a request: only the fields that are interpreted


class _Function(msgspec.Struct, gc=False):
    name: str
    arguments: str | dict[str, Any] | list[Any] | None = ""


class _OddArguments(Exception):
    """A call's arguments are no text: `_with_texts`."""


class _ToolCall(msgspec.Struct, gc=False):
    id: str
    function: _Function | None = None
    type: str = "function"
    extra_content: Any = None


class _Message(msgspec.Struct):
    """`function_call` and role "function" are what tools were called before 2023-11."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: _Function | None = None
    cache_control: Any = None
    thinking_blocks: Any = None
    reasoning_details: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    audio: Any = None


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Request(msgspec.Struct):
    messages: list[_Message]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: float | None = None
    max_tokens: float | None = None
    max_completion_tokens: float | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | float | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    top_k: float | None = None
    reasoning_effort: str | None = None
    reasoning: Any = None
    thinking: Any = None
    cache_control: Any = None


class _TextMessage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: str


class _UsageOption(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    include_usage: bool | None = None


class _TextRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The form of most requests: texts, with roles that every model knows and without unknown names."""

    messages: Annotated[list[_TextMessage], Meta(min_length=1)]
    model: Annotated[str, Meta(min_length=1)] | None = None
    stream: bool | None = None
    stream_options: _UsageOption | None = None
    temperature: float | None = None
    user: Any = None


_TOP = frozenset(_Request.__struct_fields__)
_MESSAGE = frozenset(_Message.__struct_fields__)
_USUAL = frozenset(_TextRequest.__struct_fields__)
_NO_SAMPLING = Sampling()
_FLAT = _TOP - {"tools", "stream_options", "tool_choice", "response_format"}
"""Fields that contain no objects with interpreted names, or whose names are checked elsewhere."""
_PART = frozenset({"type", "text", "refusal", "image_url", "url", "detail"})
"""Names of a part, and of the object within it."""
_CALL = frozenset({*_ToolCall.__struct_fields__, *_Function.__struct_fields__})
"""Names of a tool call, and of the function within it."""
_TOOL = frozenset({*FunctionTool.__struct_fields__, *Definition.__struct_fields__})
_OPTIONS = frozenset(_StreamOptions.__struct_fields__)
_CHOICE = frozenset({"type", "function", "name"})
_FORMAT = frozenset({"type", "json_schema", "name", "schema", "strict", "description"})

MAX_CHOICES = 128
"""OpenAI's own maximum of `n`."""


def chat_of(wire: dict[str, Any], body: bytes = b"") -> ChatRequest:
    """Returns the request in this JSON object. `body`: its text, if none of its names has an escaped letter.
    Raises BadRequest, whose `param` names the field: "messages[0].role"."""
    if wire.keys() <= _USUAL and (texts := _texts(wire)) is not None:
        options = texts.stream_options
        return ChatRequest(
            "openai",
            texts.model,
            tuple([Message(message.role, (Text(message.content),)) for message in texts.messages]),
            texts.stream is True,
            None,  # session
            _NO_SAMPLING if texts.temperature is None else Sampling(temperature=texts.temperature),
            include_usage=options is not None and options.include_usage is True,
            wire=wire,
            body=body,
            only_texts=True,
            fields=FIELDS,
        )
    request = _typed(wire)
    if request.model == "":
        raise _bad("model", "must not be empty")
    if not request.messages:
        raise _bad("messages", "must not be empty")
    messages: list[dict[str, Any]] = wire["messages"]
    _check_top(wire, messages)
    stop = request.stop or ()
    tools, only = functions_of(request.tools) if request.tools else ((), "")
    choice = None
    if request.tool_choice is not None:
        choice, tools = choice_of(request.tool_choice, tools)
    try:
        told = tuple([_message(message, index, messages) for index, message in enumerate(request.messages)])
    except _OddArguments:
        return chat_of({**wire, "messages": [_with_texts(message) for message in messages]})
    return ChatRequest(
        "openai",
        request.model,
        told,
        request.stream is True,
        None,  # session
        Sampling(
            None if request.max_tokens is None is request.max_completion_tokens else _limit(request, wire),
            request.temperature,
            request.top_p,
            (stop,) if type(stop) is str else tuple(stop),
            None if request.seed is None else _seed(wire["seed"]),
            request.frequency_penalty,
            request.presence_penalty,
            None if request.top_k is None else _top_k(wire["top_k"]),
        ),
        tools,
        choice,
        request.parallel_tool_calls,
        _response_format(request.response_format) if request.response_format is not None else None,
        request.stream_options is not None and request.stream_options.include_usage is True,
        "",  # profile
        wire,
        body,
        1 if request.n is None else _choices(wire["n"]),
        None
        if request.reasoning_effort is None is request.reasoning is request.thinking
        else _reasoning(request),
        None if request.cache_control is None else cache_of(request.cache_control),
        dialect_only=only,
        fields=FIELDS,
    )


def _reasoning(request: _Request) -> Reasoning | None:
    return reasoning_of(request.reasoning_effort, request.reasoning, request.thinking)


def _limit(request: _Request, wire: dict[str, Any]) -> int | None:
    """Returns the maximum of output tokens: the smaller one if both names are given.

    None if there is no maximum, for which callers also write 0 and negative numbers (llama.cpp, LM Studio,
    Ollama: -1).
    """
    if request.max_tokens is None or request.max_completion_tokens is None:
        name = "max_completion_tokens" if request.max_tokens is None else "max_tokens"
        given = wire[name]
        limit = given if type(given) is int and given <= MAX_SAFE_INTEGER else _whole(max(given, 0), name)
        return limit if limit > 0 else None
    both = [limit for name in LIMITS if (limit := _whole(max(wire[name], 0), name)) > 0]
    return min(both, default=None)


def _top_k(value: float) -> int | None:
    """Returns the number; None if it is 0 or less, which means no bound (vLLM: -1, llama.cpp: 0)."""
    found = _whole(value, "top_k")
    return found if found > 0 else None


def _seed(value: float) -> int:
    return value if type(value) is int else _whole(value, "seed")


def _choices(value: float) -> int:
    found = _whole(value, "n")
    if not 1 <= found <= MAX_CHOICES:
        raise _bad("n", f"must be from 1 to {MAX_CHOICES}")
    return found


def _mark(part: dict[str, Any]) -> Cache | None:
    """Returns a part's mark for the prompt cache, in either vendor's words."""
    return cache_of(part.get("cache_control")) or cache_of_breakpoint(part)


def _texts(wire: dict[str, Any]) -> _TextRequest | None:
    try:
        return msgspec.convert(wire, _TextRequest)
    except msgspec.ValidationError:
        return None


def _typed(wire: dict[str, Any]) -> _Request:
    try:
        return msgspec.convert(wire, _Request)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from None


# names


def _check_top(wire: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    """Checks all names except those within a message. Most requests have only known names."""
    if not set().union(*messages) <= _MESSAGE:
        for index, message in enumerate(messages):
            _check_names(message, _MESSAGE, f"messages[{index}].")
    if wire.keys() <= _FLAT:
        return
    if not wire.keys() <= _TOP:
        _check_names(wire, _TOP, "")
    for index, tool in enumerate(wire.get("tools") or ()):
        _check_both(tool, "function", _TOOL, f"tools[{index}].")
    if (options := wire.get("stream_options")) is not None:
        _check_names(options, _OPTIONS, "stream_options.")
    if type(choice := wire.get("tool_choice")) is dict:
        _check_both(choice, "function", _CHOICE, "tool_choice.")
    if (wanted := wire.get("response_format")) is not None:
        _check_both(wanted, "json_schema", _FORMAT, "response_format.")


def _check_within(message: dict[str, Any], at: str) -> None:
    """Checks the names in the parts of a message."""
    if type(parts := message.get("content")) is list:
        for index, part in enumerate(parts):
            _check_both(part, "image_url", _PART, f"{at}.content[{index}].")
    for index, call in enumerate(message.get("tool_calls") or ()):
        _check_both(call, "function", _CALL, f"{at}.tool_calls[{index}].")
    if (legacy := message.get("function_call")) is not None:
        _check_names(legacy, _CALL, f"{at}.function_call.")


def _check_both(outer: dict[str, Any], name: str, known: frozenset[str], at: str) -> None:
    """Checks the names of an object, and of its member `name`."""
    _check_names(outer, known, at)
    if type(inner := outer.get(name)) is dict:
        _check_names(inner, known, f"{at}{name}.")


# messages


def _message(message: _Message, index: int, raw: list[dict[str, Any]]) -> Message:
    """Parses a message. `raw`: all messages, unchanged."""
    if type(message.content) is str and (role := _TEXT_ROLES.get(message.role)):  # most are only a text
        cache = message.cache_control
        return Message(
            role, (Text(message.content) if cache is None else Text(message.content, cache_of(cache)),)
        )
    at = f"messages[{index}]"
    translate = _ROLES.get(message.role)
    if translate is None:
        raise _bad(f"{at}.role", f"must be one of {', '.join(_ROLES)}")
    _check_within(raw[index], at)
    return translate(message, at)


def _system(message: _Message, at: str) -> Message:
    return Message("system", _content(message, at))


def _user(message: _Message, at: str) -> Message:
    return Message("user", _content(message, at))


def _assistant(message: _Message, at: str) -> Message:
    calls = [_call(call, f"{at}.tool_calls[{index}]") for index, call in enumerate(message.tool_calls or [])]
    if message.function_call is not None:
        legacy = message.function_call
        if type(legacy.arguments) is not str:
            raise _OddArguments
        calls.append(ToolCall(legacy.name, legacy.name, legacy.arguments))
    parts = _content(message, at) if message.content else ()
    if message.audio is not None and not parts and (said := transcript_of(message.audio)):
        parts = (Text(said),)
    if message.refusal:
        parts = (*parts, Text(message.refusal, refusal=True))
    return Message("assistant", parts, tuple(calls), "", _thoughts(message))


def _thoughts(message: _Message) -> tuple[Thought, ...]:
    """Returns the message's thoughts, with their seals if the caller has kept them."""
    if type(message.content) is list and not message.thinking_blocks:
        message.thinking_blocks = [part for part in message.content if part.get("type") in THINKING]
    reasoning = message.reasoning_content or message.reasoning
    if not (message.thinking_blocks or message.reasoning_details or reasoning):
        return ()
    return thoughts_of(message.thinking_blocks, message.reasoning_details, reasoning)


def _tool(message: _Message, at: str) -> Message:
    if not message.tool_call_id:
        raise _bad(f"{at}.tool_call_id", "is required in messages of role tool")
    return Message("tool", _content(message, at), tool_call_id=message.tool_call_id)


def _function(message: _Message, at: str) -> Message:
    if not message.name:
        raise _bad(f"{at}.name", "is required in messages of role function")
    return Message("tool", _content(message, at), tool_call_id=message.name)


_TEXT_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user"}
_ROLES: Mapping[str, Callable[[_Message, str], Message]] = {
    "system": _system, "developer": _system, "user": _user, "assistant": _assistant, "tool": _tool, "function": _function,
}  # fmt: skip


def _content(message: _Message, at: str) -> tuple[Part, ...]:
    at = f"{at}.content"
    cache = None if message.cache_control is None else cache_of(message.cache_control)
    match message.content:
        case str(text):
            return (Text(text, cache),)
        case None:
            raise _bad(at, "must be a string or a list of parts")
        case []:
            raise _bad(at, "must not be an empty list")
        case parts:
            found = [
                _part(part, f"{at}[{index}]")
                for index, part in enumerate(parts)
                if part.get("type") not in THINKING
            ]
            if cache is not None and found and type(last := found[-1]) is Text:
                found[-1] = Text(last.text, last.cache or cache, last.refusal)
            return tuple(found)


def _part(part: dict[str, Any], at: str) -> Part:
    match part:
        case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
            return Text(text, _mark(part))
        case {"type": "refusal", "refusal": str(text)}:
            return Text(text, refusal=True)
        case {"type": "image_url", "image_url": {"url": str(url)} as image} | (
            {"type": "image_url" | "input_image", "image_url": str(url)} as image
        ):  # Mistral's form, and that of Responses: the URL alone
            if not url[:8].lower().startswith(("https://", "http://", "data:")):
                raise _bad(f"{at}.image_url.url", "must be an http(s) or data: URL")
            detail = image.get("detail")
            return Image(url, _mark(part), detail if isinstance(detail, str) else "")
        case {"type": "text" | "refusal" | "image_url" as kind}:
            raise _bad(
                f"{at}.{kind}", "must be an object with a url" if kind == "image_url" else "must be a string"
            )
        case {"type": str(kind)} if kind:
            if (cache := cache_of_breakpoint(part)) is not None:
                part = {"cache_control": cache} | part
                del part["prompt_cache_breakpoint"]
            return Other(kind, part)
        case _:
            raise _bad(f"{at}.type", "must be a string")


# calls


def _call(call: _ToolCall, at: str) -> ToolCall:
    """Parses a call. Calls of a provider's own kind (custom …) are in `wire` alone; here they keep their
    place."""
    if call.function is None:
        if call.type == "function":
            raise _bad(f"{at}.function", "is required")
        return ToolCall(call.id, call.type, "{}")
    arguments = call.function.arguments
    if type(arguments) is not str:
        raise _OddArguments
    match call.extra_content:
        case {"google": {"thought_signature": str(signature)}}:
            return ToolCall(call.id, call.function.name, arguments, signature)
    return ToolCall(call.id, call.function.name, arguments)


def _with_texts(message: dict[str, Any]) -> dict[str, Any]:
    """Returns the message, its calls' arguments as texts: objects are written as JSON, null and PHP's `[]` are no
    arguments. Clients keep what their SDK has parsed (vercel/ai#6687)."""
    changed: dict[str, Any] = {}
    if calls := message.get("tool_calls"):
        changed["tool_calls"] = [{**call, **_with_text(call, "function")} for call in calls]
    return {**message, **changed, **_with_text(message, "function_call")}


def _with_text(outer: dict[str, Any], name: str) -> dict[str, Any]:
    function = outer.get(name)
    if not function or type(given := function.get("arguments", "")) is str:
        return {}
    return {name: {**function, "arguments": msgspec.json.encode(given or {}).decode()}}


def _response_format(wanted: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(wanted.get("type"), str):
        raise _bad("response_format.type", "must be a string")
    return wanted
