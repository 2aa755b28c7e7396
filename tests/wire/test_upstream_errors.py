"""What the vendors' error answers mean: a table of statuses and bodies."""

from typing import Any

import msgspec
import pytest

from gateway.wire.upstream_errors import MAX_MESSAGE, stream_error, upstream_error


def openai(message: str = "No", code: Any = None, type_: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "code": code, "param": None}}


REFUSED = "The upstream refused the gateway's credentials"

ANSWERS: list[tuple[int, Any, str, str]] = [
    (400, openai("No"), "bad_request", "No"),
    (400, openai("Too long", "context_length_exceeded"), "context_length", "Too long"),
    (
        400,
        openai("This model's maximum context length is 8 tokens"),
        "context_length",
        "This model's maximum context length is 8 tokens",
    ),
    (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}},
        "context_length",
        "prompt is too long: 9 > 8",
    ),
    (413, openai("Too large"), "bad_request", "Too large"),
    (422, {"detail": [{"loc": ["body"], "msg": "Field required", "type": "missing"}]}, "bad_request", "Field required"),
    (422, {"detail": "Unprocessable"}, "bad_request", "Unprocessable"),
    (400, openai("Blocked", "content_policy_violation"), "content_policy", "Blocked"),
    (
        400,
        {"error": {"code": "content_filter", "message": "Filtered", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        "content_policy",
        "Filtered",
    ),
    (
        403,
        openai("m requires moderation on X. Your input was flagged"),
        "content_policy",
        "m requires moderation on X. Your input was flagged",
    ),
    (401, openai("Incorrect API key provided: sk-abcd***wxyz", "invalid_api_key"), "bad_credentials", REFUSED),
    (403, {"message": "Forbidden"}, "bad_credentials", REFUSED),
    (
        400,
        [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}],
        "bad_credentials",
        REFUSED,
    ),
    (402, {"error": {"message": "Insufficient Balance"}}, "rate_limited", "Insufficient Balance"),
    (404, {"error": "model 'x' not found"}, "not_found", "model 'x' not found"),
    (
        400,
        {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"},
        "not_found",
        "Invalid model: x",
    ),
    (408, {}, "headers_timeout", "The upstream did not answer in time"),
    (409, {}, "server_error", "server error"),
    (425, {}, "server_error", "server error"),
    (418, {}, "bad_request", "bad request"),
    (429, openai("Slow down", "rate_limit_exceeded"), "rate_limited", "Slow down"),
    (429, openai("You exceeded your current quota", "insufficient_quota"), "rate_limited", "You exceeded your current quota"),
    (
        429,
        openai("context window of 8 exceeded for tokens per minute"),
        "rate_limited",
        "context window of 8 exceeded for tokens per minute",
    ),
    (
        400,
        {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}},
        "rate_limited",
        "Your credit balance is too low",
    ),
    (500, openai("Sorry", None, "server_error"), "server_error", "Sorry"),
    (500, {"error": {"type": "overloaded_error", "message": "Overloaded"}}, "overloaded", "Overloaded"),
    (502, b"<html>502</html>", "server_error", "server error"),
    (503, {"message": "Service Unavailable"}, "overloaded", "Service Unavailable"),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "overloaded", "Overloaded"),
    (302, b"", "server_error", "server error"),
]


@pytest.mark.parametrize(("status", "body", "kind", "message"), ANSWERS)
def test_knows_what_an_answer_means(status: int, body: Any, kind: str, message: str) -> None:
    error = upstream_error(status, {}, body if isinstance(body, bytes) else msgspec.json.encode(body))
    assert (error.kind, error.message, error.status) == (kind, message, status)


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe", b'{"error":', b"null", b"7", b'"x"', b"[]", b'{"error":null}', b'{"error":{"code":{}}}', b"[" * 100_000],
)
def test_never_raises(body: bytes) -> None:
    assert upstream_error(500, {}, body).kind == "server_error"


def test_shows_neither_keys_nor_accounts_nor_control_characters_nor_novels() -> None:
    body = openai("Limit of org-a1B2c3D4e5 with sk-proj-abc_DEF-123456 and Bearer abcdef.ghijkl\r\nset-cookie: x" + "y" * 9999)
    message = upstream_error(429, {}, msgspec.json.encode(body)).message
    assert message.startswith("Limit of *** with *** and ***  set-cookie: x")
    assert len(message) == MAX_MESSAGE


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ({"error": {"message": "Boom", "type": "server_error"}}, "server_error", "Boom"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "overloaded", "Overloaded"),
        ({"error": {"message": "Busy", "code": 503}}, "overloaded", "Busy"),
        ({"error": {"message": "No tool", "code": "tool_use_failed", "status_code": 400}}, "stream_error", "No tool"),
        ({"error": "an error was encountered"}, "stream_error", "an error was encountered"),
        ("words", "stream_error", "words"),
        (None, "stream_error", "stream error"),
    ],
)
def test_knows_what_an_error_within_a_stream_means(error: Any, kind: str, message: str) -> None:
    found = stream_error(error)
    assert (found.kind, found.message, found.status) == (kind, message, 200)
