"""Requests out of HTTP/2 heads."""

import pytest

from sluice.server.http1 import MAX_HEAD, MAX_LINE
from sluice.server.http2.protocol import request_of

HEAD = [
    (b":method", b"POST"),
    (b":path", b"/v1/x?a=1"),
    (b":scheme", b"https"),
    (b":authority", b"api.example"),
]


def test_pseudo_headers_are_the_request_line_and_the_host() -> None:
    request = request_of([*HEAD, (b"content-length", b"12"), (b"x-a", b"1"), (b"x-a", b"2")])
    assert request is not None
    assert (request.method, request.target, request.length) == ("POST", "/v1/x?a=1", 12)
    assert request.fields == {"host": "api.example", "content-length": "12", "x-a": "1, 2"}


def test_a_host_of_the_callers_own_is_kept() -> None:
    request = request_of([*HEAD, (b"host", b"other.example")])
    assert request is not None
    assert request.fields["host"] == "other.example"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b":method", b"CONNECT"),
        (b":path", b"/a#b"),
        (b":path", b"/" + b"x" * MAX_LINE),
        (b":authority", b"a, b"),
        (b"content-length", b"1x"),
        (b"x-long", b"x" * MAX_LINE),
    ],
)
def test_what_http_1_would_refuse_is_refused(field: bytes, value: bytes) -> None:
    head = [(name, other) for name, other in HEAD if name != field] + [(field, value)]
    assert request_of(head) is None


def test_a_head_is_bounded_with_all_its_fields() -> None:
    many = [(b"x-%d" % number, b"x" * 100) for number in range(MAX_HEAD // 100)]
    assert request_of([*HEAD, *many]) is None
