import pytest

from sluice.backends.protocol import UpstreamRequest
from sluice.upstream.request import MAX_KEPT_HEADS, Heads, Origin, origin_of

URL = "https://api.example.com/v1/chat?beta=1#part"


def heads(url: str = URL, **options: object) -> Heads:
    return Heads(origin_of(url), options.get("credentials", ()), "sluice/1")  # type: ignore[arg-type]


def test_a_head_has_what_every_request_needs() -> None:
    head = heads(credentials=(("authorization", "Bearer k"),)).of(UpstreamRequest(URL, (("x-a", "é"),), b""))
    assert head == (
        b"POST /v1/chat?beta=1 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: sluice/1\r\n"
        b"Accept-Encoding: identity\r\nx-a: \xe9\r\nauthorization: Bearer k\r\nContent-Length: "
    )


def test_a_given_user_agent_replaces_ours() -> None:
    head = heads().of(UpstreamRequest(URL, (("User-Agent", "me"),), b""))
    assert b"sluice" not in head
    assert b"User-Agent: me\r\n" in head


def test_credentials_replace_what_the_request_calls_the_same() -> None:
    head = heads(credentials=(("Authorization", "mine"),)).of(
        UpstreamRequest(URL, (("authorization", "stray"),), b"")
    )
    assert b"stray" not in head
    assert b"mine" in head


def test_the_same_head_is_built_once() -> None:
    built = heads()
    first = built.of(UpstreamRequest(URL, (("x-a", "1"),), b"a"))
    assert built.of(UpstreamRequest(URL, (("x-a", "1"),), b"b")) is first


def test_heads_that_always_differ_are_not_hoarded() -> None:
    built = heads()
    for number in range(MAX_KEPT_HEADS * 3):
        built.of(UpstreamRequest(URL, (("x-request-id", str(number)),), b""))
    assert len(built._kept) <= MAX_KEPT_HEADS


@pytest.mark.parametrize(
    "header",
    [
        ("x", "a\r\nEvil: 1"), ("x", "a\nb"), ("x", "a\rb"), ("x", "a\0"), ("x", "\x7f"), ("x", "☃"), ("x\r\ny", "1"),
        ("x y", "1"), ("", "1"), ("x:", "1"), ("é", "1"), ("Host", "other"), ("content-length", "3"),
        ("Transfer-Encoding", "chunked"), ("connection", "close"), ("accept-encoding", "gzip"), ("expect", "100-continue"),
    ],
)  # fmt: skip
def test_a_header_that_could_break_or_frame_the_message_is_refused(header: tuple[str, str]) -> None:
    with pytest.raises(ValueError):
        heads().of(UpstreamRequest(URL, (header,), b""))
    with pytest.raises(ValueError):
        heads(credentials=(header,))


def test_a_refusal_does_not_hold_the_value() -> None:
    with pytest.raises(ValueError) as refused:
        heads(credentials=(("x-api-key", "secret\n"),))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example.com/", "http://api.example.com/", "https://api.example.com:8443/", "https://api.example.com/a b",
        "https://api.example.com/\x01", "https://api.example.com/é", "https://api.example.com@evil.com/", "/v1/chat", "",
        "https://api.example.com/ HTTP/1.1\r\nEvil: 1",
    ],
)  # fmt: skip
def test_a_request_for_another_origin_or_with_a_bad_target_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        heads().of(UpstreamRequest(url, (), b""))


@pytest.mark.parametrize("method", ["", "GET ", "PO\r\nST", "G:T"])
def test_a_method_that_is_none_is_refused(method: str) -> None:
    with pytest.raises(ValueError):
        heads().of(UpstreamRequest(URL, (), b"", method))


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.example.com/v1", Origin("https", "api.example.com", 443, "api.example.com")),
        ("http://API.example.com:8080", Origin("http", "api.example.com", 8080, "api.example.com:8080")),
        ("http://[::1]:80/", Origin("http", "::1", 80, "[::1]")),
        ("http://bücher.example/", Origin("http", "xn--bcher-kva.example", 80, "xn--bcher-kva.example")),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: Origin) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "ftp://a",
        "https://",
        "https://u:p@host/",
        "http://a:99999/",
        "http://a\r\nb/",
        "http://a /",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        origin_of(url)


def test_people_see_host_and_port() -> None:
    assert origin_of("https://api.example.com").name == "api.example.com:443"
    assert origin_of("http://[::1]").name == "[::1]:80"
