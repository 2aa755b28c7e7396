"""The status of gRPC, as servers send it and as nobody should."""

import base64

import pytest

from sluice.wire.grpc_status import INTERNAL, UNAVAILABLE, UNKNOWN, code_of, code_of_http, retry_delay
from sluice.wire.protobuf import data, number, text


def status(*details: bytes) -> bytes:
    return number(1, UNAVAILABLE) + text(2, "later") + b"".join(data(3, detail) for detail in details)


def packed(message: bytes, kind: str = "google.rpc.RetryInfo") -> bytes:
    return text(1, f"type.googleapis.com/{kind}") + data(2, message)


def delay(seconds: int, nanos: int = 0) -> bytes:
    return data(1, number(1, seconds) + number(2, nanos))


def header(message: bytes, *, pad: bool = False) -> str:
    written = base64.b64encode(message).decode()
    return written if pad else written.rstrip("=")


@pytest.mark.parametrize(("written", "code"), [("0", 0), ("14", 14), ("16", 16)])
def test_a_code_is_a_number(written: str, code: int) -> None:
    assert code_of(written) == code


@pytest.mark.parametrize("written", ["17", "999", "", "-1", "²", "x"])
def test_what_is_no_code_is_an_unknown_one(written: str) -> None:
    assert code_of(written) == UNKNOWN


def test_an_http_status_has_a_code() -> None:
    assert [code_of_http(status) for status in ("400", "503", "500", "x")] == [
        INTERNAL,
        UNAVAILABLE,
        UNKNOWN,
        UNKNOWN,
    ]


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        (status(packed(delay(5))), 5.0),
        (status(packed(delay(0, 250_000_000))), 0.25),
        (status(packed(b"", "google.rpc.BadRequest"), packed(delay(1))), 1.0),
        (status(packed(b"")), 0.0),
        (status(), None),
        (status(packed(delay(-1))), None),
        (status(packed(number(1, 7))), None),
        (status(number(1, 3)), None),
        (status(b"\xff"), None),
        (b"\x0a\xff", None),
    ],
)
def test_a_delay_is_read_of_the_details(message: bytes, seconds: float | None, *, pad: bool) -> None:
    assert retry_delay(header(message, pad=pad)) == seconds


@pytest.mark.parametrize("details", ["", "A", "%%%", "é", "A" * 10_000])
def test_details_that_are_none_say_nothing(details: str) -> None:
    assert retry_delay(details) is None
