"""What an endpoint picker is sent of a request."""

import pytest

from sluice.backends.transport import UpstreamRequest
from sluice.upstream.picked import _headers_of


def sent(*headers: tuple[str, str], lines: bytes = b"", url: str = "http://pool/v1/chat") -> dict[str, str]:
    return dict(_headers_of(UpstreamRequest(url, headers, b"{}", lines=lines)))


def test_a_picker_gets_the_requests_headers() -> None:
    headers = (("content-type", "application/json"), ("x-gateway-inference-objective", "batch"))
    assert sent(*headers, lines=b"x-request-id: r1\r\ntraceparent: 00-1-2\r\n") == {
        ":method": "POST", ":path": "/v1/chat", ":authority": "pool", ":scheme": "http",
        "content-type": "application/json", "x-gateway-inference-objective": "batch",
        "x-request-id": "r1", "traceparent": "00-1-2",
    }  # fmt: skip


@pytest.mark.parametrize(
    "header",
    [
        ("authorization", "Bearer sk-1"),
        ("Authorization", "sk-1"),
        ("api-key", "sk-1"),
        ("X-Api-Key", "sk-1"),
        ("x-goog-api-key", "sk-1"),
        ("cf-access-client-secret", "sk-1"),
        ("cookie", "a=sk-1"),
        ("x-amz-security-token", "sk-1"),
        ("proxy-authorization", "Basic sk-1"),
        ("x-upstream", "bearer sk-1"),
    ],
)
def test_a_picker_never_gets_credentials(header: tuple[str, str]) -> None:
    line = f"{header[0]}: {header[1]}\r\n".encode()
    for found in (sent(header), sent(lines=line), sent(url="http://pool/v1/chat?key=sk-1")):
        assert not any("sk-1" in value for value in found.values())
        assert found[":path"] == "/v1/chat"
