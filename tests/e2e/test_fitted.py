"""Requests as their targets take them, and answers under the alias's name, through the whole gateway."""

import json
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, gateway
from tests.e2e.test_whole import JSON, Behaviour, says
from tests.fakes.rawserver import Peer, RawServer, Request, chunked, sized

PATH = "/v1/chat/completions"


def chunk(index: int, text: str, finish: str | None = None, **fields: Any) -> bytes:
    choice = {"index": index, "delta": {"content": text} if text else {}, "finish_reason": finish, **fields}
    return (
        b"data: %b\n\n"
        % json.dumps({"id": "c-1", "model": "m-2026", "created": 7, "choices": [choice]}).encode()
    )


ONE = chunked(
    chunk(0, "Hi", logprobs={"content": [{"token": "Hi"}]}), chunk(0, "", "stop"), b"data: [DONE]\n\n"
)
TWO = chunked(
    chunk(0, "Hi"), chunk(1, "Ho"), chunk(1, "", "stop"), chunk(0, "", "stop"),
    b'data: {"id":"c-1","model":"m-2026","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":4}}\n\n',
    b"data: [DONE]\n\n",
)  # fmt: skip
WHOLE = {
    "id": "c-1", "object": "chat.completion", "model": "m-2026", "created": 7, "odd": [1],
    "choices": [
        {"index": n, "message": {"content": text, "annotations": []}, "logprobs": {"content": []}, "finish_reason": "stop"}
        for n, text in enumerate(("Hi", "Ho"))
    ],
}  # fmt: skip
ANTHROPIC = chunked(*(
    b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in (
        {"type": "message_start", "message": {"id": "msg_1", "model": "claude-x", "usage": {"input_tokens": 5}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "SIG"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "toolu_1", "name": "f"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )
))  # fmt: skip


def config(
    up: RawServer,
    *,
    backend: str = "openai",
    model: str = "m",
    of: str = "",
    target: str = "",
    alias: str = "",
) -> str:
    url = f"{up.url}/v1" if backend == "openai" else up.url
    tier = f"[[{{upstream: up, model: {model}{target}}}]]"
    upstreams = f'upstreams: {{up: {{backend: {backend}, base_url: "{url}"{of}}}}}'
    return f"{HEAD}\n{upstreams}\naliases: {{chat: {{tiers: {tier}{alias}}}}}\n"


async def post(url: str, **fields: Any) -> tuple[int, bytes]:
    body = {"model": "chat", "messages": [{"role": "user", "content": "Count"}], **fields}
    async with (
        aiohttp.ClientSession(url, headers={"x-api-key": KEY}) as client,
        client.post(PATH, json=body) as response,
    ):
        return response.status, await response.read()


def frames(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(frame[6:]) for frame in body.split(b"\n\n") if frame and frame != b"data: [DONE]"]


async def test_what_is_dropped_is_counted_and_logged_without_its_value() -> None:
    options = ", drop: [logit_bias, user], force: {store: false}, roles: {system: user}, rename: {a: b}"
    async with (
        RawServer(says(ONE)) as up,
        gateway(config(up, of=options, target=", default: {top_p: 0.5}, drop: ['!user']")) as g,
    ):
        system = {"role": "system", "content": "x"}
        status, _ = await post(
            g.url, stream=True, messages=[system], logit_bias={"7": 1}, user="secret", a=1, max_tokens=-1
        )
        assert status == 200
        sent = json.loads(up.requests[0].body)
        assert sent == {
            "model": "m", "stream": True, "stream_options": {"include_usage": True}, "top_p": 0.5, "store": False, "b": 1,
            "messages": [{"role": "user", "content": "x"}], "user": "secret",
        }  # fmt: skip
        assert g.metric('sluice_dropped_fields_total{field="logit_bias",model="m",upstream="up"}') == 1
        lines = [line for line in g.log_lines if line["event"] == "dropped_field"]
        assert [(line["target"], line["field"]) for line in lines] == [("up/m", "logit_bias")]
        assert "secret" not in json.dumps(g.log_lines)


async def test_a_target_that_no_rule_touches_is_sent_the_callers_bytes() -> None:
    body = b'{"model": "chat",  "messages":[{"role":"user","content":"x"}], "stream":true,"seed":1, "max_tokens":5}'
    async with RawServer(says(ONE)) as up, gateway(config(up)) as g:
        headers = {"x-api-key": KEY, "content-type": "application/json"}
        async with (
            aiohttp.ClientSession(g.url, headers=headers) as client,
            client.post(PATH, data=body) as response,
        ):
            assert response.status == 200
            await response.read()
        sent = up.requests[0].body
    assert (
        sent
        == body.replace(b'"model": "chat"', b'"model":"m"')[:-1]
        + b',"stream_options":{"include_usage":true}}'
    )


@pytest.mark.parametrize("reveal", [True, False])
async def test_several_choices_pass_where_both_sides_speak_the_same(reveal: bool) -> None:
    alias = "" if reveal else ", report_model: alias"

    async def answer(request: Request, peer: Peer) -> None:
        streamed = json.loads(request.body).get("stream")
        peer.send(TWO if streamed else sized(json.dumps(WHOLE).encode(), 200, JSON))

    name = "m-2026" if reveal else "chat"
    async with RawServer(answer) as up, gateway(config(up, alias=alias)) as g:
        status, streamed = await post(g.url, stream=True, n=2, stream_options={"include_usage": True})
        assert status == 200
        choices = [choice for frame in frames(streamed) for choice in frame["choices"]]
        assert [(c["index"], c["delta"].get("content")) for c in choices] == [
            (0, "Hi"),
            (1, "Ho"),
            (1, None),
            (0, None),
        ]
        assert {frame["model"] for frame in frames(streamed)} == {name}
        status, whole = await post(g.url, n=2)
        assert (status, json.loads(whole)) == (200, {**WHOLE, "model": name})
        assert [json.loads(request.body)["n"] for request in up.requests] == [2, 2]


@pytest.mark.parametrize("stream", [True, False])
async def test_several_choices_put_together_from_a_stream_are_several(stream: bool) -> None:
    async with RawServer(says(TWO)) as up, gateway(config(up, of=", always_stream: true")) as g:
        _, body = await post(g.url, n=2)
        assert [choice["message"]["content"] for choice in json.loads(body)["choices"]] == ["Hi", "Ho"]


@pytest.mark.parametrize("backend", ["anthropic", "ollama"])
async def test_several_choices_of_another_dialect_are_refused_before_anything_is_asked(backend: str) -> None:
    async with RawServer(says(ONE)) as up, gateway(config(up, backend=backend)) as g:
        status, body = await post(g.url, n=2)
        error = json.loads(body)["error"]
        assert (status, error["param"], error["code"], up.requests) == (400, "n", "unsupported_parameter", [])


@pytest.mark.parametrize("answer", [ONE])
async def test_an_answer_under_the_aliass_name_loses_nothing_else(answer: bytes) -> None:
    behaviour: Behaviour = says(answer)
    async with RawServer(behaviour) as up, gateway(config(up, alias=", report_model: alias")) as g:
        _, body = await post(g.url, stream=True)
        first, *_ = frames(body)
        assert (first["model"], first["id"], first["choices"][0]["logprobs"]) == (
            "chat",
            "c-1",
            {"content": [{"token": "Hi"}]},
        )
        assert b"m-2026" not in body


@pytest.mark.parametrize("field", ["thinking_blocks", "reasoning_details"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_tool_loop_thinks_on(stream: bool, field: str) -> None:
    of = ", extra_body: {thinking: {type: enabled, budget_tokens: 2048}}"
    tools = [{"type": "function", "function": {"name": "f"}}]
    async with RawServer(says(ANTHROPIC)) as up, gateway(config(up, backend="anthropic", of=of)) as g:
        _, body = await post(g.url, stream=stream, tools=tools)
        if stream:
            deltas = [choice["delta"] for frame in frames(body) for choice in frame["choices"]]
            [kept] = [delta[field] for delta in deltas if field in delta]
        else:
            kept = json.loads(body)["choices"][0]["message"][field]
        call = {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        said = {"role": "assistant", "content": None, "tool_calls": [call], field: kept}
        result = {"role": "tool", "tool_call_id": "toolu_1", "content": "r"}
        await post(
            g.url, stream=stream, tools=tools, messages=[{"role": "user", "content": "Count"}, said, result]
        )
        sent = json.loads(up.requests[1].body)
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert sent["messages"][1]["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": "SIG"}


def spoken(text: str) -> bytes:
    """An answer of Anthropic's that thinks and then says this."""
    events: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {"id": "msg_1", "model": "claude-x", "usage": {"input_tokens": 5}},
        },
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "Hm.", "signature": "SIG"},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": text}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    return chunked(
        *(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)
    )


THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "SIG"}


@pytest.mark.parametrize("path", ["/v1/chat/stream", "/v1/chat"])
@pytest.mark.parametrize(
    ("text", "history", "kept"), [("Seven.", 30, True), ("Seven. ", 30, False), ("Seven.", 2, False)],
    ids=["kept", "another text than what was sealed", "the beginning is not known any more"],
)  # fmt: skip
async def test_thoughts_stay_in_a_history_that_the_gateway_keeps(
    path: str, text: str, history: int, kept: bool
) -> None:
    alias = f", history: {{messages: {history}}}"
    async with (
        RawServer(says(spoken(text))) as up,
        gateway(config(up, backend="anthropic", alias=alias)) as g,
    ):
        async with aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client:
            for _ in range(2):
                async with client.post(path, json={"sessionId": "s", "message": "Count"}) as response:
                    assert response.status == 200
                    assert b"SIG" not in await response.read()
        answered = json.loads(up.requests[1].body)["messages"][1]
    assert answered["content"] == [*([THINKING] if kept else []), {"type": "text", "text": "Seven."}]
