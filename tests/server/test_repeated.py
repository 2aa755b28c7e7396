"""A head that a connection sends again."""

from sluice.server.incoming import Incoming
from sluice.server.repeated import MAX_REPEATED, RepeatedHead, repeated_head

HEAD = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-Key: k"


def kept(head: bytes = HEAD, length: str = "5") -> RepeatedHead | None:
    return repeated_head(
        head, Incoming("POST", "/v1/x", fields={"host": "a", "content-length": length, "x-key": "k"})
    )


def test_the_same_head_with_another_body_is_the_request() -> None:
    head = kept()
    assert head is not None
    request = head.request(HEAD.replace(b"h: 5", b"h: 12") + b"\r\n\r\n" + b"x" * 12, 100)
    assert request is not None
    assert (request.method, request.target, request.body(), request.over) == (
        "POST",
        "/v1/x",
        b"x" * 12,
        True,
    )
    assert request.fields == {"host": "a", "content-length": "12", "x-key": "k"}


def test_whatever_differs_but_the_digits_is_not_the_same() -> None:
    head = kept()
    assert head is not None
    good = HEAD + b"\r\n\r\nhello"
    assert head.request(good, 100) is not None
    for at, byte in enumerate(good):
        if at < len(HEAD) + 4:
            other = good[:at] + bytes((byte ^ 1,)) + good[at + 1 :]
            assert head.request(other, 100) is None, other
    assert head.request(good[:-1], 100) is None  # not complete
    assert head.request(good + b"x", 100) is None  # more than one request
    assert head.request(good.replace(b"h: 5", b"h: 05"), 100) is None
    assert head.request(good.replace(b"h: 5", b"h: +5"), 100) is None
    assert head.request(good, 4) is None  # beyond the limit


def test_a_head_that_is_long_or_has_no_length_is_not_kept() -> None:
    assert kept(HEAD + b"\r\nX-Long: " + b"x" * MAX_REPEATED) is None
    assert kept(b"GET / HTTP/1.1\r\nHost: a", "") is None
    assert kept(HEAD, "6") is None
