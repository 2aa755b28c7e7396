"""The fields of Chat Completions that the vocabulary lacks. Features and rules use its names."""

from typing import Any

from sluice.model.fields import DialectFields

SEALED = frozenset({"thinking_blocks", "reasoning_details"})
"""Fields of messages that carry providers' seals."""
THINKING = frozenset({"thinking", "redacted_thinking"})
"""Types of content parts that carry them."""


def unsealed(wire: dict[str, Any]) -> dict[str, Any]:
    """Returns the request without the sealed reasoning of the assistant's messages."""
    return {**wire, "messages": [_unsealed(message) for message in wire["messages"]]}


def _unsealed(message: dict[str, Any]) -> dict[str, Any]:
    if message.get("role") != "assistant":
        return message
    kept = {name: value for name, value in message.items() if name not in SEALED}
    if type(content := kept.get("content")) is list:
        kept["content"] = [part for part in content if part.get("type") not in THINKING] or None
    return kept


FIELDS = DialectFields(
    as_named=True,
    features={
        "logprobs": "logprobs", "top_logprobs": "logprobs", "logit_bias": "logit_bias", "user": "user",
        "functions": "functions", "modalities": "audio_answer", "web_search_options": "web_search", "verbosity": "verbosity",
        "prediction": "prediction", "metadata": "metadata", "store": "store", "service_tier": "service_tier",
    },
    unsealed=unsealed,
)  # fmt: skip
