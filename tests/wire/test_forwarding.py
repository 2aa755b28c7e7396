"""Which of a caller's headers go on, and which of a provider's come back."""

import pytest

from sluice.wire.forwarding import (
    check_forward,
    forwarded,
    own_lines,
    provider_id,
    shown_target,
    with_forwarded,
)

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("headers", "lines"),
    [
        ({}, b"x-request-id: r1\r\n"),
        ({"traceparent": TRACE}, b"x-request-id: r1\r\ntraceparent: %b\r\n" % TRACE.encode()),
        (
            {"traceparent": TRACE, "tracestate": "a=b,c=d"},
            b"x-request-id: r1\r\ntraceparent: %b\r\ntracestate: a=b,c=d\r\n" % TRACE.encode(),
        ),
        ({"tracestate": "a=b"}, b"x-request-id: r1\r\n"),
        ({"traceparent": "00-zz"}, b"x-request-id: r1\r\n"),
        ({"traceparent": TRACE + "\r\nx: y"}, b"x-request-id: r1\r\n"),
        (
            {"traceparent": TRACE, "tracestate": "é"},
            b"x-request-id: r1\r\ntraceparent: %b\r\n" % TRACE.encode(),
        ),
    ],
)
def test_the_request_id_and_a_well_formed_trace_go_on(headers: dict[str, str], lines: bytes) -> None:
    assert own_lines("r1", headers) == lines


def test_only_allowed_fields_and_values_go_on() -> None:
    headers = {
        "x-customer": "acme",
        "anthropic-beta": "a-1, b-2,c-3",
        "x-other": "no",
        "x-long": "x" * 5000,
        "x-odd": "é",
    }
    allowed = {
        "x-customer": "any",
        "anthropic-beta": ("c-3", "a-1"),
        "x-missing": "any",
        "x-long": "any",
        "x-odd": "any",
    }
    assert forwarded(allowed, headers) == (("x-customer", "acme"), ("anthropic-beta", "a-1,c-3"))  # type: ignore[arg-type]
    assert forwarded({"anthropic-beta": ("z",)}, headers) == ()


def test_a_list_that_the_request_has_already_gains_what_it_lacks() -> None:
    headers = (("accept", "x"), ("anthropic-beta", "a-1,b-2"))
    assert with_forwarded(headers, (("anthropic-beta", "b-2,c-3"), ("x-customer", "acme"))) == (
        ("accept", "x"),
        ("anthropic-beta", "a-1,b-2,c-3"),
        ("x-customer", "acme"),
    )


@pytest.mark.parametrize(
    "name",
    [
        "authorization", "Cookie", "x-api-key", "X-Widget-Api-Key", "host", "content-length", "x-forwarded-for", "x-auth-user",
        "x-my-token", "client-secret", "a b", "", "transfer-encoding", "sec-fetch-site",
    ],
)  # fmt: skip
def test_credentials_and_what_frames_the_message_are_never_forwarded(name: str) -> None:
    with pytest.raises(ValueError):
        check_forward(name)


@pytest.mark.parametrize("name", ["anthropic-beta", "X-Customer", "openai-organization", "x-trace_id"])
def test_others_may_be(name: str) -> None:
    check_forward(name)


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ({"x-request-id": "req_1"}, "req_1"),
        ({"request-id": "req_2"}, "req_2"),
        ({"x-amzn-requestid": "3"}, "3"),
        ({}, ""),
        ({"x-request-id": "x" * 200}, ""),
        ({"x-request-id": "é"}, ""),
        ({"x-request-id": "a\tb"}, ""),
    ],
)
def test_a_providers_id_comes_back_where_it_can_be_shown(headers: dict[str, str], shown: str) -> None:
    assert provider_id(headers) == shown


def test_a_label_is_a_header_value() -> None:
    assert shown_target("openai/gpt-5") == "openai/gpt-5"
    assert shown_target("a/模") == "a/%E6%A8%A1"
