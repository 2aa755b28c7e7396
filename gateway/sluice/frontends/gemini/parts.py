"""`contents` -> messages.

A turn's function results are messages of their own, before the rest of the turn. A result that is nothing but
`output` or `result` with a text is that text, one that is nothing but `error` has failed. Code that Google
ran, and its result, is text for other upstreams.

Standard: https://ai.google.dev/api/caching#Part
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from sluice.frontends.checks import refused
from sluice.frontends.gemini.seals import thought_of
from sluice.frontends.open_calls import OpenCalls
from sluice.model.chat import Image, Message, Other, Text, Thought, ToolCall
from sluice.model.chat import Part as Content
from sluice.wire.dataurl import standard_base64
from sluice.wire.seals import GOOGLES


class Blob(msgspec.Struct):
    data: str
    mimeType: str | None = None
    displayName: str | None = None


class FileData(msgspec.Struct):
    fileUri: str
    mimeType: str | None = None


class FunctionCall(msgspec.Struct):
    name: str
    args: dict[str, Any] | None = None
    id: str | None = None


class ResponsePart(msgspec.Struct):
    inlineData: Blob | None = None
    fileData: FileData | None = None


class FunctionResponse(msgspec.Struct):
    name: str | None = None
    response: Any = None
    id: str | None = None
    parts: list[ResponsePart] | None = None


class Code(msgspec.Struct):
    code: str | None = None
    language: str | None = None


class CodeResult(msgspec.Struct):
    output: str | None = None


class Part(msgspec.Struct):
    text: str | None = None
    thought: bool | None = None
    thoughtSignature: str | None = None
    inlineData: Blob | None = None
    fileData: FileData | None = None
    functionCall: FunctionCall | None = None
    functionResponse: FunctionResponse | None = None
    executableCode: Code | None = None
    codeExecutionResult: CodeResult | None = None


class GeminiTurn(msgspec.Struct):
    parts: list[Part] | None = None
    role: str | None = None


_ROLES = {
    "": "user",
    "user": "user",
    "function": "user",
    "tool": "user",
    "model": "model",
    "assistant": "model",
}


def messages_of(turns: Sequence[GeminiTurn]) -> list[Message]:
    """Parses the contents. Raises BadRequest."""
    found: list[Message] = []
    waiting = OpenCalls()
    for index, turn in enumerate(turns):
        at = f"contents[{index}]"
        role = _ROLES.get((turn.role or "").lower())
        if role is None:
            raise refused(f"{at}.role", "must be user or model")
        parts = turn.parts or []
        if role == "model":
            message = _turn_message(parts, index, at)
            if message.tool_calls:
                waiting.begin(message.tool_calls)
            found.append(message)
            continue
        found += [
            _result(part.functionResponse, waiting, at) for part in parts if part.functionResponse is not None
        ]
        content = content_of([part for part in parts if part.functionResponse is None], at)
        if content:
            found.append(Message("user", content))
    return found


def content_of(parts: Sequence[Part], at: str) -> tuple[Content, ...]:
    found = [_part(part, f"{at}.parts[{index}]") for index, part in enumerate(parts)]
    return tuple([content for content in found if content is not None])


def _turn_message(parts: Sequence[Part], index: int, at: str) -> Message:
    calls: list[ToolCall] = []
    sealed: list[Thought] = []
    for part in parts:
        if part.functionCall is not None:
            calls.append(
                _call(part.functionCall, part.thoughtSignature or "", f"call_{index}_{len(calls)}", at)
            )
        elif part.thoughtSignature:
            sealed.append(thought_of(part.thoughtSignature))
    unsigned = [
        Thought(part.text) for part in parts if part.thought and part.text and part.functionCall is None
    ]
    others = any(not thought.signature.startswith(GOOGLES) for thought in sealed)  # these contain their text
    spoken = [part for part in parts if part.functionCall is None and not part.thought]
    return Message(
        "assistant",
        content_of(spoken, at),
        tuple(calls),
        thoughts=tuple(sealed if others else unsigned + sealed),
    )


def _call(call: FunctionCall, signature: str, otherwise: str, at: str) -> ToolCall:
    if not call.name:
        raise refused(f"{at}.parts.functionCall.name", "must not be empty")
    return ToolCall(call.id or otherwise, call.name, msgspec.json.encode(call.args or {}).decode(), signature)


def _result(result: FunctionResponse, waiting: OpenCalls, at: str) -> Message:
    text, failed = _result_text(result.response)
    shown = [Part(inlineData=part.inlineData, fileData=part.fileData) for part in result.parts or ()]
    parts = (Text(text), *content_of(shown, f"{at}.parts.functionResponse"))
    return Message("tool", parts, tool_call_id=waiting.answered(result.id, result.name), failed=failed)


def _result_text(response: Any) -> tuple[str, bool]:
    match response:
        case None:
            return "", False
        case {"output": str(text), **more} | {"result": str(text), **more} if not more:
            return text, False
        case {"error": why, **more} if not more:
            return why if isinstance(why, str) else msgspec.json.encode(why).decode(), True
        case _:
            return msgspec.json.encode(response).decode(), False


def _part(part: Part, at: str) -> Content | None:
    """Parses a part. Returns None for one without content: a signature by itself."""
    if part.inlineData is not None:
        return _inline(part.inlineData, at)
    if part.fileData is not None:
        return _file(part.fileData, at)
    if part.executableCode is not None:
        code = part.executableCode
        return Text(f"```{(code.language or '').lower()}\n{code.code or ''}\n```")
    if part.codeExecutionResult is not None:
        return Text(f"```\n{part.codeExecutionResult.output or ''}\n```")
    return Text(part.text) if part.text else None


def _inline(blob: Blob, at: str) -> Content:
    media_type = (blob.mimeType or "").lower()
    data = standard_base64(blob.data)
    if not data or "/" not in media_type:
        raise refused(f"{at}.inlineData", "must have a mimeType, and data in base64")
    kind, _, form = media_type.partition("/")
    if kind == "image":
        return Image(f"data:{media_type};base64,{data}")
    if kind == "audio":
        form = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav"}.get(
            form.partition(";")[0], form.partition(";")[0]
        )
        return Other("input_audio", {"type": "input_audio", "input_audio": {"data": data, "format": form}})
    url = f"data:{media_type.partition(';')[0].strip()};base64,{data}"
    if kind == "video":
        return Other("video_url", {"type": "video_url", "video_url": {"url": url}})
    named = {"filename": blob.displayName} if blob.displayName else {}
    return Other("file", {"type": "file", "file": {"file_data": url, **named}})


def _file(file: FileData, at: str) -> Content:
    if not file.fileUri:
        raise refused(f"{at}.fileData.fileUri", "must not be empty")
    kind = (file.mimeType or "").lower().partition("/")[0]
    if kind == "image":
        return Image(file.fileUri)
    if kind == "video":
        return Other("video_url", {"type": "video_url", "video_url": {"url": file.fileUri}})
    return Other("file", {"type": "file", "file": {"file_data": file.fileUri}})
