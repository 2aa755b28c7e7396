"""Thinking at Anthropic: how a request asks for it, and what else of the request has to fit. Pure.

A caller asks for an effort or a budget (`ChatRequest.reasoning`), a configuration by `extra_body.thinking`, which stands before
the caller's word. What a model understands is a matter of its rules: `thinking` is a budget of tokens, or adaptive with an
effort; efforts that it does not know become the next lower one.

What does not go together, and what gives way (https://platform.claude.com/docs/en/build-with-claude/thinking and
.../extended-thinking, feature compatibility; read on 2026-11-29):
  - `temperature` and `top_k` are left out beside thinking, `top_p` below 0.95, too;
  - a budget is at least 1,024 tokens and less than `max_tokens`: it becomes smaller where the caller's maximum is not more;
    where even the smallest does not fit, there is no thinking. Without a maximum of the caller's, the budget is added;
  - where a tool has to be called, where the assistant's own words are to be continued (prefill), and in a round of a tool loop
    whose thinking blocks have not come back, thinking is left out: the caller asked for the former, and the last is refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sluice.model.chat import ChatRequest, Reasoning
from sluice.model.rules import Effort, ModelRules

SMALLEST = 1024
"""Tokens of the smallest budget."""
BUDGETS: Mapping[str, int] = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 32_768, "max": 32_768}
"""Tokens for an effort, where a model takes a budget and the caller set no maximum."""
SHARES: Mapping[str, float] = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.8, "max": 0.8}
"""The most of the caller's maximum that an effort may take (OpenRouter's figures): some of it is for the answer."""
LEVELS: Sequence[Effort] = ("minimal", "low", "medium", "high", "xhigh", "max")
LOWEST_TOP_P = 0.95

Block = dict[str, Any]


class Plan(msgspec.Struct):
    """`thinking` as it is sent, None where it is not; `effort` for output_config; `max_tokens` that fits it."""

    thinking: Block | None
    effort: Effort
    max_tokens: int


def plan(
    chat: ChatRequest, rules: ModelRules, configured: Mapping[str, Any], turns: Sequence[Block], default_max_tokens: int
) -> Plan:
    """How this request thinks. `configured` is the upstream's extra_body, `turns` are the messages as they are sent."""
    limit = chat.sampling.max_tokens
    fixed = configured.get("thinking") if configured else None
    if fixed is None is chat.reasoning:  # most calls
        return Plan(None, "", limit or _capped(default_max_tokens, rules))
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
        return Plan(thinking, effort, limit or _capped(default_max_tokens, rules))
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int):
        return Plan(thinking, effort, limit or _capped(default_max_tokens, rules))
    most = limit or _capped(budget + default_max_tokens, rules)
    if budget >= most:
        budget = max(SMALLEST, int(most * share))
        thinking = {**thinking, "budget_tokens": budget} if budget < most else None
    return Plan(thinking, effort, most)


def thinks(thinking: Mapping[str, Any] | None) -> bool:
    return thinking is not None and thinking.get("type") in ("enabled", "adaptive")


def _capped(tokens: int, rules: ModelRules) -> int:
    return int(min(tokens, rules.cap.get("max_tokens", tokens)))


def _wished(wish: Reasoning | None, rules: ModelRules, limit: int | None) -> tuple[Block | None, Effort]:
    """What the caller asked for, in the model's terms."""
    if wish is None or rules.thinking == "never":
        return None, ""
    if wish.effort == "none":
        if not rules.always_thinks:
            return None, ""
        if rules.thinking_off == "never":
            return None, rules.efforts[0] if rules.efforts else ""
        return {"type": rules.thinking_off}, ""
    level = wish.effort or _level(wish.budget or SMALLEST)
    effort = _known(level, rules.efforts)
    if rules.thinking == "adaptive":
        return {"type": "adaptive"}, effort
    budget = max(SMALLEST, wish.budget) if wish.budget is not None else BUDGETS[level]
    if limit is not None and wish.budget is None:
        budget = max(SMALLEST, min(budget, int(limit * SHARES[level])))
    return {"type": "enabled", "budget_tokens": budget}, effort


def _level(budget: int) -> Effort:
    """The lowest effort that has this budget."""
    return next((level for level in LEVELS if BUDGETS[level] >= budget), "max")


def _known(level: Effort, known: Sequence[Effort]) -> Effort:
    """The highest effort that the model knows up to this one, else its lowest; "" where it knows none."""
    if not known:
        return ""
    below = [effort for effort in known if LEVELS.index(effort) <= LEVELS.index(level)]
    return below[-1] if below else known[0]


def _must_call(chat: ChatRequest) -> bool:
    return bool(chat.tools) and chat.tool_choice not in (None, "auto", "none")


def _is_prefill(turns: Sequence[Block]) -> bool:
    return bool(turns[-1]["role"] == "assistant")


def _lacks_blocks(turns: Sequence[Block]) -> bool:
    """Whether results of tools come, but not the thinking that the calls began with."""
    if not any(block["type"] == "tool_result" for block in turns[-1]["content"]):
        return False
    calling = turns[-2]["content"] if len(turns) > 1 else []
    return not calling or calling[0]["type"] not in ("thinking", "redacted_thinking")
