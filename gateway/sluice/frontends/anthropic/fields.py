"""The fields of the Messages API that have other names than in Chat Completions."""

from sluice.model.fields import DialectFields

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
)  # fmt: skip
