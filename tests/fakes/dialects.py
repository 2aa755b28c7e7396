"""The server's side of three dialects, small: what a provider writes for one answer, piece by piece.

    opening · token … token · finish · end        the last two apart, for providers that forget one of them

`refusal` is an error body in the vendor's own shape, by what is wrong; `failure` an error inside a stream
that began.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.rawserver import Request

TOKENS = tuple(f"{' ' if n else ''}w{n}" for n in range(60))
ANSWER = "".join(TOKENS)
INPUT = 7
"""Tokens of every prompt, as the provider bills them; every token of an answer is billed as one."""


@dataclass(frozen=True)
class Dialect:
    """`errors` maps what is wrong to (status, the vendor's code or type, its words)."""

    name: str
    path: str
    content_type: str
    errors: Mapping[str, tuple[int, str, str]]

    def opening(self) -> bytes:
        raise NotImplementedError

    def token(self, text: str) -> bytes:
        raise NotImplementedError

    def finish(self, tokens: int) -> bytes:
        raise NotImplementedError

    def end(self) -> bytes:
        return b""

    def malformed(self) -> bytes:
        raise NotImplementedError

    def comment(self) -> bytes:
        """What keeps a connection awake and says nothing."""
        return b": waiting\n\n"

    def error(self, code: str, words: str) -> Any:
        raise NotImplementedError

    def failure(self) -> bytes:
        raise NotImplementedError

    def refusal(self, wrong: str) -> tuple[int, bytes]:
        status, code, words = self.errors[wrong]
        return status, _json(self.error(code, words))

    def asked(self, request: Request) -> tuple[str, str]:
        """The model, and the assistant's words that the request ends with ("" where it ends with
        another's)."""
        body = json.loads(request.body)
        last = body["messages"][-1]
        return body["model"], _text(last["content"]) if last["role"] == "assistant" else ""


class _OpenAI(Dialect):
    def _chunk(self, choices: list[Any], **more: Any) -> bytes:
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "fake-1"}
        return _sse({**head, "choices": choices, **more})

    def _delta(self, delta: Any, finish: str | None = None) -> bytes:
        return self._chunk([{"index": 0, "delta": delta, "finish_reason": finish}])

    def opening(self) -> bytes:
        return self._delta({"role": "assistant", "content": ""})

    def token(self, text: str) -> bytes:
        return self._delta({"content": text})

    def finish(self, tokens: int) -> bytes:
        usage = {"prompt_tokens": INPUT, "completion_tokens": tokens, "total_tokens": INPUT + tokens}
        return self._delta({}, "stop") + self._chunk([], usage=usage)

    def end(self) -> bytes:
        return b"data: [DONE]\n\n"

    def malformed(self) -> bytes:
        return b'data: {"choices":[{"index":0,"delta":{"content":\n\n'

    def error(self, code: str, words: str) -> Any:
        return {"error": {"message": words, "type": "error", "param": None, "code": code}}

    def failure(self) -> bytes:
        return _sse(self.error("server_error", "The server had an error while processing your request"))


class _Anthropic(Dialect):
    def _event(self, kind: str, **fields: Any) -> bytes:
        return b"event: %b\n%b" % (kind.encode(), _sse({"type": kind, **fields}))

    def opening(self) -> bytes:
        usage = {"input_tokens": INPUT, "output_tokens": 1}
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "fake-1",
            "content": [],
            "usage": usage,
        }
        block = {"type": "text", "text": ""}
        return self._event("message_start", message=message) + self._event(
            "content_block_start", index=0, content_block=block
        )

    def token(self, text: str) -> bytes:
        return self._event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    def finish(self, tokens: int) -> bytes:
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        stop = self._event("content_block_stop", index=0)
        return stop + self._event("message_delta", delta=delta, usage={"output_tokens": tokens})

    def end(self) -> bytes:
        return self._event("message_stop")

    def malformed(self) -> bytes:
        return b'event: content_block_delta\ndata: {"type":"content_block_de\n\n'

    def comment(self) -> bytes:
        return self._event("ping")

    def error(self, code: str, words: str) -> Any:
        return {"type": "error", "error": {"type": code, "message": words}}

    def failure(self) -> bytes:
        return b"event: error\n" + _sse(self.error("overloaded_error", "Overloaded"))


class _Ollama(Dialect):
    def _line(self, **fields: Any) -> bytes:
        return _json({"model": "fake-1", "created_at": "2025-01-01T00:00:00Z", **fields}) + b"\n"

    def opening(self) -> bytes:
        return b""

    def token(self, text: str) -> bytes:
        return self._line(message={"role": "assistant", "content": text}, done=False)

    def finish(self, tokens: int) -> bytes:
        """Its finish is its end: without the terminator means without the last line's end here."""
        counts = {"prompt_eval_count": INPUT, "eval_count": tokens}
        return self._line(
            message={"role": "assistant", "content": ""}, done=True, done_reason="stop", **counts
        )[:-1]

    def end(self) -> bytes:
        return b"\n"

    def malformed(self) -> bytes:
        return b'{"model":"fake-1","message":{"role":"assis\n'

    def comment(self) -> bytes:
        return b"\n"

    def error(self, code: str, words: str) -> Any:
        return {"error": words}

    def failure(self) -> bytes:
        return _json(self.error("", "an error was encountered while running the model")) + b"\n"


OPENAI = _OpenAI(
    "openai",
    "/chat/completions",
    "text/event-stream",
    {
        "rate": (429, "rate_limit_exceeded", "Rate limit reached"),
        "credentials": (401, "invalid_api_key", "Incorrect API key provided"),
        "server": (500, "server_error", "The server had an error"),
        "overloaded": (503, "overloaded", "Overloaded"),
        "context": (400, "context_length_exceeded", "This model's maximum context length is 10 tokens"),
        "policy": (400, "content_filter", "The prompt triggered the content management policy"),
        "prefill": (400, "invalid_request", "Expected last role user, but got assistant"),
    },
)
ANTHROPIC = _Anthropic(
    "anthropic",
    "/v1/messages",
    "text/event-stream",
    {
        "rate": (429, "rate_limit_error", "Number of requests has exceeded your rate limit"),
        "credentials": (401, "authentication_error", "invalid x-api-key"),
        "server": (500, "api_error", "Internal server error"),
        "overloaded": (529, "overloaded_error", "Overloaded"),
        "context": (400, "invalid_request_error", "prompt is too long: 12 tokens > 10 maximum"),
        "policy": (400, "invalid_request_error", "Output blocked by content filtering policy"),
        "prefill": (400, "invalid_request_error", "This model does not support assistant message prefill."),
    },
)
OLLAMA = _Ollama(
    "ollama",
    "/api/chat",
    "application/x-ndjson",
    {
        "rate": (429, "", "too many requests"),
        "server": (500, "", "llama runner process has terminated"),
        "overloaded": (503, "", "server busy, please try again"),
        "context": (400, "", "the input length exceeds the context length"),
        "prefill": (400, "", "the last message must be the user's"),
    },
)
DIALECTS = {dialect.name: dialect for dialect in (OPENAI, ANTHROPIC, OLLAMA)}


def dialect_of(request: Request) -> Dialect:
    return next(dialect for dialect in DIALECTS.values() if request.path.endswith(dialect.path))


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _sse(value: Any) -> bytes:
    return b"data: %b\n\n" % _json(value)
