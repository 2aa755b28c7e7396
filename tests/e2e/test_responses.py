"""The Responses dialect through the running gateway: what its clients do beside asking, and what is
refused."""

import json
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from backports import zstd

from sluice.identity.keys import digest_of
from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk, sized
from tests.frontends.responses.reading import Reader
from tests.servers import postgres_server, redis_server
from tests.upstream.calls import until

CONFIG = (
    HEAD
    + """
upstreams:
  echo: {backend: echo}
aliases:
  chat: {tiers: [[{upstream: echo, model: echo}]]}
"""
)


def client(running: Running) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(running.url, headers={"authorization": f"Bearer {KEY}"})


async def refusal(response: aiohttp.ClientResponse) -> tuple[int, str]:
    return response.status, (await response.json())["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/responses", "/responses"])
async def test_it_is_answered_in_a_stream_and_whole(path: str) -> None:
    async with gateway(CONFIG) as running, client(running) as session:
        async with session.post(
            path, json={"model": "chat", "input": "Hello there", "stream": True}
        ) as response:
            assert response.status == 200
            reader = Reader().read(await response.read())
        async with session.post(path, json={"model": "chat", "input": "Hello there"}) as response:
            whole = await response.json()
    assert reader.response is not None
    texts = [answer["output"][0]["content"][0]["text"] for answer in (reader.response, whole)]
    assert texts == ["You said: Hello there"] * 2
    assert whole["status"] == "completed"


async def test_a_body_may_be_compressed_as_codex_does() -> None:
    body = zstd.compress(b'{"model": "chat", "input": "Hello"}')
    async with gateway(CONFIG) as running, client(running) as session:
        headers = {"content-encoding": "zstd", "content-type": "application/json"}
        async with session.post("/v1/responses", data=body, headers=headers) as response:
            assert (response.status, (await response.json())["output"][0]["content"][0]["text"]) == (
                200,
                "You said: Hello",
            )


async def test_who_wants_a_websocket_is_told_at_once_to_use_http() -> None:
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "eA==",
    }
    async with gateway(CONFIG) as running, client(running) as session:
        async with session.get("/v1/responses", headers=upgrade) as response:
            assert response.status == 426
        async with session.post("/v1/responses", json={"model": "chat", "input": "x"}) as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/v1/responses/resp_1", None, 404, "not kept"),
        ("DELETE", "/v1/responses/resp_1", None, 404, "not kept"),
        ("GET", "/v1/responses/resp_1/input_items", None, 404, "not kept"),
        ("POST", "/v1/responses/compact", {"model": "chat", "input": "x"}, 400, "Compaction"),
        ("POST", "/v1/responses", {"model": "no", "input": "x"}, 404, "no such model"),
        ("POST", "/v1/responses", {"model": "chat", "input": "x", "previous_response_id": "r"}, 400, "previous_response_id: "),
        ("POST", "/v1/responses", {"model": "chat", "input": [{"type": "item_reference", "id": "x"}]}, 400, "input: refers"),
        ("POST", "/v1/responses", {"model": "chat", "input": "x", "tools": [{"type": "web_search"}]}, 400,
         "tools[0]: a tool of type web_search cannot be given to this model"),
    ],
)  # fmt: skip
async def test_what_cannot_be_had_is_refused_with_the_reason(
    method: str, path: str, body: Any, status: int, said: str
) -> None:
    async with (
        gateway(CONFIG) as running,
        client(running) as session,
        session.request(method, path, json=body) as response,
    ):
        got, message = await refusal(response)
    assert got == status
    assert said in message


# what is kept


OTHERS = "sk-sluice-other"


def keeping(store: str) -> str:
    other = f"keys: [{{id: other, digest: '{digest_of(OTHERS)}', aliases: ['*']}}, "
    return CONFIG.replace("keys: [", other) + f"responses: {{store: '{store}'}}\n"


async def asked(session: aiohttp.ClientSession, **fields: Any) -> dict[str, Any]:
    async with session.post("/v1/responses", json={"model": "chat", **fields}) as response:
        body = await response.read()
        assert response.status == 200, body
        if not fields.get("stream"):
            found: dict[str, Any] = json.loads(body)
            return found
        reader = Reader().read(body)
    assert reader.response is not None
    return reader.response


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis", "postgres"])
async def test_a_conversation_goes_on_from_a_kept_response(kind: str, stream: bool, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        match kind:
            case "redis":
                store = f"{stack.enter_context(redis_server()).url}&timeout=10s"
            case "postgres":
                store = f"{stack.enter_context(postgres_server()).url}&timeout=10s"
            case _:
                store = kind if kind == "memory" else f"sqlite:{tmp_path}/state.db"
        running = await stack.enter_async_context(gateway(keeping(store)))
        session = await stack.enter_async_context(client(running))
        first = await asked(session, input="One", stream=stream)
        second = await asked(session, input="Two", previous_response_id=first["id"], stream=stream)
        assert second["previous_response_id"] == first["id"]
        assert second["store"]
        async with session.get(f"/v1/responses/{second['id']}") as response:
            assert await response.json() == second
        async with session.get(f"/v1/responses/{second['id']}/input_items?order=asc") as response:
            listed = (await response.json())["data"]
        assert [item["role"] for item in listed] == ["user", "assistant", "user"]
        assert listed[1] == first["output"][0]
        assert listed[0]["content"] == [{"type": "input_text", "text": "One"}]
        assert listed[2]["content"] == [{"type": "input_text", "text": "Two"}]
        named = {"type": "item_reference", "id": first["output"][0]["id"]}
        await asked(
            session, input=[{"role": "user", "content": "One"}, named, {"role": "user", "content": "Three"}]
        )
        async with session.delete(f"/v1/responses/{first['id']}") as response:
            assert (await response.json())["deleted"]
        async with session.post(
            "/v1/responses", json={"model": "chat", "input": "x", "previous_response_id": first["id"]}
        ) as response:
            assert response.status == 404


async def test_while_the_store_is_down_answers_are_given_and_nothing_can_be_referred_to() -> None:
    with redis_server() as server:
        async with gateway(keeping(f"{server.url}&timeout=5s")) as running, client(running) as session:
            first = await asked(session, input="One")
            server.kill()
            assert (await asked(session, input="Two"))["status"] == "completed"
            body = {"model": "chat", "input": "Three", "previous_response_id": first["id"]}
            async with session.post("/v1/responses", json=body) as response:
                assert response.status == 503
            async with session.get(f"/v1/responses/{first['id']}") as response:
                assert response.status == 503
            assert running.runtime.watches["responses"].failing == "connection"


async def test_what_is_kept_is_its_tenants_alone_and_nothing_is_kept_that_is_not_wanted() -> None:
    async with gateway(keeping("memory")) as running, client(running) as session:
        mine = await asked(session, input="One")
        unkept = await asked(session, input="One", store=False)
        assert not unkept["store"]
        async with session.get(f"/v1/responses/{unkept['id']}") as response:
            assert response.status == 404
        session.headers["authorization"] = f"Bearer {OTHERS}"
        for method in ("GET", "DELETE"):
            async with session.request(method, f"/v1/responses/{mine['id']}") as response:
                assert response.status == 404
        named = {"type": "item_reference", "id": mine["output"][0]["id"]}
        for fields in ({"input": "x", "previous_response_id": mine["id"]}, {"input": [named]}):
            async with session.post("/v1/responses", json={"model": "chat", **fields}) as response:
                assert response.status in (400, 404)


# from OpenAI's own to its own


def frame(kind: str, number: int, **fields: Any) -> bytes:
    value = {"type": kind, "sequence_number": number, **fields}
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps(value).encode())


SAID = {"type": "message", "id": "msg_x", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Hi", "annotations": []}]}  # fmt: skip
BEGUN = {
    "id": "resp_x",
    "object": "response",
    "model": "gpt",
    "status": "in_progress",
    "output": [],
    "odd": 1.50,
}
DONE = {
    **BEGUN,
    "status": "completed",
    "output": [SAID],
    "usage": {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4},
}
STREAM = (
    frame("response.created", 0, response=BEGUN)
    + frame("response.output_item.added", 1, output_index=0, item={**SAID, "content": []})
    + frame("response.output_text.delta", 2, output_index=0, item_id="msg_x", delta="Hi", obfuscation="abc")
    + frame("response.completed", 3, response=DONE)
)
DOCUMENT = json.dumps(DONE).encode()


async def test_openais_own_answers_pass_as_they_came_and_are_kept_all_the_same() -> None:
    bodies: list[bytes] = []

    async def provider(request: Request, peer: Peer) -> None:
        bodies.append(request.body)
        if b'"stream":true' in request.body:
            peer.send(CHUNKED + chunk(STREAM) + LAST_CHUNK)
        else:
            peer.send(sized(DOCUMENT, 200, ("Content-Type", "application/json")))

    async with RawServer(provider) as upstream:
        config = f"""{HEAD}
upstreams: {{up: {{backend: responses, base_url: "{upstream.url}/v1", api_key: sk-up}}}}
aliases: {{chat: {{tiers: [[{{upstream: up, model: gpt-5.2}}]]}}}}
responses: {{store: memory}}
"""
        async with gateway(config) as running, client(running) as session:
            text = '{"model":"chat","input":"Hi","tools":[{"type":"web_search"}],"odd":1.50,"stream":true}'
            for body, answer in ((text, STREAM), (text.replace(',"stream":true', ""), DOCUMENT)):
                async with session.post(
                    "/v1/responses", data=body, headers={"content-type": "application/json"}
                ) as response:
                    assert (response.status, await response.read()) == (200, answer)
                assert bodies.pop() == body.replace('"chat"', '"gpt-5.2"').encode()
            async with session.get("/v1/responses/resp_x") as response:
                assert await response.json() == DONE
            await asked(session, input="And?", previous_response_id="resp_x")
    sent = json.loads(bodies.pop())
    assert "previous_response_id" not in sent
    assert sent["input"][1] == SAID


async def test_responses_that_are_too_old_are_deleted_beside_the_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.conversations.sweeper.EVERY", 0.02)
    path = tmp_path / "state.db"
    async with gateway(keeping(f"sqlite:{path}")) as running, client(running) as session:
        await asked(session, input="Hello", store=True)
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            assert database.execute("UPDATE sluice_response SET created = 0").rowcount == 1
            await until(lambda: database.execute("SELECT 1 FROM sluice_response").fetchone() is None)
