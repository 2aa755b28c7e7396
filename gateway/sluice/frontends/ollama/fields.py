"""The fields of Ollama's requests that have other names than in Chat Completions."""

from sluice.model.fields import DialectFields

FIELDS = DialectFields(
    shown={
        "response_format": "format", "reasoning_effort": "think", "thinking": "think", "stop": "options.stop",
        "seed": "options.seed", "temperature": "options.temperature", "top_p": "options.top_p", "top_k": "options.top_k",
        "frequency_penalty": "options.frequency_penalty", "presence_penalty": "options.presence_penalty",
    },
    written={
        "max_tokens": "options.num_predict", "max_completion_tokens": "options.num_predict",
        "temperature": "options.temperature", "top_p": "options.top_p", "top_k": "options.top_k", "stop": "options.stop",
        "seed": "options.seed", "frequency_penalty": "options.frequency_penalty",
        "presence_penalty": "options.presence_penalty", "reasoning_effort": "think", "reasoning": "think", "thinking": "think",
        "response_format": "format",
    },
    unlike=frozenset({"logprobs", "top_logprobs"}),
)  # fmt: skip
