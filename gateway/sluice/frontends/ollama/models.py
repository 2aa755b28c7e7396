"""Lists of models for Ollama's clients: the aliases that the caller may use, shown as loaded and without a
size.

`version` is that of the API that is implemented here: editors refuse servers whose version is too old for
tools. Standard: https://github.com/ollama/ollama/blob/main/docs/api.md, read at 2026-11-29
"""

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from sluice.errors import BadRequest, ModelNotFound
from sluice.frontends import Inquiry, Reply

VERSION = "0.17.0"
LATEST = ":latest"
SUCCESS = "success"
NEVER = "2318-01-01T00:00:00Z"
"""The time at which a model is unloaded that is never unloaded."""
CAPABILITIES = ("completion", "tools", "vision")
DETAILS = {
    "parent_model": "",
    "format": "",
    "family": "",
    "families": [],
    "parameter_size": "",
    "quantization_level": "",
}
_json = msgspec.json.Encoder().encode


async def tags(inquiry: Inquiry) -> Reply:
    return Reply(
        _json({"models": [{**_model(name), "modified_at": _started(inquiry)} for name in inquiry.models]})
    )


async def running(inquiry: Inquiry) -> Reply:
    more = {"expires_at": NEVER, "size_vram": 0}
    return Reply(_json({"models": [_model(name) | more for name in inquiry.models]}))


async def show(inquiry: Inquiry) -> Reply:
    """Raises BadRequest, ModelNotFound."""
    name = _named(await inquiry.json(), inquiry)
    facts = inquiry.facts(name if name in inquiry.models else other_name(name))
    info: dict[str, Any] = {"general.architecture": "sluice", "general.basename": name}
    if facts.context:
        info["sluice.context_length"] = facts.context
    blind = facts.input and "image" not in facts.input
    capabilities = [one for one in CAPABILITIES if one != "vision" or not blind]
    fields: dict[str, Any] = {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": DETAILS,
        "model_info": info,
    }
    return Reply(_json({**fields, "capabilities": capabilities, "modified_at": _started(inquiry)}))


async def pull(inquiry: Inquiry) -> Reply:
    """Answers as Ollama does for a model that is already there: Spring AI, LangChain4j and others pull a
    model before they use it. Raises BadRequest, ModelNotFound."""
    body = await inquiry.json()
    _named(body, inquiry)
    if body.get("stream") is False:
        return Reply(_json({"status": SUCCESS}))
    lines = [_json({"status": status}) + b"\n" for status in ("pulling manifest", SUCCESS)]
    return Reply(b"".join(lines), content_type="application/x-ndjson")


def _named(body: dict[str, Any], inquiry: Inquiry) -> str:
    name = body.get("model") or body.get("name")
    if not isinstance(name, str):
        raise BadRequest("model: is required", param="model")
    if {name, other_name(name)}.isdisjoint(inquiry.models):
        raise ModelNotFound("There is no such model, or this key may not use it", param="model")
    return name


async def version(inquiry: Inquiry) -> Reply:
    return Reply(_json({"version": VERSION}))


def other_name(model: str) -> str:
    """Returns the name without the default tag "latest": "chat" and "chat:latest" are the same."""
    return model.removesuffix(LATEST) if model.endswith(LATEST) else model + LATEST


def _model(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "model": name,
        "size": 0,
        "digest": sha256(name.encode()).hexdigest(),
        "details": DETAILS,
    }


def _started(inquiry: Inquiry) -> str:
    return time_of(inquiry.started)


def time_of(seconds: float) -> str:
    """Formats a time since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
