"""The fields of the Responses API that have other names than in Chat Completions."""

from typing import Any

from sluice.model.fields import DialectFields

LED_TO = frozenset({"message", "function_call", "custom_tool_call"})
"""Items that follow from the reasoning before them: if such an item has an id, the API requires that
reasoning too."""


def unsealed(wire: dict[str, Any]) -> dict[str, Any]:
    """Returns the request without reasoning items, and without the ids of the items that follow from them."""
    if type(items := wire.get("input")) is not list:
        return wire
    kept = []
    for item in items:
        if type(item) is dict and item.get("type") == "reasoning":
            continue
        if type(item) is dict and item.get("type") in LED_TO and "id" in item:
            item = {name: value for name, value in item.items() if name != "id"}
        kept.append(item)
    return {**wire, "input": kept}


FIELDS = DialectFields(
    features={"top_logprobs": "logprobs", "metadata": "metadata", "service_tier": "service_tier"},
    inner={"text": {"verbosity": "verbosity"}},
    shown={
        "messages": "input", "response_format": "text.format", "reasoning_effort": "reasoning.effort",
        "verbosity": "text.verbosity", "logprobs": "top_logprobs",
    },
    written={
        "max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens", "reasoning_effort": "reasoning",
        "thinking": "reasoning", "response_format": "text",
    },
    effort="reasoning.effort",
    unsealed=unsealed,
)  # fmt: skip
