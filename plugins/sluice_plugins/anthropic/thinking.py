"""Chooses `thinking` of a request to Anthropic, and the other fields that depend on it. Pure functions.

A caller requests an effort or a budget (`ChatRequest.reasoning`); `extra_body.thinking` of the configuration
overrides it. The model's rules say what it accepts: a budget of tokens, or adaptive thinking with an effort;
an unknown effort becomes the next lower one.

Which of several incompatible fields is left out
(https://platform.claude.com/docs/en/build-with-claude/thinking and .../extended-thinking, feature
compatibility; read on 2026-11-29):
  - `temperature` and `top_k` are left out beside thinking, and so is `top_p` below 0.95;
  - a budget is at least 1,024 tokens and less than `max_tokens`: it is reduced to fit the caller's maximum; if even the
    smallest does not fit, thinking is left out. Without a maximum from the caller, the budget is added to the default;
  - thinking is left out if a tool must be called, if the last message is the assistant's (prefill), and in a tool loop
    whose thinking blocks the caller did not send back: the API refuses these combinations.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sluice.model.chat import ChatRequest, Reasoning
from sluice.model.rules import Effort, ModelRules

SMALLEST = 1024
"""The smallest budget, in tokens."""
BUDGETS: Mapping[str, int] = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 32_768,
}
"""Budget in tokens for each effort, for models with budgets, if the caller set no maximum."""
SHARES: Mapping[str, float] = {
    "minimal": 0.1,
    "low": 0.2,
    "medium": 0.5,
    "high": 0.8,
    "xhigh": 0.8,
    "max": 0.8,
}
"""The largest share of the caller's maximum per effort (OpenRouter's figures): the answer needs the rest."""
LEVELS: Sequence[Effort] = ("minimal", "low", "medium", "high", "xhigh", "max")
LOWEST_TOP_P = 0.95

Block = dict[str, Any]


class ThinkingPlan(msgspec.Struct):
    """`thinking` as sent (None: not sent), `effort` for output_config, and `max_tokens` to match."""

    thinking: Block | None
    effort: Effort
    max_tokens: int


def plan(
    chat: ChatRequest,
    rules: ModelRules,
    configured: Mapping[str, Any],
    turns: Sequence[Block],
    default_max_tokens: int,
) -> ThinkingPlan:
    """Returns the plan for this request. `configured`: the upstream's extra_body; `turns`: the messages to
    send."""
    limit = chat.sampling.max_tokens
    fixed = configured.get("thinking") if configured else None
    if fixed is None is chat.reasoning:  # most calls
        return ThinkingPlan(None, "", limit or _capped(default_max_tokens, rules))
    thinking: Block | None
    effort: Effort = ""
    if isinstance(fixed, dict):
        thinking, share = fixed, SHARES["high"]
    else:
        thinking, effort = _wished(chat.reasoning, rules, limit)
        share = SHARES.get(chat.reasoning.effort if chat.reasoning is not None else "", SHARES["high"])
    if thinks(thinking) and (_must_call(chat) or _is_prefill(turns) or _lacks_blocks(turns)):
        thinking = None
    if thinking is None or thinking.get("type") != "enabled":
        return ThinkingPlan(thinking, effort, limit or _capped(default_max_tokens, rules))
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int):
        return ThinkingPlan(thinking, effort, limit or _capped(default_max_tokens, rules))
    most = limit or _capped(budget + default_max_tokens, rules)
    if budget >= most:
        budget = max(SMALLEST, int(most * share))
        thinking = {**thinking, "budget_tokens": budget} if budget < most else None
    return ThinkingPlan(thinking, effort, most)


def thinks(thinking: Mapping[str, Any] | None) -> bool:
    """Returns whether this value of `thinking` turns thinking on."""
    return thinking is not None and thinking.get("type") in ("enabled", "adaptive")


def _capped(tokens: int, rules: ModelRules) -> int:
    return int(min(tokens, rules.cap.get("max_tokens", tokens)))


def _wished(wish: Reasoning | None, rules: ModelRules, limit: int | None) -> tuple[Block | None, Effort]:
    """Returns the caller's requested reasoning in a form that the model accepts."""
    if wish is None or rules.thinking == "never":
        return None, ""
    if wish.effort == "none":
        if not rules.always_thinks:
            return None, ""
        if rules.thinking_off == "never":
            return None, rules.efforts[0] if rules.efforts else ""
        return {"type": rules.thinking_off}, ""
    level = wish.effort or _level(wish.budget or SMALLEST)
    effort = known_effort(level, rules.efforts)
    if rules.thinking == "adaptive":
        return {"type": "adaptive"}, effort
    budget = max(SMALLEST, wish.budget) if wish.budget is not None else BUDGETS[level]
    if limit is not None and wish.budget is None:
        budget = max(SMALLEST, min(budget, int(limit * SHARES[level])))
    return {"type": "enabled", "budget_tokens": budget}, effort


def _level(budget: int) -> Effort:
    """Returns the lowest effort with at least this budget."""
    return next((level for level in LEVELS if BUDGETS[level] >= budget), "max")


def known_effort(level: Effort, known: Sequence[Effort]) -> Effort:
    """Returns the highest of the model's efforts that is not above `level`, else its lowest; "" if it has
    none."""
    if not known:
        return ""
    below = [effort for effort in known if LEVELS.index(effort) <= LEVELS.index(level)]
    return below[-1] if below else known[0]


def _must_call(chat: ChatRequest) -> bool:
    return bool(chat.tools) and chat.tool_choice not in (None, "auto", "none")


def _is_prefill(turns: Sequence[Block]) -> bool:
    return bool(turns[-1]["role"] == "assistant")


def _lacks_blocks(turns: Sequence[Block]) -> bool:
    """Returns whether the last message has tool results, but the message with their calls has no thinking
    block."""
    if not any(block["type"] == "tool_result" for block in turns[-1]["content"]):
        return False
    calling = turns[-2]["content"] if len(turns) > 1 else []
    return not calling or calling[0]["type"] not in ("thinking", "redacted_thinking")
