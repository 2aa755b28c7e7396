"""The main job with the embedded model: every client dialect, on real sockets."""

import json

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway

ECHO = (
    HEAD
    + """
upstreams: {echo: {backend: echo}}
aliases: {chat: {tiers: [[{upstream: echo, model: echo}]]}}
"""
)
HEADERS = {"x-api-key": KEY}
pytestmark = pytest.mark.usefixtures("every_server")


def session(g: Running) -> aiohttp.ClientSession:
    """Its paths are below the gateway's prefix."""
    return aiohttp.ClientSession(g.url + "/", headers=HEADERS)


async def test_streams_a_chat_as_ndjson() -> None:
    async with gateway(ECHO) as g, session(g) as client:
        async with client.post(
            "v1/chat/stream", json={"sessionId": "s", "message": "Hello there"}
        ) as response:
            body = await response.text()
            assert response.status == 200
            assert response.headers["Content-Type"] == "application/x-ndjson; charset=utf-8"
            assert response.headers["Cache-Control"] == "no-store, no-transform"
            assert response.headers["X-Accel-Buffering"] == "no"
        lines = [json.loads(line) for line in body.splitlines()]
        assert [line["type"] for line in lines] == ["start", "token", "token", "token", "token", "done"]
        assert (
            "".join(line["token"] for line in lines[1:-1]) == lines[-1]["message"] == "You said: Hello there"
        )
        assert lines[0]["conversationId"] == lines[-1]["conversationId"]


@pytest.mark.parametrize("path", ["/v1/chat/stream", "/chat", "/v1/chat"])
async def test_keeps_the_conversation_of_a_session(path: str) -> None:
    async with gateway(ECHO) as g, session(g) as client:
        for _ in range(2):
            async with client.post(path[1:], json={"sessionId": "s", "message": "Hi"}) as response:
                text = await response.text()
        last = json.loads(text.splitlines()[-1])
        assert last["message"] == "Turn 2, you said: Hi"
        async with client.get("v1/admin/conversations", headers={"x-admin-api-key": KEY}) as response:
            listed = await response.json()
        assert listed["total"] == 1
        assert listed["conversations"][0]["_id"] == last["conversationId"]
        async with client.get(
            f"v1/admin/conversations/{last['conversationId']}", headers={"x-admin-api-key": KEY}
        ) as response:
            found = await response.json()
        assert [(m["role"], m["content"]) for m in found["messages"]] == [
            ("user", "Hi"),
            ("assistant", "You said: Hi"),
            ("user", "Hi"),
            ("assistant", "Turn 2, you said: Hi"),
        ]


async def test_a_call_is_one_log_line_and_counts_what_it_did() -> None:
    async with gateway(ECHO) as g, session(g) as client:
        headers = {"X-Request-Id": "my-id.1"}
        async with client.post(
            "v1/chat/stream", json={"sessionId": "s", "message": "Hi"}, headers=headers
        ) as response:
            await response.read()
            assert response.headers["x-request-id"] == "my-id.1"
        [line] = g.requests
        assert line["request_id"] == "my-id.1"
        assert (line["key"], line["alias"], line["target"]) == ("test", "chat", "echo/echo")
        assert (line["status"], line["end"], line["tokens_out"]) == (200, "done", 3)
        assert 0 < line["ttft"] <= line["duration"]
        pair = 'alias="chat"'
        assert g.metric(f'sluice_requests_total{{{pair},code="2xx",frontend="widget"}}') == 1
        assert g.metric(f'sluice_stream_end_total{{{pair},frontend="widget",reason="done"}}') == 1
        assert g.metric(f'sluice_time_to_first_token_seconds_count{{{pair},frontend="widget"}}') == 1
        assert g.metric(f'sluice_streams_in_flight{{{pair},frontend="widget"}}') == 0


async def test_probes_and_metrics_answer_on_the_admin_port() -> None:
    async with gateway(ECHO) as g, aiohttp.ClientSession() as client:
        for path in ("/livez", "/readyz", "/health"):
            for base in (g.url, g.admin_url):
                async with client.get(base + path) as response:
                    assert response.status == 200
        async with client.get(g.admin_url + "/metrics") as response:
            text = await response.text()
            assert response.status == 200
        assert "sluice_build_info" in text
        async with client.get(g.url + "/metrics") as response:
            assert response.status == 404


async def test_requests_that_are_no_chat_are_logged_by_their_route() -> None:
    async with gateway(ECHO) as g, session(g) as client:
        for method, path in (
            ("GET", "/v1/models"),
            ("GET", "/v1/models/chat"),
            ("GET", "/secret-path"),
            ("GET", "/chat"),
        ):
            async with client.request(method, path[1:]) as response:
                await response.read()
        async with client.get("livez") as response:
            await response.read()
        assert [(line["route"], line["status"]) for line in g.requests] == [
            ("/v1/models", 200),
            ("/v1/models/*", 200),
            ("other", 404),
            ("/chat", 405),
        ]
        assert "secret-path" not in g.log_bytes.getvalue().decode()
