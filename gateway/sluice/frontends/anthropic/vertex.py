"""Anthropic's dialect as clients of Claude on Vertex AI send it: `AnthropicVertex` of its SDKs, and Claude Code with
`CLAUDE_CODE_USE_VERTEX` and `ANTHROPIC_VERTEX_BASE_URL`.

The model is in the path, behind a project and a location, which are ignored; the body has `anthropic_version`,
which names Vertex AI's form of the API, in its place. The key comes as a bearer token, in place of Google's
access token.

Standard: https://code.claude.com/docs/en/llm-gateway-protocol and
https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from sluice.frontends import CallRoute, Parse, RequestHead, Route
from sluice.frontends.anthropic.counting import count_of
from sluice.frontends.anthropic.dialect import Anthropic
from sluice.frontends.anthropic.request import chat_of
from sluice.model.chat import ChatRequest
from sluice.wire.jsontext import parse_object

PLACE = "projects/{project}/locations/{location}/publishers/anthropic/models"


class VertexAnthropic(Anthropic):
    name: ClassVar[str] = "vertex-anthropic"
    claims: ClassVar[tuple[str, ...]] = ()  # unknown paths are answered in Google's form

    def routes(self) -> Sequence[Route]:
        return (
            _route("{+model}:rawPredict", _whole),
            _route("{+model}:streamRawPredict", _streamed),
            _route("count-tokens:rawPredict", _counted, "count_tokens"),
        )


def _route(ending: str, parse: Parse, operation: str = "") -> CallRoute:
    first, *others = [f"/{version}/{PLACE}/{ending}" for version in ("v1", "v1beta1")]
    return CallRoute(path=first, also=tuple(others), parse=parse, operation=operation)


def _whole(body: bytes, head: RequestHead) -> ChatRequest:
    return chat_of({**_wire(body), "model": head.parameters["model"]})


def _streamed(body: bytes, head: RequestHead) -> ChatRequest:
    return chat_of({**_wire(body), "model": head.parameters["model"], "stream": True})


def _counted(body: bytes, head: RequestHead) -> ChatRequest:
    return count_of(chat_of(_wire(body)))


def _wire(body: bytes) -> dict[str, Any]:
    wire = parse_object(body)
    wire.pop("anthropic_version", None)
    return wire
