"""What the clients of each dialect have of an answer, streamed or whole, put together as their SDKs do; and
what of it they send back in their next request (`again`)."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tests.matrix.talk import Call, Value


class Heard(msgspec.Struct):
    """`counts`: input, output, cached, reasoning; -1 where a dialect does not tell one. `again`: the
    assistant's messages."""

    text: str = ""
    thought: str = ""
    calls: list[Call] = []
    end: str = ""
    counts: tuple[int, int, int, int] = (-1, -1, -1, -1)
    again: list[Value] = []


def _count(usage: Any, *path: str) -> int:
    """-1 where it is not told, as by a provider that leaves optional fields out."""
    for name in path:
        usage = (usage or {}).get(name)
    return -1 if usage is None else int(usage)


def _frames(body: bytes) -> list[Any]:
    values = []
    for frame in body.decode().replace("\r\n", "\n").split("\n\n"):
        data = [line.removeprefix("data:").strip() for line in frame.split("\n") if line.startswith("data:")]
        values += [json.loads(text) for text in data if text != "[DONE]"]
    return values


def openai(body: bytes, *, stream: bool) -> Heard:
    message: Value = {"role": "assistant", "content": ""}
    end, usage = "", None
    if not stream:
        value = json.loads(body)
        message, end, usage = (
            value["choices"][0]["message"],
            value["choices"][0]["finish_reason"],
            value.get("usage"),
        )
    else:
        assert body.endswith(b"data: [DONE]\n\n")
        calls: dict[int, Value] = {}
        for chunk in _frames(body):
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                end = choice["finish_reason"] or end
                _add(message, choice["delta"], calls)
        if calls:
            message["tool_calls"] = list(calls.values())
    called = [
        Call(c["id"], c["function"]["name"], json.loads(c["function"]["arguments"]))
        for c in message.get("tool_calls") or ()
    ]
    counts = (
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
        _count(usage, "prompt_tokens_details", "cached_tokens"),
        _count(usage, "completion_tokens_details", "reasoning_tokens"),
    )
    return Heard(
        message["content"] or "", message.get("reasoning_content") or "", called, end, counts, [message]
    )


def _add(message: Value, delta: Value, calls: dict[int, Value]) -> None:
    for name in ("content", "reasoning_content"):
        if delta.get(name):
            message[name] = message.get(name, "") + delta[name]
    for name in ("thinking_blocks", "reasoning_details"):
        message.setdefault(name, []).extend(delta.get(name) or ())
    for piece in delta.get("tool_calls") or ():
        call = calls.setdefault(
            piece["index"], {"type": "function", "function": {"name": "", "arguments": ""}}
        )
        call |= {name: piece[name] for name in ("id", "extra_content") if name in piece}
        for name in ("name", "arguments"):
            call["function"][name] += piece["function"].get(name) or ""


def widget(body: bytes, *, stream: bool) -> Heard:
    heard, calls = Heard(), []
    for line in [json.loads(line) for line in body.split(b"\n") if line]:
        match line["type"]:
            case "token":
                heard.text += line["token"]
            case "reasoning":
                heard.thought += line["text"]
            case "tool_call":
                calls.append([line["id"], line["name"], ""])
            case "tool_call_delta":
                calls[line["index"]][2] += line["arguments"]
            case "done":
                heard.end = line["finishReason"]
                used = line["usage"]
                names = ("inputTokens", "outputTokens", "cachedInputTokens", "reasoningTokens")
                heard.counts = tuple([used[name] for name in names])  # type: ignore[assignment]
    heard.calls = [Call(id, name, json.loads(arguments)) for id, name, arguments in calls]
    message: Value = {"role": "assistant", "content": heard.text}
    if calls:
        message["tool_calls"] = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": written}}
            for id, name, written in calls
        ]
    heard.again = [message]
    return heard


def anthropic(body: bytes, *, stream: bool) -> Heard:
    message: Value = {}
    if not stream:
        message = json.loads(body)
    else:
        for event in _frames(body):
            match event:
                case {"type": "message_start", "message": dict(begun)}:
                    message = begun
                case {"type": "content_block_start", "index": at, "content_block": dict(block)}:
                    assert at == len(message["content"])
                    message["content"].append({**block, "pieces": ""})
                case {
                    "type": "content_block_delta",
                    "index": at,
                    "delta": {"type": "input_json_delta", "partial_json": piece},
                }:
                    message["content"][at]["pieces"] += piece
                case {"type": "content_block_delta", "index": at, "delta": dict(delta)}:
                    name = delta["type"].removesuffix("_delta")
                    message["content"][at][name] = message["content"][at].get(name, "") + delta[name]
                case {"type": "message_delta", "delta": dict(delta), "usage": usage}:
                    message |= {**delta, "usage": {**message["usage"], **usage}}
        for block in message["content"]:
            pieces = block.pop("pieces")
            if block["type"] == "tool_use":
                block["input"] = json.loads(pieces or "{}")
    blocks = message["content"]
    text = "".join([block["text"] for block in blocks if block["type"] == "text"])
    thought = "".join([block["thinking"] for block in blocks if block["type"] == "thinking"])
    calls = [
        Call(block["id"], block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"
    ]
    ends = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls", "refusal": "content_filter"}
    used = message["usage"]
    cached = used.get("cache_read_input_tokens") or 0
    counts = (used["input_tokens"] + cached + (used.get("cache_creation_input_tokens") or 0), used["output_tokens"], cached,
              (used.get("output_tokens_details") or {}).get("thinking_tokens", 0))  # fmt: skip
    reason = message["stop_reason"]
    again: list[Value] = [{"role": "assistant", "content": blocks}]
    return Heard(text, thought, calls, ends.get(reason, reason), counts, again)


def responses(body: bytes, *, stream: bool) -> Heard:
    response = json.loads(body) if not stream else _frames(body)[-1]["response"]
    heard = Heard(again=response["output"])
    for item in response["output"]:
        match item["type"]:
            case "message":
                heard.text += "".join([part["text"] for part in item["content"]])
            case "reasoning":
                heard.thought += "".join([part["text"] for part in item["summary"]])
            case "function_call":
                heard.calls.append(Call(item["call_id"], item["name"], json.loads(item["arguments"])))
    if stream:
        said = "".join([e["delta"] for e in _frames(body) if e["type"] == "response.output_text.delta"])
        assert said == heard.text
    why = (response.get("incomplete_details") or {}).get("reason")
    heard.end = {"max_output_tokens": "length", "content_filter": "content_filter"}.get(why or "", "stop")
    used = response.get("usage")
    cached = _count(used, "input_tokens_details", "cached_tokens")
    reasoning = _count(used, "output_tokens_details", "reasoning_tokens")
    heard.counts = (_count(used, "input_tokens"), _count(used, "output_tokens"), cached, reasoning)
    return heard


def ollama(body: bytes, *, stream: bool) -> Heard:
    heard, calls = Heard(), []
    for line in [json.loads(line) for line in body.split(b"\n") if line]:
        message = line["message"]
        heard.text += message["content"]
        heard.thought += message.get("thinking", "")
        calls += message.get("tool_calls", ())
        if line["done"]:
            heard.end = line["done_reason"]
            heard.counts = (_count(line, "prompt_eval_count"), _count(line, "eval_count"), -1, -1)
    heard.calls = [
        Call(call.get("id", ""), call["function"]["name"], call["function"]["arguments"]) for call in calls
    ]
    again: Value = {
        "role": "assistant",
        "content": heard.text,
        **({"thinking": heard.thought} if heard.thought else {}),
    }
    heard.again = [again | ({"tool_calls": calls} if calls else {})]
    return heard


def gemini(body: bytes, *, stream: bool) -> Heard:
    chunks = _frames(body) if stream else [json.loads(body)]
    parts = [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]
    heard = Heard(again=[{"role": "model", "parts": parts}])
    for part in parts:
        if "functionCall" in part:
            call = part["functionCall"]
            heard.calls.append(Call(call.get("id", ""), call["name"], call["args"]))
        elif part.get("thought"):
            heard.thought += part["text"]
        else:
            heard.text += part["text"]
    ends = {"STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter"}
    reason = chunks[-1]["candidates"][0]["finishReason"]
    heard.end = ends.get(reason, reason)
    used = chunks[-1].get("usageMetadata")
    if used:
        reasoning = used.get("thoughtsTokenCount", 0)
        cached = used.get("cachedContentTokenCount", 0)
        heard.counts = (used["promptTokenCount"], used["candidatesTokenCount"] + reasoning, cached, reasoning)
        assert used["totalTokenCount"] == heard.counts[0] + heard.counts[1]
    return heard


READERS: Mapping[str, Callable[..., Heard]] = {
    "openai": openai, "widget": widget, "anthropic": anthropic, "responses": responses, "ollama": ollama, "gemini": gemini,
}  # fmt: skip
