"""Errors, limits and lists of models as Anthropic's clients know them."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from sluice.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    ModelNotFound,
    PayloadTooLarge,
    RateLimited,
    RequestTimeout,
    Unauthorized,
    Unavailable,
    UpstreamError,
    UpstreamTruncated,
)
from sluice.frontends import Head, Inquiry
from sluice.frontends.anthropic.dialect import Anthropic
from sluice.frontends.anthropic.models import model, models


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (BadRequest("x"), 400, "invalid_request_error"),
        (Unauthorized("bad_key"), 401, "authentication_error"),
        (UpstreamError("billing", "x"), 402, "billing_error"),
        (Forbidden("x"), 403, "permission_error"),
        (ModelNotFound("x"), 404, "not_found_error"),
        (MethodNotAllowed("POST"), 405, "invalid_request_error"),
        (RequestTimeout("x"), 408, "timeout_error"),
        (PayloadTooLarge("x"), 413, "request_too_large"),
        (RateLimited(1.0, scope="key", resource="tokens"), 429, "rate_limit_error"),
        (UpstreamError("rate_limited", "x"), 429, "rate_limit_error"),
        (GatewayError("x"), 500, "api_error"),
        (UpstreamTruncated(), 502, "api_error"),
        (UpstreamError("bad_credentials"), 502, "api_error"),
        (UpstreamError("first_token_timeout"), 504, "timeout_error"),
        (UpstreamError("overloaded", "x"), 529, "overloaded_error"),
        (Unavailable("x"), 529, "overloaded_error"),
        (UpstreamError("bad_request", "x"), 400, "invalid_request_error"),
        (UpstreamError("content_policy", "x"), 400, "invalid_request_error"),
    ],
)
def test_status_and_type(error: GatewayError, status: int, kind: str) -> None:
    told = Anthropic().error(error, "req-1")
    assert (told["type"], told["error"]["type"], told["request_id"]) == ("error", kind, "req-1")
    assert Anthropic().status(error) == status


def test_a_prompt_that_is_too_long_is_said_in_the_words_that_clients_look_for() -> None:
    told = Anthropic().error(UpstreamError("context_length", "maximum context length is 10"), "r")
    assert told["error"]["message"] == "prompt is too long: maximum context length is 10"
    told = Anthropic().error(UpstreamError("context_length", "Prompt is too long: 12 > 10"), "r")
    assert told["error"]["message"] == "Prompt is too long: 12 > 10"


def test_limits_have_anthropics_names_and_their_reset_is_a_time() -> None:
    frontend = Anthropic(wall=lambda: 1_790_000_000.25)
    assert frontend.headers(
        [
            ("x-ratelimit-limit-tokens", "10"),
            ("x-ratelimit-remaining-input_tokens", "9"),
            ("x-ratelimit-reset-requests", "1.500s"),
            ("retry-after", "2"),
        ]
    ) == [
        ("anthropic-ratelimit-tokens-limit", "10"),
        ("anthropic-ratelimit-input-tokens-remaining", "9"),
        ("anthropic-ratelimit-requests-reset", "2026-09-21T14:13:22Z"),
        ("retry-after", "2"),
    ]


class Asked(Inquiry):
    models = ("a", "b", "c", "d")
    started = 0

    def __init__(self, query: Mapping[str, str], **parameters: str) -> None:
        self._head = Head(query=query, parameters=parameters)

    @property
    def head(self) -> Head:
        return self._head


async def listed(**query: str) -> tuple[str, bool, str | None, str | None]:
    page: dict[str, Any] = json.loads((await models(Asked(query))).body)
    return "".join(entry["id"] for entry in page["data"]), page["has_more"], page["first_id"], page["last_id"]


async def test_models_come_page_by_page() -> None:
    assert await listed() == ("abcd", False, "a", "d")
    assert await listed(limit="2") == ("ab", True, "a", "b")
    assert await listed(limit="2", after_id="b") == ("cd", False, "c", "d")
    assert await listed(limit="2", before_id="d") == ("bc", True, "b", "c")
    assert await listed(after_id="d") == ("", False, None, None)


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "x"},
        {"after_id": "z"},
        {"after_id": "a", "before_id": "b"},
    ],
)
async def test_a_page_that_cannot_be_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        await listed(**query)


async def test_one_model() -> None:
    found = json.loads((await model(Asked({}, model="b"))).body)
    assert found == {"type": "model", "id": "b", "display_name": "b", "created_at": "1970-01-01T00:00:00Z"}
    with pytest.raises(ModelNotFound):
        await model(Asked({}, model="z"))
