"""`GET /v1beta/models` and `/v1beta/models/{model}`: the aliases that the caller may use, as Google lists
models; methods of models that are not served.

Standard: https://ai.google.dev/api/models
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from sluice.errors import BadRequest, ModelNotFound, NotFound
from sluice.frontends import Inquiry, Reply

PAGE = 50
MAX_PAGE = 1000
METHODS = ("generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents")
GOOGLE = "google"
Answering = Callable[[Inquiry], Awaitable[Reply]]
_json = msgspec.json.Encoder().encode


async def models(inquiry: Inquiry) -> Reply:
    """Lists models. Raises BadRequest for an invalid page."""
    names, more = _page(inquiry)
    return Reply(_json({"models": [_model(inquiry, name) for name in names], **more}))


async def model(inquiry: Inquiry) -> Reply:
    """Returns one model. Raises ModelNotFound."""
    name = inquiry.head.parameters["model"]
    if name not in inquiry.models:
        raise ModelNotFound("There is no such model, or this key may not use it", param="model")
    return Reply(_json(_model(inquiry, name)))


async def publisher_models(inquiry: Inquiry) -> Reply:
    """Lists models as Vertex AI does. Raises BadRequest for an invalid page."""
    names, more = _page(inquiry)
    return Reply(_json({"publisherModels": [_publisher_model(name) for name in names], **more}))


async def publisher_model(inquiry: Inquiry) -> Reply:
    """Returns one model as Vertex AI does. Raises ModelNotFound."""
    name = published_name(inquiry.head.parameters)
    if name not in inquiry.models:
        raise ModelNotFound("There is no such model, or this key may not use it", param="model")
    return Reply(_json(_publisher_model(name)))


def published_name(parameters: Mapping[str, str]) -> str:
    """Returns the alias that a path of Vertex AI names: an SDK takes the part before the first slash of a
    model's name for its publisher."""
    publisher, model = parameters["publisher"], parameters["model"]
    return model if publisher == GOOGLE else f"{publisher}/{model}"


async def no_method(inquiry: Inquiry) -> Reply:
    """Refuses a method of a model that the gateway does not have (predict, batchGenerateContent …). Raises
    NotFound."""
    _, colon, method = inquiry.head.parameters["model"].rpartition(":")
    what = f"no method {method} of" if colon and method.isidentifier() and len(method) < 64 else "no POST to"
    raise NotFound(f"There is {what} models here. Served are {', '.join(METHODS)}")


def _page(inquiry: Inquiry) -> tuple[Sequence[str], dict[str, str]]:
    """Returns the names on the requested page, and the fields by which the next one is found."""
    query = inquiry.head.query
    size = min(MAX_PAGE, _number(query, "pageSize", "page_size") or PAGE)
    start = _number(query, "pageToken", "page_token")
    names = inquiry.models
    more = {"nextPageToken": str(start + size)} if start + size < len(names) else {}
    return names[start : start + size], more


def _number(query: Any, *names: str) -> int:
    given = next((query[name] for name in names if query.get(name)), "0")
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise BadRequest(f"{names[0]}: must be a number that this list has told", param=names[0])
    return int(given)


def _model(inquiry: Inquiry, name: str) -> dict[str, Any]:
    facts = inquiry.facts(name)
    fields: dict[str, Any] = {
        "name": f"models/{name}",
        "baseModelId": name,
        "version": "001",
        "displayName": name,
    }
    if facts.context:
        fields["inputTokenLimit"] = facts.context
    if facts.output:
        fields["outputTokenLimit"] = facts.output
    return {**fields, "description": "An alias of this gateway", "supportedGenerationMethods": METHODS}


def _publisher_model(name: str) -> dict[str, Any]:
    publisher, slash, model = name.partition("/")
    return {
        "name": f"publishers/{publisher}/models/{model}" if slash else f"publishers/{GOOGLE}/models/{name}",
        "versionId": "001",
        "launchStage": "GA",
        "displayName": name,
    }
