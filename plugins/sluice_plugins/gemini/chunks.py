"""What a chunk of generateContent has of what is decoded, and chunks with other names than the API's. Pure.

https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse

Proxies may write names in snake_case, as Google's own Python SDK shows them, and Code Assist wraps each
answer in `{"response": …}` (google-gemini/gemini-cli: `CaGenerateContentResponse`).
"""

import re
from typing import Any

import msgspec
from msgspec import Raw

from sluice.wire.lenient import fit


class Blob(msgspec.Struct):
    mimeType: str | None = None
    data: str | None = None


class PartialArg(msgspec.Struct):
    jsonPath: str | None = None
    stringValue: str | None = None
    numberValue: Any = None
    boolValue: bool | None = None
    willContinue: bool | None = None


class FunctionCall(msgspec.Struct):
    id: str | None = None
    name: str | None = None
    args: Raw = Raw(b"")
    partialArgs: list[PartialArg] | None = None
    willContinue: bool | None = None


class Part(msgspec.Struct):
    text: str | None = None
    thought: bool | None = None
    thoughtSignature: str | None = None
    functionCall: FunctionCall | None = None
    inlineData: Blob | None = None


class Content(msgspec.Struct):
    parts: list[Part] | None = None


class Candidate(msgspec.Struct):
    content: Content | None = None
    finishReason: str | None = None
    index: int | None = None
    groundingMetadata: Raw = Raw(b"")
    citationMetadata: Raw = Raw(b"")


class Feedback(msgspec.Struct):
    blockReason: str | None = None
    blockReasonMessage: str | None = None


class ReportedUsage(msgspec.Struct):
    promptTokenCount: int | None = None
    candidatesTokenCount: int | None = None
    thoughtsTokenCount: int | None = None
    cachedContentTokenCount: int | None = None
    toolUsePromptTokenCount: int | None = None
    totalTokenCount: int | None = None


class Chunk(msgspec.Struct):
    candidates: list[Candidate] | None = None
    promptFeedback: Feedback | None = None
    usageMetadata: ReportedUsage | None = None
    modelVersion: str | None = None
    responseId: str | None = None
    error: Any = None


_SNAKE = re.compile("_([a-z])")


def in_camel_case(value: Any) -> Any:
    """Returns a chunk's values with names converted to camelCase, except within arguments of calls."""
    if type(value) is list:
        return [in_camel_case(inner) for inner in value]
    if type(value) is not dict:
        return value
    named: dict[str, Any] = {}
    for name, inner in value.items():
        here = _SNAKE.sub(lambda found: found[1].upper(), name)
        if here == name or here not in value:  # a name that is in camelCase already takes precedence
            named[here] = inner if here == "args" else in_camel_case(inner)
    return named


def fitted(values: Any) -> Chunk:
    """Returns the chunk in a JSON value; fields of other types are absent."""
    return msgspec.convert(fit(values, Chunk)[0], Chunk)


def unwrapped(value: Any) -> Any:
    """Returns the answer in Code Assist's envelope; any other value unmodified."""
    match value:
        case {"response": dict(answer)} if "candidates" not in value:
            return answer
        case _:
            return value
