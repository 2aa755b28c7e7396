"""Answers as the upstreams of those dialects send them whole that clients speak, too, by their own documentation."""

import json
from collections.abc import Callable, Mapping

from tests.matrix import answers
from tests.matrix.answers import Answer
from tests.matrix.talk import Value


def openai(answer: Answer) -> Value:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for call in answer.calls
    ]  # fmt: skip
    message: Value = {"role": "assistant", "content": answer.text or None, "refusal": None}
    message |= {"reasoning_content": answer.thought} if answer.thought else {}
    message |= {"tool_calls": calls} if calls else {}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.end}
    input, output, cached, reasoning = answer.counts
    usage = {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
             "prompt_tokens_details": {"cached_tokens": cached},
             "completion_tokens_details": {"reasoning_tokens": reasoning}}  # fmt: skip
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
            "usage": usage}  # fmt: skip


def anthropic(answer: Answer) -> Value:
    content: list[Value] = []
    if answer.thought:
        content.append({"type": "thinking", "thinking": answer.thought, "signature": answer.seal})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        for call in answer.calls
    ]
    ends = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
    input, output, cached, reasoning = answer.counts
    usage = {"input_tokens": input - cached, "cache_read_input_tokens": cached, "cache_creation_input_tokens": 0,
             "output_tokens": output, "output_tokens_details": {"thinking_tokens": reasoning}}  # fmt: skip
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content,
            "stop_reason": ends[answer.end], "stop_sequence": None, "usage": usage}  # fmt: skip


def gemini(answer: Answer) -> Value:
    parts: list[Value] = [{"text": answer.thought, "thought": True}] if answer.thought else []
    parts += [{"text": answer.text}] if answer.text else []
    parts += [{"functionCall": {"name": call.name, "args": call.arguments}} for call in answer.calls]
    ends = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}
    content = {"role": "model", "parts": parts}
    input, output, cached, reasoning = answer.counts
    usage = {"promptTokenCount": input, "candidatesTokenCount": output - reasoning, "thoughtsTokenCount": reasoning,
             "cachedContentTokenCount": cached, "totalTokenCount": input + output}  # fmt: skip
    return {"candidates": [{"content": content, "finishReason": ends[answer.end], "index": 0}],
            "usageMetadata": usage, "modelVersion": "m", "responseId": "r"}  # fmt: skip


def ollama(answer: Answer) -> Value:
    message: Value = {"role": "assistant", "content": answer.text}
    message |= {"thinking": answer.thought} if answer.thought else {}
    calls = [{"function": {"name": call.name, "arguments": call.arguments}} for call in answer.calls]
    message |= {"tool_calls": calls} if calls else {}
    return {"model": "m", "created_at": "2026-11-29T00:00:00Z", "message": message, "done": True,
            "done_reason": "length" if answer.end == "length" else "stop",
            "prompt_eval_count": answer.counts[0], "eval_count": answer.counts[1]}  # fmt: skip


def responses(answer: Answer) -> Value:
    """The response that its stream ends with."""
    last = answers.responses(answer).rstrip().rpartition(b"\ndata: ")[2]
    response: Value = json.loads(last)["response"]
    return {"object": "response", "created_at": 1, **response}


WRITERS: Mapping[str, Callable[[Answer], Value]] = {
    "openai": openai, "anthropic": anthropic, "gemini": gemini, "ollama": ollama, "responses": responses,
}  # fmt: skip
