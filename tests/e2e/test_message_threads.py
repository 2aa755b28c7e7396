"""Anthropic's message threads: a conversation that the provider keeps for minutes, so that a request has only
what is new of it. Clients replay all of it where they are told that there is no such thread."""

import json
from typing import Any

import pytest

from tests.e2e.gateways import gateway
from tests.e2e.test_messages import ANSWER, JSON, asked, config, says
from tests.fakes.dialects import OPENAI
from tests.fakes.rawserver import Peer, RawServer, Request, chunked, sized

BETA = {"anthropic-beta": "message-threads-2026-08-12"}
CREATE: dict[str, Any] = {"thread": {"type": "create"}}
CONTINUE: dict[str, Any] = {"thread": {"type": "continue", "previous_message_id": "msg_1"}}
OPENAIS = says(chunked(OPENAI.opening() + OPENAI.token("Hello") + OPENAI.finish(2) + OPENAI.end()))


def error_of(body: bytes) -> tuple[str, Any]:
    error = json.loads(body)["error"]
    return error["type"], error.get("details")


NOT_FOUND = (404, ("not_found_error", {"error_code": "thread_not_found"}))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("backend", ["anthropic", "openai"])
async def test_who_keeps_no_threads_is_not_asked_to_continue_one(backend: str, stream: bool) -> None:
    answers = says(chunked(ANSWER)) if backend == "anthropic" else OPENAIS
    async with RawServer(answers) as up, gateway(config((backend, up), of=", always_stream: true")) as g:
        status, _, _ = await asked(g, headers=BETA, stream=stream, **CREATE)
        assert status == 200
        assert "thread" not in json.loads(up.requests[0].body)
        assert "anthropic-beta" not in up.requests[0].headers
        status, body, _ = await asked(g, headers=BETA, stream=stream, **CONTINUE)
        assert (status, error_of(body)) == NOT_FOUND
        assert len(up.requests) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_who_keeps_threads_is_asked_to(stream: bool) -> None:
    of = ", threads: true, always_stream: true"
    async with RawServer(says(chunked(ANSWER))) as up, gateway(config(("anthropic", up), of=of)) as g:
        for fields in (CREATE, CONTINUE, {**CONTINUE, "messages": []}):
            status, _, _ = await asked(g, headers=BETA, stream=stream, **fields)
            assert status == 200
            sent = json.loads(up.requests[-1].body)
            assert sent["thread"] == fields["thread"]
            assert sent["messages"] == fields.get("messages", sent["messages"])
            assert up.requests[-1].headers["anthropic-beta"] == BETA["anthropic-beta"]


@pytest.mark.parametrize("status", [404, 400])
async def test_a_thread_that_cannot_be_continued_is_told_as_the_provider_does(status: int) -> None:
    code = "thread_not_found" if status == 404 else "thread_already_continued"
    kind = "not_found_error" if status == 404 else "invalid_request_error"
    error = {"type": kind, "message": "No usable thread.", "details": {"error_code": code}}
    refusal = sized(json.dumps({"type": "error", "error": error}).encode(), status, JSON)

    async def provider(request: Request, peer: Peer) -> None:
        continued = json.loads(request.body).get("thread", {}).get("type") == "continue"
        peer.send(refusal if continued else chunked(ANSWER))

    async with (
        RawServer(provider) as up,
        RawServer(OPENAIS) as other,
        gateway(config(("anthropic", up), ("openai", other), of=", threads: true")) as g,
    ):
        for _ in range(10):  # it says nothing about the target's health, and no other one has the thread
            found, body, _ = await asked(g, headers=BETA, stream=True, **CONTINUE)
            assert (found, error_of(body)) == (status, (kind, {"error_code": code}))
        assert (await asked(g, headers=BETA, stream=True, **CREATE))[1] == ANSWER
        assert other.requests == []


async def test_the_next_target_continues_a_thread_that_the_first_one_cannot_have() -> None:
    async with RawServer(OPENAIS) as first, RawServer(says(chunked(ANSWER))) as second:
        async with gateway(config(("openai", first), ("anthropic", second), of=", threads: true")) as g:
            assert (await asked(g, headers=BETA, stream=True, **CONTINUE))[:2] == (200, ANSWER)
        assert first.requests == []


@pytest.mark.parametrize("allowed", ["[]", "[context-1m]"])
async def test_without_the_beta_there_are_no_threads(allowed: str) -> None:
    of = f", threads: true, beta_allowed: {allowed}"
    async with RawServer(says(chunked(ANSWER))) as up, gateway(config(("anthropic", up), of=of)) as g:
        assert (await asked(g, headers=BETA, stream=True, **CREATE))[0] == 200
        assert "thread" not in json.loads(up.requests[0].body)
        assert (await asked(g, headers=BETA, stream=True, **CONTINUE))[0] == 404


@pytest.mark.parametrize(
    ("thread", "param"),
    [("x", "thread"), ({"type": 1}, "thread.type"), ({"type": "continue"}, "thread.previous_message_id"),
     ({"type": "continue", "previous_message_id": ""}, "thread.previous_message_id"),
     ({"Type": "create"}, "thread.type")],
)  # fmt: skip
async def test_a_thread_of_another_form_is_refused_by_its_field(thread: Any, param: str) -> None:
    async with RawServer(says(chunked(ANSWER))) as up, gateway(config(("anthropic", up))) as g:
        status, body, _ = await asked(g, headers=BETA, thread=thread)
        assert status == 400
        assert param in json.loads(body)["error"]["message"]
        assert up.requests == []
