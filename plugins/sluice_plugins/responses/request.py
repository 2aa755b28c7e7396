"""Builds a Responses request from `sluice.model.chat`, and edits a Responses caller's request for the
upstream.

Fields that the API lacks (stop sequences, seed, penalties) are left out by rules (config/models.yaml).
Reasoning is sent back only to the vendor that made it: of earlier reasoning only OpenAI's encrypted items are
sent.

Standard: https://platform.openai.com/docs/api-reference/responses/create
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sluice.errors import BadRequest
from sluice.model.chat import (
    ChatRequest,
    Image,
    Message,
    Other,
    Part,
    Reasoning,
    Text,
    Thought,
    Tool,
)
from sluice.model.rules import CacheMarks, Effort
from sluice.wire.dataurl import is_http, normalized_url
from sluice.wire.seals import OPENAIS, SEAL_PREFIX, call_signature, openais, thought_of
from sluice_plugins.openai.messages import cache_of, cache_options, marked
from sluice_plugins.openai.reasoning import LEVELS, effort_of
from sluice_plugins.tool_order import results_first
from sluice_plugins.tool_schemas import is_closed, plain_tool
from sluice_plugins.translation import result_text

Value = dict[str, Any]
ENCRYPTED = "reasoning.encrypted_content"
"""Value of `include`: requests encrypted reasoning, which can be sent back in the next request. Models whose
rules have this name in `drop` are not asked for it."""

SAME = ("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "metadata", "service_tier")
"""Fields with the same name and meaning in Chat Completions and Responses."""


def translated(
    chat: ChatRequest, summary: str, efforts: Sequence[Effort], *, encrypted: bool, marks: CacheMarks = ""
) -> Value:
    """Returns the request without model and stream. `efforts`: the model's, if they are known; `marks`: the
    form in which it takes cache markers. Raises BadRequest for content that the API does not accept."""
    sampling = chat.sampling
    of_openai = chat.wire if chat.fields.as_named and chat.wire is not None else {}
    instructions, messages = _instructions(results_first(chat.messages), marks)
    body: Value = {
        "instructions": instructions or None,
        "input": [item for message in messages for item in _items(message, marks)],
        "max_output_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "tools": [_tool(tool) for tool in chat.tools] or None,
        "tool_choice": _choice(chat.tool_choice) if chat.tools else None,
        "parallel_tool_calls": chat.parallel_tool_calls if chat.tools else None,
        "text": _text(chat.response_format, of_openai.get("verbosity")),
        "reasoning": _reasoning(chat.reasoning, summary, efforts),
        **{name: of_openai.get(name) for name in SAME},
        **({"user": chat.user} if chat.user else {}),
        "include": [ENCRYPTED] if encrypted else None,
        "prompt_cache_options": cache_options(chat, marks),
    }
    return {name: value for name, value in body.items() if value is not None} | {"store": False}


def _instructions(messages: Sequence[Message], marks: CacheMarks) -> tuple[str, Sequence[Message]]:
    """Returns the system messages at the beginning as one text, and the other messages. If there are only
    system messages they stay messages, since the input must not be empty; so do those with a cache marker,
    since instructions have no field for it."""
    count = 0
    for message in messages:
        if message.role != "system" or any(not isinstance(part, Text) for part in message.parts):
            break
        count += 1
    if count == len(messages) or (
        marks and any([cache_of(part) for message in messages[:count] for part in message.parts])
    ):
        count = 0
    return "\n\n".join([message.text for message in messages[:count] if message.text]), messages[count:]


def _items(message: Message, marks: CacheMarks) -> Iterable[Value]:
    match message.role:
        case "tool":
            yield {
                "type": "function_call_output",
                "call_id": message.tool_call_id,
                "output": _output(message, marks),
            }
        case "assistant":
            yield from _assistant(message)
        case role:
            name = "developer" if role == "system" else role
            yield {"type": "message", "role": name, "content": [_part(part, marks) for part in message.parts]}


def _assistant(message: Message) -> Iterable[Value]:
    """Returns the items of an assistant message: OpenAI's own reasoning, the text, the calls. Raises
    BadRequest for parts that are not text."""
    text = "".join([part.text for part in message.parts if isinstance(part, Text)])
    if any(not isinstance(part, Text) for part in message.parts):
        raise BadRequest("An assistant's message can only be text for this model", param="messages")
    if text or message.tool_calls:  # the API refuses reasoning without the output that followed it
        for thought in message.thoughts:
            if thought.signature.startswith(OPENAIS):
                yield _reasoned(thought)
    if text:
        yield {"type": "message", "role": "assistant", "content": _content(message.parts, text)}
    for call in message.tool_calls:
        yield {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments or "{}",
        }


def _content(parts: Sequence[Part], text: str) -> str | list[Value]:
    """Returns an assistant's texts as one text, followed by its refusal. Plain text is used because a list of
    parts is the form of an output that has an id."""
    refusal = "".join([part.text for part in parts if isinstance(part, Text) and part.refusal])
    if not refusal:
        return text
    answer = "".join([part.text for part in parts if isinstance(part, Text) and not part.refusal])
    said: list[Value] = [{"type": "output_text", "text": answer}] if answer else []
    return [*said, {"type": "refusal", "refusal": refusal}]


def _reasoned(thought: Thought) -> Value:
    id, content = openais(thought.signature) or ("", "")
    summary = [{"type": "summary_text", "text": thought.text}] if thought.text else []
    return {
        "type": "reasoning",
        **({"id": id} if id else {}),
        "summary": summary,
        "encrypted_content": content,
    }


def _output(message: Message, marks: CacheMarks) -> str | list[Value]:
    """Returns a tool's result; the result of a tool that failed begins with a word that says so."""
    text, parts = result_text(message), message.parts
    cache = next((cache for part in reversed(parts) if (cache := cache_of(part))), None) if marks else None
    if all(isinstance(part, Text) for part in parts):
        return text if cache is None else [_part(Text(text, cache), marks)]
    if message.failed:
        parts = (Text(text, cache), *[part for part in parts if not isinstance(part, Text)])
    return [_part(part, marks) for part in parts]


def _part(part: Part, marks: CacheMarks) -> Value:
    return marked(_unmarked(part), part, marks)


def _unmarked(part: Part) -> Value:
    match part:
        case Text(text=text):
            return {"type": "input_text", "text": text}
        case Image(url=url, detail=detail):
            return {"type": "input_image", "image_url": normalized_url(url), "detail": detail or "auto"}
        case Other(type="file", wire={"file": dict(file)}):
            return {"type": "input_file", **_file(file)}
        case Other(type="input_audio", wire={"input_audio": dict(audio)}):
            return {"type": "input_audio", "input_audio": audio}
        case _:
            raise BadRequest(f"Content of type {part.type!r} cannot be given to this model", param="messages")


def _file(file: Mapping[str, Any]) -> Value:
    data = file.get("file_data")
    if isinstance(data, str) and is_http(data):
        return {"file_url": data}
    return {
        name: file[name] for name in ("filename", "file_data", "file_id") if isinstance(file.get(name), str)
    }


def _tool(tool: Tool) -> Value:
    """`strict` is always sent: its default is true here, and false in other dialects."""
    description, schema = plain_tool(tool)
    described = {"description": description} if description else {}
    return {
        "type": "function",
        "name": tool.name,
        **described,
        "parameters": schema,
        "strict": tool.strict is True and is_closed(schema),
    }


def _choice(choice: str | tuple[str, str] | None) -> Any:
    match choice:
        case (_, name):
            return {"type": "function", "name": name}
        case _:
            return choice


def _text(wanted: Mapping[str, Any] | None, verbosity: Any) -> Value | None:
    how = {} if verbosity is None else {"verbosity": verbosity}
    match wanted:
        case None:
            return how or None
        case {"type": "json_schema", "json_schema": dict(schema)}:
            return {"format": {"type": "json_schema", "name": "answer", **schema}, **how}
        case _:
            return {"format": {"type": wanted.get("type")}, **how}


def _reasoning(wish: Reasoning | None, summary: str, efforts: Sequence[Effort]) -> Value | None:
    found: Value = {"summary": summary} if summary else {}
    if wish is not None and (effort := effort_of(wish, efforts or LEVELS)) is not None:
        found["effort"] = effort
    return found or None


def unsealed(items: Any) -> Any:
    """Returns the items of a request for OpenAI. Encrypted reasoning that the gateway wrapped for the caller
    is unwrapped; that of other vendors is left out."""
    if type(items) is not list:
        return items
    found = []
    for item in items:
        match item:
            case {"type": "reasoning", "encrypted_content": str(content)} if content.startswith(SEAL_PREFIX):
                thought = None if call_signature(content) else thought_of("", "", content)
                if thought is not None and (own := openais(thought.signature)):
                    found.append({**item, "id": own[0], "encrypted_content": own[1]})
            case {"type": "reasoning", "id": str(id)} if (
                not item.get("encrypted_content") and id.count("_") > 1
            ):
                pass  # an id of the gateway's for another vendor's reasoning: OpenAI would not find it
            case _:
                found.append(item)
    return found
