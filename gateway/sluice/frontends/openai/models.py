"""`GET /v1/models` and `GET /v1/models/{model}`: the aliases that the caller may use, as OpenAI lists models.

Standard: https://platform.openai.com/docs/api-reference/models,
https://openrouter.ai/docs/api-reference/list-available-models
"""

from typing import Any

import msgspec

from sluice.errors import ModelNotFound
from sluice.frontends import Inquiry, Reply
from sluice.model.facts import NOTHING, Facts

NAMES = {"pdf": "file"}
"""The names of kinds of content in that list."""
_json = msgspec.json.Encoder().encode


async def models(inquiry: Inquiry) -> Reply:
    return Reply(_json({"object": "list", "data": [_model(inquiry, name) for name in inquiry.models]}))


async def model(inquiry: Inquiry) -> Reply:
    """Returns one model. Raises ModelNotFound."""
    name = inquiry.head.parameters["model"]
    if name not in inquiry.models:
        raise ModelNotFound("There is no such model, or this key may not use it", param="model")
    return Reply(_json(_model(inquiry, name)))


def _model(inquiry: Inquiry, name: str) -> dict[str, Any]:
    facts = inquiry.facts(name)
    fields = {"id": name, "object": "model", "created": inquiry.started, "owned_by": "sluice"}
    return fields if facts == NOTHING else fields | _known(facts)


def _known(facts: Facts) -> dict[str, Any]:
    """Returns the known facts under OpenRouter's names, which editors and agents read; SDKs ignore them."""
    fields: dict[str, Any] = {}
    if facts.context:
        fields["context_length"] = facts.context
    if facts.output:
        fields["max_completion_tokens"] = facts.output
    if facts.input:
        fields["architecture"] = {
            "input_modalities": [NAMES.get(kind, kind) for kind in facts.input],
            "output_modalities": [NAMES.get(kind, kind) for kind in facts.answers],
        }
    return fields
