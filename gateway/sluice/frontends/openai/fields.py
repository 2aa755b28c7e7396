"""The fields of Chat Completions that the vocabulary has no place for. Features and rules have its names."""

from sluice.model.fields import DialectFields

FIELDS = DialectFields(
    as_named=True,
    features={
        "logprobs": "logprobs", "top_logprobs": "logprobs", "logit_bias": "logit_bias", "user": "user",
        "functions": "functions", "modalities": "audio_answer", "web_search_options": "web_search", "verbosity": "verbosity",
        "prediction": "prediction", "metadata": "metadata", "store": "store", "service_tier": "service_tier",
    },
)  # fmt: skip
