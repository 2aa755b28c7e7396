"""An upstream that speaks OpenAI's Chat Completions on loopback, and answers by a script."""

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

import msgspec
from aiohttp import web

End = Literal["done", "cut", "silence"]


class Answer(msgspec.Struct, frozen=True):
    """A scripted answer. `delay`: seconds before each text. `error`: a body that is sent with `status` in
    place of an answer."""

    texts: tuple[str, ...] = ("Hello", " from", " the", " script")
    delay: float = 0.0
    end: End = "done"
    status: int = 200
    error: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = {}


class ScriptedUpstream:
    """An upstream that answers each call with the next answer of the script, or, if there is none, with
    "Hello from the script".

    `requests`: the bodies that it received, as JSON. `url`: its base URL. It may be used from any thread.
    """

    url: str

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self._script: deque[Answer] = deque()

    def answers(self, *texts: str, delay: float = 0.0) -> None:
        """Answers the next call with these texts, one event each, `delay` seconds apart."""
        self._script.append(Answer(texts, delay))

    def fails(
        self, status: int, message: str = "It failed", *, code: str = "", retry_after: float | None = None
    ) -> None:
        """Answers the next call with an error. `retry_after` in seconds."""
        error = {"error": {"message": message, "type": "error", "code": code or None}}
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        self._script.append(Answer(status=status, error=error, headers=headers))

    def breaks(self, *texts: str) -> None:
        """Sends these texts to the next call, and then cuts its connection."""
        self._script.append(Answer(texts, end="cut"))

    def stalls(self, *texts: str) -> None:
        """Sends these texts to the next call, and then nothing more."""
        self._script.append(Answer(texts, end="silence"))

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        answer = self._script.popleft() if self._script else Answer()
        if answer.error is not None:
            return web.json_response(answer.error, status=answer.status, headers=answer.headers)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream" if body.get("stream") else "application/json"}
        )
        await response.prepare(request)
        for piece in _stream(body, answer) if body.get("stream") else _whole(body, answer):
            await asyncio.sleep(answer.delay)
            await response.write(piece)
        if answer.end == "silence":
            await asyncio.Event().wait()  # until the other side leaves
        elif answer.end == "cut" and request.transport is not None:
            request.transport.abort()
        return response


def _stream(body: Mapping[str, Any], answer: Answer) -> Iterable[bytes]:
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": body.get("model", ""),
    }
    for text in answer.texts:
        yield _event({**chunk, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})
    if answer.end == "done":
        last = _event({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        usage = _event({**chunk, "choices": [], "usage": _usage(answer)})
        yield last + usage + b"data: [DONE]\n\n"


def _event(chunk: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(chunk).encode()


def _whole(body: Mapping[str, Any], answer: Answer) -> Iterable[bytes]:
    completion = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", ""),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "".join(answer.texts)},
                "finish_reason": "stop",
            }
        ],
        "usage": _usage(answer),
    }
    text = json.dumps(completion).encode()
    yield text if answer.end == "done" else text[: len(text) // 2]


def _usage(answer: Answer) -> dict[str, int]:
    count = len(answer.texts)
    return {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}
