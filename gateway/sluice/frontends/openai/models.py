"""`GET /v1/models` and `GET /v1/models/{model}`: the aliases that the caller may use, as OpenAI lists models.

Standard: https://platform.openai.com/docs/api-reference/models
"""

from typing import Any

import msgspec

from sluice.errors import ModelNotFound
from sluice.frontends import Inquiry, Reply

_json = msgspec.json.Encoder().encode


async def models(inquiry: Inquiry) -> Reply:
    return Reply(_json({"object": "list", "data": [_model(inquiry, name) for name in inquiry.models]}))


async def model(inquiry: Inquiry) -> Reply:
    """Raises ModelNotFound."""
    name = inquiry.head.parameters["model"]
    if name not in inquiry.models:
        raise ModelNotFound("There is no such model, or this key may not use it", param="model")
    return Reply(_json(_model(inquiry, name)))


def _model(inquiry: Inquiry, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": inquiry.started, "owned_by": "sluice"}
