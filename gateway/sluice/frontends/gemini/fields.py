"""The fields of generateContent that have other names than in Chat Completions."""

from sluice.model.fields import DialectFields

FIELDS = DialectFields(
    shown={
        "messages": "contents", "stop": "generationConfig.stopSequences", "tool_choice": "toolConfig",
        "response_format": "generationConfig.responseMimeType", "seed": "generationConfig.seed",
        "n": "generationConfig.candidateCount", "logprobs": "generationConfig.responseLogprobs",
        "temperature": "generationConfig.temperature", "top_p": "generationConfig.topP", "top_k": "generationConfig.topK",
        "frequency_penalty": "generationConfig.frequencyPenalty", "presence_penalty": "generationConfig.presencePenalty",
        "reasoning_effort": "generationConfig.thinkingConfig", "thinking": "generationConfig.thinkingConfig",
    },
    written={
        "max_tokens": "generationConfig.maxOutputTokens", "max_completion_tokens": "generationConfig.maxOutputTokens",
        "temperature": "generationConfig.temperature", "top_p": "generationConfig.topP", "top_k": "generationConfig.topK",
        "stop": "generationConfig.stopSequences", "seed": "generationConfig.seed",
        "frequency_penalty": "generationConfig.frequencyPenalty", "presence_penalty": "generationConfig.presencePenalty",
        "reasoning_effort": "generationConfig.thinkingConfig", "reasoning": "generationConfig.thinkingConfig",
        "thinking": "generationConfig.thinkingConfig", "tool_choice": "toolConfig", "response_format": "",
    },
    unlike=frozenset({"metadata", "service_tier", "store", "user"}),
    inner={"generationConfig": {"responseLogprobs": "logprobs"}},
)  # fmt: skip
