"""The fields of the Messages API that have other names than in Chat Completions."""

from typing import Any

from sluice.model.fields import DialectFields

THINKING = frozenset({"thinking", "redacted_thinking"})


def unsealed(wire: dict[str, Any]) -> dict[str, Any]:
    """Returns the request without blocks of earlier thinking, and without the messages that were only that."""
    messages = []
    for message in wire["messages"]:
        content = message.get("content")
        if type(content) is list and any([block.get("type") in THINKING for block in content]):
            content = [block for block in content if block.get("type") not in THINKING]
            if not content:
                continue
            message = {**message, "content": content}
        messages.append(message)
    return {**wire, "messages": messages}


FIELDS = DialectFields(
    features={"service_tier": "service_tier"},
    shown={
        "stop": "stop_sequences", "response_format": "output_config.format", "reasoning_effort": "output_config.effort",
        "user": "metadata.user_id", "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    },
    written={
        "max_completion_tokens": "max_tokens", "stop": "stop_sequences", "reasoning_effort": "thinking",
        "reasoning": "thinking", "response_format": "output_config",
    },
    unlike=frozenset({"metadata", "service_tier", "user"}),
    unsealed=unsealed,
)  # fmt: skip
