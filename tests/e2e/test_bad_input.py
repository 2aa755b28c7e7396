"""What callers send that is wrong: a clear 4xx with a reason, never a 500; nothing is stored, and no provider is asked.

Everything goes over raw sockets through a running gateway. `watched` is the gateway with a provider behind it: when it
is left, it looks whether the provider heard anything, whether a conversation was kept, and whether a canary (it stands in
the key, in wrong credentials, in prompts, session ids and in the provider's key) appears in a log line, a metric or an error.
After each refusal the connection either serves another request or has been said to close, and closes.
"""

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from gateway.identity.keys import digest_of
from tests.e2e.gateways import Running, gateway
from tests.fakes.rawserver import Peer, RawServer, Request, sized

CANARY = "c4n4ry"
KEY = f"sk-sluice-{CANARY}"
ADMIN = "sk-admin"
LIMIT = 64 << 10
STREAM, WHOLE, OPENAI = "/v1/chat/stream", "/v1/chat", "/v1/chat/completions"
SECURITY = Path(__file__).resolve().parents[3] / "shared" / "security"
SESSION = re.compile(r"[A-Za-z0-9._:-]{1,128}")

CONFIG = f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0, body_limit: {LIMIT}}}
limits: {{address: null}}
admin: {{digest: "{digest_of(ADMIN)}"}}
keys: [{{id: test, digest: "{digest_of(KEY)}", aliases: [chat, echo], default_alias: chat}}]
upstreams:
  fake: {{backend: openai, base_url: "PROVIDER", api_key: "sk-upstream-{CANARY}"}}
  echo: {{backend: echo}}
aliases:
  chat: {{tiers: [[{{upstream: fake, model: m}}]], retry: {{same_target: 0}}}}
  echo: {{tiers: [[{{upstream: echo, model: m}}]]}}
  other: {{tiers: [[{{upstream: fake, model: m}}]]}}
"""


class Answer(msgspec.Struct):
    """`headers` with lower-case names; `raw` is the head as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, raw: bytes, *, head: bool = False) -> Answer:
        self.writer.write(raw)
        return await self.answer(head=head)

    async def answer(self, *, head: bool = False) -> Answer:
        async with asyncio.timeout(10):
            raw = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = raw[:-4].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            status = int(first.split(" ")[1])
            return Answer(status, headers, b"" if head or status in (100, 204) else await self._body(headers), raw)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read()
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()
        return body

    async def closed(self) -> bool:
        async with asyncio.timeout(10):
            return await self.reader.read() == b""


class Watch:
    """A gateway to be asked wrongly. `heard` is what the provider was asked."""

    def __init__(self, running: Running, provider: RawServer) -> None:
        self.running = running
        self.provider = provider
        self.wires: list[Wire] = []
        self.errors: list[bytes] = []

    async def wire(self) -> Wire:
        wire = Wire(*await asyncio.open_connection(*self.running.address))
        self.wires.append(wire)
        return wire

    async def refusal(self, raw: bytes, status: int, path: str) -> Answer:
        """Ask, see that it is refused in the path's dialect, and that the connection is fit for another or closed."""
        wire = await self.wire()
        answer = await wire.ask(raw)
        self.errors.append(answer.raw + answer.body)
        assert answer.status == status, answer
        well_said(answer, path)
        if answer.headers.get("connection") == "close":
            assert await wire.closed()
        else:
            assert (await wire.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
        return answer

    async def stored(self) -> int:
        wire = await self.wire()
        head = f"GET /v1/admin/conversations HTTP/1.1\r\nHost: x\r\nx-admin-api-key: {ADMIN}\r\n\r\n"
        total: int = (await wire.ask(head.encode())).json["total"]
        return total

    def silent(self) -> None:
        """Nothing that must not be seen was written."""
        seen = self.running.log_bytes.getvalue() + self.running.runtime.exposition() + b"".join(self.errors)
        assert CANARY.encode() not in seen
        assert not [line for line in self.running.log_lines if line["event"] == "crash"]


async def _unexpected(request: Request, peer: Peer) -> None:
    peer.send(sized(b"{}", 500))


@asynccontextmanager
async def watched(*, calls: bool = False) -> AsyncIterator[Watch]:
    """`calls`: some of what is sent is right, so that conversations are kept."""
    async with RawServer(_unexpected) as provider, gateway(CONFIG.replace("PROVIDER", provider.url)) as running:
        watch = Watch(running, provider)
        yield watch
        assert provider.requests == []
        if not calls:
            assert await watch.stored() == 0
        for wire in watch.wires:
            wire.writer.close()
        watch.silent()


def well_said(answer: Answer, path: str) -> None:
    """The error's shape: OpenAI's on its paths, else the widget's with a code, an id and, for 400, the reason."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = answer.json["error"]
    if path == OPENAI or path.startswith("/v1/models"):
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert error["code"]
        return
    assert isinstance(error, str)
    assert answer.json["code"]
    assert answer.json["requestId"] == answer.headers["x-request-id"]
    if answer.status == 400:
        assert error == "Invalid request payload"
        assert all(detail["field"] and detail["reason"] for detail in answer.json["details"])
        assert answer.json["details"]


def post(path: str, body: bytes, *headers: str, credential: str | None = f"x-api-key: {KEY}", media: str = "json") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers]
    if credential is not None:
        lines.append(credential)
    if media:
        lines.append(f"Content-Type: application/{media}")
    if not any(line.lower().startswith("transfer-encoding") for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def widget(**fields: Any) -> bytes:
    return json.dumps({"sessionId": f"s-{CANARY}", "message": f"hi {CANARY}"} | fields).encode()


def openai(**fields: Any) -> bytes:
    return json.dumps({"model": "chat", "messages": [{"role": "user", "content": f"hi {CANARY}"}]} | fields).encode()


def without(body: bytes, field: str) -> bytes:
    return json.dumps({name: value for name, value in json.loads(body).items() if name != field}).encode()


# bodies

ANYWHERE: dict[str, bytes] = {
    "empty": b"",
    "white space": b" ",
    "not JSON": f"hello {CANARY}".encode(),
    "half": b'{"sessionId": "s"',
    "a list": b"[]",
    "null": b"null",
    "a string": b'"x"',
    "a number": b"1",
    "not UTF-8": b'{"message": "\xff"}',
    "UTF-16": '{"message": "hi"}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "NaN": b'{"x": NaN, "sessionId": "s", "message": "m", "messages": []}',
    "Infinity": b'{"x": -Infinity}',
    "out of range": b'{"x": 1e999}',
    "endless integer": b'{"x": ' + b"9" * 10_000 + b"}",
    "a NUL": b'{"x": "\x00"}',
    "deep list": b"[" * 60_000,
    "deep object": b'{"x":' * 10_000,
    "deep and closed": b'{"x":' + b"[" * 200 + b"]" * 200 + b"}",
}
WITHIN: dict[str, bytes] = {
    "doubled key": b', "model": "chat", "model": "chat"',
    "doubled key, deep down": b', "x": [{"a": 1, "a": 1}]',
    "lone high surrogate": b', "x": "\\ud800"',
    "lone low surrogate": b', "x": ["\\udc00 x"]',
    "lone surrogate as a key": b', "\\ud800": 1',
    "surrogate in UTF-8": b', "x": "\xed\xa0\x80"',
    "deep": b', "x":' + b'{"x":[' * 100 + b"]}" * 100,
    "trailing comma": b",",
    "NaN": b', "temperature": NaN',
}
WIDGET: dict[str, tuple[bytes, str]] = {
    "nothing": (b"{}", "sessionId"),
    "no sessionId": (without(widget(), "sessionId"), "sessionId"),
    "no message": (without(widget(), "message"), "message"),
    **{f"sessionId {value!r:.20}": (widget(sessionId=value), "sessionId") for value in (None, 1, True, [], {}, "")},
    "sessionId with a newline at its end": (widget(sessionId="abc\n"), "sessionId"),
    "sessionId with a space": (widget(sessionId="a b"), "sessionId"),
    "sessionId of other letters": (widget(sessionId="é"), "sessionId"),
    "sessionId of other digits": (widget(sessionId="٣"), "sessionId"),
    "sessionId of 129": (widget(sessionId="s" * 129), "sessionId"),
    **{f"message {value!r:.20}": (widget(message=value), "message") for value in (None, 1, False, ["x"], {"x": 1}, "")},
    "message of 4001": (widget(message="x" * 4001), "message"),
    "message of 4001 wide": (widget(message="😀" * 4001), "message"),
    **{f"model {value!r:.20}": (widget(model=value), "model") for value in (1, [], "")},
    "messages beside a session": (without(widget(messages=[]), "message"), "message"),
    "empty messages": (b'{"messages": []}', "messages"),
}
CHAT: dict[str, tuple[bytes, str | None]] = {
    "nothing": (b"{}", "messages"),
    "no messages": (without(openai(), "messages"), "messages"),
    **{f"messages {value!r:.20}": (openai(messages=value), "messages") for value in (None, 1, "x", {}, [])},
    "a message that is none": (openai(messages=["x"]), "messages[0]"),
    "no role": (openai(messages=[{"content": "x"}]), "messages[0].role"),
    "a role of nobody": (openai(messages=[{"role": CANARY, "content": "x"}]), "messages[0].role"),
    "content 1": (openai(messages=[{"role": "user", "content": 1}]), "messages[0].content"),
    "stream yes": (openai(stream="yes"), "stream"),
    "n 2": (openai(n=2), "n"),
    "n one": (openai(n="1"), "n"),
    "model 1": (openai(model=1), "model"),
    "no name": (openai(model=""), "model"),
    "tools {}": (openai(tools={}), "tools"),
    "temperature hot": (openai(temperature="hot"), "temperature"),
}


@pytest.mark.parametrize("path", [STREAM, "/chat", WHOLE, OPENAI])
async def test_a_body_that_is_no_json_object_is_refused(path: str) -> None:
    right = openai() if path == OPENAI else widget()
    async with watched() as watch:
        for body in [*ANYWHERE.values(), *(right[:-1] + more + b"}" for more in WITHIN.values())]:
            answer = await watch.refusal(post(path, body), 400, path)
            assert CANARY not in answer.body.decode()


@pytest.mark.parametrize("case", WIDGET)
async def test_a_widgets_field_that_is_wrong_is_named(case: str) -> None:
    body, field = WIDGET[case]
    async with watched() as watch:
        for path in (STREAM, WHOLE):
            answer = await watch.refusal(post(path, body), 400, path)
            assert field in {detail["field"].partition("[")[0] for detail in answer.json["details"]}


@pytest.mark.parametrize("case", CHAT)
async def test_a_field_of_a_completion_that_is_wrong_is_named(case: str) -> None:
    body, field = CHAT[case]
    async with watched() as watch:
        answer = await watch.refusal(post(OPENAI, body), 400, OPENAI)
        assert answer.json["error"]["param"] == field
        assert answer.json["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("alias", ["nope", "other", "chat ", f"x-{CANARY}"])
async def test_an_alias_that_is_unknown_or_not_the_keys_is_not_found(alias: str) -> None:
    async with watched() as watch:
        for path, body in ((STREAM, widget(model=alias)), (WHOLE, widget(model=alias)), (OPENAI, openai(model=alias))):
            answer = await watch.refusal(post(path, body), 404, path)
            assert answer.json.get("code", "model_not_found") == "model_not_found"
        get = f"GET /v1/models/{alias.strip()} HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n"
        if alias != "chat ":
            await watch.refusal(get.encode(), 404, "/v1/models")


# HTTP


def chunked(*sizes_and_data: tuple[str, bytes], end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(size.encode() + b"\r\n" + data + b"\r\n" for size, data in sizes_and_data) + end


CHUNKED = "Transfer-Encoding: chunked"
HTTP: dict[str, tuple[bytes, int]] = {
    "too large": (post(STREAM, widget(x="x" * LIMIT)), 413),
    "said to be too large": (post(STREAM, b"", CHUNKED).replace(CHUNKED.encode(), b"Content-Length: 99999999"), 413),
    "too large in chunks": (post(STREAM, chunked(("ffff", b"x" * 0xFFFF), ("ffff", b"x" * 0xFFFF)), CHUNKED), 413),
    "text": (post(STREAM, widget(), "Content-Type: text/plain", media=""), 415),
    "no type": (post(STREAM, widget(), media=""), 415),
    "form": (post(STREAM, widget(), media="x-www-form-urlencoded"), 415),
    "nearly": (post(STREAM, widget(), media="json5"), 415),
    "gzip": (post(STREAM, gzip.compress(widget()), "Content-Encoding: gzip"), 415),
    "said to be gzip": (post(STREAM, widget(), "Content-Encoding: gzip"), 415),
    "unknown path": (post(f"/v1/{CANARY}", widget()), 404),
    "slash": (post("/v1/chat/", widget()), 404),
    "two slashes": (post("//v1/chat", widget()), 404),
    "dots": (post("/v1/../v1/chat", widget()), 404),
    "the admin port's": (f"GET /metrics HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n".encode(), 404),
    "get": (f"GET {STREAM} HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n".encode(), 405),
    "delete": (f"DELETE /health HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n".encode(), 405),
    "trace": (f"TRACE {STREAM} HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n".encode(), 405),
    "post to models": (post("/v1/models", b"{}"), 405),
    "admin without a key": (b"GET /v1/admin/conversations HTTP/1.1\r\nHost: x\r\n\r\n", 401),
    "admin with a caller's": (
        f"GET /v1/admin/conversations HTTP/1.1\r\nHost: x\r\nx-admin-api-key: {KEY}\r\n\r\n".encode(),
        401,
    ),
}


@pytest.mark.parametrize("case", HTTP)
async def test_what_http_says_no_to(case: str) -> None:
    raw, status = HTTP[case]
    path = raw.split(b" ")[1].decode()
    async with watched() as watch:
        answer = await watch.refusal(raw, status, path)
        if status == 405:
            methods = answer.headers["allow"].split(", ")
            assert "OPTIONS" in methods
            assert raw.split(b" ")[0].decode() not in methods


@pytest.mark.parametrize(
    "credential",
    [
        None,
        "x-api-key: ", f"x-api-key: wrong-{CANARY}", f"x-api-key: {KEY}x", f"x-api-key: {KEY} x", f"x-api-key: x, {KEY}",
        "Authorization: Bearer", f"Authorization: {KEY}",
        f"Authorization: Basic {CANARY}", f"Authorization: Bearer {KEY} {KEY}",
        f"Authorization: Bearer\t{KEY}", f"Authorization: Bearer {KEY}, Bearer {KEY}", f"Authorization: bearer wrong-{CANARY}",
        f"Authorization: Bearer {CANARY}.{CANARY}.{CANARY}", f"Authorization: Bearer {'x' * 7000}", f"x-api-key: \xff{CANARY}",
        f"x-api-key: {KEY}\r\nx-api-key: {KEY}", f"x-api-key: {KEY}\r\nAuthorization: Bearer wrong-{CANARY}",
    ],
)  # fmt: skip
async def test_a_credential_that_is_wrong_is_refused_before_the_body_is_looked_at(credential: str | None) -> None:
    async with watched() as watch:
        for path, body in ((STREAM, widget()), (WHOLE, b"{"), (OPENAI, openai()), (OPENAI, b"{")):
            answer = await watch.refusal(post(path, body, credential=credential), 401, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            if path != OPENAI:
                assert answer.json["error"] == "Unauthorized"


MALFORMED: dict[str, bytes] = {
    "no HTTP": f"hello {CANARY}\r\n\r\n".encode(),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + CANARY.encode() + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": f"GET /{CANARY}\r\n\r\n".encode(),
    "another version": f"GET /{CANARY} HTTP/9.9\r\nHost: x\r\n\r\n".encode(),
    "header without a colon": f"GET / HTTP/1.1\r\nHost: x\r\n{CANARY}\r\n\r\n".encode(),
    "header with a space": f"GET / HTTP/1.1\r\nHost: x\r\nx {CANARY}: 1\r\n\r\n".encode(),
    "header with a NUL": f"GET / HTTP/1.1\r\nHost: x\r\nx: {CANARY}\x00\r\n\r\n".encode(),
    "folded header": f"GET / HTTP/1.1\r\nHost: x\r\nx: 1\r\n {CANARY}\r\n\r\n".encode(),
    "method of control characters": f"G\x01T /{CANARY} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "two lengths": post(STREAM, widget(), "Content-Length: 3"),
    "length of letters": post(STREAM, widget()).replace(b"Content-Length: ", b"Content-Length: x"),
    "negative length": post(STREAM, widget()).replace(b"Content-Length: ", b"Content-Length: -"),
    "length and chunks": post(STREAM, chunked(("1", b"{")), CHUNKED, "Content-Length: 5"),
    "endless line": b"GET /" + CANARY.encode() * 4000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "endless header": b"GET / HTTP/1.1\r\nHost: x\r\nx: " + CANARY.encode() * 4000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_what_is_not_http_gets_an_answer_that_quotes_nothing_of_it(case: str) -> None:
    async with watched() as watch:
        wire = await watch.wire()
        answer = await wire.ask(MALFORMED[case])
        watch.errors.append(answer.raw + answer.body)
        assert answer.status == 400
        assert answer.json["error"]["message"] == "The request is not valid HTTP"
        assert answer.headers["connection"] == "close"
        assert await wire.closed()


@pytest.mark.parametrize(
    "body",
    [
        chunked(("zz", b"{}")), chunked(("-1", b"{")), chunked(("5", b"{}")), chunked(("", b"{}")), chunked(("1", b"{}")),
        chunked(("2", b"{}"), end=b"0\r\nx"), b"\r\n\r\n", b"2;" + b"x" * 20_000 + b"\r\n{}\r\n0\r\n\r\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [STREAM, OPENAI])
async def test_broken_chunks_are_a_400_and_the_connection_is_closed(path: str, body: bytes) -> None:
    async with watched() as watch:
        wire = await watch.wire()
        wire.writer.write(post(path, body, CHUNKED))
        answer = await wire.answer()
        watch.errors.append(answer.raw + answer.body)
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
        assert await wire.closed()


async def test_a_body_that_ends_early_is_no_call() -> None:
    async with watched() as watch:
        for cut in (1, 10):
            wire = await watch.wire()
            wire.writer.write(post(STREAM, widget())[:-cut])
            wire.writer.close()
            await wire.writer.wait_closed()


# HTTP that is right, if seldom seen


async def test_a_client_of_http_1_0_gets_an_answer_without_chunks() -> None:
    async with watched(calls=True) as watch:
        for path, body in (
            (STREAM, widget(model="echo")),
            (OPENAI, openai(model="echo", stream=True)),
            (WHOLE, widget(model="echo")),
        ):
            wire = await watch.wire()
            answer = await wire.ask(post(path, body).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
            assert answer.status == 200
            assert "transfer-encoding" not in answer.headers
            assert f"hi {CANARY}".split()[0] in answer.body.decode()
            assert await wire.closed()


async def test_head_is_get_without_a_body_and_options_names_the_methods() -> None:
    async with watched() as watch:
        wire = await watch.wire()
        answer = await wire.ask(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n", head=True)
        assert (answer.status, answer.headers["content-length"]) == (200, "15")
        answer = await wire.ask(f"OPTIONS {STREAM} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (answer.status, answer.headers["allow"]) == (204, "OPTIONS, POST")
        assert "access-control-allow-origin" not in answer.headers
        answer = await wire.ask(b"OPTIONS /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert set(answer.headers["allow"].split(", ")) >= {"GET", "OPTIONS"}
        answer = await wire.ask(b"HEAD /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", head=True)
        assert answer.status == 404
        assert (await wire.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")).body == b'{"status":"ok"}'


async def test_a_client_that_waits_for_100_is_told_to_go_on_or_refused_at_once() -> None:
    async with watched(calls=True) as watch:
        wire = await watch.wire()
        body = widget(model="echo")
        raw = post(WHOLE, body, "Expect: 100-continue")
        assert (await wire.ask(raw[: -len(body)])).status == 100
        assert (await wire.ask(body)).status == 200
        wire = await watch.wire()
        refused = await wire.ask(post(WHOLE, b"", "Expect: 100-continue", CHUNKED, credential="x-api-key: wrong"))
        assert refused.status == 401
        wire = await watch.wire()
        large = f"POST {WHOLE} HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n"
        large += "Expect: 100-continue\r\nContent-Length: 9999999\r\n\r\n"
        assert (await wire.ask(large.encode())).status == 413


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with watched(calls=True) as watch:
        wire = await watch.wire()
        health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        right = post(WHOLE, widget(model="echo"))
        wire.writer.write(health + right + post(WHOLE, b"{") + right + post(OPENAI, openai(model="nope")) + health)
        answers = [await wire.answer() for _ in range(6)]
        assert [answer.status for answer in answers] == [200, 200, 400, 200, 404, 200]
        assert answers[3].json["message"] == f"Turn 2, you said: hi {CANARY}"


# other people's collections


def suite(kind: str) -> list[bytes]:
    folder = SECURITY / "jsontestsuite" / "test_parsing"
    return [path.read_bytes() for path in sorted(folder.glob(f"{kind}_*.json"))]


needs_suite = pytest.mark.skipif(not SECURITY.is_dir(), reason=f"the collections of bad input are not here ({SECURITY})")


def wrapped(value: bytes, path: str) -> bytes:
    right = openai(model="echo") if path == OPENAI else widget(model="echo")
    return right[:-1] + b', "more": ' + value + b"}"


@needs_suite
@pytest.mark.parametrize("path", [WHOLE, OPENAI])
async def test_what_jsontestsuite_says_is_no_json_is_refused(path: str) -> None:
    bodies = [body for body in suite("n") if len(body) < LIMIT // 2]
    assert len(bodies) > 180
    async with watched() as watch:
        for body in bodies:
            for sent in (body, wrapped(body, path)):
                await watch.refusal(post(path, sent), 400, path)
        for body in suite("n"):
            if len(body) >= LIMIT // 2:
                await watch.refusal(post(path, body[: LIMIT // 2]), 400, path)


@needs_suite
@pytest.mark.parametrize("path", [WHOLE, OPENAI])
async def test_what_jsontestsuite_says_is_json_is_taken_but_for_doubled_keys(path: str) -> None:
    async with watched(calls=True) as watch:
        wire = await watch.wire()
        refused = [body for body in suite("y") if (await wire.ask(post(path, wrapped(body, path)))).status != 200]
        assert [body for body in refused if body.count(b'"a"') < 2] == []
        for body in suite("i"):
            answer = await wire.ask(post(path, wrapped(body, path)))
            assert answer.status in (200, 400)


def naughty() -> list[str]:
    strings: list[str] = json.loads((SECURITY / "blns" / "blns.json").read_bytes())
    return strings


@needs_suite
async def test_naughty_strings_come_back_as_they_were_sent() -> None:
    async with watched(calls=True) as watch, aiohttp.ClientSession(watch.running.url, headers={"x-api-key": KEY}) as client:
        for at, text in enumerate(naughty()):
            body = {"sessionId": f"s{at}", "message": text, "model": "echo"}
            async with client.post(STREAM, json=body) as response:
                assert response.status == (200 if text else 400)
                lines = [json.loads(line) for line in (await response.read()).split(b"\n") if line]
            if text:
                said = "".join(line["token"] for line in lines if line["type"] == "token")
                assert said == f"You said: {text}"
                assert lines[-1]["message"] == said.strip()


@needs_suite
async def test_naughty_strings_are_session_ids_only_if_they_are_by_the_contract() -> None:
    async with watched(calls=True) as watch, aiohttp.ClientSession(watch.running.url, headers={"x-api-key": KEY}) as client:
        taken = set()
        for text in naughty():
            async with client.post(WHOLE, json={"sessionId": text, "message": "hi", "model": "echo"}) as response:
                assert response.status == (200 if SESSION.fullmatch(text) else 400), text
            if SESSION.fullmatch(text):
                taken.add(text)
        assert await watch.stored() == len(taken)


# what a provider says


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_what_a_provider_quotes_is_not_logged(status: int) -> None:
    said = {"error": {"message": f"Failed on {CANARY} with key sk-upstream-{CANARY}", "type": CANARY, "code": CANARY}}

    async def quotes(request: Request, peer: Peer) -> None:
        assert request.headers["authorization"] == f"Bearer sk-upstream-{CANARY}"
        peer.send(sized(json.dumps(said).encode(), status, ("x-request-id", CANARY)))

    async with RawServer(quotes) as provider, gateway(CONFIG.replace("PROVIDER", provider.url)) as running:
        watch = Watch(running, provider)
        for path, body in ((STREAM, widget()), (WHOLE, widget()), (OPENAI, openai()), (OPENAI, openai(stream=True))):
            wire = await watch.wire()
            answer = await wire.ask(post(path, body))
            assert f"sk-upstream-{CANARY}" not in answer.body.decode()
            wire.writer.close()
        assert len(running.requests) == 4
        watch.silent()
        assert await watch.stored() == 0
