"""A refusal means the same to a client of each dialect, from an upstream of each, streamed and whole, in any
cut.

OpenAI's two APIs have a place for its text. Anthropic, Gemini and Bedrock tell by the reason for which an
answer ended that it was refused; what was said before is a text.
"""

import json
from typing import Any

import pytest

from sluice.model.chat import ChatRequest
from tests.fakes import eventstreams
from tests.matrix.lanes import CLIENTS, UPSTREAMS, answered, parsed, sent
from tests.matrix.test_answers import asked
from tests.wire import cuts

Value = dict[str, Any]
NO = "I'm sorry, I can\u2019t."
OPENAIS = frozenset({"openai", "responses"})
"""Dialects in which a refusal is a text of its own; in the others it is a reason."""


def sse(*values: Value) -> bytes:
    return b"".join(
        [
            b"event: %b\ndata: %b\n\n" % (str(v.get("type", "message")).encode(), json.dumps(v).encode())
            for v in values
        ]
    )


def openai(before: str) -> bytes:
    deltas: list[Value] = [{"role": "assistant", "content": before, "refusal": None}]
    deltas += [{"refusal": NO[:9]}, {"refusal": NO[9:]}]
    choices: list[Value] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    chunks = [
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [one]}
        for one in choices
    ]
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    chunks.append({**chunks[0], "choices": [], "usage": usage})
    return b"".join([b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks]) + b"data: [DONE]\n\n"


def responses(before: str) -> bytes:
    parts: list[Value] = [{"type": "output_text", "text": before, "annotations": []}] if before else []
    place = {"output_index": 0, "item_id": "msg_1", "content_index": len(parts)}
    item = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "content": [*parts, {"type": "refusal", "refusal": NO}],
    }
    events: list[Value] = [
        {
            "type": "response.created",
            "response": {"id": "resp_1", "model": "m", "status": "in_progress", "output": []},
        },
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
    ]
    if before:
        events.append({"type": "response.output_text.delta", **place, "content_index": 0, "delta": before})
    events += [{"type": "response.refusal.delta", **place, "delta": piece} for piece in (NO[:9], NO[9:])]
    events.append({"type": "response.refusal.done", **place, "refusal": NO})
    events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    whole = {"id": "resp_1", "model": "m", "status": "completed", "output": [item], "usage": usage}
    return sse(*events, {"type": "response.completed", "response": whole})


def anthropic(before: str) -> bytes:
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
             "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1}}  # fmt: skip
    told: list[Value] = []
    if before:
        told = [
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": before}},
            {"type": "content_block_stop", "index": 0},
        ]
    details = {"type": "refusal", "category": "cyber", "explanation": "not said by the model"}
    stop = {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
    end = {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 4}}
    return sse({"type": "message_start", "message": start}, *told, end, {"type": "message_stop"})


def gemini(before: str) -> bytes:
    content = {"content": {"role": "model", "parts": [{"text": before}]}} if before else {}
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}
    value = {
        "candidates": [{**content, "finishReason": "SAFETY", "index": 0}],
        "usageMetadata": usage,
        "modelVersion": "m",
    }
    return b"data: %b\r\n\r\n" % json.dumps(value).encode()


def bedrock(before: str) -> bytes:
    message = eventstreams.event
    frames = [message("messageStart", {"role": "assistant"})]
    if before:
        frames.append(message("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": before}}))
    frames.append(message("messageStop", {"stopReason": "guardrail_intervened"}))
    frames.append(message("metadata", {"usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}}))
    return b"".join(frames)


WRITERS = {
    "openai": openai,
    "responses": responses,
    "anthropic": anthropic,
    "gemini": gemini,
    "bedrock": bedrock,
}


def frames(body: bytes) -> list[Value]:
    lines = [line for line in body.decode().replace("\r\n", "\n").split("\n") if line.startswith("data:")]
    return [json.loads(line[5:]) for line in lines if line[5:].strip() != "[DONE]"]


def heard(client: str, body: bytes, *, stream: bool) -> tuple[str, str, str]:
    """The answer's text, the text of its refusal, and why it ended."""
    match client:
        case "openai" if stream:
            deltas = [choice["delta"] for chunk in frames(body) for choice in chunk["choices"]]
            ends = [choice["finish_reason"] for chunk in frames(body) for choice in chunk["choices"]]
            text, refusal = (
                "".join([delta.get(name) or "" for delta in deltas]) for name in ("content", "refusal")
            )
            return text, refusal, ends[-1]
        case "openai":
            [choice] = json.loads(body)["choices"]
            message = choice["message"]
            return message["content"] or "", message["refusal"] or "", choice["finish_reason"]
        case "responses":
            events = frames(body) if stream else []
            response = events[-1]["response"] if stream else json.loads(body)
            parts = [part for item in response["output"] for part in item["content"]]
            text, refusal = ("".join([part.get(name, "") for part in parts]) for name in ("text", "refusal"))
            for kind, whole in (("output_text", text), ("refusal", refusal)) if stream else ():
                told = [event["delta"] for event in events if event["type"] == f"response.{kind}.delta"]
                assert "".join(told) == whole
            return (
                text,
                refusal,
                (response.get("incomplete_details") or {"reason": response["status"]})["reason"],
            )
        case "anthropic":
            if not stream:
                message = json.loads(body)
                return "".join([block["text"] for block in message["content"]]), "", message["stop_reason"]
            deltas = [event["delta"] for event in frames(body) if "delta" in event]
            return "".join([delta.get("text", "") for delta in deltas]), "", deltas[-1]["stop_reason"]
        case "gemini":
            candidates = [
                one
                for chunk in (frames(body) if stream else [json.loads(body)])
                for one in chunk["candidates"]
            ]
            parts = [part for one in candidates for part in one.get("content", {}).get("parts", ())]
            return "".join([part["text"] for part in parts]), "", candidates[-1]["finishReason"]
        case "ollama":
            lines = [json.loads(line) for line in body.splitlines()]
            return "".join([line["message"]["content"] for line in lines]), "", lines[-1]["done_reason"]
        case _:
            lines = [json.loads(line) for line in body.splitlines()]
            text = "".join([line["token"] for line in lines if line["type"] == "token"])
            assert lines[-1]["message"] == text.strip()
            return text, "", lines[-1]["finishReason"]


REASONS = {  # of an answer that OpenAI's API calls a refusal, and of one that ended for a reason
    "openai": ("stop", "content_filter"), "responses": ("completed", "content_filter"), "anthropic": ("refusal", "refusal"),
    "gemini": ("SAFETY", "SAFETY"), "ollama": ("stop", "content_filter"), "widget": ("stop", "content_filter"),
}  # fmt: skip


@pytest.mark.parametrize("before", ["", "Well. "])
@pytest.mark.parametrize("upstream", WRITERS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_refusal_is_told_in_the_clients_own_way(client: str, upstream: str, before: str) -> None:
    body = WRITERS[upstream](before)
    text = before + (NO if upstream in OPENAIS else "")
    reason = REASONS[client][upstream not in OPENAIS]
    expected = (before, NO, reason) if client in OPENAIS and upstream in OPENAIS else (text, "", reason)
    for stream in (True, False) if client != "widget" else (True,):
        chat: ChatRequest = asked(client, stream=stream)
        for reads in ([body], cuts.bytewise(body), cuts.random(body, 7, 60)):
            assert heard(client, answered(client, upstream, chat, reads), stream=stream) == expected, (
                stream,
                len(reads),
            )


def test_a_refusal_goes_back_as_one_where_there_is_a_place_for_it() -> None:
    user = {"role": "user", "content": "?"}
    said = {"role": "assistant", "content": None, "refusal": NO}
    chat = parsed(
        "openai", json.dumps({"model": "chat", "messages": [user, said, user]}).encode(), stream=True
    )
    assert sent(UPSTREAMS["responses"], chat)["input"][1]["content"] == [{"type": "refusal", "refusal": NO}]
    for upstream in ("anthropic", "gemini", "ollama", "bedrock", "cohere"):
        assert json.dumps(NO)[1:-1] in json.dumps(sent(UPSTREAMS[upstream], chat))
    part = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": NO}]}
    chat = parsed(
        "responses", json.dumps({"model": "chat", "input": [user, part, user]}).encode(), stream=True
    )
    assert sent(UPSTREAMS["openai"], chat)["messages"][1] == {"role": "assistant", "content": NO}
