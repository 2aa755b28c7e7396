"""What a client holds of an answer when it has read all of it, in each dialect: as the dialect's own readers
understand it."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from tests.frontends.responses.reading import Reader


class Call(msgspec.Struct):
    name: str = ""
    arguments: str = ""
    id: str = ""
    kind: str = "function"


class Held(msgspec.Struct):
    """`error` is the code of the error that ended the answer; `status` that of the response."""

    status: int = 200
    text: str = ""
    reasoning: str = ""
    calls: list[Call] = []
    finish: str | None = None
    usage: tuple[int, int, int] | None = None
    error: str | None = None


def of_lines(status: int, body: bytes) -> Held:
    """Of the widget's NDJSON with the full profile."""
    held = Held(status)
    lines = [json.loads(line) for line in body.splitlines() if line]
    assert lines[0]["type"] == "start"
    assert [line["type"] for line in lines].count("start") == 1
    for at, line in enumerate(lines):
        match line:
            case {"type": "token", "token": str(text)}:
                held.text += text
            case {"type": "reasoning", "text": str(text)}:
                held.reasoning += text
            case {"type": "tool_call", "index": index, "id": str(id_), "name": str(name), "kind": str(kind)}:
                assert index == len(held.calls)
                held.calls.append(Call(name, "", id_, kind))
            case {"type": "tool_call_delta", "index": int(index), "arguments": str(piece)}:
                held.calls[index].arguments += piece
            case {"type": "done"}:
                assert at == len(lines) - 1
                assert line["message"] == held.text.strip()
                held.finish = line["finishReason"]
                usage = line.get("usage")
                held.usage = usage and (
                    usage["inputTokens"],
                    usage["outputTokens"],
                    usage["cachedInputTokens"],
                )
            case {"type": "error", "error": "Internal server error", "code": str(code)}:
                assert at == len(lines) - 1
                held.error = code
    return held


def of_chunks(status: int, body: bytes) -> Held:
    """Of OpenAI's stream, read as its SDK does, and with the names under which vendors send reasoning."""
    held = Held(status)
    if status != 200:
        held.error = json.loads(body)["error"]["code"]
        return held
    frames = [data for frame in body.replace(b"\r\n", b"\n").split(b"\n\n") if (data := data_of(frame))]
    finished = frames[-1] == b"[DONE]"
    for frame in frames[:-1] if finished else frames:
        value = json.loads(frame)
        if value.get("error"):
            held.error = value["error"]["code"] or value["error"]["type"]
            assert frame is frames[-1]
            continue
        for choice in first_of(value.get("choices") or ()):
            take_delta(held, choice.get("delta") or {})
            held.finish = choice.get("finish_reason") or held.finish
        if not value.get("choices") and value.get("usage"):
            held.usage = usage_of(value["usage"])
    assert finished is (held.error is None)
    return held


def data_of(frame: bytes) -> bytes:
    return b"\n".join(line[5:].removeprefix(b" ") for line in frame.split(b"\n") if line.startswith(b"data:"))


def first_of(choices: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One was asked for; in one recording the vendor sends more."""
    return [choice for choice in choices if choice.get("index", 0) == 0]


def take_delta(held: Held, delta: dict[str, Any]) -> None:
    take_said(held, delta)
    for piece in delta.get("tool_calls") or ():
        function = piece.get("function") or {}
        index = piece.get("index")
        fresh = piece.get("id") and (
            index is None or index >= len(held.calls) or held.calls[index].id != piece["id"]
        )
        if fresh:
            held.calls.append(Call(function.get("name") or "", function.get("arguments") or "", piece["id"]))
        else:
            held.calls[-1 if index is None else min(index, len(held.calls) - 1)].arguments += (
                function.get("arguments") or ""
            )


def take_said(held: Held, said: dict[str, Any]) -> None:
    content = said.get("content")
    for part in [content] if isinstance(content, str) else content or ():
        match part:
            case str() as text:
                held.text += text
            case {"type": "text", "text": str(text)}:
                held.text += text
            case {"type": "thinking", "thinking": pieces}:
                held.reasoning += (
                    pieces if isinstance(pieces, str) else "".join(piece["text"] for piece in pieces)
                )
    held.text += said.get("refusal") or ""
    held.reasoning += said.get("reasoning_content") or said.get("reasoning") or ""


def usage_of(usage: dict[str, Any]) -> tuple[int, int, int]:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return usage["prompt_tokens"], usage["completion_tokens"], cached


def of_completion(status: int, body: bytes) -> Held:
    """Of OpenAI's whole answer."""
    held = Held(status)
    value = json.loads(body)
    if status != 200:
        held.error = value["error"]["code"]
        return held
    [choice] = first_of(value["choices"])
    take_said(held, choice["message"])
    for call in choice["message"].get("tool_calls") or ():
        held.calls.append(Call(call["function"]["name"], call["function"]["arguments"], call["id"]))
    held.finish = choice["finish_reason"]
    held.usage = value["usage"] and usage_of(value["usage"])
    return held


def of_response_events(status: int, body: bytes) -> Held:
    """Of a streamed Response, read strictly."""
    if status != 200:
        return Held(status, error=json.loads(body)["error"]["code"])
    reader = Reader().read(body)
    assert reader.over
    assert reader.response is not None
    held = held_of(reader.response)
    if reader.error is not None:  # the items that were not finished
        held.error = reader.error["code"]
        for item in reader.open.values():
            take_item(held, {**item, "content": item["_parts"], "summary": item["_parts"]})
    return held


def of_response(status: int, body: bytes) -> Held:
    """Of a whole Response."""
    value = json.loads(body)
    return held_of(value) if status == 200 else Held(status, error=value["error"]["code"])


def held_of(response: dict[str, Any]) -> Held:
    held = Held()
    for item in response["output"]:
        take_item(held, item)
    why = (response["incomplete_details"] or {}).get("reason")
    held.finish = {"max_output_tokens": "length"}.get(why, why) or ("tool_calls" if held.calls else "stop")
    if usage := response["usage"]:
        held.usage = (
            usage["input_tokens"],
            usage["output_tokens"],
            usage["input_tokens_details"]["cached_tokens"],
        )
    return held


def take_item(held: Held, item: dict[str, Any]) -> None:
    match item["type"]:
        case "message":
            held.text += "".join(part.get("text") or part.get("refusal") or "" for part in item["content"])
        case "reasoning":
            held.reasoning += "".join(
                part["text"] for part in [*item["summary"], *(item.get("content") or ())]
            )
        case "function_call":
            held.calls.append(Call(item["name"], item["arguments"], item["call_id"]))


def of_ollama(status: int, body: bytes) -> Held:
    """Of Ollama's lines, or its whole answer, which is one of them."""
    held = Held(status)
    if status != 200:
        held.error = json.loads(body)["code"]
        return held
    lines = [json.loads(line) for line in body.splitlines()]
    for at, line in enumerate(lines):
        last = at == len(lines) - 1
        if "error" in line:
            assert last
            held.error = line["code"]
            continue
        assert line["done"] is last
        message = line["message"]
        held.text += message["content"]
        held.reasoning += message.get("thinking", "")
        for call in message.get("tool_calls", ()):
            function = call["function"]
            assert function["index"] == len(held.calls)
            held.calls.append(Call(function["name"], json.dumps(function["arguments"]), call["id"]))
        if last:
            held.finish = (
                "tool_calls" if held.calls and line["done_reason"] == "stop" else line["done_reason"]
            )
            counted = "eval_count" in line
            held.usage = (line["prompt_eval_count"], line["eval_count"], 0) if counted else None
    return held


def of_gemini_events(status: int, body: bytes) -> Held:
    """Of Gemini's server-sent events."""
    if status != 200:
        return of_gemini(status, body)
    frames = body.split(b"\r\n\r\n")
    assert frames.pop() == b""
    assert all(frame.startswith(b"data: ") and b"\n" not in frame for frame in frames)
    return of_gemini_chunks([json.loads(frame[6:]) for frame in frames])


def of_gemini_list(status: int, body: bytes) -> Held:
    """Of Gemini's stream without `alt=sse`."""
    return of_gemini_chunks(json.loads(body)) if status == 200 else of_gemini(status, body)


def of_gemini(status: int, body: bytes) -> Held:
    """Of Gemini's whole answer."""
    value = json.loads(body)
    if status == 200:
        return of_gemini_chunks([value])
    return Held(status, error=value["error"]["details"][0]["reason"])


def of_gemini_chunks(chunks: Sequence[dict[str, Any]]) -> Held:
    """Read as Google's SDKs do: what is absent is absent, and the last finish reason and counts hold."""
    held = Held()
    reason = ""
    for at, value in enumerate(chunks):
        if "error" in value:
            assert at == len(chunks) - 1
            held.error = value["error"]["details"][0]["reason"]
            continue
        for candidate in value.get("candidates", ()):
            if candidate.get("index", 0) == 0:
                take_parts(held, candidate.get("content", {}).get("parts", ()))
                reason = candidate.get("finishReason") or reason
        if "totalTokenCount" in (usage := value.get("usageMetadata", {})):
            input = usage["promptTokenCount"] + usage.get("toolUsePromptTokenCount", 0)
            output = usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0)
            held.usage = input, output, usage.get("cachedContentTokenCount", 0)
    if held.error is None:
        held.finish = {"STOP": "stop", 1: "stop", "MAX_TOKENS": "length"}.get(reason, "content_filter")
        held.finish = "tool_calls" if held.calls and held.finish == "stop" else held.finish
    return held


def take_parts(held: Held, parts: Sequence[dict[str, Any]]) -> None:
    for part in parts:
        if (call := part.get("functionCall")) is not None:
            if call.get("name"):  # else a piece of the one before
                held.calls.append(Call(call["name"], json.dumps(call.get("args")), call.get("id", "")))
        elif part.get("thought"):
            held.reasoning += part.get("text", "")
        else:
            held.text += part.get("text", "")


# --- Anthropic's messages

STOPS = {
    "end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "max_tokens": "length",
    "model_context_window_exceeded": "length", "tool_use": "tool_calls", "refusal": "content_filter",
}  # fmt: skip


def of_messages(status: int, body: bytes) -> Held:
    """Of Anthropic's stream, read as its SDKs do: frames go by their `event:` lines, deltas by their index.
    `error` is its type. Tools that the provider ran are not held."""
    held = Held(status)
    if status != 200:
        held.error = json.loads(body)["error"]["type"]
        return held
    message: dict[str, Any] = {}
    blocks: list[dict[str, Any]] = []
    frames = [frame for frame in body.split(b"\n\n") if frame]
    for frame in frames:
        name = frame.partition(b"\n")[0].removeprefix(b"event: ").decode()
        event = json.loads(data_of(frame))
        assert event["type"] == name
        match name:
            case "message_start":
                assert not message
                message = event["message"]
                assert message["usage"]["input_tokens"] + message["usage"]["output_tokens"] > 0
            case "content_block_start":
                assert event["index"] == len(blocks)
                blocks.append({**event["content_block"], "pieces": ""})
            case "content_block_delta":
                take_block_delta(blocks[event["index"]], event["delta"])
            case "message_delta":
                message |= event["delta"]
                said = {name: count for name, count in event["usage"].items() if count is not None}
                message["usage"] = {**message["usage"], **said}
            case "error":
                held.error = event["error"]["type"]
                assert frame is frames[-1]
    assert (frames[-1].startswith(b"event: message_stop")) is (held.error is None)
    take_message(held, {**message, "content": blocks})
    return held


def take_block_delta(block: dict[str, Any], delta: dict[str, Any]) -> None:
    match delta:
        case {"type": "text_delta", "text": text}:
            block["text"] += text
        case {"type": "thinking_delta", "thinking": text}:
            block["thinking"] += text
        case {"type": "input_json_delta", "partial_json": piece}:
            block["pieces"] += piece


def take_message(held: Held, message: dict[str, Any]) -> None:
    for block in message["content"]:
        match block["type"]:
            case "text":
                held.text += block["text"]
            case "thinking":
                held.reasoning += block["thinking"]
            case "tool_use":
                arguments = block.get("pieces") or json.dumps(block["input"])
                if arguments.startswith('{"INVALID_JSON"'):
                    arguments = json.loads(arguments)["INVALID_JSON"]
                held.calls.append(Call(block["name"], arguments, block["id"]))
    if held.error is None:
        held.finish = STOPS[message["stop_reason"]]
        usage = message["usage"]
        read, written = (
            usage.get("cache_read_input_tokens") or 0,
            usage.get("cache_creation_input_tokens") or 0,
        )
        held.usage = (usage["input_tokens"] + read + written, usage["output_tokens"], read)


def of_message(status: int, body: bytes) -> Held:
    """Of Anthropic's whole message."""
    held = Held(status)
    value = json.loads(body)
    if status != 200:
        held.error = value["error"]["type"]
        return held
    take_message(held, value)
    return held
