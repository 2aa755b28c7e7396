"""Reasoning in OpenAI's dialect, which has no field for it: the names that other vendors and gateways use.

Callers request it with `reasoning_effort` (OpenAI), `reasoning: {effort, max_tokens, enabled}` (OpenRouter),
or `thinking: {type, budget_tokens}` (Anthropic's own, as LiteLLM accepts it). An assistant's message has it,
in answers and in the requests that send them back, as `thinking_blocks` (LiteLLM: Anthropic's blocks
unchanged), `reasoning_details` (OpenRouter), and as text in `reasoning_content` or `reasoning`. Sources, read
on 2026-11-29: https://openrouter.ai/docs/guides/best-practices/reasoning-tokens and
https://docs.litellm.ai/docs/reasoning_content.
"""

from collections.abc import Sequence
from typing import Any

from sluice.model.chat import Reasoning, Thought
from sluice.model.events import ReasoningBlock
from sluice.model.rules import Effort

THINKING = ("thinking", "redacted_thinking")
"""Types of Anthropic's blocks."""
FORMAT = "anthropic-claude-v1"
"""OpenRouter's types of blocks that Anthropic has sealed."""
MAX_BLOCKS = 256
"""Maximum blocks per message that are read."""

_EFFORTS: dict[str, Effort] = {
    "none": "none", "off": "none", "disabled": "none", "minimal": "minimal", "low": "low", "medium": "medium",
    "high": "high", "xhigh": "xhigh", "max": "max", "ultra": "max",
}  # fmt: skip


def reasoning_of(effort: str | None, reasoning: Any, thinking: Any) -> Reasoning | None:
    """Returns the reasoning that a caller requested; None if there is none, or an unknown one."""
    if effort is not None and (known := _EFFORTS.get(effort)):
        return Reasoning(known)
    match reasoning:
        case {"enabled": False} | {"effort": "none"}:
            return Reasoning("none")
        case {"max_tokens": int(budget)} if budget > 0:
            return Reasoning(budget=budget)
        case {"effort": str(word)} if known := _EFFORTS.get(word):
            return Reasoning(known)
        case {"enabled": True}:
            return Reasoning("medium")
    match thinking:
        case {"type": "disabled"}:
            return Reasoning("none")
        case {"type": "enabled", "budget_tokens": int(budget)} if budget > 0:
            return Reasoning(budget=budget)
        case {"type": "enabled" | "adaptive"}:
            return Reasoning("high")
    return None


def thoughts_of(blocks: Any, details: Any, text: Any) -> tuple[Thought, ...]:
    """Returns an assistant's thoughts from the first of these fields that has any. Entries of another form
    are ignored.
    """
    found = [thought for block in _entries(blocks) if (thought := _of_block(block))]
    if not found:
        found = _of_details(_entries(details))
    if not found and isinstance(text, str) and text:
        found = [Thought(text)]
    return tuple(found)


def _entries(given: Any) -> Sequence[Any]:
    return given[:MAX_BLOCKS] if isinstance(given, list) else ()


def _of_block(block: Any) -> Thought | None:
    match block:
        case {"type": "thinking", "thinking": str(text), "signature": str(signature)} if text or signature:
            return Thought(text, signature)
        case {"type": "thinking", "thinking": str(text)} if text:
            return Thought(text)
        case {"type": "redacted_thinking", "data": str(data)} if data:
            return Thought(redacted=data)
        case _:
            return None


def _of_details(details: Sequence[Any]) -> list[Thought]:
    """Parses OpenRouter's entries: a block may be split into pieces with one index, and its signature is in
    the last of them. Seals of other vendors (`format`) are left out, because only the vendor that made
    them can read them."""
    found: list[Thought] = []
    latest: Any = None
    for detail in details:
        if not isinstance(detail, dict):
            continue
        ours = detail.get("format") in (None, FORMAT)
        match detail:
            case {"type": "reasoning.encrypted", "data": str(data)} if data and ours:
                found.append(Thought(redacted=data))
                latest = None
            case {"type": "reasoning.text" | "reasoning.summary"}:
                piece = _text(detail.get("text")) or _text(detail.get("summary"))
                signature = _text(detail.get("signature")) if ours else ""
                index = detail.get("index")
                if found and latest is not None and index == latest and not found[-1].signature:
                    found[-1] = Thought(found[-1].text + piece, signature)
                elif piece or signature:
                    found.append(Thought(piece, signature))
                latest = index
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def thinking_blocks(blocks: Sequence[ReasoningBlock], *, indexed: bool) -> list[dict[str, Any]]:
    """Returns LiteLLM's `thinking_blocks`. `indexed`: they are part of a delta, whose lists OpenAI's SDK
    joins by their entries' index."""
    fields = []
    for block in blocks:
        if block.redacted:
            entry: dict[str, Any] = {"type": "redacted_thinking", "data": block.redacted}
        else:
            entry = {"type": "thinking", "thinking": block.text, "signature": block.signature}
        fields.append({"index": block.index, **entry} if indexed else entry)
    return fields


def reasoning_details(blocks: Sequence[ReasoningBlock]) -> list[dict[str, Any]]:
    """Returns OpenRouter's `reasoning_details`."""
    fields: list[dict[str, Any]] = []
    for block in blocks:
        if block.redacted:
            entry = {"type": "reasoning.encrypted", "data": block.redacted}
        else:
            entry = {"type": "reasoning.text", "text": block.text, "signature": block.signature}
        fields.append({**entry, "format": FORMAT, "index": block.index})
    return fields
