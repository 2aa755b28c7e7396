"""Requests that are wrong as HTTP, before their bodies are read; and some that are right, if seldom seen."""

import base64
import gzip
import json

import pytest

from tests.e2e.watched import (
    CANARY,
    KEY,
    LIMIT,
    OPENAI,
    SECURITY,
    STREAM,
    WHOLE,
    needs_suite,
    openai,
    post,
    watched,
    widget,
)  # fmt: skip


def chunked(*sizes_and_data: tuple[str, bytes], end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(size.encode() + b"\r\n" + data + b"\r\n" for size, data in sizes_and_data) + end


CHUNKED = "Transfer-Encoding: chunked"
HTTP: dict[str, tuple[bytes, int]] = {
    "too large": (post(STREAM, widget(x="x" * LIMIT)), 413),
    "said to be too large": (
        post(STREAM, b"", CHUNKED).replace(CHUNKED.encode(), b"Content-Length: 99999999"),
        413,
    ),
    "too large in chunks": (
        post(STREAM, chunked(("ffff", b"x" * 0xFFFF), ("ffff", b"x" * 0xFFFF)), CHUNKED),
        413,
    ),
    "text": (post(STREAM, widget(), "Content-Type: text/plain", media=""), 415),
    "no type": (post(STREAM, widget(), media=""), 415),
    "form": (post(STREAM, widget(), media="x-www-form-urlencoded"), 415),
    "nearly": (post(STREAM, widget(), media="json5"), 415),
    "unknown coding": (post(STREAM, widget(), "Content-Encoding: compress"), 415),
    "said to be gzip": (post(STREAM, widget(), "Content-Encoding: gzip"), 400),
    "half a gzip": (post(STREAM, gzip.compress(widget())[:-5], "Content-Encoding: gzip"), 400),
    "too large when it is unpacked": (
        post(STREAM, gzip.compress(widget(x="x" * LIMIT)), "Content-Encoding: gzip"),
        413,
    ),
    "unknown path": (post(f"/v1/{CANARY}", widget()), 404),
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


MALFORMED: dict[str, bytes] = {
    "no HTTP": f"hello {CANARY}\r\n\r\n".encode(),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + CANARY.encode() + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": f"GET /{CANARY}\r\n\r\n".encode(),
    "HTTP/2.0 without its preface": f"GET /{CANARY} HTTP/2.0\r\nHost: x\r\n\r\n".encode(),
    "chunks in HTTP/1.0": post(STREAM, chunked(("1", b"{")), CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "another coding before the chunks": post(
        STREAM, chunked(("1", b"{")), "Transfer-Encoding: gzip, chunked"
    ),
    "an empty coding before the chunks": post(STREAM, chunked(("1", b"{")), "Transfer-Encoding: , chunked"),
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
        chunked(("2", b"{}"), end=b"0\r\n\0\r\n\r\n"), b"\r\n\r\n",
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


@pytest.mark.usefixtures("both_servers")
async def test_a_body_that_ends_early_is_no_call() -> None:
    async with watched() as watch:
        for cut in (1, 10):
            wire = await watch.wire()
            wire.writer.write(post(STREAM, widget())[:-cut])
            wire.writer.close()
            await wire.writer.wait_closed()


# HTTP that is right, if seldom seen


@pytest.mark.usefixtures("both_servers")
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


@pytest.mark.usefixtures("both_servers")
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


@pytest.mark.usefixtures("both_servers")
async def test_a_client_that_waits_for_100_is_told_to_go_on_or_refused_at_once() -> None:
    async with watched(calls=True) as watch:
        wire = await watch.wire()
        body = widget(model="echo")
        raw = post(WHOLE, body, "Expect: 100-continue")
        assert (await wire.ask(raw[: -len(body)])).status == 100
        assert (await wire.ask(body)).status == 200
        wire = await watch.wire()
        refused = await wire.ask(
            post(WHOLE, b"", "Expect: 100-continue", CHUNKED, credential="x-api-key: wrong")
        )
        assert refused.status == 401
        wire = await watch.wire()
        large = f"POST {WHOLE} HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n"
        large += "Expect: 100-continue\r\nContent-Length: 9999999\r\n\r\n"
        assert (await wire.ask(large.encode())).status == 413


@pytest.mark.usefixtures("both_servers")
async def test_a_target_may_be_in_absolute_form() -> None:
    async with watched(calls=True) as watch:
        wire = await watch.wire()
        assert (await wire.ask(b"GET http://x/health?y HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
        assert (await wire.ask(post("http://x" + WHOLE, widget(model="echo")))).status == 200
        assert (await wire.ask(b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n")).status == 404


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with watched(calls=True) as watch:
        wire = await watch.wire()
        health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        right = post(WHOLE, widget(model="echo"))
        wire.writer.write(
            health + right + post(WHOLE, b"{") + right + post(OPENAI, openai(model="nope")) + health
        )
        answers = [await wire.answer() for _ in range(6)]
        assert [answer.status for answer in answers] == [200, 200, 400, 200, 404, 200]
        assert answers[3].json["message"] == f"Turn 2, you said: hi {CANARY}"


@needs_suite
async def test_what_the_rfcs_refuse_is_never_a_server_error_and_never_quoted() -> None:
    rows = [json.loads(line) for line in (SECURITY / "own_h1" / "requests.jsonl").read_bytes().splitlines()]
    async with watched() as watch:
        for raw in (base64.b64decode(row["raw_b64"]) for row in rows if row["expect"] == "reject"):
            wire = await watch.wire()
            answer = await wire.ask(raw, head=True)
            assert 400 <= answer.status < 500, raw
            wire.writer.close()
