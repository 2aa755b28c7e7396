"""External processing: messages of an endpoint picker, read whole, cut and broken."""

import pytest

from sluice.wire.ext_proc import (
    ENDPOINTS,
    PIECE,
    Endpoint,
    Pick,
    Refused,
    endpoints_in,
    request_body,
    request_headers,
    response_headers,
)
from sluice.wire.protobuf import BadProtobuf, data, fields, number, text

ONE, TWO = Endpoint("10.0.0.1", 8000), Endpoint("fd00::1", 80)


def set_header(name: str, value: bytes, field: int = 3) -> bytes:
    return data(1, data(1, text(1, name) + data(field, value)))  # HeaderMutation: set_headers: header


def headers_answer(mutation: bytes) -> bytes:
    return data(1, data(1, data(2, mutation)))


def metadata(listed: str) -> bytes:
    inner = data(1, text(1, "x-gateway-destination-endpoint") + data(2, text(3, listed)))
    return data(8, data(1, text(1, "envoy.lb") + data(2, data(5, inner))))


def piece(body: bytes, *, last: bool) -> bytes:
    return data(3, data(1, data(3, data(3, data(1, body) + number(2, last)))))


NAMED = headers_answer(set_header("X-Gateway-Destination-Endpoint", b"10.0.0.1:8000,[fd00::1]:80"))


@pytest.mark.parametrize(("listed", "found"), [
    ("10.0.0.1:8000", (ONE,)),
    ("10.0.0.1:8000, [fd00::1]:80", (ONE, TWO)),
    ("10.0.0.1:8000,10.0.0.1:8000", (ONE,)),
    ("169.254.169.254:80,[fe80::1]:80,[::ffff:169.254.169.254]:80,0.0.0.0:80,[::]:80,224.0.0.1:80,10.0.0.1:8000", (ONE,)),
    ("fe80::1%a\r\nhost: b:80,[fd00::1%\r\n]:80,10.0.0.1\r:80,10.0.0.1:8000", (ONE,)),
    (f"10.0.0.2:{'9' * 5000},10.0.0.2:+80,10.0.0.2:8_0,10.0.0.2:٨٠,10.0.0.2:-1,10.0.0.1:8000", (ONE,)),
    ("name:80,10.0.0.1:0,10.0.0.1,10.0.0.1:99999,:80,10.0.0.1:8000", (ONE,)),
    ("", ()),
])  # fmt: skip
def test_lists_of_endpoints(listed: str, found: tuple[Endpoint, ...]) -> None:
    assert endpoints_in(listed) == found


def test_lists_are_bounded() -> None:
    assert endpoints_in("x," * 100_000 + "10.0.0.1:8000") == ()
    assert len(endpoints_in(",".join(f"10.0.0.{number}:80" for number in range(100)))) == ENDPOINTS


@pytest.mark.parametrize("answer", [
    NAMED,
    headers_answer(set_header("x-gateway-destination-endpoint", b"10.0.0.1:8000,[fd00::1]:80", 2)),
    metadata("10.0.0.1:8000,[fd00::1]:80") + headers_answer(b""),
    headers_answer(b"") + metadata("10.0.0.1:8000,[fd00::1]:80"),
    NAMED + metadata("10.0.0.1:8000,[fd00::1]:80"),
])  # fmt: skip
def test_endpoints_are_named_in_a_header_or_in_metadata(answer: bytes) -> None:
    pick = Pick()
    pick.feed(answer)
    assert (pick.endpoints, pick.done) == ((ONE, TWO), True)


def test_a_body_that_is_given_back_is_waited_for() -> None:
    pick = Pick(expects_body=True)
    for message, done in ((NAMED, False), (piece(b"ab", last=False), False), (piece(b"c", last=True), True)):
        pick.feed(message)
        assert pick.done is done
    assert bytes(pick.body) == b"abc"
    unchanged = Pick(expects_body=True)
    unchanged.feed(NAMED)
    unchanged.feed(data(3, b""))
    assert (unchanged.done, bytes(unchanged.body)) == (True, b"")


def test_a_refusal_has_its_status_headers_and_text() -> None:
    pick = Pick(expects_body=True)
    pick.feed(data(7, data(1, number(1, 429)) + data(2, set_header("retry-after", b"3")) + data(3, b"full")))
    assert (pick.refused, pick.done) == (Refused(429, {"retry-after": "3"}, b"full"), True)


@pytest.mark.parametrize(
    "message", [
        data(7, b""), data(7, data(1, number(1, 7))), b"\x0a", b"\x0a\x05ab", b"\x0b", b"\xff" * 12,
        number(2, 0) * 20_000, headers_answer(number(9, 0) * 20_000),
        headers_answer(b"".join(set_header(f"x-{at}", b"") for at in range(200))),
        headers_answer(set_header("x-a", bytes(40_000))),
        data(7, data(1, number(1, 429)) + data(2, set_header("x-a", bytes(40_000)))),
    ]
)  # fmt: skip
def test_what_is_no_answer_is_refused(message: bytes) -> None:
    with pytest.raises(BadProtobuf):
        Pick().feed(message)


def test_an_answer_cut_anywhere_is_refused_or_names_nobody_else() -> None:
    for end in range(len(NAMED)):
        pick = Pick()
        try:
            pick.feed(NAMED[:end])
        except BadProtobuf:
            continue
        assert pick.endpoints in ((), (ONE, TWO))


def test_requests_come_in_pieces() -> None:
    first = dict(fields(request_headers([(":path", "/x"), ("A", "b")], body=True)))
    assert first.keys() == {2, 11}
    body = bytes(PIECE * 2 + 7)
    messages = [*request_body(body)]
    inner = [dict(fields(dict(fields(message))[4])) for message in messages]  # type: ignore[arg-type]
    assert b"".join(part[1] for part in inner) == body  # type: ignore[misc]
    assert [part[2] for part in inner] == [0, 0, 1]
    assert b"x-gateway-destination-endpoint-served" in response_headers(200, [], ONE)
