"""A provider that follows a script, in the dialects of four vendors: it has two tools called, then says LAST;
or it gives OBJECT where a request wants an object.

What it is asked is looked at as the vendor would: a request whose results belong to no call is refused with a
400, which the client then tells. What clients ask beside the task (a title for the session) has none of the
task's tools, and gets a word.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, Request, chunk, sized

TEXT = "written behind the gateway"
LAST = "The file says what it should."
OBJECT = {"title": TEXT, "lines": 1}
USAGE = (9, 5)
"""Tokens of each request and each answer."""

PACE = 0.02
"""Seconds from frame to frame: what comes at once may be told at once, and libraries' answers are to come in
pieces."""

Call = tuple[str, dict[str, Any]]


class Wrong(Exception):
    """The vendor would refuse the request."""


@dataclass(frozen=True)
class Asked:
    """What the provider reads of a request: the tools it may call, the results of the calls so far, the first
    one first, and the schema of an object (None: any text will do)."""

    tools: frozenset[str]
    results: list[str]
    stream: bool
    schema: Any = None


@dataclass
class Script:
    """`calls`: what is called, in turn. `opening`: what is said where the client brings no tools (aider's
    edits are text). `gives_object`: OBJECT is wanted, by a schema or as the arguments of the only tool.
    `observed`: what stands before a result, where the client tells results in its own texts; such a client has
    its answer as the argument of a tool, `closing`. `without_schema`: the object's fields stand in the prompt.
    """

    calls: tuple[Call, ...] = ()
    opening: str = "A file"
    gives_object: bool = False
    observed: str = ""
    closing: Call | None = None
    without_schema: bool = False

    def answer(self, asked: Asked) -> tuple[str, Call | None]:
        """Text and call of the next answer. Raises Wrong where an object is to be given and none is wanted."""
        if self.without_schema:
            return json.dumps(OBJECT), None
        if self.gives_object and asked.schema is not None:
            _check({*asked.schema["properties"]} == {*OBJECT}, f"the schema is {asked.schema}")
            return json.dumps(OBJECT), None
        if self.gives_object:
            _check(len(asked.tools) == 1, "neither a schema nor one tool came")
            return "", (next(iter(asked.tools)), OBJECT)
        if not {name for name, _ in self.calls} <= asked.tools or not self.calls:
            return self.opening, None
        if len(asked.results) < len(self.calls):
            return ("I do it now." if not asked.results else ""), self.calls[len(asked.results)]
        return ("", self.closing) if self.closing is not None else (LAST, None)

    def results_in(self, value: Any) -> list[str]:
        """The results that stand in the texts of a request."""
        if isinstance(value, str):
            return value.split(self.observed)[1:]
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return [result for part in inner for result in self.results_in(part)]


@dataclass
class Seen:
    """What one dialect was asked for: the most results that came in one request, the bodies, and what was
    wrong with them."""

    script: Script
    results: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Provider:
    """The handler of a RawServer."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}

    def begin(self, dialect: str, script: Script) -> Seen:
        """Another script for a dialect, of which nothing was seen yet."""
        self._seen[dialect] = seen = Seen(script)
        return seen

    async def __call__(self, request: Request, peer: Peer) -> None:
        dialect = next((found for found in DIALECTS.values() if found.path in request.path), None)
        if dialect is None:
            return peer.send(sized(b"{}", 404))
        seen = self._seen[dialect.name]
        seen.bodies.append(request.body)
        try:
            asked = dialect.read(json.loads(request.body), request.path)
            if seen.script.observed:
                asked = replace(asked, results=seen.script.results_in(json.loads(request.body)))
            text, call = seen.script.answer(asked)
        except Wrong as wrong:
            seen.wrong.append(str(wrong))
            return peer.send(
                sized(_json({"error": {"message": str(wrong), "type": "invalid_request_error"}}), 400)
            )
        seen.results = max(seen.results, asked.results, key=len)
        number = len(seen.bodies)
        dialect.keep(json.loads(request.body), text, call, number)
        if asked.stream:
            frames = dialect.stream([f"{word} " for word in text.split(" ")] if text else [], call, number)
            peer.send(CHUNKED)
            for frame in frames:
                peer.send(chunk(frame))
                await asyncio.sleep(PACE)
            return peer.send(LAST_CHUNK)
        peer.send(sized(_json(dialect.whole(text, call, number)), 200, ("Content-Type", "application/json")))


class Dialect:
    """The server's side of one. `backend` is what the gateway's upstream is, `base` what its address ends
    with."""

    name: str
    path: str
    base: str = ""

    def read(self, body: Any, path: str) -> Asked:
        raise NotImplementedError

    def keep(self, body: Any, text: str, call: Call | None, number: int) -> None:
        """Keeps the conversation up to this answer, where the vendor does and the request wants it."""

    def stream(self, words: list[str], call: Call | None, number: int) -> list[bytes]:
        raise NotImplementedError

    def whole(self, text: str, call: Call | None, number: int) -> Any:
        raise NotImplementedError


class OpenAI(Dialect):
    name, path, base = "openai", "/chat/completions", "/v1"

    def read(self, body: Any, path: str) -> Asked:
        tools = frozenset(tool["function"]["name"] for tool in body.get("tools") or ())
        open_calls: set[str] = set()
        results = []
        for message in body["messages"]:
            if message["role"] == "tool":
                _check(message["tool_call_id"] in open_calls, "a tool's message answers no call before it")
                open_calls.discard(message["tool_call_id"])
                results.append(_text(message["content"]))
                continue
            _check(not open_calls, "calls without results before the next message")
            open_calls = {call["id"] for call in message.get("tool_calls") or ()}
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        return Asked(tools, results, body.get("stream") is True, schema)

    def stream(self, words: list[str], call: Call | None, number: int) -> list[bytes]:
        deltas: list[Any] = [{"role": "assistant", "content": ""}, *({"content": word} for word in words)]
        if call is not None:
            head = {
                "index": 0,
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": call[0], "arguments": ""},
            }
            more = [{"index": 0, "function": {"arguments": piece}} for piece in _pieces(call)]
            deltas += [{"tool_calls": [part]} for part in (head, *more)]
        frames = [
            self._chunk([{"index": 0, "delta": delta, "finish_reason": None}], number) for delta in deltas
        ]
        finish = {"index": 0, "delta": {}, "finish_reason": "tool_calls" if call else "stop"}
        return [
            *frames,
            self._chunk([finish], number),
            self._chunk([], number, usage=self._usage()),
            b"data: [DONE]\n\n",
        ]

    def whole(self, text: str, call: Call | None, number: int) -> Any:
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if call is not None:
            function = {"name": call[0], "arguments": json.dumps(call[1])}
            message["tool_calls"] = [{"id": f"call_{number}", "type": "function", "function": function}]
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "tool_calls" if call else "stop",
            "logprobs": None,
        }
        head = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1, "model": "fake"}
        return {**head, "choices": [choice], "usage": self._usage()}

    def _chunk(self, choices: list[Any], number: int, **more: Any) -> bytes:
        head = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1, "model": "fake"}
        return _sse({**head, "choices": choices, **more})

    def _usage(self) -> Mapping[str, int]:
        return {"prompt_tokens": USAGE[0], "completion_tokens": USAGE[1], "total_tokens": sum(USAGE)}


class Anthropic(Dialect):
    name, path = "anthropic", "/v1/messages"

    def __init__(self) -> None:
        self._threads: dict[str, Any] = {}

    def keep(self, body: Any, text: str, call: Call | None, number: int) -> None:
        if "thread" in body:
            body = self._unfolded(body)
            said = {"role": "assistant", "content": self.whole(text, call, number)["content"]}
            self._threads[f"msg_{number}"] = {**body, "messages": [*body["messages"], said]}

    def _unfolded(self, body: Any) -> Any:
        """The whole conversation of a request that continues a thread."""
        thread = body.get("thread") or {"type": "create"}
        if thread["type"] == "create":
            return body
        _check(not body.keys() & {"system", "tools"}, "a continued thread has its own system and tools")
        before = self._threads.get(thread["previous_message_id"])
        _check(before is not None, "no such thread")
        return {**before, **body, "messages": [*before["messages"], *body["messages"]]}

    def read(self, body: Any, path: str) -> Asked:
        body = self._unfolded(body)
        _check(isinstance(body.get("max_tokens"), int), "max_tokens: Field required")
        tools = frozenset(tool["name"] for tool in body.get("tools") or ())
        open_calls: set[str] = set()
        results = []
        for message in body["messages"]:
            blocks = message["content"] if isinstance(message["content"], list) else []
            answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
            _check(
                answered == open_calls,
                f"tool_use ids {open_calls} want results in the next message, found {answered}",
            )
            results += [_text(block.get("content", "")) for block in blocks if block["type"] == "tool_result"]
            open_calls = {block["id"] for block in blocks if block["type"] == "tool_use"}
        schema = body.get("output_config", {}).get("format", {}).get("schema")
        return Asked(tools, results, body.get("stream") is True, schema)

    def stream(self, words: list[str], call: Call | None, number: int) -> list[bytes]:
        message = {**self.whole("", None, number), "content": [], "stop_reason": None, "usage": self._usage()}
        frames = [self._event("message_start", message=message)]
        deltas: list[tuple[Any, list[Any]]] = []
        if words:
            deltas.append(
                ({"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in words])
            )
        if call is not None:
            block = {"type": "tool_use", "id": f"toolu_{number}", "name": call[0], "input": {}}
            deltas.append(
                (block, [{"type": "input_json_delta", "partial_json": piece} for piece in _pieces(call)])
            )
        for index, (block, pieces) in enumerate(deltas):
            frames.append(self._event("content_block_start", index=index, content_block=block))
            frames += [self._event("content_block_delta", index=index, delta=piece) for piece in pieces]
            frames.append(self._event("content_block_stop", index=index))
        delta = {"stop_reason": "tool_use" if call else "end_turn", "stop_sequence": None}
        frames.append(self._event("message_delta", delta=delta, usage={"output_tokens": USAGE[1]}))
        return [*frames, self._event("message_stop")]

    def whole(self, text: str, call: Call | None, number: int) -> Any:
        content: list[Any] = [{"type": "text", "text": text}] if text else []
        if call is not None:
            content.append({"type": "tool_use", "id": f"toolu_{number}", "name": call[0], "input": call[1]})
        head = {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "model": "fake",
            "content": content,
        }
        return {
            **head,
            "stop_reason": "tool_use" if call else "end_turn",
            "stop_sequence": None,
            "usage": self._usage(),
        }

    def _usage(self) -> Mapping[str, int]:
        return {"input_tokens": USAGE[0], "output_tokens": USAGE[1]}

    def _event(self, kind: str, **fields: Any) -> bytes:
        return b"event: %b\n%b" % (kind.encode(), _sse({"type": kind, **fields}))


class Gemini(Dialect):
    name, path, base = "gemini", "enerateContent", "/v1beta"

    def read(self, body: Any, path: str) -> Asked:
        tools = frozenset(
            one["name"] for tool in body.get("tools") or () for one in tool.get("functionDeclarations") or ()
        )
        calls: list[str] = []
        results = []
        for content in body["contents"]:
            _check(bool(content["parts"]), "contents.parts must not be empty")
            answered = [part["functionResponse"] for part in content["parts"] if "functionResponse" in part]
            _check(
                [one["name"] for one in answered] == calls,
                f"the calls {calls} want as many function responses, in turn",
            )
            results += [json.dumps(one["response"]) for one in answered]
            calls = [part["functionCall"]["name"] for part in content["parts"] if "functionCall" in part]
        given = body.get("generationConfig", {})
        schema = given.get("responseJsonSchema") or given.get("responseSchema")
        return Asked(tools, results, "streamGenerateContent" in path, schema)

    def stream(self, words: list[str], call: Call | None, number: int) -> list[bytes]:
        parts: list[Any] = [{"text": word} for word in words]
        if call is not None:
            parts.append({"functionCall": {"name": call[0], "args": call[1]}, "thoughtSignature": "c2ln"})
        return [
            _sse(self._chunk([part], number, part is parts[-1])).replace(b"\n\n", b"\r\n\r\n")
            for part in parts
        ]

    def whole(self, text: str, call: Call | None, number: int) -> Any:
        parts: list[Any] = [{"text": text}] if text else []
        if call is not None:
            parts.append({"functionCall": {"name": call[0], "args": call[1]}})
        return self._chunk(parts, number, True)

    def _chunk(self, parts: list[Any], number: int, last: bool) -> Any:
        candidate = {
            "content": {"role": "model", "parts": parts},
            "index": 0,
            **({"finishReason": "STOP"} if last else {}),
        }
        usage = {
            "promptTokenCount": USAGE[0],
            "candidatesTokenCount": USAGE[1],
            "totalTokenCount": sum(USAGE),
        }
        return {
            "candidates": [candidate],
            "usageMetadata": usage,
            "modelVersion": "fake",
            "responseId": f"r{number}",
        }


class Ollama(Dialect):
    name, path = "ollama", "/api/chat"

    def read(self, body: Any, path: str) -> Asked:
        tools = frozenset(tool["function"]["name"] for tool in body.get("tools") or ())
        results = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        for message in body["messages"]:
            _check(isinstance(message.get("content", ""), str), "content must be a string")
            for call in message.get("tool_calls") or ():
                _check(isinstance(call["function"]["arguments"], dict), "arguments must be an object")
        return Asked(tools, results, body.get("stream") is not False, body.get("format"))

    def stream(self, words: list[str], call: Call | None, number: int) -> list[bytes]:
        messages = [*({"role": "assistant", "content": word} for word in words)]
        lines = [self._line(message) for message in [*messages, *([self._call(call)] if call else [])]]
        return [*lines, self._line({"role": "assistant", "content": ""}, last=True)]

    def whole(self, text: str, call: Call | None, number: int) -> Any:
        message = {"role": "assistant", "content": text}
        return json.loads(self._line({**self._call(call), "content": text} if call else message, last=True))

    def _call(self, call: Call) -> dict[str, Any]:
        return {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": call[0], "arguments": call[1]}}],
        }

    def _line(self, message: Any, *, last: bool = False) -> bytes:
        counts = (
            {"done_reason": "stop", "prompt_eval_count": USAGE[0], "eval_count": USAGE[1]} if last else {}
        )
        head = {"model": "fake", "created_at": "2026-01-01T00:00:00Z"}
        return _json({**head, "message": message, "done": last, **counts}) + b"\n"


DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in (OpenAI(), Anthropic(), Gemini(), Ollama())
}


def _check(right: bool, words: str) -> None:
    if not right:
        raise Wrong(words)


def _pieces(call: Call) -> list[str]:
    text = json.dumps(call[1])
    return [text[at : at + 7] for at in range(0, len(text), 7)]


def _text(content: Any) -> str:
    """A result's text, which may be in blocks."""
    return content if isinstance(content, str) else json.dumps(content)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _sse(value: Any) -> bytes:
    return b"data: %b\n\n" % _json(value)
