"""Sets the thinking of a Gemini model: a budget of tokens for Gemini 2.5, a level from Gemini 3 on. Earlier
models do not think.

Read on 2026-11-29:
  - https://ai.google.dev/gemini-api/docs/thinking: budgets of 2.5 Pro (128 to 32768, never none), 2.5 Flash (0 to 24576) and
    2.5 Flash-Lite (0, or 512 to 24576);
  - https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/thinking and
    https://ai.google.dev/gemini-api/docs/generate-content/latest-model: levels. All models have low and high;
    3 Pro has nothing between. Flash and Flash-Lite have minimal from 3 to 3.6; 3.7 and 3.8 Flash, Gemini 4
    and all Pro models do not have it. No model has xhigh yet, though the SDKs define it.
"""

import re
from collections.abc import Mapping
from typing import Any

from sluice.model.chat import Reasoning

BUDGETS: Mapping[str, int] = {
    "none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 24_576, "max": 24_576,
}  # fmt: skip
"""Tokens for an effort, as Google's own OpenAI endpoint takes them
(https://ai.google.dev/gemini-api/docs/openai#thinking)."""
_LEVELS = {"none": "minimal", "xhigh": "high", "max": "high"}
LAST_MINIMAL = (3, 6)
"""The newest generation that has the level minimal."""
_LOW, _MEDIUM = 2048, 12_288
"""The largest budgets, in tokens, that become the level low, and medium."""
_GENERATION = re.compile(r"gemini-(\d{1,3})(?:\.(\d{1,3}))?").search


def generation(model: str) -> tuple[int, int]:
    """Returns the generation of a Gemini model, (2, 5) for gemini-2.5-pro; (0, 0) for other models."""
    found = _GENERATION(model)
    return (int(found[1]), int(found[2] or 0)) if found is not None else (0, 0)


def thinks(model: str) -> bool:
    """Returns whether the model takes options of thinking."""
    return generation(model) >= (2, 5) and not ("image" in model or "embedding" in model or "tts" in model)


def thinking_config(wish: Reasoning | None, model: str, *, thoughts: bool = False) -> dict[str, Any]:
    """Returns `thinkingConfig` for the requested reasoning. Models that always think get the lowest value."""
    if not thinks(model):
        return {}
    if wish is None or not (wish.effort or wish.budget is not None):
        return {"includeThoughts": True} if thoughts else {}
    shown = {"includeThoughts": True} if thoughts or (wish.effort != "none" and wish.budget != 0) else {}
    if generation(model) < (3, 0):
        return {"thinkingBudget": _budget(wish, model), **shown}
    return {"thinkingLevel": _level(wish, model), **shown}


def _budget(wish: Reasoning, model: str) -> int:
    budget = BUDGETS[wish.effort] if wish.effort else wish.budget or 0
    if "pro" in model:
        return min(max(budget, 128), 32_768)
    if "lite" in model and budget > 0:
        budget = max(budget, 512)
    return min(budget, 24_576)


def _level(wish: Reasoning, model: str) -> str:
    """Returns the model's level for the requested effort or budget."""
    level = _LEVELS.get(wish.effort, wish.effort)
    if not level:
        budget = wish.budget or 0
        level = (
            "minimal"
            if not budget
            else "low"
            if budget <= _LOW
            else "medium"
            if budget <= _MEDIUM
            else "high"
        )
    of = generation(model)
    if level == "minimal" and ("flash" not in model or of > LAST_MINIMAL):
        return "low"
    return "high" if level == "medium" and of == (3, 0) and "pro" in model else level
