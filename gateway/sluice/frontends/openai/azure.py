"""OpenAI's dialect as Azure's clients send it: the deployment in the path is the model, the key comes in
`api-key`.

The query's `api-version` is ignored. The v1 API, which is OpenAI's own under another path, is served as well.

Standard: https://learn.microsoft.com/azure/ai-foundry/openai/reference and https://aka.ms/openai-v1
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from sluice.frontends import CallRoute, Endpoint, Parse, RequestHead, Route
from sluice.frontends.openai.dialect import STAINLESS, OpenAI
from sluice.frontends.openai.models import model, models
from sluice.frontends.openai.operations import RERANK
from sluice.model.chat import ChatRequest

DEPLOYED = "/openai/deployments/{+deployment}"
V1 = "/openai/v1"
OPENAI_ALONE = frozenset({"moderations", RERANK})
"""Operations that Azure's API lacks."""


class Azure(OpenAI):
    name: ClassVar[str] = "azure"
    claims: ClassVar[tuple[str, ...]] = ("/openai/",)
    credential_headers: ClassVar[tuple[str, ...]] = ("api-key",)
    request_headers: ClassVar[tuple[str, ...]] = (
        "x-ms-client-request-id",
        *[f"x-stainless-{name}" for name in STAINLESS],
    )

    def routes(self) -> Sequence[Route]:
        found: list[Route] = []
        for route in super().routes():
            if isinstance(route, CallRoute) and route.operation not in OPENAI_ALONE:
                path = route.path.removeprefix("/v1")
                deployed = _deployed(route.parse)
                found.append(msgspec.structs.replace(route, path=V1 + path, also=()))
                found.append(msgspec.structs.replace(route, path=DEPLOYED + path, also=(), parse=deployed))
        return (
            *found,
            Endpoint(path=f"{V1}/models", also=("/openai/models",), answer=models),
            Endpoint(path=f"{V1}/models/{{+model}}", answer=model),
        )


def _deployed(parse: Parse) -> Parse:
    """Parses the request with the path's deployment as the model, whatever the body has."""

    def parsed(body: Any, head: RequestHead) -> ChatRequest:
        return msgspec.structs.replace(parse(body, head), model=head.parameters["deployment"])

    return parsed
