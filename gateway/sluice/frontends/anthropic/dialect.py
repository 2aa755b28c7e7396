"""Anthropic's Messages API as a client dialect: what its SDKs, Claude Code and the agent SDK send and read.

The request is `anthropic/request.py`; answers are made of events (`blocks.py`, `whole.py`), or are the
upstream's own frames where it speaks this dialect, too (`passed_on.py`). `GET /v1/models` is
OpenAI's, too: the header `anthropic-version`, which all clients of this dialect send, tells the two apart.

Standard: https://platform.claude.com/docs/en/api/messages
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from sluice.errors import GatewayError
from sluice.frontends import (
    Answer,
    CallRoute,
    Encoder,
    Endpoint,
    Frontend,
    Header,
    RequestHead,
    ResumeRoute,
    Route,
)
from sluice.frontends.anthropic.blocks import Blocks
from sluice.frontends.anthropic.counting import counted
from sluice.frontends.anthropic.errors import error_object, status
from sluice.frontends.anthropic.hello import hello
from sluice.frontends.anthropic.limits import renamed
from sluice.frontends.anthropic.models import model, models
from sluice.frontends.anthropic.passed_on import PassedOn, WholePassedOn
from sluice.frontends.anthropic.request import chat_of
from sluice.frontends.anthropic.whole import Whole
from sluice.model.chat import ChatRequest
from sluice.wire.jsontext import checked_object, unambiguous_object

RESOURCES = ("requests", "tokens")


class Anthropic(Frontend):
    """`wall`: seconds since the epoch."""

    name: ClassVar[str] = "anthropic"
    dialect: ClassVar[str] = "anthropic"
    marker: ClassVar[str] = "anthropic-version"
    numbered: ClassVar[bool] = True
    claims: ClassVar[tuple[str, ...]] = ("/v1/", "/v1/messages", "/api/")
    request_headers: ClassVar[tuple[str, ...]] = (
        "anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access",
    )  # fmt: skip
    response_headers: ClassVar[tuple[str, ...]] = tuple(
        f"anthropic-ratelimit-{resource}-{fields}"
        for resource in RESOURCES
        for fields in ("limit", "remaining", "reset")
    )

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall

    def routes(self) -> Sequence[Route]:
        messages = "/v1/messages"
        return (
            CallRoute(path=messages, parse=self.parse),
            ResumeRoute(path=messages),
            CallRoute(path=f"{messages}/count_tokens", parse=counted, operation="count_tokens"),
            Endpoint(path="/v1/models", answer=models),
            Endpoint(path="/v1/models/{+model}", answer=model),
            Endpoint(path="/api/hello", answer=hello, open=True),
        )

    def parse(self, body: bytes, head: RequestHead) -> ChatRequest:
        wire = unambiguous_object(body)
        return chat_of(checked_object(body)) if wire is None else chat_of(wire, body)

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder:
        if verbatim:
            return PassedOn(chat, answer) if chat.stream else WholePassedOn(chat, answer)
        return Blocks(chat, answer) if chat.stream else Whole(chat, answer)

    def error(self, error: GatewayError, request_id: str) -> dict[str, Any]:
        return error_object(error, request_id)

    def status(self, error: GatewayError) -> int:
        return status(error)

    def headers(self, pairs: Sequence[Header]) -> Sequence[Header]:
        return renamed(pairs, self._wall())
