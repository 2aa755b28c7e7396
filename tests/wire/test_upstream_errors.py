"""What the vendors' error answers mean: a table of statuses and bodies."""

import json
from typing import Any

import msgspec
import pytest

from sluice.errors import NOT_THE_TARGETS_FAULT
from sluice.wire.upstream_errors import (
    MAX_MESSAGE,
    conceal,
    reported_error,
    stream_error,
    tells_error,
    upstream_error,
)


def openai(message: str = "No", code: Any = None, type_: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "code": code, "param": None}}


REFUSED = "The upstream refused the gateway's credentials"
UNPAID = "The upstream refused the gateway's account"

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
    (413, openai("Too large"), "context_length", "Too large"),
    (413, b"", "context_length", "context length"),
    (
        413,
        b"<html><head><title>413 Request Entity Too Large</title></head></html>",
        "context_length",
        "context length",
    ),
    (
        422,
        {"detail": [{"loc": ["body"], "msg": "Field required", "type": "missing"}]},
        "bad_request",
        "Field required",
    ),
    (422, {"detail": "Unprocessable"}, "bad_request", "Unprocessable"),
    (400, openai("Blocked", "content_policy_violation"), "content_policy", "Blocked"),
    (
        400,
        {
            "error": {
                "code": "content_filter",
                "message": "Filtered",
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
        "content_policy",
        "Filtered",
    ),
    (
        403,
        openai("m requires moderation on X. Your input was flagged"),
        "content_policy",
        "m requires moderation on X. Your input was flagged",
    ),
    (
        401,
        openai("Incorrect API key provided: sk-abcd***wxyz", "invalid_api_key"),
        "bad_credentials",
        REFUSED,
    ),
    (403, {"message": "Forbidden"}, "bad_credentials", REFUSED),
    (
        400,
        [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}],
        "bad_credentials",
        REFUSED,
    ),
    (402, {"error": {"message": "Insufficient Balance"}}, "billing", f"{UNPAID}: Insufficient Balance"),
    (402, {}, "billing", UNPAID),
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
    (
        429,
        openai("Your quota is used up", "insufficient_quota"),
        "billing",
        f"{UNPAID}: Your quota is used up",
    ),
    (429, openai("You exceeded your current quota"), "rate_limited", "You exceeded your current quota"),
    (429, {"error": {"code": "1113", "message": "No balance left"}}, "billing", f"{UNPAID}: No balance left"),
    (
        429,
        openai("context window of 8 exceeded for tokens per minute"),
        "rate_limited",
        "context window of 8 exceeded for tokens per minute",
    ),
    (
        400,
        {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}},
        "billing",
        f"{UNPAID}: Your credit balance is too low",
    ),
    (500, openai("Sorry", None, "server_error"), "server_error", "Sorry"),
    (500, {"error": {"type": "overloaded_error", "message": "Overloaded"}}, "overloaded", "Overloaded"),
    (502, b"<html>502</html>", "server_error", "server error"),
    (503, {"message": "Service Unavailable"}, "overloaded", "Service Unavailable"),
    (
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        "overloaded",
        "Overloaded",
    ),
    (302, b"", "server_error", "server error"),
    # the shapes
    (
        400,
        {"code": "Client specified an invalid argument", "error": "prompt too long"},
        "context_length",
        "prompt too long",
    ),
    (
        422,
        {"object": "error", "message": {"detail": [{"msg": "No more", "loc": ["x"], "input": "mine"}]}},
        "bad_request",
        "x: No more",
    ),
    (400, {"message": [{"text": 1}, {"message": "Second"}]}, "bad_request", "Second"),
    (400, {"errors": [{"message": "First"}, {"message": "Second"}]}, "bad_request", "First"),
    (400, {"error": "invalid_model", "message": "No such thing"}, "not_found", "No such thing"),
    (400, {"title": "Bad", "status": 400, "detail": "More"}, "bad_request", "More"),
    (400, {"title": "Bad", "status": 400}, "bad_request", "Bad"),
    (400, {"title": "Too Long", "detail": "prompt is too long"}, "context_length", "prompt is too long"),
    (
        400,
        {"error": {"message": '{"error":{"code":400,"message":"API key expired."}}'}},
        "bad_credentials",
        REFUSED,
    ),
    (
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": '{"error":"Too many tokens"}'},
            }
        },
        "context_length",
        "Too many tokens",
    ),
    (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "No",
                    "status": "INVALID_ARGUMENT",
                    "details": [{"reason": "API_KEY_INVALID"}],
                }
            }
        ],
        "bad_credentials",
        REFUSED,
    ),
    (
        200,
        {"base_resp": {"status_code": 1008, "status_msg": "no balance"}},
        "billing",
        f"{UNPAID}: no balance",
    ),
    (
        200,
        {"error_code": 18, "error_msg": "Open api qps request limit reached"},
        "rate_limited",
        "Open api qps request limit reached",
    ),
    (
        200,
        {"Response": {"Error": {"Code": "AuthFailure.SignatureFailure", "Message": "no"}, "RequestId": "1"}},
        "bad_credentials",
        REFUSED,
    ),
    (
        400,
        {"Response": {"Error": {"Code": "RequestLimitExceeded", "Message": "Not so fast"}}},
        "rate_limited",
        "Not so fast",
    ),
    (400, b"The prompt is too long", "context_length", "The prompt is too long"),
    (
        429,
        b'data: {"error":{"message":"Not so fast","code":"rate_limit_exceeded"}}\n\n',
        "rate_limited",
        "Not so fast",
    ),
    (400, b"\xef\xbb\xbf" + b'{"error":{"message":"With a mark"}}', "bad_request", "With a mark"),
    (
        400,
        b'{"error":{"message":"Input is too long for requested model", "cut": "',
        "context_length",
        "context length",
    ),
    (
        500,
        {"error": {"message": "the input length exceeds the context length"}},
        "context_length",
        "the input length exceeds the context length",
    ),
    (
        500,
        {"type": "error", "error": {"type": "api_error", "message": "insufficient balance"}},
        "billing",
        f"{UNPAID}: insufficient balance",
    ),
    (
        403,
        {"code": "permission-denied", "error": "used all available credits"},
        "billing",
        f"{UNPAID}: used all available credits",
    ),
    (
        498,
        {"error": {"message": "Flex tier is full", "type": "invalid_request_error"}},
        "overloaded",
        "Flex tier is full",
    ),
    (
        403,
        {"error": "Content violates usage guidelines."},
        "content_policy",
        "Content violates usage guidelines.",
    ),
    (401, {"error": {"message": "the context length is exceeded"}}, "bad_credentials", REFUSED),
]


@pytest.mark.parametrize(("status", "body", "kind", "message"), ANSWERS)
def test_knows_what_an_answer_means(status: int, body: Any, kind: str, message: str) -> None:
    error = upstream_error(status, {}, body if isinstance(body, bytes) else msgspec.json.encode(body))
    assert (error.kind, error.message, error.status) == (kind, message, status)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b'{"error":',
        b"null",
        b"7",
        b'"x"',
        b"[]",
        b'{"error":null}',
        b'{"error":{"code":{}}}',
        b"[" * 100_000,
    ],
)
def test_never_raises(body: bytes) -> None:
    assert upstream_error(500, {}, body).kind == "server_error"


def test_shows_neither_keys_nor_accounts_nor_control_characters_nor_novels() -> None:
    body = openai(
        "Limit of org-a1B2c3D4e5 with sk-proj-abc_DEF-123456 and Bearer abcdef.ghijkl\r\nset-cookie: x"
        + "y" * 9999
    )
    assert (
        upstream_error(429, {}, msgspec.json.encode(body)).message
        == "Limit of *** with *** and ***  set-cookie:"
    )
    message = upstream_error(429, {}, msgspec.json.encode(openai("word " * 9999))).message
    assert len(message) == MAX_MESSAGE


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ({"error": {"message": "Boom", "type": "server_error"}}, "server_error", "Boom"),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            "overloaded",
            "Overloaded",
        ),
        ({"error": {"message": "Busy", "code": 503}}, "overloaded", "Busy"),
        (
            {"error": {"message": "No tool", "code": "tool_use_failed", "status_code": 400}},
            "stream_error",
            "No tool",
        ),
        ({"error": {"message": "Busy", "code": "429"}}, "rate_limited", "Busy"),
        ({"error": {"message": "Wrong", "code": 400}}, "bad_request", "Wrong"),
        ({"error": {"message": "Late", "code": 408}}, "server_error", "Late"),
        (
            {"object": "error", "message": "Wrong", "type": "BadRequestError", "code": 400},
            "bad_request",
            "Wrong",
        ),
        ({"type": "request_too_large", "message": "Large"}, "context_length", "Large"),
        ({"type": "invalid_request_error", "message": "Wrong"}, "bad_request", "Wrong"),
        ([{"error": {"code": 503, "status": "UNAVAILABLE", "message": "Later"}}], "overloaded", "Later"),
        ({"error": "an error was encountered"}, "stream_error", "an error was encountered"),
        ("words", "stream_error", "words"),
        (None, "stream_error", "stream error"),
    ],
)
def test_knows_what_an_error_within_a_stream_means(error: Any, kind: str, message: str) -> None:
    found = stream_error(error)
    assert (found.kind, found.message, found.status) == (kind, message, 200)


@pytest.mark.parametrize(
    "value",
    [
        {"error": "x"},
        {"error": {"message": "x"}},
        {"object": "error"},
        {"errors": [{}]},
        {"detail": "x"},
        {"detail": [{"msg": "x"}]},
        {"detail": {"error": "x", "code": 429}},
        {"id": "1", "message": "too many tokens: try using a shorter prompt"},
        {"message": "Input is too long for requested model."},
        {"code": 400, "message": "x"},
        {"error_code": "BAD_REQUEST", "message": "x"},
        {"statusCode": 429, "message": "x"},
        {"base_resp": {"status_code": 1008}},
        {"error_code": 18, "error_msg": "Open api qps request limit reached"},
        {"Response": {"Error": {"Code": "AuthFailure", "Message": "no"}, "RequestId": "1"}},
        {"errors": {"message": "We have to rate limit you"}},
        [{"error": {}}, {"error": {"message": "x"}}, 1][1:],
    ],
)
def test_knows_an_error_in_any_shape(value: Any) -> None:
    assert tells_error(value)
    assert reported_error(msgspec.json.encode(value)) is not None


@pytest.mark.parametrize(
    "value",
    [
        {}, [], None, 7, "error", {"error": None}, {"error": {}}, {"errors": []}, {"base_resp": {"status_code": 0}},
        {"type": "ping"}, {"id": "1", "choices": [], "message": "hello", "code": 1}, {"message": "hello"}, {"detail": []},
        {"detail": {}}, {"choices": [], "message": "too many tokens"}, {"error_code": 0, "error_msg": "", "result": "Hi"},
        {"Response": {"Choices": []}}, {"errors": {}},
    ],
)  # fmt: skip
def test_knows_what_is_no_error(value: Any) -> None:
    assert not tells_error(value)
    assert reported_error(msgspec.json.encode(value)) is None


def test_an_error_with_a_letter_that_is_none_is_still_an_error() -> None:
    error = reported_error(b'{"error":{"message":"No \xe6"}}')
    assert error is not None
    assert error.message == "No \ufffd"
    assert reported_error(b"{") is None


@pytest.mark.parametrize(
    ("headers", "body", "wait"),
    [
        ({"retry-after": "7"}, {"error": {"details": [{"retryDelay": "39s"}]}}, 7.0),
        ({}, [{"error": {"details": [{"@type": "x/RetryInfo", "retryDelay": "39.5s"}]}}], 39.5),
        ({}, {"error": {"details": [{"retryDelay": {"seconds": "39", "nanos": 0}}]}}, 39.0),
        ({}, {"error": {"details": [{"metadata": {"quotaResetDelay": "1h2m3.5s"}}]}}, 3723.5),
        ({}, {"error": {"message": "x", "retry_after": 12}}, 12.0),
        ({}, {"error": {"message": "x", "retry_after_ms": 1500}}, 1.5),
        ({}, {"error": {"metadata": {"headers": {"X-RateLimit-Reset": "90"}}}}, 90.0),
        ({}, {"error": {"message": "Rate limit reached. Please try again in 6m0s."}}, 360.0),
        ({}, {"error": {"message": "Retry after 20 seconds"}}, 20.0),
        ({}, {"error": {"message": "please wait 350ms"}}, 0.35),
        ({}, {"error": {"message": "try again later, in 2 requests"}}, None),
        (
            {
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "1s",
            },
            {},
            360.0,
        ),
        ({"x-ratelimit-reset-requests": "2m59.56s", "x-ratelimit-reset-tokens": "7.66s"}, {}, 179.56),
        (
            {
                "anthropic-ratelimit-tokens-reset": "2026-10-21T07:30:00Z",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            {},
            120.0,
        ),
        ({"x-ratelimit-reset": "1792567800000", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}, 120.0),
        ({"x-ratelimit-reset": "1792567800", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}, 120.0),
        ({"retry-after": "7200"}, {}, 7200.0),
    ],
)
def test_hears_the_wait_in_every_form(headers: dict[str, str], body: Any, wait: float | None) -> None:
    assert upstream_error(429, headers, msgspec.json.encode(body)).retry_after == wait


def test_limits_that_refused_nothing_are_no_wait() -> None:
    headers = {"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset-tokens": "1s"}
    assert upstream_error(400, headers, b"{}").retry_after is None
    assert upstream_error(503, headers, b"{}").retry_after is None


def test_a_wait_within_a_stream_is_heard() -> None:
    assert stream_error({"error": {"code": "429", "message": "x", "retry_after": 8}}).retry_after == 8.0
    assert stream_error({"error": {"code": 429, "message": "try again in 5 minutes"}}).retry_after == 300.0


def test_the_upstreams_own_key_is_masked_where_it_is_known() -> None:
    error = upstream_error(
        400, {}, msgspec.json.encode(openai("Model plain-own-key-1 for plain.own.key is not it"))
    )
    conceal(error, ["plain.own.key"])
    assert error.message == "Model plain-own-key-1 for *** is not it"
    assert error.words == ""
    conceal(error, ["Model"])
    assert error.message == "Model plain-own-key-1 for *** is not it"


WORDS = "No field of that name is known"


@pytest.mark.parametrize(
    "body",
    [
        {"errors": {"field": [WORDS]}},
        {"errors": [{"detail": WORDS, "title": "Unknown"}]},
        {"fault": {"faultstring": WORDS, "detail": {"errorcode": "x.y"}}},
        {"Response": {"Error": {"Code": "Invalid", "Message": WORDS}, "RequestId": "one two"}},
        {"error": {"description": WORDS, "stack_trace": "at line 5"}},
        {"error": WORDS, "message": "Bad Request"},
        {
            "error": {
                "message": "Request contains an invalid argument.",
                "details": [{"fieldViolations": [{"description": WORDS}]}],
            }
        },
        {"error": {"message": {"en": WORDS}}},
        {"success": False, "result": {"exception": WORDS}, "input": "what the caller said"},
    ],
)
def test_words_are_found_in_shapes_that_nobody_here_knows(body: Any) -> None:
    assert upstream_error(400, {}, msgspec.json.encode(body)).message == WORDS
    assert stream_error(body).message == WORDS


def test_what_is_not_said_to_callers_is_not_shown() -> None:
    for body in (
        {"error": {"stack": "at line 5", "prompt": "what the caller said"}},
        {"url": "a b", "choices": [{"message": {"content": "Hello to you"}}]},
        {"error": {"failed_generation": "half an answer"}},
    ):
        assert upstream_error(400, {}, msgspec.json.encode(body)).message == "bad request"


@pytest.mark.parametrize("status", [400, 409])
def test_a_conversation_that_is_locked_is_the_callers_and_not_the_targets(status: int) -> None:
    told = {
        "code": "conversation_locked",
        "type": "invalid_request_error",
        "message": "Another process is operating on it",
    }
    error = upstream_error(status, {}, json.dumps({"error": told}).encode())
    assert (error.kind, error.provider_code) == ("bad_request", "conversation_locked")
    assert error.kind in NOT_THE_TARGETS_FAULT


def test_a_conflict_of_another_kind_is_the_targets() -> None:
    assert upstream_error(409, {}, b'{"error": {"message": "try again"}}').kind == "server_error"


def test_a_model_that_vertex_does_not_have_is_not_found() -> None:
    words = (
        "Permission 'aiplatform.endpoints.predict' denied on resource '//aiplatform.googleapis.com/projects/p/locations"
        "/us-east4/publishers/google/models/made-up' (or it may not exist)."
    )
    for told in ({"code": 403, "status": "PERMISSION_DENIED", "message": words}, {"message": words}):
        assert upstream_error(403, {}, json.dumps({"error": told}).encode()).kind == "not_found"
    denied = {
        "code": 403,
        "status": "PERMISSION_DENIED",
        "message": "Permission denied on resource project p.",
    }
    assert upstream_error(403, {}, json.dumps({"error": denied}).encode()).kind == "bad_credentials"
