"""Frames of an upstream of the same dialect: passed on as they came, and made whole where they lack what an
answer needs."""

import json
from typing import Any

import pytest

from sluice.errors import UpstreamError
from sluice.frontends import Answer, Encoder
from sluice.frontends.anthropic.dialect import Anthropic
from sluice.model.chat import ChatRequest, Message, Text
from sluice.model.events import Finished, ReasoningDelta, Started, TextDelta, Usage, Verbatim
from sluice_plugins.anthropic.backend import Anthropic as Backend
from sluice_plugins.anthropic.passing import PassingDecoder, WholeMessageDecoder
from tests import corpus
from tests.frontends.anthropic.test_blocks import frames, message
from tests.wire import cuts

STREAMED = ChatRequest("anthropic", "chat", (Message("user", (Text("Hello"),)),))
WHOLE = ChatRequest("anthropic", "chat", STREAMED.messages, stream=False)


def encoder(chat: ChatRequest = STREAMED, *, reveal: bool = True) -> Encoder:
    return Anthropic().encoder(chat, Answer("r1", "chat", 1, reveal=reveal), verbatim=True)


def passed(reads: list[bytes], chat: ChatRequest = STREAMED, *, reveal: bool = True, **options: Any) -> bytes:
    decoder, encoded = PassingDecoder(**options), encoder(chat, reveal=reveal)
    out = b""
    for read in reads:
        events = decoder.feed(read)
        out += encoded.encode(events) if events else b""
    events = decoder.close()
    return out + (encoded.encode(events) if events else b"")


def sse(*events: dict[str, Any], named: bool = True) -> bytes:
    return b"".join(
        (b"event: %b\n" % event["type"].encode() if named else b"")
        + b"data: %b\n\n" % json.dumps(event, separators=(",", ":")).encode()
        for event in events
    )


START = {
    "type": "message_start",
    "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "stop_reason": None,
        "usage": {"input_tokens": 5, "output_tokens": 1, "odd": 1},
    },
}  # fmt: skip
OPEN = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
CLOSE = {"type": "content_block_stop", "index": 0}
DELTA = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 2},
}
STOP = {"type": "message_stop"}
ALL = (START, OPEN, TEXT, CLOSE, DELTA, STOP)


def call(index: int, id: str | None = "toolu_1") -> tuple[dict[str, Any], ...]:
    block = {"type": "tool_use", "id": id, "name": "f", "input": {}}
    piece = {
        "type": "content_block_delta",
        "index": index,
        "delta": {"type": "input_json_delta", "partial_json": "{}"},
    }
    start = {"type": "content_block_start", "index": index, "content_block": block}
    return start, piece, {"type": "content_block_stop", "index": index}


@pytest.mark.parametrize("ping", [b'event: ping\ndata: {"type": "ping"}\n\n', b""])
def test_an_ordinary_stream_is_the_upstreams_to_the_byte_however_it_is_cut(ping: bytes) -> None:
    body = (
        sse(START, OPEN)
        + ping
        + sse(TEXT, TEXT, CLOSE, *call(1), {**DELTA, "delta": {"stop_reason": "tool_use"}}, STOP)
    )
    body += b""
    for at in range(1, len(body)):
        assert passed([body[:at], body[at:]]) == body
    assert passed([body]) == body
    assert passed(cuts.bytewise(body)) == body


def test_padding_new_types_and_new_fields_pass() -> None:
    odd = b'event: novelty\ndata: {"type":"novelty","x":[1]}\n\n'
    padded = sse(TEXT).replace(b"}}", b"}   }")
    more = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "citations_delta", "citation": {"type": "new"}},
    }
    body = sse(START, OPEN) + odd + padded + sse(TEXT, more, CLOSE, DELTA, STOP)
    assert passed([body]) == body
    assert passed(cuts.bytewise(body)) == body


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (sse(*ALL, named=False), "frames without a name are named"),
        (sse(*ALL).replace(b"\n", b"\r\n"), "line ends"),
        (sse(*ALL[:-1]), "no message_stop"),
        (sse(*ALL)[:-1], "no empty line behind the last"),
        (sse(*ALL[:-1]) + b"data: [DONE]\n\n", "a proxy's end"),
        (sse(*ALL[:2]) + b": comment\n\n" + sse(*ALL[2:]), "a comment"),
        (sse(*ALL[:2]) + b"data: junk\n\n" + sse(*ALL[2:]), "junk"),
        (sse(START, *ALL), "two beginnings"),
        (sse(*ALL) + sse(TEXT), "something behind the end"),
        (
            sse(
                START, {**OPEN, "index": None}, {**TEXT, "index": None}, {**CLOSE, "index": None}, DELTA, STOP
            ),
            "no index",
        ),
        (sse(START, OPEN, {**TEXT, "index": 7}, CLOSE, DELTA, STOP), "a wrong index"),
        (
            sse(
                START,
                OPEN,
                {**TEXT, "index": "0"},
                CLOSE,
                {**DELTA, "delta": {"stop_reason": "end_turn"}},
                STOP,
            ),
            "a text as index",
        ),
        (sse(START, OPEN, {**TEXT, "delta": {"text": "Hi"}}, CLOSE, DELTA, STOP), "a delta without its type"),
    ],
)
def test_what_sdks_would_misread_is_put_right(body: bytes, why: str) -> None:
    for reads in ([body], cuts.bytewise(body), cuts.random(body, 3)):
        held = message(passed(reads))
        assert (held["id"], held["content"]) == ("msg_1", [{"type": "text", "text": "Hi"}]), why
        assert (held["stop_reason"], held["usage"]["output_tokens"]) == ("end_turn", 2), why


def test_a_stream_without_a_beginning_gets_one() -> None:
    held = message(passed([sse(OPEN, TEXT, CLOSE, DELTA, STOP)]))
    assert (held["id"], held["model"], held["content"][0]["text"]) == ("msg_r1", "chat", "Hi")


@pytest.mark.parametrize(
    ("delta", "block"),
    [
        ({"type": "text_delta", "text": "Hi"}, {"type": "text", "text": ""}),
        ({"text": "Hi"}, {"type": "text", "text": ""}),
        ({"type": "thinking_delta", "thinking": "Hm"}, {"type": "thinking", "thinking": "", "signature": ""}),
        (
            {"type": "signature_delta", "signature": "s"},
            {"type": "thinking", "thinking": "", "signature": ""},
        ),
    ],
)
def test_a_delta_before_any_block_has_its_block_begun(delta: dict[str, Any], block: dict[str, Any]) -> None:
    first = {"type": "content_block_delta", "index": 0, "delta": delta}
    begun = {"type": "content_block_start", "index": 0, "content_block": block}
    body = sse(START, first, CLOSE, DELTA, STOP)
    for reads in ([body], *cuts.single(body, 7), cuts.bytewise(body)):
        told = frames(passed(reads))
        assert told[1] == begun
        assert [event["type"] for event in told].count("content_block_start") == 1
        assert told[2]["delta"] == {"type": delta.get("type", "text_delta"), **delta}


def test_a_stream_that_ends_with_done_alone_is_complete() -> None:
    held = message(passed([sse(START, OPEN, TEXT) + b"data: [DONE]\n\n"]))
    assert (held["stop_reason"], held["content"]) == ("end_turn", [{"type": "text", "text": "Hi"}])


def test_end_turn_behind_a_call_is_told_as_tool_use_unless_it_is_to_be_kept() -> None:
    body = sse(START, *call(0), DELTA, STOP)
    assert message(passed([body]))["stop_reason"] == "tool_use"
    assert passed([body], keep_stop=True) == body


def test_ids_of_calls_are_unique() -> None:
    body = sse(START, *call(0, None), *call(1, "same"), *call(2, "same"), DELTA, STOP)
    ids = [block["id"] for block in message(passed([body]))["content"]]
    assert len(set(ids)) == 3
    assert all(ids)
    assert ids[1] == "same"


def test_halves_of_a_surrogate_pair_are_joined() -> None:
    def half(text: str) -> bytes:
        frame = sse({**TEXT, "delta": {"type": "text_delta", "text": "@"}})
        return frame.replace(b"@", text.encode())

    body = sse(START, OPEN) + half("\\ud83d") + half("\\ude00") + half("\\ud83d") + sse(CLOSE, DELTA, STOP)
    assert message(passed([body]))["content"][0]["text"] == "😀\N{REPLACEMENT CHARACTER}"


def test_an_error_within_ends_the_frames_before_it() -> None:
    decoder = PassingDecoder()
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    [*_, last] = decoder.feed(sse(START, OPEN, TEXT, error))
    assert last == Verbatim(sse(START, OPEN, TEXT))
    with pytest.raises(UpstreamError, match="Overloaded"):
        decoder.close()


DOCUMENT = {**START["message"], "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}  # type: ignore[dict-item]


def test_a_whole_message_in_place_of_a_stream_is_told_as_one() -> None:
    body = json.dumps(DOCUMENT).encode()
    for reads in ([body], cuts.bytewise(body)):
        held = message(passed(reads))
        assert (held["id"], held["content"], held["stop_reason"]) == (
            "msg_1",
            [{"type": "text", "text": "Hi"}],
            "end_turn",
        )


def test_the_models_name_is_hidden_wherever_it_stands() -> None:
    fallback = {"type": "fallback", "from": {"model": "claude"}, "to": {"model": "other"}}
    usage = {"output_tokens": 2, "iterations": [{"type": "message", "model": "claude"}]}
    named = {**TEXT, "delta": {"type": "text_delta", "text": '{"model": "claude"}'}}
    body = sse(
        START, OPEN, TEXT, named, CLOSE,
        {"type": "content_block_start", "index": 1, "content_block": fallback}, {**CLOSE, "index": 1},
        {**DELTA, "usage": usage}, STOP,
    )  # fmt: skip
    out = passed([body], reveal=False)
    assert b'"other"' not in out
    assert out.count(b"claude") == 1  # the text's own
    assert message(out)["model"] == "chat"
    assert passed([body]) == body


# --- whole answers


def whole(body: bytes, *, reveal: bool = True, reads: list[bytes] | None = None) -> bytes:
    decoder, encoded = WholeMessageDecoder(), encoder(WHOLE, reveal=reveal)
    out = b""
    for read in reads or [body]:
        events = decoder.feed(read)
        out += encoded.encode(events) if events else b""
    events = decoder.close()
    return out + (encoded.encode(events) if events else b"")


def test_a_whole_message_is_the_upstreams_to_the_byte() -> None:
    body = json.dumps({**DOCUMENT, "vendors": {"own": [1.0]}}, indent=1).encode()
    assert whole(body) == body
    assert whole(body, reads=cuts.bytewise(body)) == body
    hidden = json.loads(whole(body, reveal=False))
    assert (hidden["model"], hidden["vendors"]) == ("chat", {"own": [1.0]})


def test_a_whole_message_whose_reason_or_ids_sdks_would_misread() -> None:
    block = {"type": "tool_use", "id": "", "name": "f", "input": {}}
    held = json.loads(whole(json.dumps({**DOCUMENT, "content": [block]}).encode()))
    assert held["stop_reason"] == "tool_use"
    assert held["content"][0]["id"]


def test_a_stream_for_who_wants_a_whole_message_is_put_together() -> None:
    thinking = (
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "S"}},
        CLOSE,
    )
    cited = {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "citations_delta", "citation": {"n": 1}},
    }
    text = [{**event, "index": 1} for event in (OPEN, TEXT)]
    body = sse(START, *thinking, *text, cited, {**CLOSE, "index": 1}, *call(2), DELTA, STOP)
    expected = [
        {"type": "thinking", "thinking": "hm", "signature": "S"},
        {"type": "text", "text": "Hi", "citations": [{"n": 1}]},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
    ]
    for out in (whole(body), passed([body], WHOLE), passed(cuts.bytewise(body), WHOLE)):
        held = json.loads(out)
        assert (held["content"], held["stop_reason"]) == (expected, "tool_use")
        assert held["usage"] == {"input_tokens": 5, "output_tokens": 2, "odd": 1}


@pytest.mark.parametrize(
    "body", [b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}']
)
def test_an_error_in_place_of_a_message(body: bytes) -> None:
    decoder = WholeMessageDecoder()
    decoder.feed(body)
    with pytest.raises(UpstreamError, match="Overloaded"):
        decoder.close()


# --- another attempt goes on


def test_another_attempt_goes_on_where_the_frames_ended() -> None:
    first = encoder()
    decoder = PassingDecoder()
    out = first.encode(decoder.feed(sse(START, OPEN, TEXT)))
    second = Anthropic().encoder(STREAMED, Answer("r1", "chat", 1))
    second.go_on_from(first)  # type: ignore[attr-defined]
    second.resume(Started())
    out += second.encode([TextDelta(" there"), Finished("stop", Usage(5, 3))])
    held = message(out)
    assert (held["content"], held["usage"]["output_tokens"]) == ([{"type": "text", "text": "Hi there"}], 3)


def test_another_attempt_closes_the_thinking_that_was_cut() -> None:
    first = encoder()
    opened = {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "thinking", "thinking": "", "signature": ""},
    }
    piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}
    out = first.encode(PassingDecoder().feed(sse(START, opened, piece)))
    second = Anthropic().encoder(STREAMED, Answer("r1", "chat", 1))
    second.go_on_from(first)  # type: ignore[attr-defined]
    out += second.encode([TextDelta("Hi"), Finished("stop")])
    assert [block["type"] for block in message(out)["content"]] == ["thinking", "text"]


# --- recorded streams


@pytest.mark.parametrize("recorded", corpus.params("anthropic"))
def test_recorded_streams_pass_to_the_byte(recorded: corpus.Recorded) -> None:
    if recorded.http_status != 200:
        pytest.skip("an error")
    body = recorded.body
    for reads in ([body], cuts.bytewise(body), *(cuts.random(body, seed) for seed in range(3))):
        out = passed(reads)
        assert out.startswith(body.rstrip(b"\n")) or out.startswith(body[: body.rindex(b"event: ")])
        assert frames(out)[-1] == {"type": "message_stop"}
        decoder = Backend().decoder()
        plain = [event for read in reads for event in decoder.feed(read)] + decoder.close()
        decoder = Backend().decoder(verbatim=True)
        both = [event for read in reads for event in decoder.feed(read)] + decoder.close()
        assert [event for event in both if not isinstance(event, Verbatim)] == plain


def test_events_between_frames_are_told() -> None:
    assert encoder().encode([Started(), ReasoningDelta("x")])
