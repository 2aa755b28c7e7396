"""Options that Converse has no field for: each family of models has its own form of them in
`additionalModelRequestFields`. Pure functions.

Claude takes Anthropic's fields: `thinking` and `output_config` (chosen by
`sluice_plugins.anthropic.thinking`), `top_k`, `anthropic_beta`, and `tool_choice` for choices that Converse
lacks. Nova 2 takes an effort, and with the highest effort neither sampling options nor a maximum; OpenAI's
models take `reasoning_effort` (gpt-oss) or `reasoning`.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html
https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sluice.model.chat import ChatRequest, Reasoning
from sluice.model.rules import ModelRules
from sluice_plugins.anthropic.thinking import BUDGETS, LEVELS, LOWEST_TOP_P, plan, thinks
from sluice_plugins.bedrock.media import Block

CLAUDE = re.compile(r"claude").search
NOVA = re.compile(r"\bnova-").search
NOVA_2 = re.compile(r"\bnova-[2-9]").search
GPT_OSS = re.compile(r"\bgpt-oss").search
OPENAI = re.compile(r"(?:^|[./])openai\.").search
_OTHERS = re.compile(
    r"\b(?:llama|mi[sx]tral|pixtral|ministral|titan|deepseek|qwen|gpt|cohere|command|jamba|palmyra|kimi|minimax|gemma|glm|nemotron)"
).search
DEFAULT_MAX_TOKENS = 4096
"""Tokens for the answer, added to a thinking budget, if the caller set no maximum."""


def takes_cache_points(model: str) -> bool:
    """Returns whether the model may support prompt caching by cache points. The ARN of an inference profile
    does not tell the model, so it may.

    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    return _OTHERS(model) is None


class Fields(msgspec.Struct):
    """`inference` becomes inferenceConfig, `additional` becomes additionalModelRequestFields."""

    inference: Block
    additional: Block


def fields_of(
    chat: ChatRequest, model: str, rules: ModelRules, extra: Mapping[str, Any], turns: Sequence[Block]
) -> Fields:
    """Returns the options of length, sampling and reasoning. `extra`: the configured
    additionalModelRequestFields."""
    sampling = chat.sampling
    stops = [stop for stop in sampling.stop if stop.strip() or rules.blank_stops]
    temperature = None if sampling.temperature is None else min(sampling.temperature, 1.0)
    inference = {"maxTokens": sampling.max_tokens, "temperature": temperature, "topP": sampling.top_p,
                 "stopSequences": stops or None}  # fmt: skip
    additional: Block = {}
    if CLAUDE(model):
        _claude(chat, rules, extra, turns, Fields(inference, additional))
    elif NOVA(model):
        _nova(chat, model, Fields(inference, additional))
    else:
        _others(chat, model, additional)
    return Fields({name: value for name, value in inference.items() if value is not None}, additional)


def _claude(
    chat: ChatRequest, rules: ModelRules, extra: Mapping[str, Any], turns: Sequence[Block], fields: Fields
) -> None:
    """Sets Anthropic's own fields for Claude: thinking, effort, and the fields that depend on them."""
    planned = plan(chat, rules, extra, [_outline(turn) for turn in turns[-2:]], DEFAULT_MAX_TOKENS)
    thinking = thinks(planned.thinking)
    inference, additional = fields.inference, fields.additional
    if planned.thinking is not None:
        additional["thinking"] = planned.thinking
    if chat.sampling.max_tokens is not None or (thinking and "budget_tokens" in (planned.thinking or {})):
        inference["maxTokens"] = planned.max_tokens
    if planned.effort:
        additional["output_config"] = {"effort": planned.effort}
    if thinking:
        inference["temperature"] = None
        if inference["topP"] is not None and inference["topP"] < LOWEST_TOP_P:
            inference["topP"] = None
    elif chat.sampling.top_k is not None:
        additional["top_k"] = chat.sampling.top_k


def _outline(turn: Block) -> Block:
    """Returns what the choice of Claude's thinking needs of a turn: its role and the types of its blocks."""
    types = {"reasoningContent": "thinking", "toolResult": "tool_result", "toolUse": "tool_use"}
    blocks = [next((types[name] for name in block if name in types), "text") for block in turn["content"]]
    return {"role": turn["role"], "content": [{"type": kind} for kind in blocks]}


def _nova(chat: ChatRequest, model: str, fields: Fields) -> None:
    effort = _effort(chat.reasoning) if NOVA_2(model) else ""
    if effort == "none":
        fields.additional["reasoningConfig"] = {"type": "disabled"}
    elif effort:
        fields.additional["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": effort}
    if effort == "high":
        fields.inference.update({"maxTokens": None, "temperature": None, "topP": None})
    elif chat.sampling.top_k is not None:
        fields.additional["inferenceConfig"] = {"topK": chat.sampling.top_k}


def _others(chat: ChatRequest, model: str, additional: Block) -> None:
    if chat.sampling.top_k is not None:
        additional["k" if "cohere." in model else "top_k"] = chat.sampling.top_k
    effort = _effort(chat.reasoning)
    if effort and GPT_OSS(model):
        additional["reasoning_effort"] = "low" if effort == "none" else effort
    elif effort and OPENAI(model):
        additional["reasoning"] = {"effort": effort}


_SCALE: Mapping[str, str] = {
    "none": "none", "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high",
}  # fmt: skip


def _effort(wish: Reasoning | None) -> str:
    """Returns none, low, medium or high; "" if the request has no reasoning. A budget becomes the lowest
    effort that allows as many tokens."""
    if wish is None or wish.effort:
        return _SCALE.get(wish.effort if wish is not None else "", "")
    if not wish.budget:
        return "" if wish.budget is None else "none"
    return _SCALE[next((level for level in LEVELS if BUDGETS[level] >= wish.budget), "max")]
