"""A generateContent request -> ChatRequest.

Names may be in camelCase or snake_case, and a list of one may stand as its only element, as Google's own
parser has it. What only Gemini can do (googleSearch, codeExecution, urlContext …, cachedContent, answers that
are no text) is refused for other upstreams by name (`ChatRequest.dialect_only`); `safetySettings` and what
tunes Google's own media are left out for them. Upstreams of this dialect get the caller's own object
(`wire`), with its names in camelCase.

`thinkingBudget` 0 is no reasoning, -1 leaves it to the provider; `includeThoughts: false` hides thoughts that
come nevertheless.

Standard: https://ai.google.dev/api/generate-content
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sluice.frontends import RequestHead
from sluice.frontends.checks import explained, refused, whole_number
from sluice.frontends.gemini.fields import FIELDS
from sluice.frontends.gemini.parts import GeminiTurn, content_of, messages_of
from sluice.frontends.gemini.schema import json_schema
from sluice.model.chat import ChatRequest, Message, Reasoning, Sampling, Text, Tool
from sluice.model.rules import Effort
from sluice.wire.jsontext import parse_object

LIST = "list"
"""The `profile` of a stream without `alt=sse`: a JSON list."""
SILENT = "silent"
"""The `profile` of a request whose caller wants no thoughts."""


class _CallingConfig(msgspec.Struct):
    mode: str | None = None
    allowedFunctionNames: list[str] | None = None


class _ToolConfig(msgspec.Struct):
    functionCallingConfig: _CallingConfig | None = None


class _Thinking(msgspec.Struct):
    includeThoughts: bool | None = None
    thinkingBudget: float | None = None
    thinkingLevel: str | None = None


class _Generation(msgspec.Struct):
    temperature: float | None = None
    topP: float | None = None
    topK: float | None = None
    candidateCount: float | None = None
    maxOutputTokens: float | None = None
    stopSequences: list[str] | None = None
    seed: float | None = None
    presencePenalty: float | None = None
    frequencyPenalty: float | None = None
    responseMimeType: str | None = None
    responseSchema: dict[str, Any] | None = None
    responseJsonSchema: dict[str, Any] | None = None
    responseModalities: list[str] | None = None
    thinkingConfig: _Thinking | None = None


class _Declaration(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parametersJsonSchema: dict[str, Any] | None = None


class _Declarations(msgspec.Struct):
    functionDeclarations: list[_Declaration] | None = None


class _Request(msgspec.Struct):
    contents: list[GeminiTurn] | None = None
    systemInstruction: GeminiTurn | str | None = None
    tools: list[dict[str, Any]] | None = None
    toolConfig: _ToolConfig | None = None
    generationConfig: _Generation | None = None
    cachedContent: str | None = None


def whole(body: bytes, head: RequestHead) -> ChatRequest:
    """Parses a request to `:generateContent`. Raises BadRequest, `param` naming the field."""
    return _read(body, head.parameters["model"], stream=False)


def streamed(body: bytes, head: RequestHead) -> ChatRequest:
    """Parses a request to `:streamGenerateContent`: server-sent events with `?alt=sse`, else a list."""
    chat = _read(body, head.parameters["model"], stream=True)
    return (
        chat if head.query.get("alt") == "sse" else msgspec.structs.replace(chat, profile=chat.profile + LIST)
    )


def _read(body: bytes, model: str, *, stream: bool) -> ChatRequest:
    given = parse_object(body)
    wire = proto(given)
    chat = chat_of(wire, model, stream=stream)
    return msgspec.structs.replace(chat, wire=wire, body=body if wire == given else b"")


def chat_of(wire: Mapping[str, Any], model: str, *, stream: bool) -> ChatRequest:
    """Returns the request of this object, whose names are in camelCase."""
    request: _Request = typed(wire, _Request)
    if not request.contents:
        raise refused("contents", "is required, and must not be empty")
    config = request.generationConfig or _Generation()
    tools, only = _tools(request.tools or ())
    choice, tools = _choice(request.toolConfig, tools)
    return ChatRequest(
        "gemini",
        model,
        (*_system(request.systemInstruction), *messages_of(request.contents)),
        stream,
        sampling=_sampling(config),
        tools=tuple(tools),
        tool_choice=choice,
        response_format=_format(config),
        n=_choices(config),
        profile=SILENT
        if config.thinkingConfig is not None and config.thinkingConfig.includeThoughts is False
        else "",
        reasoning=_reasoning(config.thinkingConfig),
        dialect_only=only or _only_geminis(request, config),
        fields=FIELDS,
    )


def typed(value: Any, kind: type[Any]) -> Any:
    """Converts the object to this type. Raises BadRequest."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise explained(str(error)) from None


# ---- names, as the JSON of Protocol Buffers has them

_AS_THEY_ARE = frozenset(
    {
        "args",
        "response",
        "parameters",
        "parametersJsonSchema",
        "responseSchema",
        "responseJsonSchema",
        "labels",
        "headers",
    }
)
"""Objects whose names are the caller's own, or are checked elsewhere."""
_LISTS = frozenset(
    {
        "contents",
        "parts",
        "tools",
        "functionDeclarations",
        "stopSequences",
        "requests",
        "allowedFunctionNames",
    }
)


def proto(value: Any) -> Any:
    """Returns the value with names in camelCase. Raises BadRequest for a duplicate name.

    https://protobuf.dev/programming-guides/json
    """
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for given, inner in value.items():
            name = _camel(given)
            if name in found:
                raise refused(name, "must be given once")
            if name in _LISTS and isinstance(inner, Mapping | str):
                inner = [inner]
            found[name] = inner if name in _AS_THEY_ARE else proto(inner)
        return found
    return [proto(inner) for inner in value] if isinstance(value, list) else value


def _camel(name: str) -> str:
    if "_" not in name:
        return name
    first, *others = name.strip("_").split("_")
    return first + "".join([word[:1].upper() + word[1:] for word in others])


# ---- the request


def _system(given: GeminiTurn | str | None) -> tuple[Message, ...]:
    if given is None:
        return ()
    parts = (Text(given),) if isinstance(given, str) else content_of(given.parts or (), "systemInstruction")
    return (Message("system", parts),) if parts else ()


def _sampling(config: _Generation) -> Sampling:
    most = config.maxOutputTokens
    return Sampling(
        _bound(most, "maxOutputTokens"),
        config.temperature,
        config.topP,
        tuple(config.stopSequences or ()),
        None if config.seed is None else whole_number(config.seed, "generationConfig.seed"),
        config.frequencyPenalty,
        config.presencePenalty,
        _bound(config.topK, "topK"),
    )


def _bound(value: float | None, name: str) -> int | None:
    if value is None or value <= 0:
        return None
    return whole_number(value, f"generationConfig.{name}")


MAX_CANDIDATES = 8
"""Google's own bound."""


def _choices(config: _Generation) -> int:
    count = config.candidateCount
    if count is None:
        return 1
    found = whole_number(count, "generationConfig.candidateCount")
    if not 1 <= found <= MAX_CANDIDATES:
        raise refused("generationConfig.candidateCount", f"must be from 1 to {MAX_CANDIDATES}")
    return found


def _format(config: _Generation) -> Mapping[str, Any] | None:
    schema = config.responseJsonSchema
    if schema is None and config.responseSchema is not None:
        schema = json_schema(config.responseSchema)
    if schema:
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return {"type": "json_object"} if config.responseMimeType == "application/json" else None


_LEVELS: Mapping[str, Effort] = {
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
}


def _reasoning(thinking: _Thinking | None) -> Reasoning | None:
    if thinking is None:
        return None
    level = _LEVELS.get((thinking.thinkingLevel or "").lower())
    if level is not None:
        return Reasoning(level)
    budget = thinking.thinkingBudget
    if budget is None or budget < 0:
        return None
    if budget == 0:
        return Reasoning("none")
    return Reasoning(budget=whole_number(budget, "generationConfig.thinkingConfig.thinkingBudget"))


# ---- tools


def _tools(tools: Sequence[dict[str, Any]]) -> tuple[list[Tool], str]:
    """Returns the functions, and why only Gemini can handle this request."""
    found: list[Tool] = []
    only = ""
    for index, tool in enumerate(tools):
        others = [
            name for name, value in tool.items() if name != "functionDeclarations" and value is not None
        ]
        if others and not only:
            only = f"tools[{index}]: the tool {others[0]}"
        try:
            declared = msgspec.convert(tool, _Declarations).functionDeclarations or []
        except msgspec.ValidationError as error:
            wrong = explained(str(error))
            raise refused(f"tools[{index}].{wrong.param}", wrong.message.partition(": ")[2]) from None
        for number, declaration in enumerate(declared):
            if not declaration.name:
                raise refused(f"tools[{index}].functionDeclarations[{number}].name", "must not be empty")
            found.append(Tool(declaration.name, declaration.description or "", _parameters(declaration)))
    return found, only


def _parameters(declaration: _Declaration) -> Mapping[str, Any] | None:
    if declaration.parametersJsonSchema is not None:
        return declaration.parametersJsonSchema
    return json_schema(declaration.parameters) if declaration.parameters is not None else None


def _choice(config: _ToolConfig | None, tools: list[Tool]) -> tuple[str | tuple[str, str] | None, list[Tool]]:
    """Returns the tool choice, and the remaining tools: if the model must choose from several, only those."""
    calling = config.functionCallingConfig if config is not None else None
    mode = (calling.mode or "").upper() if calling is not None else ""
    allowed = (calling.allowedFunctionNames or ()) if calling is not None else ()
    if not tools or mode in ("", "MODE_UNSPECIFIED"):
        return None, tools
    if mode == "NONE":
        return "none", tools
    if mode not in ("AUTO", "ANY", "VALIDATED"):
        raise refused("toolConfig.functionCallingConfig.mode", "must be AUTO, ANY, NONE or VALIDATED")
    if allowed and mode != "AUTO":
        tools = [tool for tool in tools if tool.name in allowed]
        if not tools:
            raise refused(
                "toolConfig.functionCallingConfig.allowedFunctionNames", "must name functions of this request"
            )
        if mode == "ANY" and len(allowed) == 1:
            return ("function", allowed[0]), tools
    return ("required" if mode == "ANY" else "auto"), tools


# ---- what only Gemini can do


def _only_geminis(request: _Request, config: _Generation) -> str:
    if request.cachedContent:
        return "cachedContent: content that is cached at Google"
    if others := [kind for kind in config.responseModalities or () if kind.upper() != "TEXT"]:
        return f"generationConfig.responseModalities: an answer in {others[0][:20].lower()}"
    if config.responseMimeType not in (None, "", "text/plain", "application/json"):
        return "generationConfig.responseMimeType: an answer of this type"
    return ""
