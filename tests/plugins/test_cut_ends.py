"""What stands in the last frame of an answer that is cut: its text is told, and then that it was cut."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from sluice.backends.protocol import Decoder
from sluice.errors import UpstreamError
from sluice.frontends import Answer
from sluice.frontends.openai.dialect import OpenAI as Frontend
from sluice.model.chat import ChatRequest
from sluice.model.events import Finished, StreamEvent, TextDelta, Verbatim
from sluice.proxy.relay import Relay
from sluice.wire.sse import EventStream
from sluice_plugins.anthropic.backend import Anthropic
from sluice_plugins.cohere.backend import Cohere
from sluice_plugins.gemini.backend import Gemini
from sluice_plugins.ollama.backend import Ollama
from sluice_plugins.openai.backend import OpenAI
from sluice_plugins.openai.completions import TextDecoder
from sluice_plugins.responses.backend import Responses
from tests.wire import cuts

CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%b"}}]}'
LINE = b'{"model":"m","message":{"role":"assistant","content":"%b"},"done":false}'
TEXT = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}'
MESSAGES = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","usage":{"input_tokens":1}}}\n\n'
    b"event: content_block_start\n"
    b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
)
COHERE = b'event: content-delta\ndata: {"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"%b"}}}}'
DELTA = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","output_index":0,"delta":"%b"}'
PART = b'data: {"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":"%b"}]}}]}'
LEGACY = b'data: {"id":"c","object":"text_completion","choices":[{"index":0,"text":"%b"}]}'

Making = Callable[[bool], Decoder]
CUT: dict[str, tuple[Making, bytes, bytes, bytes]] = {
    "openai": (lambda verbatim: OpenAI().decoder(verbatim=verbatim), b"", CHUNK, b"\n\n"),
    "completions": (lambda verbatim: TextDecoder(EventStream(), verbatim=verbatim), b"", LEGACY, b"\n\n"),
    "anthropic": (lambda verbatim: Anthropic().decoder(verbatim=verbatim), MESSAGES, TEXT, b"\n\n"),
    "gemini": (lambda verbatim: Gemini().decoder(verbatim=verbatim), b"", PART, b"\r\n\r\n"),
    "cohere": (
        lambda verbatim: Cohere().decoder(verbatim=verbatim),
        b'event: message-start\ndata: {"type":"message-start","id":"m"}\n\n',
        COHERE,
        b"\n\n",
    ),
    "responses": (
        lambda verbatim: Responses().decoder(verbatim=verbatim),
        b'event: response.created\ndata: {"type":"response.created","response":{"id":"r"}}\n\n',
        DELTA,
        b"\n\n",
    ),
    "ollama": (lambda verbatim: Ollama().decoder(verbatim=verbatim), b"", LINE, b"\n"),
}  # fmt: skip
"""A decoder; how its stream begins, a frame of text, and what ends a frame."""


def read(decoder: Decoder, reads: list[bytes]) -> tuple[list[StreamEvent], str]:
    events: list[StreamEvent] = []
    try:
        for data in reads:
            events += decoder.feed(data)
        events += decoder.close()
        if not any(type(event) is Finished for event in events):
            decoder.close()  # raises what stood behind these
    except UpstreamError as error:
        return events, error.kind
    return events, ""


@pytest.mark.parametrize("verbatim", [False, True], ids=["translated", "verbatim"])
@pytest.mark.parametrize("name", CUT)
def test_the_last_frame_of_a_cut_answer_is_told_before_the_cut(name: str, verbatim: bool) -> None:
    make, begin, frame, end = CUT[name]
    body = begin + frame % b"One" + end + frame % b" two"
    for last in (b"", end[: len(end) // 2]):
        for reads in ([body + last], cuts.bytewise(body + last)):
            events, kind = read(make(verbatim), reads)
            assert "".join(event.text for event in events if type(event) is TextDelta) == "One two"
            assert kind == "truncated"
            passed = b"".join(event.data for event in events if type(event) is Verbatim)
            assert not passed or passed.count(b"two") == 1


@pytest.mark.parametrize("verbatim", [False, True], ids=["translated", "verbatim"])
@pytest.mark.parametrize("name", sorted(CUT.keys() - {"ollama"}))
def test_events_with_one_line_end_between_them_are_told_apart(name: str, verbatim: bool) -> None:
    make, begin, frame, end = CUT[name]
    body = (
        begin.replace(b"\n\n", b"\n")
        + frame % b"One"
        + b"\n"
        + frame % b" two"
        + b"\n"
        + frame % b" three"
        + end
    )
    for reads in ([body], cuts.bytewise(body)):
        events, kind = read(make(verbatim), reads)
        assert "".join(event.text for event in events if type(event) is TextDelta) == "One two three"
        assert kind == "truncated"
        passed = b"".join(event.data for event in events if type(event) is Verbatim)
        assert not passed or passed.count(b"\n\n" if name != "gemini" else b"\r\n\r\n") >= 3


@pytest.mark.parametrize("verbatim", [False, True], ids=["translated", "verbatim"])
@pytest.mark.parametrize("name", sorted(CUT.keys() - {"ollama"}))
def test_a_proxys_done_behind_content_ends_an_answer(name: str, verbatim: bool) -> None:
    make, begin, frame, end = CUT[name]
    for last in (b"data: [DONE]\n\n", b"data: [DONE]\n", b"data: [DONE]"):
        body = begin + frame % b"One" + end + last
        for reads in ([body], cuts.bytewise(body)):
            events, kind = read(make(verbatim), reads)
            assert kind == ""
            assert [event.reason for event in events if type(event) is Finished] == ["stop"]
    nothing = begin.partition(b"event: content_block_start")[0]
    assert read(make(verbatim), [nothing + b"data: [DONE]\n\n"])[1] == "truncated"


@pytest.mark.parametrize("verbatim", [False, True], ids=["translated", "verbatim"])
@pytest.mark.parametrize(
    ("id", "before", "kind"),
    [("m", TEXT % b"One" + b"\n\n", ""), ("n", b"", ""), ("n", TEXT % b"One" + b"\n\n", "stream_error")],
    ids=["the same", "before content", "behind content"],
)
def test_another_message_behind_content_breaks_an_answer(
    id: str, before: bytes, kind: str, verbatim: bool
) -> None:
    begin, _, block = MESSAGES.partition(b"event: content_block_start")
    block = b"event: content_block_start" + block
    again = begin.replace(b'"id":"m"', b'"id":"%b"' % id.encode())
    body = begin + (block + before if before else b"") + again + block + TEXT % b" two" + b"\n\n"
    body += b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
    body += b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    for reads in ([body], cuts.bytewise(body)):
        events, found = read(Anthropic().decoder(verbatim=verbatim), reads)
        assert found == kind
        said = "".join(event.text for event in events if type(event) is TextDelta)
        assert said == ("One" if before else "") + ("" if kind else " two")


DOCUMENTS: list[tuple[Making, dict[str, Any]]] = [
    (lambda whole: OpenAI().whole_decoder() if whole else OpenAI().decoder(), {"choices": [{"message": {"content": "Hi"}}]}),
    (
        lambda whole: Anthropic().whole_decoder() if whole else Anthropic().decoder(),
        {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hi"}], "stop_reason": None},
    ),
    (
        lambda whole: Gemini().whole_decoder() if whole else Gemini().decoder(),
        {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}]},
    ),
    (lambda whole: Cohere().decoder(), {"id": "1", "message": {"content": [{"type": "text", "text": "Hi"}]}}),
    (lambda whole: Ollama().whole_decoder(), {"model": "m", "message": {"role": "assistant", "content": "Hi"}}),
    *(
        (
            lambda whole: Responses().whole_decoder() if whole else Responses().decoder(),
            {**state, "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}]},
        )
        for state in ({}, {"status": None}, {"status": "complete"})
    ),
]  # fmt: skip


@pytest.mark.parametrize("whole", [False, True], ids=["in place of a stream", "asked for"])
@pytest.mark.parametrize(("make", "document"), DOCUMENTS)
def test_a_whole_answer_that_does_not_say_how_it_ended_is_complete(
    make: Making, document: dict[str, Any], whole: bool
) -> None:
    body = json.dumps(document).encode()
    for reads in ([body], cuts.bytewise(body)):
        events, kind = read(make(whole), reads)
        assert kind == ""
        assert "".join(event.text for event in events if type(event) is TextDelta) == "Hi"
        assert [event.reason for event in events if type(event) is Finished] == ["stop"]


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_a_response_under_way_is_no_answer(status: str) -> None:
    document = {"object": "response", "status": status, "output": [{"type": "message", "content": []}]}
    assert read(Responses().decoder(), [json.dumps(document).encode()])[1] == "garbled"


def relay() -> Relay:
    chat = ChatRequest("openai", "chat", (), stream=True)
    encoder = Frontend().encoder(chat, Answer("req", "chat", 1))
    return Relay(OpenAI().decoder(), encoder, whole=False, accept_empty=False, alive_at=1)


def test_the_rest_is_written_to_a_client_that_has_content() -> None:
    r = relay()
    r.feed(CHUNK % b"One" + b"\n\n" + CHUNK % b" two", 2)
    assert b" two" in r.close(3)
    assert r.text == "One two"
    with pytest.raises(UpstreamError, match="cut short"):
        r.close(3)


def test_a_cut_answer_of_one_frame_leaves_the_call_to_another_target() -> None:
    r = relay()
    r.feed(CHUNK % b"One", 2)
    with pytest.raises(UpstreamError, match="cut short"):
        r.close(3)
    assert not r.committed
    assert r.text == ""
