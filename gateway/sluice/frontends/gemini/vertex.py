"""Gemini's dialect as clients of Vertex AI send it: google-genai with `vertexai=True` and a base URL, Gemini CLI,
`@ai-sdk/google-vertex`.

The model is in the path behind a project, a location and a publisher, or behind the publisher alone (express
mode). Project and location are ignored. The key comes as a bearer token, in place of Google's access token, or
in `x-goog-api-key`. Texts are embedded by `:predict`, which the SDKs send for models without "gemini" in their
names.

Standard: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from sluice.frontends import CallRoute, Endpoint, Head, Parse, RequestHead, Route
from sluice.frontends.gemini import operations
from sluice.frontends.gemini.dialect import Gemini
from sluice.frontends.gemini.models import no_method, published_name, publisher_model, publisher_models
from sluice.frontends.gemini.request import streamed, whole
from sluice.model.chat import ChatRequest

VERSIONS = ("v1beta1", "v1")
OF_A_PROJECT = "projects/{project}/locations/{location}/"
MODELS = "publishers/{publisher}/models"


class Vertex(Gemini):
    name: ClassVar[str] = "vertex"
    claims: ClassVar[tuple[str, ...]] = ("/v1beta1/", "/v1/projects/", "/v1/publishers/")

    def routes(self) -> Sequence[Route]:
        return (
            _method("generateContent", whole),
            _method("streamGenerateContent", streamed),
            _method("countTokens", operations.count, "count_tokens"),
            _method("embedContent", operations.embed, "embeddings"),
            _method("batchEmbedContents", operations.embed_all, "embeddings"),
            _method("predict", operations.predict, "embeddings"),
            Endpoint(**_at(MODELS), answer=publisher_models),
            Endpoint(**_at(f"{MODELS}/{{+model}}"), answer=publisher_model),
            Endpoint(**_at(f"{MODELS}/{{+model}}"), answer=no_method, methods=("POST",)),
        )


def _at(ending: str) -> dict[str, Any]:
    """Returns a route's path and its other names."""
    first, *others = [f"/{version}/{place}{ending}" for version in VERSIONS for place in (OF_A_PROJECT, "")]
    return {"path": first, "also": tuple(others)}


def _method(name: str, parse: Parse, operation: str = "") -> CallRoute:
    return CallRoute(**_at(f"{MODELS}/{{+model}}:{name}"), parse=_published(parse), operation=operation)


def _published(parse: Parse) -> Parse:
    def parsed(body: bytes, head: RequestHead) -> ChatRequest:
        return parse(body, Head(head.headers, head.query, {"model": published_name(head.parameters)}))

    return parsed
