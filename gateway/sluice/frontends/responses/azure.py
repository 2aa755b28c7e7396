"""OpenAI's Responses API as Azure's clients use it: under its v1 API, and under the path of dated versions,
whose `api-version` is ignored. The deployment is the body's model, the key comes in `api-key`.

Standard: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/responses
"""

from typing import ClassVar

from sluice.frontends.responses.dialect import Responses


class AzureResponses(Responses):
    name: ClassVar[str] = "azure-responses"
    claims: ClassVar[tuple[str, ...]] = ("/openai/v1/responses", "/openai/responses")
    paths: ClassVar[tuple[str, ...]] = ("/openai/v1/responses", "/openai/responses")
    credential_headers: ClassVar[tuple[str, ...]] = ("api-key",)
