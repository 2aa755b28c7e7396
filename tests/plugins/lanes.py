"""One answer of an upstream, through a decoder and an encoder, as each kind of client reads it: strictly, as
SDKs do."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sluice.backends.protocol import Decoder
from sluice.errors import UpstreamError
from sluice.frontends import Answer, Encoder
from sluice.frontends.openai.dialect import OpenAI as Frontend
from sluice.frontends.widget.answer import NdjsonLines
from sluice.model.chat import ChatRequest
from sluice.proxy.relay import Relay
from sluice_plugins.openai.backend import OpenAI

Value = dict[str, Any]


class Heard(msgspec.Struct):
    """What a client has of an answer. A call is (name, arguments); `usages` are all that were told."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = []
    finish: str | None = None
    usages: list[Value] = []
    ids: list[str] = []
    error: str = ""

    @property
    def said(self) -> tuple[str, str, list[tuple[str, str]], str | None, str]:
        """What never depends on anything else in a stream."""
        return self.text, self.reasoning, self.calls, self.finish, self.error


def of_chunks(body: bytes) -> Heard:
    """A stream of chat completions, as OpenAI's SDKs read it: deltas of calls belong together by their
    index."""
    heard = Heard()
    calls: dict[int, list[str]] = {}
    for frame in body.decode().split("\n\n"):
        data = "\n".join(line[5:].removeprefix(" ") for line in frame.split("\n") if line.startswith("data:"))
        if not data or data == "[DONE]":
            continue
        chunk = json.loads(data)
        if chunk.get("usage") is not None:
            heard.usages.append(chunk["usage"])
        for choice in chunk["choices"]:
            assert type(choice["index"]) in (int, float)  # SDKs put choices together by it
            if choice["index"] == 0:
                _take_delta(heard, choice.get("delta") or {}, calls)
                heard.finish = choice.get("finish_reason") or heard.finish
    heard.calls = [(name, arguments) for _, name, arguments in calls.values()]
    heard.ids = [id_ for id_, *_ in calls.values()]
    assert list(calls) == list(range(len(calls)))
    return heard


def _take_delta(heard: Heard, delta: Value, calls: dict[int, list[str]]) -> None:
    _take_text(heard, delta)
    for piece in delta.get("tool_calls") or ():
        call = calls.setdefault(piece["index"], ["", "", ""])
        function = piece.get("function") or {}
        for place, value in enumerate((piece.get("id"), function.get("name"), function.get("arguments"))):
            assert value is None or type(value) is str
            call[place] += value or ""


def _take_text(heard: Heard, said: Value) -> None:
    for part in said["content"] if type(said.get("content")) is list else [said.get("content") or ""]:
        if type(part) is dict:
            heard.text += part.get("text") or ""
            heard.reasoning += part.get("thinking") or ""
        else:
            heard.text += part
    heard.reasoning += said.get("reasoning_content") or said.get("reasoning") or ""


def of_completion(body: bytes) -> Heard:
    """A whole chat completion."""
    value = json.loads(body)
    heard = Heard(usages=[value["usage"]] if value.get("usage") is not None else [])
    [choice] = value["choices"]
    _take_text(heard, choice["message"])
    for call in choice["message"].get("tool_calls") or ():
        heard.calls.append((call["function"]["name"], call["function"]["arguments"]))
        assert type(call["function"]["arguments"]) is str
        heard.ids.append(call["id"])
    heard.finish = choice["finish_reason"]
    return heard


def of_lines(body: bytes) -> Heard:
    """The widget's NDJSON."""
    heard = Heard()
    calls: list[list[str]] = []
    for line in map(json.loads, filter(None, body.decode().split("\n"))):
        match line["type"]:
            case "token":
                heard.text += line["token"]
            case "reasoning":
                heard.reasoning += line["text"]
            case "tool_call":
                assert line["index"] == len(calls)
                calls.append([line["name"], ""])
                heard.ids.append(line["id"])
            case "tool_call_delta":
                calls[line["index"]][1] += line["arguments"]
            case "done":
                heard.finish = line["finishReason"]
                heard.usages += [line["usage"]] if "usage" in line else []
    heard.calls = [(name, arguments) for name, arguments in calls]
    return heard


class Lane(msgspec.Struct, frozen=True):
    """`verbatim`: the decoder hands on frames; `encoder` makes the client's bytes, and `read` is the
    client."""

    encoder: Callable[[], Encoder]
    read: Callable[[bytes], Heard]
    verbatim: bool = False


def _openai(
    *, stream: bool, verbatim: bool, reveal: bool = True, usage: bool = True
) -> Callable[[], Encoder]:
    chat = ChatRequest("openai", "chat", (), stream=stream, include_usage=usage)
    return lambda: Frontend().encoder(chat, Answer("req", "chat", 1, reveal=reveal), verbatim=verbatim)


def _widget() -> Encoder:
    return NdjsonLines(Answer("req", "chat", 1), full=True)


TRANSLATED = {
    "chunks": Lane(_openai(stream=True, verbatim=False), of_chunks),
    "whole": Lane(_openai(stream=False, verbatim=False), of_completion),
    "ndjson": Lane(_widget, of_lines),
}
PASSED_ON = {
    "frames": Lane(_openai(stream=True, verbatim=True), of_chunks, verbatim=True),
    "frames, unasked": Lane(_openai(stream=True, verbatim=True, usage=False), of_chunks, verbatim=True),
    "frames, renamed": Lane(_openai(stream=True, verbatim=True, reveal=False), of_chunks, verbatim=True),
    "put together": Lane(_openai(stream=False, verbatim=True), of_completion, verbatim=True),
}
LANES = {**TRANSLATED, **PASSED_ON}


def heard(lane: Lane, decoder: Decoder, reads: Sequence[bytes]) -> Heard:
    """What the client of this lane has of these reads. An error is told by its kind."""
    encoder = lane.encoder()
    relay = Relay(decoder, encoder, False, True)
    out = b""
    error = ""
    try:
        for read in reads:
            out += relay.feed(read, 1.0)
        out += relay.close(1.0)
    except UpstreamError as failed:
        error = failed.kind
    if not out and error:
        return Heard(error=error)
    if error and lane.read is of_completion:
        return Heard(error=error)
    out.decode()  # UTF-8, whatever came
    found = lane.read(out)
    found.error = error
    return found


def openai(lane: Lane, reads: Sequence[bytes], **options: Any) -> Heard:
    return heard(lane, OpenAI(**options).decoder(verbatim=lane.verbatim), reads)


WHOLE = Lane(_openai(stream=False, verbatim=True), of_completion)
"""A whole answer that is passed on as one."""


def document(answer: Value | bytes, **options: Any) -> Heard:
    """A whole answer that is passed on as one."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return heard(WHOLE, OpenAI(**options).whole_decoder(), [body])


# streams


def sse(*chunks: Value | str) -> bytes:
    return b"".join(b"data: %b\n\n" % (json.dumps(c) if isinstance(c, dict) else c).encode() for c in chunks)


def chunk(delta: Value | None = None, finish: Any = None, **top: Any) -> Value:
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return {
        "id": "c-1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "choices": choices,
        **top,
    }


def call(arguments: Any = None, *, name: str | None = None, **fields: Any) -> Value:
    """A delta of one tool call."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"tool_calls": [{**fields, "function": function}]}


def events(*found: Value) -> bytes:
    """A stream of Anthropic's."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (str(e.get("type")).encode(), json.dumps(e).encode()) for e in found
    )


def lines(*found: Value) -> bytes:
    """A stream of Ollama's."""
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in found)


DONE = "[DONE]"
USAGE = chunk(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12})
