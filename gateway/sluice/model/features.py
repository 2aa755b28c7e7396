"""Features of requests that not every target has: a closed list, and which of them a request uses. Pure.

A backend declares the features that it can express when it translates a request (`takes`, a class variable).
This matters only if caller and upstream speak different dialects; if they speak the same, everything passes
through.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from sluice.model.chat import ChatRequest, Image, Message, Other, Part, Text
from sluice.model.fields import DialectFields

Weight = Literal["content", "answer", "preference"]
"""How much it matters when a feature is missing. "content": the question would be a different one. "answer":
the answer would differ from the one that was requested. "preference": the answer is acceptable all the
same."""


class Feature(msgspec.Struct, frozen=True):
    """`param`: its field in OpenAI's Chat Completions. `title`: a few words for people, as in "cannot be
    given …"."""

    name: str
    param: str
    weight: Weight
    title: str


FEATURES: Mapping[str, Feature] = {
    feature.name: feature
    for feature in (
        Feature("image_url", "messages", "content", "images by URL"),
        Feature("image_data", "messages", "content", "images in the request"),
        Feature("file_data", "messages", "content", "files in the request"),
        Feature("file_url", "messages", "content", "files by URL"),
        Feature("file_id", "messages", "content", "files by a vendor's id"),
        Feature("input_audio", "messages", "content", "audio"),
        Feature("video", "messages", "content", "video"),
        Feature("tool_images", "messages", "content", "images in tools' results"),
        Feature("tools", "tools", "content", "tools"),
        Feature("functions", "functions", "content", "functions as before tools (`functions`)"),
        Feature("tool_choice_required", "tool_choice", "answer", "some tool, forced"),
        Feature("tool_choice_named", "tool_choice", "answer", "a certain tool, forced"),
        Feature("json_object", "response_format", "answer", "JSON without a schema"),
        Feature("json_schema", "response_format", "answer", "JSON by a schema"),
        Feature("logprobs", "logprobs", "answer", "log probabilities"),
        Feature("n", "n", "answer", "several choices"),
        Feature("audio_answer", "modalities", "answer", "spoken answers"),
        Feature("web_search", "web_search_options", "answer", "web search (`web_search_options`)"),
        Feature("parallel_tool_calls", "parallel_tool_calls", "preference", "one tool call at a time"),
        Feature("stop", "stop", "preference", "stop sequences"),
        Feature("seed", "seed", "preference", "seed"),
        Feature("temperature", "temperature", "preference", "temperature"),
        Feature("top_p", "top_p", "preference", "top_p"),
        Feature("top_k", "top_k", "preference", "top_k"),
        Feature("frequency_penalty", "frequency_penalty", "preference", "frequency penalty"),
        Feature("presence_penalty", "presence_penalty", "preference", "presence penalty"),
        Feature("logit_bias", "logit_bias", "preference", "logit bias"),
        Feature("reasoning_effort", "reasoning_effort", "preference", "an effort of reasoning"),
        Feature("reasoning_budget", "thinking", "preference", "a budget of reasoning"),
        Feature("cache_control", "cache_control", "preference", "cache markers"),
        Feature("user", "user", "preference", "the user's name"),
        Feature("verbosity", "verbosity", "preference", "verbosity"),
        Feature("prediction", "prediction", "preference", "predicted output"),
        Feature("metadata", "metadata", "preference", "metadata"),
        Feature("store", "store", "preference", "storing at the vendor"),
        Feature("service_tier", "service_tier", "preference", "service tier"),
    )
}
EVERYTHING = frozenset(FEATURES)
SAMPLING = (
    "stop", "seed", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty",
)  # fmt: skip
_NO_SAMPLING = ChatRequest("", None, ()).sampling
_IMPLIED: Mapping[str, tuple[Any, ...]] = {
    "logprobs": (False, 0), "logit_bias": ({},), "metadata": ({},), "store": (False,),
    "service_tier": ("auto", "default"), "audio_answer": (["text"], []), "verbosity": ("medium",), "functions": ([],),
}  # fmt: skip
"""By feature: values of its field that have no effect."""


class Use(msgspec.Struct, frozen=True):
    """A feature that a request uses. `param`: its field as the caller wrote it. `field`: the same in Chat
    Completions."""

    feature: Feature
    param: str
    field: str


def uses_of(chat: ChatRequest) -> list[Use]:
    """Returns the features that a request uses, each once, in any order."""
    names = chat.fields.shown
    found: dict[str, Use] = {}
    for name, field, at in _used(chat):
        if name not in found:
            feature = FEATURES[name]
            field = field or feature.param
            found[name] = Use(feature, names.get(field, field) + at, field)
    return list(found.values())


Used = Iterator[tuple[str, str, str]]
"""A feature's name, its field ("": the feature's own), and the place within that."""


def _used(chat: ChatRequest) -> Used:
    for index, message in enumerate(chat.messages):
        parts = message.parts
        if (
            len(parts) != 1 or type(first := parts[0]) is not Text or first.cache is not None
        ):  # most are one text
            yield from _in_message(message, index, exact=chat.fields.as_named)
    yield from _of_tools(chat)
    match chat.response_format:
        case {"type": "json_object" | "json_schema" as kind}:
            yield kind, "", ""
    sampling = chat.sampling
    for name in SAMPLING if sampling is not _NO_SAMPLING else ():
        if (value := getattr(sampling, name)) is not None and value != ():
            yield name, "", ""
    if chat.n > 1:
        yield "n", "", ""
    if chat.reasoning is not None and (chat.reasoning.effort or chat.reasoning.budget is not None):
        yield ("reasoning_effort" if chat.reasoning.effort else "reasoning_budget"), "", ""
    if chat.cache is not None:
        yield "cache_control", "", ""
    if chat.user:
        yield "user", "", ""
    if chat.wire is not None:
        yield from _in_object(chat.wire, chat.fields)


def _in_message(message: Message, index: int, *, exact: bool) -> Used:
    """`exact`: messages and parts stand where the caller wrote them."""
    for number, part in enumerate(message.parts):
        at = f"[{index}].content[{number}]" if exact else ""
        cache = part.wire.get("cache_control") if isinstance(part, Other) else part.cache
        if cache is not None:
            yield "cache_control", "", ""
        if (name := _of_part(part)) is not None:
            yield name, "", at
            if message.role == "tool" and name.startswith("image"):
                yield "tool_images", "", at


def _of_part(part: Part) -> str | None:
    """Returns the feature of a part; None for text, and for types that are not in the list: backends refuse
    these by type."""
    match part:
        case Image(url=url):
            return "image_url" if _is_http(url) else "image_data" if url[:5].lower() == "data:" else None
        case Other(type="file", wire={"file": {"file_data": str(data)}}) if data:
            return "file_url" if _is_http(data) else "file_data"
        case Other(type="file", wire={"file": {"file_id": str(id)}}) if not id.startswith(
            ("http:", "https:", "gs:", "s3:")
        ):
            return "file_id"
        case Other(type="input_audio"):
            return "input_audio"
        case Other(type="video_url"):
            return "video"
        case _:
            return None


def _is_http(url: str) -> bool:
    return url[:8].lower().startswith(("http://", "https://"))


def _of_tools(chat: ChatRequest) -> Used:
    if not chat.tools:
        return
    yield "tools", "", ""
    if any(tool.cache is not None for tool in chat.tools):
        yield "cache_control", "", ""
    if chat.parallel_tool_calls is False:
        yield "parallel_tool_calls", "", ""
    match chat.tool_choice:
        case "required":
            yield "tool_choice_required", "", ""
        case (_, _):
            yield "tool_choice_named", "", ""


def _in_object(wire: Mapping[str, Any], fields: DialectFields) -> Used:
    known, inner = fields.features, fields.inner
    if not wire.keys().isdisjoint(known):
        for name, feature in known.items():
            if _asks_for(feature, wire.get(name)):
                yield feature, name, ""
    if not wire.keys().isdisjoint(inner):
        for outer, names in inner.items():
            held = wire.get(outer)
            for name, feature in names.items():
                if isinstance(held, dict) and _asks_for(feature, held.get(name)):
                    yield feature, "", ""


def _asks_for(feature: str, value: Any) -> bool:
    return value is not None and value not in _IMPLIED.get(feature, ())
