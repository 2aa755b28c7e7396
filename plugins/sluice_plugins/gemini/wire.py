"""Edits the request of a caller of Gemini's own dialect: its JSON object is sent with as few changes as
possible.

What is changed:
  - a kind or level of thinking that the model lacks becomes one that it has; for models that cannot think it is left out;
  - signatures of other vendors, which the gateway wrapped for the caller, are left out, and the first call of a turn without
    a signature gets Google's placeholder if the model requires one (`sluice_plugins.gemini.backend`);
  - the upstream's `safety_settings` are added for categories that the caller does not set; `extra_body` is copied over.
"""

from collections.abc import Mapping
from typing import Any

from sluice.model.chat import ChatRequest
from sluice_plugins.gemini.thinking import generation, thinking_config, thinks

Wire = dict[str, Any]
UNSIGNED = "skip_thought_signature_validator"
"""Google's placeholder: the signature of a call that Gemini did not make, or whose signature was lost."""
WRAPPED = "c2x1aWNlO"
"""The prefix of another vendor's signature in answers for callers of this dialect
(`sluice.frontends.gemini.seals`)."""
_KINDS = ("thinkingBudget", "thinkingLevel")


def with_extra(body: Wire, extra: Mapping[str, Any]) -> Wire:
    """Returns the body with the upstream's `extra_body`; fields of `generationConfig` are merged one by
    one."""
    config = extra.get("generationConfig")
    joined = (
        {"generationConfig": {**(body.get("generationConfig") or {}), **config}}
        if isinstance(config, dict)
        else {}
    )
    return {**body, **extra, **joined}


def edits_of(chat: ChatRequest, wire: Wire, model: str, *, thoughts: bool, safety: Mapping[str, str]) -> Wire:
    """Returns the fields to change, with their new values; None removes a field. `thoughts`: request
    summaries of thoughts if the caller does not say. `safety`: a threshold by category."""
    edits: Wire = {}
    config = wire.get("generationConfig")
    config = config if type(config) is dict else {}
    if thoughts or config.get("thinkingConfig") is not None:
        fitted = _thinking(chat, config.get("thinkingConfig"), model, thoughts=thoughts)
        if fitted != config.get("thinkingConfig"):
            others = {name: value for name, value in config.items() if name != "thinkingConfig"}
            edits["generationConfig"] = others if fitted is None else {**others, "thinkingConfig": fitted}
    newer = generation(model) >= (3, 0)
    if any([message.thoughts or message.tool_calls for message in chat.messages]):
        contents = [_turn(turn, newer=newer) for turn in wire["contents"]]
        if contents != wire["contents"]:
            edits["contents"] = contents
    if safety:
        given = wire.get("safetySettings")
        given = given if type(given) is list else []
        named = {one.get("category") for one in given if type(one) is dict}
        more = [{"category": name, "threshold": level} for name, level in safety.items() if name not in named]
        if more:
            edits["safetySettings"] = [*given, *more]
    if "model" in wire:
        edits["model"] = None
    return edits


def _thinking(chat: ChatRequest, given: Any, model: str, *, thoughts: bool) -> Wire | None:
    """Returns the caller's `thinkingConfig` in a form that the model accepts; unmodified for an unknown
    model."""
    if generation(model) == (0, 0):
        return given  # type: ignore[no-any-return]
    if not thinks(model):
        return None
    found = dict(given) if type(given) is dict else {}
    wish = {name: value for name, value in thinking_config(chat.reasoning, model).items() if name in _KINDS}
    level = found.get("thinkingLevel")
    if wish and not (
        type(level) is str and wish.get("thinkingLevel") == level.lower() and "thinkingBudget" not in found
    ):
        found = {name: value for name, value in found.items() if name not in _KINDS} | wish
    if thoughts:
        found.setdefault("includeThoughts", True)
    return found or None


def _turn(turn: Any, *, newer: bool) -> Any:
    """Returns a turn without other vendors' signatures."""
    parts = turn.get("parts") if type(turn) is dict else None
    if type(parts) is not list or turn.get("role") not in ("model", "assistant"):
        return turn
    found = []
    called = False
    for part in parts:
        if type(part) is dict:
            signature = part.get("thoughtSignature")
            if type(signature) is str and signature.startswith(WRAPPED):
                part = {name: value for name, value in part.items() if name != "thoughtSignature"}
                if part in ({}, {"text": ""}):
                    continue
            if newer and not called and part.get("functionCall") and not part.get("thoughtSignature"):
                part = {**part, "thoughtSignature": UNSIGNED}
            called = called or bool(part.get("functionCall"))
        found.append(part)
    return {**turn, "parts": found}
