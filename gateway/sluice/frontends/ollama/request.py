"""Parses requests to /api/chat and /api/generate.

Ollama's `options` have names in the vocabulary if other vendors have them. Upstreams that are Ollama
themselves get the caller's own object (`ChatRequest.wire`), except for `keep_alive` and options of the
machine (num_gpu, num_thread …), which are the operator's. `ChatRequest.own` has further options for requests
that are rewritten.

`think` is reasoning: true is medium, false is none. Results of tools name their call by `tool_call_id`, or
(from older clients) by the tool's name alone, or not at all: then they belong to the first call without a
result.

A request to /api/generate becomes a chat if the upstream is not Ollama. What only a model's own template can
do goes to Ollama alone: `suffix`, `template`, `raw` (the caller has applied a template itself), and the
`context` of an earlier answer. Names that Ollama would confuse with others are refused
(`sluice.frontends.checks.check_names`). Standard: https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from sluice.frontends import RequestHead
from sluice.frontends.checks import check_names, explained, refused, whole_number
from sluice.frontends.ollama.errors import ModelLoaded
from sluice.frontends.ollama.fields import FIELDS
from sluice.frontends.open_calls import OpenCalls
from sluice.model.chat import (
    ChatRequest,
    Image,
    Message,
    Part,
    Reasoning,
    Role,
    Sampling,
    Text,
    Thought,
    Tool,
    ToolCall,
)
from sluice.model.rules import Effort
from sluice.wire.dataurl import inline_data, standard_base64
from sluice.wire.jsontext import parse_object

GENERATE = "generate"
"""The `profile` of a request to /api/generate."""

# ---- the types of a request: only the fields that are interpreted


class _Function(msgspec.Struct):
    name: str
    arguments: dict[str, Any] | str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_name: str | None = None
    name: str | None = None
    tool_call_id: str | None = None


class _Definition(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Tool(msgspec.Struct):
    function: _Definition
    type: str | None = None


class _Common(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    think: bool | str | None = None


class _Chat(_Common):
    messages: list[_Message] | None = None
    tools: list[_Tool] | None = None


class _Generate(_Common):
    prompt: str | None = None
    system: str | None = None
    suffix: str | None = None
    template: str | None = None
    raw: bool | None = None
    context: list[Any] | None = None
    images: list[str] | None = None


class _Options(msgspec.Struct):
    """The options of a request that other vendors have, too."""

    num_predict: float | None = None
    temperature: float | None = None
    top_k: float | None = None
    top_p: float | None = None
    seed: float | None = None
    stop: str | list[str] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


_C = TypeVar("_C", bound=_Common)

# Names within `options` are not checked: Ollama compares those exactly.
_NAMES: Mapping[type[_Common], frozenset[str]] = {
    kind: frozenset({*kind.__struct_fields__, "keep_alive"}) for kind in (_Chat, _Generate)
}
_MESSAGE = frozenset(_Message.__struct_fields__)
# Of a call or a tool, together with its `function`.
_CALL = frozenset({*_ToolCall.__struct_fields__, *_Function.__struct_fields__})
_TOOL = frozenset({*_Tool.__struct_fields__, *_Definition.__struct_fields__})

NOT_AT_ALL = (0, "0", "0s", "0m", "0h")
"""Values of `keep_alive` that unload a model."""
OWN = frozenset(
    {
        "num_ctx", "num_keep", "min_p", "tfs_z", "typical_p", "repeat_last_n", "repeat_penalty", "penalize_newline",
        "mirostat", "mirostat_tau", "mirostat_eta", "draft_num_predict",
    }
)  # fmt: skip
"""Further options of a model, not of the machine that it runs on."""


def chat_of(body: bytes, head: RequestHead) -> ChatRequest:
    """Returns the request to /api/chat. Raises BadRequest, whose `param` names the field; Loaded if there are
    no messages."""
    request, wire = _typed(body, _Chat)
    _check_within(wire)
    if not request.messages:
        raise ModelLoaded({**_loaded(request, wire), "message": {"role": "assistant", "content": ""}})
    messages = _messages(request.messages)
    return _request(request, messages, wire, body, tools=_tools(request.tools or ()))


def generate_of(body: bytes, head: RequestHead) -> ChatRequest:
    """Returns the request to /api/generate. Raises BadRequest, whose `param` names the field; Loaded if there
    is no prompt."""
    request, wire = _typed(body, _Generate)
    if not request.prompt and not request.images:
        raise ModelLoaded({**_loaded(request, wire), "response": ""})
    system = (Message("system", (Text(request.system),)),) if request.system else ()
    images = _images(request.images or (), "images")
    text = (Text(request.prompt),) if request.prompt else ()
    only = next((f"{name}: {what}" for name, what in _OLLAMAS.items() if getattr(request, name)), "")
    messages = (*system, Message("user", (*text, *images)))
    return _request(request, messages, wire, body, profile=GENERATE, dialect_only=only)


_OLLAMAS = {
    "suffix": "a text behind the answer (/v1/completions has one, too)",
    "template": "a model's own template",
    "raw": "a prompt without a template",
    "context": "the tokens of an earlier answer (/api/chat takes the messages so far)",
}
"""Fields of /api/generate that other models cannot use, and what they are."""


def _loaded(request: _Common, wire: dict[str, Any]) -> dict[str, Any]:
    unloads = wire.get("keep_alive") in NOT_AT_ALL
    return {"model": request.model or "", "done": True, "done_reason": "unload" if unloads else "load"}


def _typed(body: bytes, kind: type[_C]) -> tuple[_C, dict[str, Any]]:
    """Returns the request, and the object that it was made from."""
    wire = parse_object(body)
    try:
        request = msgspec.convert(wire, kind)
    except msgspec.ValidationError as error:
        raise explained(str(error)) from None
    check_names(wire, _NAMES[kind], "")
    if request.model == "":
        raise refused("model", "must not be empty")
    return request, wire


def _check_within(wire: dict[str, Any]) -> None:
    """Checks the names in messages and tools, whose types have been checked."""
    for index, message in enumerate(wire.get("messages") or ()):
        check_names(message, _MESSAGE, f"messages[{index}].")
        for number, call in enumerate(message.get("tool_calls") or ()):
            at = f"messages[{index}].tool_calls[{number}]."
            check_names(call, _CALL, at)
            check_names(call["function"], _CALL, f"{at}function.")
    for index, tool in enumerate(wire.get("tools") or ()):
        check_names(tool, _TOOL, f"tools[{index}].")
        check_names(tool["function"], _TOOL, f"tools[{index}].function.")


def _request(
    request: _Common,
    messages: Sequence[Message],
    wire: dict[str, Any],
    body: bytes,
    *,
    tools: Sequence[Tool] = (),
    profile: str = "",
    dialect_only: str = "",
) -> ChatRequest:
    options = request.options or {}
    own = {
        name: value for name, value in options.items() if name in OWN and type(value) in (int, float, bool)
    }
    return ChatRequest(
        "ollama",
        request.model,
        tuple(messages),
        request.stream is not False,
        sampling=_sampling(options),
        tools=tuple(tools),
        response_format=_format(request.format),
        profile=profile,
        wire=wire,
        body=body,
        dialect_only=dialect_only,
        reasoning=_reasoning(request.think),
        own={"options": own, "think": request.think},
        fields=FIELDS,
    )


# ---- options


def _sampling(options: Mapping[str, Any]) -> Sampling:
    if not options:
        return Sampling()
    try:
        given = msgspec.convert(options, _Options)
    except msgspec.ValidationError as error:
        wrong = explained(str(error))
        raise refused(f"options.{wrong.param}", wrong.message.partition(": ")[2]) from None
    stop = given.stop or ()
    return Sampling(
        _bound(given.num_predict, "num_predict"),
        given.temperature,
        given.top_p,
        (stop,) if isinstance(stop, str) else tuple(stop),
        None if given.seed is None else whole_number(given.seed, "options.seed"),
        given.frequency_penalty,
        given.presence_penalty,
        _bound(given.top_k, "top_k"),
    )


def _bound(value: float | None, name: str) -> int | None:
    """Returns the number; None if it is 0 or less, which means no bound (num_predict: -1 is endless, -2 fills
    the context)."""
    if value is None or value <= 0:
        return None
    return whole_number(value, f"options.{name}")


_EFFORTS: Mapping[str, Effort] = {"low": "low", "medium": "medium", "high": "high", "max": "max"}


def _reasoning(think: bool | str | None) -> Reasoning | None:
    match think:
        case None | "":
            return None
        case bool():
            return Reasoning("medium" if think else "none")
        case _ if think in _EFFORTS:
            return Reasoning(_EFFORTS[think])
        case _:
            raise refused("think", f"must be true, false, or one of {', '.join(_EFFORTS)}")


def _format(wanted: str | dict[str, Any] | None) -> Mapping[str, Any] | None:
    match wanted:
        case None | "" | {} if not wanted:
            return None
        case "json":
            return {"type": "json_object"}
        case dict():
            return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}
        case _:
            raise refused("format", 'must be "json" or a JSON schema')


def _tools(tools: Sequence[_Tool]) -> list[Tool]:
    found = []
    for index, tool in enumerate(tools):
        function = tool.function
        if not function.name:
            raise refused(f"tools[{index}].function.name", "must not be empty")
        found.append(Tool(function.name, function.description or "", function.parameters))
    return found


# ---- messages


_ROLES: Mapping[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
}  # fmt: skip


def _messages(messages: Sequence[_Message]) -> list[Message]:
    found: list[Message] = []
    waiting = OpenCalls()
    for index, message in enumerate(messages):
        at = f"messages[{index}]"
        role = _ROLES.get(message.role.lower())
        if role is None:
            raise refused(f"{at}.role", f"must be one of {', '.join(_ROLES)}")
        text = message.content or ""
        images = _images(message.images or (), f"{at}.images")
        parts: tuple[Part, ...] = (Text(text), *images) if text or not images else images
        if role == "tool":
            found.append(
                Message(
                    role,
                    parts,
                    tool_call_id=waiting.answered(message.tool_call_id, message.tool_name or message.name),
                )
            )
            continue
        calls = tuple(
            [
                _call(call, f"{at}.tool_calls[{number}]", index, number)
                for number, call in enumerate(_calls(message))
            ]
        )
        thoughts = (Thought(message.thinking),) if message.thinking and role == "assistant" else ()
        if calls:
            waiting.begin(calls)
            parts = parts if text or images else ()
        found.append(Message(role, parts, calls, thoughts=thoughts))
    return found


def _calls(message: _Message) -> Sequence[_ToolCall]:
    return message.tool_calls or () if message.role.lower() == "assistant" else ()


def _call(call: _ToolCall, at: str, index: int, number: int) -> ToolCall:
    """Returns the call. If it has no id, one is made from its position: the same in every request of the
    conversation."""
    function = call.function
    if not function.name:
        raise refused(f"{at}.function.name", "must not be empty")
    given = function.arguments
    arguments = given if isinstance(given, str) else msgspec.json.encode(given or {}).decode()
    return ToolCall(call.id or f"call_{index}_{number}", function.name, arguments or "{}")


_KINDS = (("iVBORw0KGgo", "png"), ("/9j/", "jpeg"), ("R0lGOD", "gif"), ("UklGR", "webp"), ("Qk", "bmp"))
"""The beginnings of images in base64: https://mimesniff.spec.whatwg.org/#matching-an-image-type-pattern"""


def _images(images: Sequence[str], at: str) -> tuple[Image, ...]:
    return tuple([_image(data, f"{at}[{index}]") for index, data in enumerate(images)])


def _image(data: str, at: str) -> Image:
    if data[:5].lower() == "data:" and (inline := inline_data(data)) is not None:
        return Image(f"data:{inline.media_type};base64,{inline.data}")
    encoded = standard_base64(data)
    if not encoded:
        raise refused(at, "must be an image in base64")
    kind = next((kind for start, kind in _KINDS if encoded.startswith(start)), "jpeg")
    return Image(f"data:image/{kind};base64,{encoded}")
