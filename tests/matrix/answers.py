"""Answers as people mean them, and as the upstreams of each dialect stream them, by their own documentation.

`COUNTS` and `ENDS` say which counts and which ends a dialect has words for; `seals` is what a vendor gives
with its reasoning.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

import msgspec
from hypothesis import strategies as st

from tests.fakes import eventstreams
from tests.matrix.talk import Call, Value, ids, names, objects, texts


class Answer(msgspec.Struct, frozen=True):
    """`seal`: what its vendor wants to have back with the reasoning. `counts`: input, output, cached,
    reasoning."""

    thought: str = ""
    seal: str = ""
    text: str = ""
    calls: tuple[Call, ...] = ()
    end: str = "stop"
    counts: tuple[int, int, int, int] = (12, 9, 0, 0)
    seed: int = 0

    def pieces(self, text: str) -> Iterator[str]:
        """The text in pieces of at least a character, the same for the same seed."""
        chance, at = Random(self.seed), 0
        while at < len(text):
            size = chance.randint(1, 9)
            yield text[at : at + size]
            at += size


COUNTS: Mapping[str, tuple[bool, bool]] = {
    "openai": (True, True), "anthropic": (True, True), "gemini": (True, True), "ollama": (False, False),
    "bedrock": (True, False), "cohere": (True, True), "responses": (True, True),
}  # fmt: skip
"""Whether cached tokens, and tokens of reasoning, are told apart."""
FILTERS = frozenset({"openai", "anthropic", "gemini", "bedrock", "responses"})
SEALING = frozenset({"anthropic", "gemini", "bedrock", "responses"})


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    text = draw(texts | st.just(""))
    called = draw(st.lists(ids, max_size=3, unique=True)) if draw(st.booleans()) or not text else []
    calls = tuple([Call(id, draw(names), draw(objects)) for id in called])
    text = text if text or calls else "said"
    end = "tool_calls" if calls else draw(st.sampled_from(["stop", "stop", "length", "content_filter"]))
    thought = draw(texts | st.just(""))
    seal = base64.b64encode(draw(st.binary(min_size=3, max_size=12))).decode() if thought else ""
    input, output = draw(st.integers(1, 900)), draw(st.integers(1, 900))
    counts = (input, output, draw(st.integers(0, input)), draw(st.integers(0, output)))
    return Answer(thought, seal, text, calls, end, counts, draw(st.integers(0, 99)))


def _sse(*values: Any, named: bool = True) -> bytes:
    found = b""
    for value in values:
        head = b"event: %b\n" % value["type"].encode() if named and isinstance(value, dict) else b""
        found += head + b"data: %b\n\n" % (value if isinstance(value, bytes) else json.dumps(value).encode())
    return found


def openai(answer: Answer) -> bytes:
    deltas: list[Value] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in answer.pieces(answer.thought)]
    deltas += [{"content": piece} for piece in answer.pieces(answer.text)]
    for at, call in enumerate(answer.calls):
        begun = {
            "index": at,
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": ""},
        }
        deltas.append({"tool_calls": [begun]})
        written = answer.pieces(json.dumps(call.arguments))
        deltas += [{"tool_calls": [{"index": at, "function": {"arguments": piece}}]} for piece in written]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": answer.end}]})
    input, output, cached, reasoning = answer.counts
    usage = {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
             "prompt_tokens_details": {"cached_tokens": cached},
             "completion_tokens_details": {"reasoning_tokens": reasoning}}  # fmt: skip
    return _sse(*chunks, {**head, "choices": [], "usage": usage}, b"[DONE]", named=False)


def anthropic(answer: Answer) -> bytes:
    input, output, cached, reasoning = answer.counts
    prompt = {
        "input_tokens": input - cached,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
    }
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
               "stop_sequence": None, "usage": {**prompt, "output_tokens": 1}}  # fmt: skip
    events: list[Value] = [{"type": "message_start", "message": message}]
    blocks: list[tuple[Value, list[Value]]] = []
    if answer.thought:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in answer.pieces(answer.thought)]
        deltas.append({"type": "signature_delta", "signature": answer.seal})
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, deltas))
    if answer.text:
        said = [{"type": "text_delta", "text": piece} for piece in answer.pieces(answer.text)]
        blocks.append(({"type": "text", "text": ""}, said))
    for call in answer.calls:
        written = [
            {"type": "input_json_delta", "partial_json": p} for p in answer.pieces(json.dumps(call.arguments))
        ]
        blocks.append(({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}, written))
    for at, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": at, "content_block": block})
        events += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": at})
    ends = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
    usage = {**prompt, "output_tokens": output, "output_tokens_details": {"thinking_tokens": reasoning}}
    delta = {"stop_reason": ends[answer.end], "stop_sequence": None}
    return _sse(*events, {"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"})


def gemini(answer: Answer) -> bytes:
    input, output, cached, reasoning = answer.counts
    parts: list[Value] = [{"text": piece, "thought": True} for piece in answer.pieces(answer.thought)]
    said: list[Value] = [{"text": piece} for piece in answer.pieces(answer.text)]
    calls: list[Value] = [
        {"functionCall": {"name": call.name, "args": call.arguments}} for call in answer.calls
    ]
    sealed = [*calls, *said][:1] if answer.seal else []  # the first call has it, or the answer's text
    for part in sealed:
        part["thoughtSignature"] = answer.seal
    chunks: list[Value] = [{"candidates": [{"content": {"role": "model", "parts": [part]}, "index": 0}]}
                           for part in (*parts, *said, *calls)]  # fmt: skip
    ends = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}
    chunks[-1]["candidates"][0]["finishReason"] = ends[answer.end]
    chunks[-1]["usageMetadata"] = {
        "promptTokenCount": input, "candidatesTokenCount": output - reasoning, "thoughtsTokenCount": reasoning,
        "cachedContentTokenCount": cached, "totalTokenCount": input + output,
    }  # fmt: skip
    return _sse(
        *[{**chunk, "modelVersion": "m", "responseId": "r"} for chunk in chunks], named=False
    ).replace(b"\n", b"\r\n")


def ollama(answer: Answer) -> bytes:
    messages: list[Value] = [{"content": "", "thinking": piece} for piece in answer.pieces(answer.thought)]
    messages += [{"content": piece} for piece in answer.pieces(answer.text)]
    messages += [{"content": "", "tool_calls": [{"function": {"name": call.name, "arguments": call.arguments}}]}
                 for call in answer.calls]  # fmt: skip
    lines: list[Value] = [
        {"message": {"role": "assistant", **message}, "done": False} for message in messages
    ]
    reason = "length" if answer.end == "length" else "stop"
    counts = {"prompt_eval_count": answer.counts[0], "eval_count": answer.counts[1]}
    lines.append(
        {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": reason, **counts}
    )
    return b"".join(
        [
            json.dumps({"model": "m", "created_at": "2026-11-29T00:00:00Z", **line}).encode() + b"\n"
            for line in lines
        ]
    )


def bedrock(answer: Answer) -> bytes:
    input, output, cached, _ = answer.counts
    blocks: list[tuple[Value | None, list[Value]]] = []
    if answer.thought:
        deltas = [{"reasoningContent": {"text": piece}} for piece in answer.pieces(answer.thought)]
        blocks.append((None, [*deltas, {"reasoningContent": {"signature": answer.seal}}]))
    if answer.text:
        blocks.append((None, [{"text": piece} for piece in answer.pieces(answer.text)]))
    for call in answer.calls:
        written = [{"toolUse": {"input": piece}} for piece in answer.pieces(json.dumps(call.arguments))]
        blocks.append(({"toolUse": {"toolUseId": call.id, "name": call.name}}, written))
    events: list[tuple[str, Value]] = [("messageStart", {"role": "assistant"})]
    for at, (start, deltas) in enumerate(blocks):
        events += [("contentBlockStart", {"contentBlockIndex": at, "start": start})] if start else []
        events += [("contentBlockDelta", {"contentBlockIndex": at, "delta": delta}) for delta in deltas]
        events.append(("contentBlockStop", {"contentBlockIndex": at}))
    ends = {
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
        "content_filter": "content_filtered",
    }
    usage = {
        "inputTokens": input - cached,
        "outputTokens": output,
        "totalTokens": input + output,
        "cacheReadInputTokens": cached,
    }
    return eventstreams.events(
        *events, ("messageStop", {"stopReason": ends[answer.end]}), ("metadata", {"usage": usage})
    )


def cohere(answer: Answer) -> bytes:
    input, output, cached, reasoning = answer.counts
    events: list[Value] = [{"type": "message-start", "id": "c", "delta": {"message": {"role": "assistant"}}}]

    def add(kind: str, index: int, **message: Any) -> None:
        events.append(
            {"type": kind, "index": index, "delta": {"message": message}}
            if message
            else {"type": kind, "index": index}
        )

    contents = [(kind, text) for kind, text in (("thinking", answer.thought), ("text", answer.text)) if text]
    for at, (kind, text) in enumerate(contents):
        add("content-start", at, content={"type": kind, kind: ""})
        for piece in answer.pieces(text):
            add("content-delta", at, content={kind: piece})
        add("content-end", at)
    for at, call in enumerate(answer.calls):
        function = {"name": call.name, "arguments": ""}
        add("tool-call-start", at, tool_calls={"id": call.id, "type": "function", "function": function})
        for piece in answer.pieces(json.dumps(call.arguments)):
            add("tool-call-delta", at, tool_calls={"function": {"arguments": piece}})
        add("tool-call-end", at)
    ends = {
        "stop": "COMPLETE",
        "length": "MAX_TOKENS",
        "tool_calls": "TOOL_CALL",
        "content_filter": "COMPLETE",
    }
    tokens = {"input_tokens": input, "output_tokens": output, "reasoning_tokens": reasoning}
    usage = {
        "billed_units": {"input_tokens": 1, "output_tokens": 1},
        "tokens": tokens,
        "cached_tokens": cached,
    }
    events.append({"type": "message-end", "delta": {"finish_reason": ends[answer.end], "usage": usage}})
    return _sse(*events)


def responses(answer: Answer) -> bytes:
    events: list[Value] = [
        {
            "type": "response.created",
            "response": {"id": "resp_9", "model": "m", "status": "in_progress", "output": []},
        }
    ]
    output: list[Value] = []
    parts: Mapping[str, tuple[str, Value]] = {
        "output_text": ("content", {"type": "output_text", "text": "", "annotations": []}),
        "reasoning_summary_text": ("reasoning_summary", {"type": "summary_text", "text": ""}),
    }

    def item(begun: Value, kind: str, pieces: Iterator[str], done: Value) -> None:
        at = len(output)
        events.append(
            {
                "type": "response.output_item.added",
                "output_index": at,
                "item": {**begun, "status": "in_progress"},
            }
        )
        place: Value = {"output_index": at, "item_id": begun["id"]}
        if kind in parts:
            name, part = parts[kind]
            place["content_index" if name == "content" else "summary_index"] = 0
            events.append({"type": f"response.{name}_part.added", **place, "part": part})
        events.extend([{"type": f"response.{kind}.delta", **place, "delta": p} for p in pieces])
        output.append({**begun, **done})
        events.append({"type": "response.output_item.done", "output_index": at, "item": output[-1]})

    if answer.thought:
        summary = [{"type": "summary_text", "text": answer.thought}]
        begun = {"type": "reasoning", "id": "rs_9", "summary": []}
        done = {"summary": summary, "encrypted_content": answer.seal}
        item(begun, "reasoning_summary_text", answer.pieces(answer.thought), done)
    if answer.text:
        said = [{"type": "output_text", "text": answer.text, "annotations": []}]
        begun = {"type": "message", "id": "msg_9", "role": "assistant", "content": []}
        item(begun, "output_text", answer.pieces(answer.text), {"content": said})
    for call in answer.calls:
        written = json.dumps(call.arguments)
        begun = {
            "type": "function_call",
            "id": f"fc_{call.name}",
            "call_id": call.id,
            "name": call.name,
            "arguments": "",
        }
        item(begun, "function_call_arguments", answer.pieces(written), {"arguments": written})
    input, outputs, cached, reasoning = answer.counts
    usage = {"input_tokens": input, "input_tokens_details": {"cached_tokens": cached}, "output_tokens": outputs,
             "output_tokens_details": {"reasoning_tokens": reasoning}, "total_tokens": input + outputs}  # fmt: skip
    why = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(answer.end)
    state = "incomplete" if why else "completed"
    details = {"incomplete_details": {"reason": why}} if why else {}
    response = {"id": "resp_9", "model": "m", "status": state, "output": output, "usage": usage, **details}
    events.append({"type": f"response.{state}", "response": response})
    return _sse(*[{**event, "sequence_number": at} for at, event in enumerate(events)])


WRITERS: Mapping[str, Callable[[Answer], bytes]] = {
    "openai": openai, "anthropic": anthropic, "gemini": gemini, "ollama": ollama, "bedrock": bedrock, "cohere": cohere,
    "responses": responses,
}  # fmt: skip
