"""Converts a conversation for Converse. Pure functions.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html

  - consecutive messages of one role become one (results of tools have the role user); a conversation that begins with the
    assistant gets a user message first;
  - blank texts, which Converse refuses, are left out; a document needs a text beside it, and a tool's result some content;
  - a result that is a JSON object is sent as one;
  - signed and redacted reasoning is sent back before what followed it; reasoning that is unsigned or Google's or OpenAI's
    is left out;
  - `cache_control` becomes a cachePoint after the marked part.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from sluice.errors import BadRequest
from sluice.model.chat import Cache, ChatRequest, Image, Message, Other, Part, Text, Thought
from sluice.wire.seals import BEDROCKS, is_marked
from sluice_plugins.bedrock.media import Block, image_block, other_block
from sluice_plugins.translation import arguments_object, json_object

FIRST_TURN = "(The assistant begins this conversation.)"
WITH_DOCUMENTS = "(See the attached document.)"
NO_OUTPUT = "(no output)"


class Writing(msgspec.Struct):
    """State of converting one conversation: whether its model takes cache points and reasoning, and the names
    of its documents so far."""

    caches: bool
    thoughts: bool
    names: set[str] = set()

    def document(self, name: str) -> str:
        """Returns a valid document name that no other document of the conversation has."""
        number = len(self.names) + 1
        name = name if name and name not in self.names else f"{name or 'document'} {number}"
        self.names.add(name)
        return name


def system_blocks(messages: Sequence[Message], writing: Writing, behind: str) -> list[Block]:
    """Returns the system prompt, with `behind` appended. Raises BadRequest for parts that are not text."""
    blocks: list[Block] = []
    for message in messages:
        if message.role != "system":
            continue
        for part in message.parts:
            if not isinstance(part, Text):
                raise BadRequest("A system message can only be text for this model", param="messages")
            blocks += _content((part,), writing)
    return [*blocks, {"text": behind}] if behind else blocks


def message_blocks(chat: ChatRequest, messages: Sequence[Message], writing: Writing) -> list[Block]:
    """Returns the turns of a conversation. Raises BadRequest for parts that Converse cannot express."""
    turns: list[Block] = []
    for message in messages:
        role, blocks = _turn(message, writing)
        if not blocks:
            continue
        if not turns and role == "assistant":
            turns.append({"role": "user", "content": [{"text": FIRST_TURN}]})
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise BadRequest(
            "This model needs at least one message that is not empty and not the system's", param="messages"
        )
    for turn in turns:
        if any("document" in block for block in turn["content"]) and not any(
            "text" in block for block in turn["content"]
        ):
            turn["content"].append({"text": WITH_DOCUMENTS})
    _trim_prefill(turns[-1])
    if chat.cache is not None and writing.caches and "cachePoint" not in turns[-1]["content"][-1]:
        turns[-1]["content"].append(_cache_point(chat.cache))
    return turns


def _turn(message: Message, writing: Writing) -> tuple[str, list[Block]]:
    match message.role:
        case "system":
            return "", []
        case "user":
            return "user", _content(message.parts, writing)
        case "assistant":
            blocks = _content(message.parts, writing)
            for call in message.tool_calls:
                blocks.append(
                    {
                        "toolUse": {
                            "toolUseId": call.id,
                            "name": call.name,
                            "input": arguments_object(call.arguments),
                        }
                    }
                )
            if blocks and writing.thoughts:
                blocks = [_thinking(thought) for thought in message.thoughts if _is_own(thought)] + blocks
            return "assistant", blocks
        case "tool":
            return "user", _result(message, writing)


def _content(parts: Iterable[Part], writing: Writing) -> list[Block]:
    blocks: list[Block] = []
    for part in parts:
        match part:
            case Text(text=text) if not text.strip():
                continue
            case Text(text=text, cache=cache):
                blocks.append({"text": text})
            case Image(cache=cache):
                blocks.append(image_block(part))
            case Other(wire=wire):
                block = other_block(part)
                if "document" in block:
                    block["document"]["name"] = writing.document(block["document"]["name"])
                blocks.append(block)
                cache = wire.get("cache_control")
        if isinstance(cache, Mapping) and writing.caches:
            blocks.append(_cache_point(cache))
    return blocks


def _cache_point(cache: Cache) -> Block:
    ttl = cache.get("ttl")
    return {"cachePoint": {"type": "default"} | ({"ttl": ttl} if ttl in ("5m", "1h") else {})}


def _result(message: Message, writing: Writing) -> list[Block]:
    """Returns a tool's result; its cache point is put after it, because a result must not contain one."""
    content = _content(message.parts, writing)
    points = [block for block in content if "cachePoint" in block]
    content = [block for block in content if "cachePoint" not in block] or [{"text": NO_OUTPUT}]
    match content:
        case [{"text": str(text)}] if (value := _object(text)) is not None:
            content = [{"json": value}]
    for block in content:
        if "audio" in block:
            raise BadRequest("The result of a tool cannot be audio for this model", param="messages")
    result: Block = {"toolUseId": message.tool_call_id, "content": content}
    if message.failed:
        result["status"] = "error"
    return [{"toolResult": result}, *points[-1:]]


def _object(text: str) -> Raw | None:
    """Returns the text if it is a JSON object; else None."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return json_object(text)
    except BadRequest:
        return None


def _is_own(thought: Thought) -> bool:
    return thought.sealed and not is_marked(thought.signature)


def _thinking(thought: Thought) -> Block:
    if not thought.redacted:
        return {"reasoningContent": {"reasoningText": {"text": thought.text, "signature": thought.signature}}}
    redacted = thought.redacted
    marked = redacted.startswith(BEDROCKS)
    blob = (
        redacted.removeprefix(BEDROCKS) if marked else b64encode(redacted.encode("utf-8", "replace")).decode()
    )
    return {"reasoningContent": {"redactedContent": blob}}


def _trim_prefill(turn: Block) -> None:
    last: dict[str, Any] = turn["content"][-1]
    if turn["role"] == "assistant" and "text" in last:
        last["text"] = last["text"].rstrip()
