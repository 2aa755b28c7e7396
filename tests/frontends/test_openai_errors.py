"""Errors as OpenAI's clients read them: the codes that they act upon, and the provider's own where it says
more."""

import msgspec
import pytest

from sluice.errors import UpstreamTruncated
from sluice.frontends.anthropic.errors import error_object as anthropics
from sluice.frontends.openai.errors import error_object
from sluice.wire.upstream_errors import conceal, stream_error, upstream_error


def code_of(status: int, error: dict[str, object]) -> object:
    found = upstream_error(status, {}, msgspec.json.encode(error)) if status != 200 else stream_error(error)
    return error_object(found)["error"]["code"]


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"error": {"message": "Failed to call a function", "code": "tool_use_failed"}}, "tool_use_failed"),
        (
            {"error": {"message": "No", "type": "invalid_request_error", "code": "unsupported_parameter"}},
            "unsupported_parameter",
        ),
        (
            {"error": {"message": "No", "innererror": {"code": "InvalidParameter"}, "code": "400"}},
            "InvalidParameter",
        ),
        ({"error": {"message": "Rate limit reached", "code": "too_fast"}}, "rate_limit_exceeded"),
        ({"error": {"message": "prompt is too long", "code": "invalid_prompt"}}, "context_length_exceeded"),
        ({"error": {"message": "No", "type": "invalid_request_error", "code": None}}, "bad_request"),
        ({"error": {"message": "No", "type": "invalid_request_error", "code": "Bad\nthing"}}, "bad_request"),
        ({"error": {"message": "No", "type": "invalid_request_error", "code": "sk-abc123"}}, "bad_request"),
    ],
)
def test_a_providers_own_code_is_told_where_ours_says_less(
    status: int, error: dict[str, object], code: str
) -> None:
    assert code_of(status, error) == code


def test_our_own_errors_have_our_codes() -> None:
    assert error_object(UpstreamTruncated())["error"]["code"] == "truncated"


def test_a_providers_fields_have_the_types_that_sdks_read() -> None:
    body = {"error": {"message": "No", "param": {"at": 1}, "details": [{"x": 1}], "code": 400}}
    error = upstream_error(400, {}, msgspec.json.encode(body))
    conceal(error, (), same_dialect=True)
    assert error_object(error)["error"] == {
        "message": "No", "type": "invalid_request_error", "param": None, "code": "bad_request", "details": [{"x": 1}],
    }  # fmt: skip
    assert "details" not in anthropics(error, "r1")["error"]
