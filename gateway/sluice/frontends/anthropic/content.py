"""Content blocks of Anthropic's messages -> the vocabulary, for upstreams that speak another dialect.

A user's message with tool results becomes several: one of role tool for each result, and the user's own words
between them. What no other dialect has (the calls and results of tools that Anthropic ran, uploads to its
containers, tools that come and go within a conversation) is left out: in Anthropic's own dialect messages are
passed on as they came. Citations on texts are left out, too. The tools that a search has found are told by
their names; images and documents from sources that are unknown here go nowhere else.

Standard: https://platform.claude.com/docs/en/api/messages/create (ContentBlockParam)
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sluice.errors import BadRequest
from sluice.frontends.checks import cache_of, check_names, refused
from sluice.model.chat import Cache, Image, Message, Other, Part, Text, Thought, ToolCall
from sluice.wire.dataurl import is_http
from sluice.wire.jsontext import value_of
from sluice.wire.seals import call_signature

Block = dict[str, Any]

_BLOCK = frozenset({
    "type", "text", "source", "cache_control", "id", "name", "input", "tool_use_id", "content", "is_error", "thinking",
    "signature", "data", "citations", "title", "context", "tool_name",
})  # fmt: skip
MAX_KIND = 64
"""Characters of a source's type that are repeated in an error."""
_NO_SYSTEM = frozenset({"image", "document", "search_result", "compaction"})
_SOURCE = frozenset({"type", "media_type", "data", "url", "file_id", "content"})
_encode = msgspec.json.Encoder().encode


class OddInput(Exception):
    """A tool call's `input` is no object, but stands for one: `with_inputs`."""


def texts_of(content: str | list[Block], at: str) -> tuple[Part, ...]:
    """Returns the texts of a system prompt. Raises BadRequest for images, documents and the like."""
    if isinstance(content, str):
        return (Text(content),)
    for index, block in enumerate(content):
        if block.get("type") in _NO_SYSTEM:
            raise refused(f"{at}[{index}].type", "must be text")
    return parts_of(content, at)


def parts_of(content: str | list[Block], at: str) -> tuple[Part, ...]:
    """Returns the parts of the content of a message or a tool result. Raises BadRequest."""
    if isinstance(content, str):
        return (Text(content),)
    found: list[Part] = []
    for index, block in enumerate(content):
        found += _parts(block, f"{at}[{index}]")
    return tuple(found)


# --- messages


def user(content: str | list[Block], at: str) -> list[Message]:
    """Parses a user's message: its own parts, and one message for each tool result in it, in their order.
    Raises BadRequest.
    """
    if isinstance(content, str):
        return [Message("user", (Text(content),))]
    messages: list[Message] = []
    parts: list[Part] = []
    for index, block in enumerate(content):
        if block.get("type") == "tool_result":
            if parts:
                messages.append(Message("user", tuple(parts)))
                parts = []
            messages.append(_result(block, f"{at}[{index}]"))
        else:
            parts += _parts(block, f"{at}[{index}]")
    if parts or not messages:
        messages.append(Message("user", tuple(parts)))
    return messages


def assistant(content: str | list[Block], at: str) -> list[Message]:
    """Parses an assistant's message, with its thinking first. Raises BadRequest."""
    if isinstance(content, str):
        return [Message("assistant", (Text(content),))]
    parts: list[Part] = []
    calls: list[ToolCall] = []
    thoughts: list[Thought] = []
    seal = ""  # for the next call
    for index, block in enumerate(content):
        where = f"{at}[{index}]"
        match block.get("type"):
            case "tool_use":
                calls.append(_call(block, where, seal))
                seal = ""
            case "thinking":
                text, signature = _text(block, "thinking", where), block.get("signature")
                if isinstance(signature, str) and (found := call_signature(signature)):
                    seal = found
                else:
                    thoughts.append(Thought(text, signature or ""))
            case "redacted_thinking":
                thoughts.append(Thought(redacted=_text(block, "data", where)))
            case _:
                parts += _parts(block, where)
    return [Message("assistant", tuple(parts), tuple(calls), "", tuple(thoughts))]


def system(content: str | list[Block], at: str) -> list[Message]:
    """Parses a message of role system in the middle of a conversation, which may only add and remove tools:
    elsewhere the list of tools is the whole one. Raises BadRequest.

    https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages
    """
    texts = texts_of(content, at)
    return [Message("system", texts)] if texts else []


MESSAGES: Mapping[str, Callable[[str | list[Block], str], list[Message]]] = {
    "user": user, "assistant": assistant, "system": system,
}  # fmt: skip


# --- blocks


def _parts(block: Block, at: str) -> list[Part]:
    check_names(block, _BLOCK, f"{at}.")
    match block.get("type"):
        case "text":
            return [Text(_text(block, "text", at), cache_of(block.get("cache_control")))]
        case "image":
            return [_image(block, at)]
        case "document":
            return _document(block, at)
        case "search_result":
            return _search_result(block, at)
        case "tool_reference":
            name = block.get("tool_name")
            return [Text(f"Tool available: {name}")] if isinstance(name, str) else []
        case "compaction":
            summary = block.get("content")
            return [Text(summary)] if isinstance(summary, str) else []
        case str(kind) if kind:
            return []
        case _:
            raise refused(f"{at}.type", "must be a string")


def _text(block: Block, name: str, at: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise refused(f"{at}.{name}", "must be a string" if name in block else "is required")
    return value


def _source(block: Block, at: str) -> Block:
    source = block.get("source")
    if not isinstance(source, dict):
        raise refused(f"{at}.source", "must be an object" if "source" in block else "is required")
    check_names(source, _SOURCE, f"{at}.source.")
    return source


def _url(source: Block, at: str) -> str:
    url = _text(source, "url", f"{at}.source")
    if not is_http(url):
        raise refused(f"{at}.source.url", "must be an http(s) URL")
    return url


def _elsewhere(block: Block, source: Block, at: str) -> Other:
    """Returns an image or a document from a source of an unknown type, which other dialects refuse by it."""
    match source.get("type"):
        case str(kind) if kind:
            return Other(f"{block['type']} of source {kind[:MAX_KIND]}", block)
        case _:
            raise refused(f"{at}.source.type", "must be a string")


def _image(block: Block, at: str) -> Part:
    source, cache = _source(block, at), cache_of(block.get("cache_control"))
    match source.get("type"):
        case "base64":
            media_type = _text(source, "media_type", f"{at}.source")
            return Image(f"data:{media_type};base64,{_text(source, 'data', f'{at}.source')}", cache)
        case "url":
            return Image(_url(source, at), cache)
        case "file":
            return _file({"file_id": _text(source, "file_id", f"{at}.source")}, None)
        case _:
            return _elsewhere(block, source, at)


def _document(block: Block, at: str) -> list[Part]:
    source, marker, title = _source(block, at), block.get("cache_control"), block.get("title")
    named = {"filename": title} if isinstance(title, str) and title else {}
    match source.get("type"):
        case "base64":
            media_type = source.get("media_type")
            kind = media_type if isinstance(media_type, str) else "application/pdf"
            data = f"data:{kind};base64,{_text(source, 'data', f'{at}.source')}"
            return [_file({"file_data": data, **named}, marker)]
        case "text":
            encoded = b64encode(_text(source, "data", f"{at}.source").encode()).decode()
            return [_file({"file_data": f"data:text/plain;base64,{encoded}", **named}, marker)]
        case "url":
            return [_file({"file_data": _url(source, at), **named}, marker)]
        case "content":
            content = source.get("content")
            if not isinstance(content, str | list):
                raise refused(f"{at}.source.content", "must be a string or a list of blocks")
            return [
                *([Text(title)] if named and isinstance(title, str) else []),
                *parts_of(content, f"{at}.source.content"),
            ]
        case "file":
            return [_file({"file_id": _text(source, "file_id", f"{at}.source"), **named}, marker)]
        case _:
            return [_elsewhere(block, source, at)]


def _file(file: Block, marker: Any) -> Other:
    marked = {"cache_control": marker} if type(marker) is dict else {}
    return Other("file", {"type": "file", "file": file, **marked})


def _search_result(block: Block, at: str) -> list[Part]:
    """Returns a result of the caller's own search as texts: its source and its content."""
    origin = "\n".join([text for name in ("title", "source") if isinstance(text := block.get(name), str)])
    content = block.get("content")
    return [Text(origin), *parts_of(content if isinstance(content, str | list) else [], f"{at}.content")]


def _call(block: Block, at: str, seal: str) -> ToolCall:
    given = block.get("input")
    if not isinstance(given, dict):
        if _input_of(block) is not None:
            raise OddInput
        raise refused(f"{at}.input", "must be an object")
    return ToolCall(_text(block, "id", at), _text(block, "name", at), _encode(given).decode(), seal)


def _input_of(block: Block) -> Block | None:
    """Returns the object that a call's `input` is or stands for: {} where it is null, absent or blank, and the
    one in a JSON text; None if it stands for none."""
    given = block.get("input")
    if given is None or (isinstance(given, str) and not given.strip()):
        return {}
    if isinstance(given, str):
        try:
            given = value_of(given.encode())
        except ValueError:
            return None
    return given if isinstance(given, dict) else None


def with_inputs(wire: Block) -> Block:
    """Returns a request whose tool calls have objects as their `input`, where they stood for some. Clients
    send back what their SDK left of a call without arguments (danny-avila/LibreChat#370)."""
    messages = [
        {**message, "content": [_with_input(block) for block in message["content"]]}
        if message.get("role") == "assistant" and isinstance(message.get("content"), list)
        else message
        for message in wire["messages"]
    ]
    return {**wire, "messages": messages}


def _with_input(block: Block) -> Block:
    found = _input_of(block) if block.get("type") == "tool_use" else None
    return block if found is None else {**block, "input": found}


def _result(block: Block, at: str) -> Message:
    check_names(block, _BLOCK, f"{at}.")
    content = block.get("content")
    if not (content is None or isinstance(content, str | list)):
        raise refused(f"{at}.content", "must be a string or a list of blocks")
    if isinstance(content, list) and not all([isinstance(inner, dict) for inner in content]):
        raise refused(f"{at}.content", "must be a list of blocks")
    parts = parts_of(content, f"{at}.content") if content is not None else ()
    if (cache := cache_of(block.get("cache_control"))) is not None and parts:
        parts = (*parts[:-1], _marked(parts[-1], cache))
    failed = block.get("is_error") is True
    return Message("tool", parts, tool_call_id=_text(block, "tool_use_id", at), failed=failed)


def _marked(part: Part, cache: Cache) -> Part:
    """Returns the part with a result's mark for the prompt cache, which ends with its last one."""
    match part:
        case Other(type=kind, wire=wire):
            return Other(kind, {**wire, "cache_control": cache})
        case _:
            return msgspec.structs.replace(part, cache=cache)


def unknown_role(at: str) -> BadRequest:
    return refused(f"{at}.role", f"must be one of {', '.join(MESSAGES)}")
