"""What callers send that is wrong: a clear 4xx with a reason, never a 500; nothing is stored, and no provider
is asked."""

import json
import re

import aiohttp
import pytest

from tests.e2e.gateways import gateway
from tests.e2e.watched import (
    CANARY,
    CONFIG,
    KEY,
    LIMIT,
    OPENAI,
    SECURITY,
    STREAM,
    WHOLE,
    Watch,
    needs_suite,
    openai,
    post,
    watched,
    widget,
    without,
)  # fmt: skip
from tests.fakes.rawserver import Peer, RawServer, Request, sized

pytestmark = pytest.mark.usefixtures("both_servers")
SESSION = re.compile(r"[A-Za-z0-9._:-]{1,128}")

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
    **{
        f"sessionId {value!r:.20}": (widget(sessionId=value), "sessionId")
        for value in (None, 1, True, [], {}, "")
    },
    "sessionId with a newline at its end": (widget(sessionId="abc\n"), "sessionId"),
    "sessionId with a space": (widget(sessionId="a b"), "sessionId"),
    "sessionId of other letters": (widget(sessionId="é"), "sessionId"),
    "sessionId of other digits": (widget(sessionId="٣"), "sessionId"),
    "sessionId of 129": (widget(sessionId="s" * 129), "sessionId"),
    **{
        f"message {value!r:.20}": (widget(message=value), "message")
        for value in (None, 1, False, ["x"], {"x": 1}, "")
    },
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
    "n 0": (openai(n=0), "n"),
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


async def test_a_widgets_field_that_is_wrong_is_named() -> None:
    async with watched() as watch:
        for case, (body, field) in WIDGET.items():
            for path in (STREAM, WHOLE):
                answer = await watch.refusal(post(path, body), 400, path)
                fields = {detail["field"].partition("[")[0] for detail in answer.json["details"]}
                assert field in fields, case


async def test_a_field_of_a_completion_that_is_wrong_is_named() -> None:
    async with watched() as watch:
        for case, (body, field) in CHAT.items():
            answer = await watch.refusal(post(OPENAI, body), 400, OPENAI)
            assert answer.json["error"]["param"] == field, case


@pytest.mark.parametrize("alias", ["nope", "other", "chat ", f"x-{CANARY}"])
async def test_an_alias_that_is_unknown_or_not_the_keys_is_not_found(alias: str) -> None:
    async with watched() as watch:
        for path, body in (
            (STREAM, widget(model=alias)),
            (WHOLE, widget(model=alias)),
            (OPENAI, openai(model=alias)),
        ):
            answer = await watch.refusal(post(path, body), 404, path)
            assert answer.json.get("code", "model_not_found") == "model_not_found"
        get = f"GET /v1/models/{alias.strip()} HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n"
        if alias != "chat ":
            await watch.refusal(get.encode(), 404, "/v1/models")


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
async def test_a_credential_that_is_wrong_is_refused_before_the_body_is_looked_at(
    credential: str | None,
) -> None:
    async with watched() as watch:
        for path, body in ((STREAM, widget()), (WHOLE, b"{"), (OPENAI, openai()), (OPENAI, b"{")):
            answer = await watch.refusal(post(path, body, credential=credential), 401, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            if path != OPENAI:
                assert answer.json["error"] == "Unauthorized"


# other people's collections


def suite(kind: str) -> list[bytes]:
    folder = SECURITY / "jsontestsuite" / "test_parsing"
    return [path.read_bytes() for path in sorted(folder.glob(f"{kind}_*.json"))]


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
        refused = [
            body for body in suite("y") if (await wire.ask(post(path, wrapped(body, path)))).status != 200
        ]
        assert [body for body in refused if body.count(b'"a"') < 2] == []
        for body in suite("i"):
            answer = await wire.ask(post(path, wrapped(body, path)))
            assert answer.status in (200, 400)


def naughty() -> list[str]:
    strings: list[str] = json.loads((SECURITY / "blns" / "blns.json").read_bytes())
    return strings


@needs_suite
async def test_naughty_strings_come_back_as_they_were_sent() -> None:
    async with (
        watched(calls=True) as watch,
        aiohttp.ClientSession(watch.running.url, headers={"x-api-key": KEY}) as client,
    ):
        for at, text in enumerate(naughty()):
            body = {"sessionId": f"s{at}", "message": text, "model": "echo"}
            async with client.post(STREAM, json=body) as response:
                assert response.status == (200 if text else 400)
                lines = [json.loads(line) for line in (await response.read()).split(b"\n") if line]
            if text:
                said = "".join(line["token"] for line in lines if line["type"] == "token")
                assert (
                    said == f"You said: {text}".rstrip()
                )  # echo says words with the white space before them
                assert lines[-1]["message"] == said.strip()


@needs_suite
async def test_naughty_strings_are_session_ids_only_if_they_are_by_the_contract() -> None:
    async with (
        watched(calls=True) as watch,
        aiohttp.ClientSession(watch.running.url, headers={"x-api-key": KEY}) as client,
    ):
        taken = set()
        for text in naughty():
            async with client.post(
                WHOLE, json={"sessionId": text, "message": "hi", "model": "echo"}
            ) as response:
                assert response.status == (200 if SESSION.fullmatch(text) else 400), text
            if SESSION.fullmatch(text):
                taken.add(text)
        assert await watch.stored() == len(taken)


# what a provider says


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_what_a_provider_quotes_is_not_logged(status: int) -> None:
    said = {
        "error": {
            "message": f"Failed on {CANARY} with key sk-upstream-{CANARY}",
            "type": CANARY,
            "code": CANARY,
        }
    }

    async def quotes(request: Request, peer: Peer) -> None:
        assert request.headers["authorization"] == f"Bearer sk-upstream-{CANARY}"
        peer.send(sized(json.dumps(said).encode(), status, ("x-request-id", CANARY)))

    async with RawServer(quotes) as provider, gateway(CONFIG.replace("PROVIDER", provider.url)) as running:
        watch = Watch(running, provider)
        for path, body in (
            (STREAM, widget()),
            (WHOLE, widget()),
            (OPENAI, openai()),
            (OPENAI, openai(stream=True)),
        ):
            wire = await watch.wire()
            answer = await wire.ask(post(path, body))
            assert f"sk-upstream-{CANARY}" not in answer.body.decode()
            wire.writer.close()
        assert len(running.requests) == 4
        watch.silent()
        assert await watch.stored() == 0


async def test_a_refusal_that_cannot_be_written_is_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.api.refusals.headers_of", lambda error, status: [("x-odd", "\N{SNOWMAN}")])
    async with watched() as watch:
        wire = await watch.wire()
        answer = await wire.ask(post(OPENAI, openai(model="nope")))
        assert answer.status == 500
        assert answer.json["error"]["message"] == "Internal server error"
        assert [line["error"] for line in watch.running.log_lines if line["event"] == "crash"] == [
            "UnicodeEncodeError"
        ]
        assert [(line["status"], line["error"]) for line in watch.running.requests] == [
            (500, "model_not_found")
        ]
        watch.running.log_bytes.seek(0)  # the watch wants none
        watch.running.log_bytes.truncate()
