"""The edges of HTTP that clients and providers really have: other paths, packed bodies, headers that go on
and come back."""

import gzip
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import brotli
import pytest
from backports import zstd

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.rawserver import Peer, RawServer, Request, chunked, sized

pytestmark = pytest.mark.usefixtures("both_servers")
JSON = ("Content-Type", "application/json")
ANSWER = (
    b'{"id":"c-1","object":"chat.completion","created":7,"model":"m-1","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}'
)
EVENTS = (
    b'data: {"id":"c-1","model":"m-1","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n',
    b'data: {"id":"c-1","model":"m-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
)
ASKED = {"model": "chat", "messages": [{"role": "user", "content": "Count"}]}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
Behaviour = Callable[[Request, Peer], Awaitable[None]]


async def either(request: Request, peer: Peer) -> None:
    """As it was asked: a stream or a whole answer."""
    wanted = json.loads(request.body).get("stream")
    peer.send(chunked(*EVENTS) if wanted else sized(ANSWER, 200, JSON, ("x-request-id", "req_77")))


def says(data: bytes) -> Behaviour:
    async def answer(request: Request, peer: Peer) -> None:
        peer.send(data)

    return answer


def config(*upstreams: RawServer, of: str = "", alias: str = "", key: str = "") -> str:
    sections = "".join(
        f'  up{n}: {{backend: openai, base_url: "{up.url}/v1"{of}}}\n' for n, up in enumerate(upstreams)
    )
    tiers = ", ".join(f"[{{upstream: up{n}, model: m}}]" for n in range(len(upstreams)))
    head = HEAD.replace("default_alias: chat", f"default_alias: chat{key}")
    return f"{head}\nupstreams:\n{sections}aliases: {{chat: {{tiers: [{tiers}], retry: {{same_target: 0}}{alias}}}}}\n"


async def post(g: Running, path: str, body: Any, **headers: str) -> tuple[int, bytes, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"x-api-key": KEY, "content-type": "application/json"} | {
        n.replace("_", "-"): v for n, v in headers.items()
    }
    async with (
        aiohttp.ClientSession(g.url) as client,
        client.post(path, data=data, headers=headers) as response,
    ):
        return response.status, await response.read(), response.headers


# --- paths


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/chat/completions/", "/chat/completions", "/chat/completions/"]
)
async def test_a_base_url_without_v1_and_a_slash_at_the_end_lead_to_the_same(path: str) -> None:
    async with RawServer(either) as up, gateway(config(up)) as g:
        assert (await post(g, path, ASKED))[:2] == (200, ANSWER)
        assert g.requests[-1]["route"] == path.rstrip("/")


@pytest.mark.parametrize("path", ["/chat/", "/chat", "/v1/chat/stream/"])
async def test_the_widgets_paths_may_end_in_a_slash(path: str) -> None:
    async with RawServer(either) as up, gateway(config(up)) as g:
        status, body, _ = await post(g, path, {"sessionId": "s", "message": "hi"})
        assert (status, json.loads(body.splitlines()[-1])["message"]) == (200, "Hi")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/models", True),
        ("/v1/models/", True),
        ("/models/chat", True),
        ("/v1/models/chat/", True),
        ("/models/no", False),
    ],
)
async def test_models_likewise(path: str, found: bool) -> None:
    async with (
        RawServer(either) as up,
        gateway(config(up)) as g,
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
    ):
        async with client.get(path) as response:
            assert response.status == (200 if found else 404)
            assert ("chat" in await response.text()) is found
        assert g.requests[-1]["route"] in ("/v1/models", "/v1/models/*")


@pytest.mark.parametrize("path", ["/v1/edits", "/v1/assistants/17", "/v1/files", "/v1"])
async def test_an_unknown_path_is_told_in_openais_shape_what_is_served(path: str) -> None:
    async with RawServer(either) as up, gateway(config(up)) as g:
        status, body, _ = await post(g, path, ASKED)
        assert status == 404
        if path != "/v1":
            error = json.loads(body)["error"]
            assert error["code"] == "not_found"
            assert "/v1/chat/completions" in error["message"]
            assert path not in error["message"]
        assert g.requests[-1]["route"] == "other"


async def test_answers_are_not_for_pages() -> None:
    async with RawServer(either) as up, gateway(config(up)) as g:
        for path, body in (
            ("/v1/chat/completions", ASKED),
            ("/v1/chat/stream", {"sessionId": "s", "message": "hi"}),
            ("/nowhere", {}),
        ):
            headers = (await post(g, path, body))[2]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert "permissions-policy" in headers


# --- requests


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "GZIP", "gzip, br"])
async def test_a_packed_request_is_read(coding: str) -> None:
    import zlib

    packers: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "br": brotli.compress,
        "zstd": zstd.compress,
        "deflate": zlib.compress,
    }
    data = json.dumps(ASKED).encode()
    for name in coding.lower().split(", "):
        data = packers[name](data)
    async with RawServer(either) as up, gateway(config(up)) as g:
        assert (await post(g, "/v1/chat/completions", data, content_encoding=coding))[:2] == (200, ANSWER)


async def test_a_packed_request_is_bounded_as_it_is_unpacked_and_an_unknown_one_told_what_is_known() -> None:
    async with RawServer(either) as up, gateway(config(up)) as g:
        big = gzip.compress(json.dumps({**ASKED, "x": "x" * (5 << 20)}).encode())
        assert (await post(g, "/v1/chat/completions", big, content_encoding="gzip"))[0] == 413
        assert (await post(g, "/v1/chat/completions", b"{}", content_encoding="gzip"))[0] == 400
        status, _, headers = await post(g, "/v1/chat/completions", b"{}", content_encoding="lzma")
        assert (status, headers["accept-encoding"]) == (415, "gzip, deflate, br, zstd")
        assert not up.requests


async def test_a_byte_order_mark_before_a_body_is_passed_over() -> None:
    async with RawServer(either) as up, gateway(config(up)) as g:
        assert (await post(g, "/v1/chat/completions", b"\xef\xbb\xbf" + json.dumps(ASKED).encode()))[:2] == (
            200,
            ANSWER,
        )


# --- answers of upstreams


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [200, 201, 202, 206, 299])
async def test_any_2xx_with_a_body_is_an_answer(status: int, stream: bool) -> None:
    body = b"".join(EVENTS) if stream else ANSWER
    async with RawServer(says(sized(body, status, JSON))) as up, gateway(config(up)) as g:
        answered, got, _ = await post(g, "/v1/chat/completions", {**ASKED, "stream": stream})
        assert answered == 200
        assert b"Hi" in got


async def test_a_2xx_without_a_body_is_passed_over() -> None:
    empty = says(b"HTTP/1.1 204 No Content\r\n\r\n")
    async with RawServer(empty) as first, RawServer(either) as second, gateway(config(first, second)) as g:
        assert (await post(g, "/v1/chat/completions", ASKED))[:2] == (200, ANSWER)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_packed_answer_is_read_and_a_packed_error_too(stream: bool) -> None:
    body = b"".join(EVENTS) if stream else ANSWER
    packed = gzip.compress(body)
    async with (
        RawServer(says(sized(packed, 200, JSON, ("Content-Encoding", "gzip")))) as up,
        gateway(config(up)) as g,
    ):
        status, got, headers = await post(g, "/v1/chat/completions", {**ASKED, "stream": stream})
        assert status == 200
        assert b"Hi" in got
        assert "content-encoding" not in headers
    refusal = gzip.compress(b'{"error":{"message":"stop must be a list","type":"invalid_request_error"}}')
    async with (
        RawServer(says(sized(refusal, 400, JSON, ("Content-Encoding", "gzip")))) as up,
        gateway(config(up)) as g,
    ):
        status, got, _ = await post(g, "/v1/chat/completions", {**ASKED, "stream": stream})
        assert (status, json.loads(got)["error"]["message"]) == (400, "stop must be a list")


async def test_a_redirect_elsewhere_is_no_answer_and_the_log_says_where_it_leads() -> None:
    async def elsewhere(request: Request, peer: Peer) -> None:
        peer.send(sized(b"", 308, ("Location", "https://other.example/v1/chat/completions?key=secret")))

    async with (
        RawServer(elsewhere) as first,
        RawServer(either) as second,
        gateway(config(first, second)) as g,
    ):
        assert (await post(g, "/v1/chat/completions", ASKED))[:2] == (200, ANSWER)
        assert not [request for request in second.requests if "secret" in request.path]
    async with RawServer(elsewhere) as up, gateway(config(up)) as g:
        assert (await post(g, "/v1/chat/completions", ASKED))[0] == 502
        assert "other.example" in g.requests[-1]["detail"]
        assert "secret" not in g.requests[-1]["detail"]


# --- headers


async def test_the_request_id_and_the_trace_go_on_and_the_providers_id_comes_back() -> None:
    async with RawServer(either) as up, gateway(config(up)) as g:
        _, _, headers = await post(
            g, "/v1/chat/completions", ASKED, x_request_id="mine-1", traceparent=TRACE, tracestate="a=b"
        )
        sent = up.requests[-1].headers
        assert (sent["x-request-id"], sent["traceparent"], sent["tracestate"]) == ("mine-1", TRACE, "a=b")
        assert headers["x-sluice-upstream-request-id"] == "req_77"
        assert headers["x-sluice-target"] == "up0/m"
        assert headers["x-sluice-attempts"] == "1"


async def test_attempts_are_counted_and_a_hidden_target_stays_hidden() -> None:
    hidden, broken = ", report_model: alias", says(sized(b"{}", 500))
    async with (
        RawServer(broken) as first,
        RawServer(either) as second,
        gateway(config(first, second, alias=hidden)) as g,
    ):
        for stream in (True, False):
            _, _, headers = await post(g, "/v1/chat/completions", {**ASKED, "stream": stream})
            assert headers["x-sluice-attempts"] == "2"
            assert "x-sluice-target" not in headers
    async with RawServer(says(sized(b"{}", 500, ("request-id", "r-5")))) as up, gateway(config(up)) as g:
        status, _, headers = await post(g, "/v1/chat/completions", ASKED)
        assert (status, headers["x-sluice-attempts"], headers["x-sluice-upstream-request-id"]) == (
            502,
            "1",
            "r-5",
        )


async def test_only_what_an_upstream_forwards_goes_on_and_never_credentials() -> None:
    forward = ", headers: {anthropic-beta: a-1}, forward: {x-customer: any, anthropic-beta: [b-2]}"
    async with RawServer(either) as up, gateway(config(up, of=forward)) as g:
        await post(
            g,
            "/v1/chat/completions",
            ASKED,
            X_Customer="acme",
            anthropic_beta="b-2,c-3",
            x_other="no",
            cookie="a=b",
        )
        sent = up.requests[-1].headers
        assert (sent["x-customer"], sent["anthropic-beta"]) == ("acme", "a-1,b-2")
        assert not {"x-other", "cookie", "x-api-key"} & set(sent)
        assert KEY not in up.requests[-1].raw.decode("latin-1")


# --- pages


async def test_a_preflight_is_told_what_it_asked_for_and_a_strangers_or_an_admins_nothing() -> None:
    page = "https://shop.example.com"
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,OpenAI-Organization, x-odd",
    }
    async with (
        RawServer(either) as up,
        gateway(config(up, key=f", origins: ['{page}']")) as g,
        aiohttp.ClientSession(g.url) as client,
    ):
        async with client.options("/v1/chat/completions", headers={"Origin": page, **asked}) as response:
            allowed = response.headers["Access-Control-Allow-Headers"].split(", ")
            assert {"authorization", "openai-organization", "x-odd", "content-type"} <= set(allowed)
        for headers in ("a b", ", ".join(f"x-{n}" for n in range(100)), "x" * 300, 'x"'):
            asked["Access-Control-Request-Headers"] = headers
            async with client.options("/v1/chat/completions", headers={"Origin": page, **asked}) as response:
                assert headers not in response.headers["Access-Control-Allow-Headers"]
        for path, origin in (
            ("/v1/chat/completions", "https://evil.example"),
            ("/admin/keys", page),
            ("/v1/admin/conversations", page),
        ):
            async with client.options(path, headers={"Origin": origin, **asked}) as response:
                assert not [name for name in response.headers if name.lower().startswith("access-control")]
