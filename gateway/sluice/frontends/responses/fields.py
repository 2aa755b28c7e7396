"""The fields of the Responses API that have other names than in Chat Completions."""

from sluice.model.fields import DialectFields

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
)  # fmt: skip
