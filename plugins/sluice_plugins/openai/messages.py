"""Builds the messages of a Chat Completions request from `sluice.model.chat`, for callers of other dialects.

What this dialect has no field for is expressed in others:
  - results of tools are text only: images and files in them follow in a user message after all results of the turn;
  - the result of a tool that failed begins with a word that says so;
  - text documents become text, PDFs and audio are passed on; a file by URL, or by another vendor's id, is refused;
  - earlier reasoning is sent as `reasoning_content` with the calls of the unfinished tool loop: vendors of thinking models
    require it there (DeepSeek, Moonshot), others ignore it. A model's rules may drop it
    (`messages.reasoning_content`). Signatures of other vendors are left out;
  - cache markers are written as the model's rules say (`cache_marks`), else left out. OpenAI accepts them in all messages
    but the assistant's.

Standard: https://platform.openai.com/docs/api-reference/chat/create#messages;
https://api-docs.deepseek.com/guides/thinking_mode (tool calls)
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from sluice.errors import BadRequest
from sluice.model.chat import Cache, ChatRequest, Image, Message, Other, Part, Text, ToolCall
from sluice.model.rules import CacheMarks
from sluice.wire.dataurl import inline_data, is_http, normalized_url
from sluice_plugins.translation import FAILED, OF_TOOLS, SHOWN, decoded_text

Wire = dict[str, Any]
OWN = ("openai", "")
"""Dialects whose content parts of all kinds have this dialect's form; "" is the widget's."""
KINDS = ("file", "input_audio", "video_url")


BREAKPOINT: Wire = {"mode": "explicit"}
"""The value of OpenAI's cache marker.

https://developers.openai.com/api/docs/guides/prompt-caching#prompt-cache-breakpoints"""


def messages_of(
    messages: Sequence[Message], dialect: str, *, reasoning: bool, marks: CacheMarks = ""
) -> list[Wire]:
    """Returns the messages. `dialect`: the caller's. `reasoning`: the target takes `reasoning_content`.
    `marks`: the form in which the target takes cache markers. Raises BadRequest for content that this dialect
    lacks."""
    if dialect not in OWN:
        for part in [part for message in messages for part in message.parts if type(part) is Other]:
            _check_foreign(part)
    loop: int | None = None if reasoning else len(messages)
    found: list[Wire] = []
    shown: list[Wire] = []  # content of tool results that is not text
    for index, message in enumerate(messages):
        if shown and message.role != "tool":
            found.append({"role": "user", "content": [{"type": "text", "text": OF_TOOLS}, *shown]})
            shown = []
        wire = _text_message(message, marks) or _message(message, shown, marks)
        if message.thoughts and message.tool_calls:
            if loop is None:
                loop = _loop(messages)
            thought = "".join([thought.text for thought in message.thoughts])
            if index > loop and thought:
                wire["reasoning_content"] = thought
        found.append(wire)
    if shown:
        found.append({"role": "user", "content": [{"type": "text", "text": OF_TOOLS}, *shown]})
    return found


def cache_options(chat: ChatRequest, marks: CacheMarks) -> Wire | None:
    """Returns OpenAI's prompt cache options for a caller who has marked what is to be cached: nothing else
    must be, since OpenAI charges for cache writes. None if no options are needed."""
    if marks != "prompt_cache_breakpoint":
        return None
    parts = [part for message in chat.messages if message.role != "assistant" for part in message.parts]
    return BREAKPOINT if any([cache_of(part) is not None for part in parts]) else None


def cache_of(part: Part) -> Cache | None:
    """Returns the caller's cache marker at this part, if any."""
    if type(part) is not Other:
        return part.cache  # type: ignore[union-attr]
    cache = part.wire.get("cache_control")
    return cache if type(cache) is dict else None


def marked(wire: Wire, part: Part, marks: CacheMarks) -> Wire:
    """Returns the part with the caller's cache marker, if it has one and the target takes markers."""
    if not marks or (cache := cache_of(part)) is None:
        return wire
    return {**wire, marks: cache if marks == "cache_control" else BREAKPOINT}


REPLY = "Understood."
"""The text of the assistant message that is inserted between results of tools and a user message, for vendors that
require one (Mistral: "Unexpected role 'user' after role 'tool'")."""


def out_of_order(roles: Sequence[str]) -> bool:
    """Returns whether the roles are in an order that some vendors refuse: a user message directly behind a tool's
    result, a system message behind a result or an assistant message, a result behind anything but a call or
    another result."""
    return any([role in _UNORDERED.get(before, ()) for before, role in pairwise(roles)])


_UNORDERED: Mapping[str, Sequence[str]] = {
    "tool": ("user", "system"), "assistant": ("system",), "user": ("tool",), "system": ("tool",),
}  # fmt: skip
"""By role: those that must not follow it. Source: mistral-common's validator, "Unexpected role 'system' after role 'tool'"."""


def in_order(messages: Sequence[Wire]) -> list[Wire]:
    """Returns the messages in an order of roles that every vendor accepts.

    Results are moved directly behind their calls. A system message behind an assistant message or a result
    becomes a user message in the same place. An assistant message is inserted between results of tools and a
    user message.
    """
    found: list[Wire] = []
    for message in _results_first(messages):
        before = found[-1]["role"] if found else ""
        if message["role"] == "system" and before in ("assistant", "tool"):
            message = {**message, "role": "user"}
        if message["role"] == "user" and before == "tool":
            found.append({"role": "assistant", "content": REPLY})
        found.append(message)
    return found


def _results_first(messages: Sequence[Wire]) -> list[Wire]:
    """Returns the messages; user and system messages between calls and their results are moved behind these."""
    found: list[Wire] = []
    between: list[Wire] = []
    open_calls: set[Any] = set()
    for message in messages:
        role = message["role"]
        if role == "tool":
            open_calls.discard(message.get("tool_call_id"))
            found.append(message)
        elif open_calls and role != "assistant":
            between.append(message)
        else:
            found += [*between, message]
            between = []
            open_calls = {call.get("id") for call in message.get("tool_calls") or ()}
    return found + between


def is_blank(message: Message) -> bool:
    """Returns whether the message is the assistant's and has neither content nor calls."""
    return message.role == "assistant" and not (
        message.tool_calls or any([type(part) is not Text or part.text for part in message.parts])
    )


def without_blanks(messages: Sequence[Wire]) -> Sequence[Wire]:
    """Returns the messages without assistant messages that have neither content nor calls; all of them if no
    other message would be left."""
    return [message for message in messages if not _is_blank(message)] or messages


def _is_blank(message: Wire) -> bool:
    if message["role"] != "assistant" or any([message.get(name) for name in _SAYING]):
        return False
    content = message.get("content")
    return not content or (
        type(content) is list
        and all([part.get("text") == "" and part.get("type") == "text" for part in content])
    )


_SAYING = ("tool_calls", "function_call", "refusal")


BLANK = " "
"""The reasoning of a tool call that came without any (another model's, or a caller that does not keep it), where
a vendor insists on some: DeepSeek takes any text, Moonshot any but an empty one.

experientiallabs/experiential#887 (measured), earendil-works/pi#4178 (measured)"""


def lacks_reasoning(messages: Sequence[Wire]) -> bool:
    """Returns whether a message has tool calls but no reasoning."""
    return any([message.get("tool_calls") and not message.get("reasoning_content") for message in messages])


def with_reasoning(messages: Sequence[Wire]) -> list[Wire]:
    """Returns the messages, with a blank `reasoning_content` where there are tool calls but no reasoning.
    `reasoning` is another name of that field."""
    found: list[Wire] = []
    for message in messages:
        if message.get("tool_calls") and not message.get("reasoning_content"):
            named = message.get("reasoning")
            message = {**message, "reasoning_content": named if named and isinstance(named, str) else BLANK}
        found.append(message)
    return found


def _loop(messages: Sequence[Message]) -> int:
    """Returns the index of the last message of a person: the messages behind it are an unfinished tool
    loop."""
    return next((index for index in range(len(messages) - 1, -1, -1) if messages[index].role == "user"), -1)


def _text_message(message: Message, marks: CacheMarks) -> Wire | None:
    """Returns a message that has nothing but text, as most do; None for any other."""
    parts = message.parts
    if len(parts) != 1 or message.tool_calls or message.role == "tool":
        return None
    first = parts[0]
    if type(first) is not Text or (marks and first.cache is not None):
        return None
    return {"role": message.role, "content": first.text}


def _message(message: Message, shown: list[Wire], marks: CacheMarks) -> Wire:
    if message.role == "tool":
        result = _result(message, shown, marks)
        return {"role": "tool", "content": result, "tool_call_id": message.tool_call_id}
    if message.role == "assistant" and marks == "prompt_cache_breakpoint":
        marks = ""
    wire: Wire = {"role": message.role}
    if message.parts or not message.tool_calls:
        wire["content"] = _content(message.parts, marks)
    if message.tool_calls:
        wire["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    return wire


def _result(message: Message, shown: list[Wire], marks: CacheMarks) -> str | list[Wire]:
    """Returns a tool's result; its parts that are not text are appended to `shown`."""
    parts = [_part(part, marks) for part in message.parts]
    texts = [part for part in parts if part["type"] == "text"]
    shown += [part for part in parts if part["type"] != "text"]
    if message.failed and not message.text.lower().startswith("error"):
        first = texts[0]["text"] if texts else ""
        texts = [{**(texts[0] if texts else {"type": "text"}), "text": f"{FAILED}{first}"}, *texts[1:]]
    if not texts:
        return SHOWN if parts else ""
    return str(texts[0]["text"]) if len(texts) == 1 and len(texts[0]) == 2 else texts


def _content(parts: tuple[Part, ...], marks: CacheMarks) -> str | list[Wire]:
    if not parts:
        return ""
    first = parts[0]
    if len(parts) == 1 and type(first) is Text and not (marks and first.cache is not None):
        return first.text
    return [_part(part, marks) for part in parts]


def _part(part: Part, marks: CacheMarks) -> Wire:
    return marked(_unmarked(part), part, marks)


def _unmarked(part: Part) -> Wire:
    match part:
        case Text(text=text):
            return {"type": "text", "text": text}
        case Image(url=url, detail=detail):
            return {
                "type": "image_url",
                "image_url": {"url": normalized_url(url), **({"detail": detail} if detail else {})},
            }
        case Other(type="file", wire=wire):
            return _file(wire)
        case Other(wire=wire):
            return {name: value for name, value in wire.items() if name != "cache_control"}


def _check_foreign(part: Other) -> None:
    """Raise BadRequest for a part that only its own dialect has, and for files whose bytes the request does
    not contain."""
    if part.type not in KINDS:
        raise BadRequest(f"Content of type {part.type!r} cannot be given to this model", param="messages")
    if part.type == "file":
        data = _data_of(part.wire)
        if not data or is_http(data):
            what = "by its URL" if data else "by its id at another vendor"
            raise BadRequest(f"A file cannot be given to this model {what}: send its bytes", param="messages")


def _data_of(wire: Mapping[str, Any]) -> str:
    match wire:
        case {"file": {"file_data": str(data)}}:
            return data
        case _:
            return ""


def _file(wire: Mapping[str, Any]) -> Wire:
    """Returns a file part: https://platform.openai.com/docs/guides/pdf-files"""
    file, data = wire.get("file"), _data_of(wire)
    if not isinstance(file, dict) or not data:
        return {name: value for name, value in wire.items() if name != "cache_control"}
    inline = inline_data(data)
    if inline is not None and inline.media_type.startswith("text/"):
        name = file.get("filename")
        title = f"{name}\n\n" if isinstance(name, str) and name else ""
        return {"type": "text", "text": f"{title}{decoded_text(inline.data)}"}
    if inline is not None and inline.media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": normalized_url(data)}}
    return {"type": "file", "file": {"filename": "document.pdf", **file}}


def _tool_call(call: ToolCall) -> Wire:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
