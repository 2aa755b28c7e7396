"""OpenAI's dialect as Azure's clients send it: the deployment in the path is the model, the key comes in
`api-key`.

The query's `api-version` is ignored. The v1 API, which is OpenAI's own under another path, is served as well.

Standard: https://learn.microsoft.com/azure/ai-foundry/openai/reference and https://aka.ms/openai-v1
"""

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from sluice.frontends import CallRoute, Endpoint, Parse, RequestHead, Route
from sluice.frontends.openai.completions import completion_of
from sluice.frontends.openai.dialect import STAINLESS, OpenAI
from sluice.frontends.openai.embeddings import embeddings
from sluice.frontends.openai.models import model, models
from sluice.model.chat import ChatRequest

DEPLOYED = "/openai/deployments/{+deployment}"
V1 = "/openai/v1"


class Azure(OpenAI):
    name: ClassVar[str] = "azure"
    claims: ClassVar[tuple[str, ...]] = ("/openai/",)
    credential_headers: ClassVar[tuple[str, ...]] = ("api-key",)
    request_headers: ClassVar[tuple[str, ...]] = (
        "x-ms-client-request-id",
        *[f"x-stainless-{name}" for name in STAINLESS],
    )

    def routes(self) -> Sequence[Route]:
        return (
            CallRoute(path=f"{V1}/chat/completions", parse=self.parse),
            CallRoute(path=f"{V1}/completions", parse=completion_of, operation="completions"),
            CallRoute(path=f"{V1}/embeddings", parse=embeddings, operation="embeddings"),
            CallRoute(path=f"{DEPLOYED}/chat/completions", parse=_deployed(self.parse)),
            CallRoute(
                path=f"{DEPLOYED}/completions", parse=_deployed(completion_of), operation="completions"
            ),
            CallRoute(path=f"{DEPLOYED}/embeddings", parse=_deployed(embeddings), operation="embeddings"),
            Endpoint(path=f"{V1}/models", also=("/openai/models",), answer=models),
            Endpoint(path=f"{V1}/models/{{+model}}", answer=model),
        )


def _deployed(parse: Parse) -> Parse:
    """Parses the request with the path's deployment as the model, whatever the body has."""

    def parsed(body: bytes, head: RequestHead) -> ChatRequest:
        return msgspec.structs.replace(parse(body, head), model=head.parameters["deployment"])

    return parsed
