"""The widget's chat API, to the letter of its contract."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.config.types import Alias
from sluice.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    RequestTimeout,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UpstreamError,
    UpstreamTruncated,
)
from sluice.frontends import Answer, Encoder, Head, Parse
from sluice.frontends.widget.dialect import Widget, prepared
from sluice.model.chat import Message, Text
from sluice.model.events import (
    Cited,
    Finished,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)

WIDGET = Widget()
FULL = {"accept": "application/x-ndjson; profile=full"}
TURN = b'{"sessionId":"s-1","message":"hello"}'
ANSWER = Answer("req-1", "assistant", 1790000000, conversation="c_1")


def encoder(headers: dict[str, str] | None = None, answer: Answer = ANSWER) -> Encoder:
    return WIDGET.encoder(WIDGET.streamed(TURN, Head(headers or {})), answer)


# the request


def test_reads_one_turn_of_a_session() -> None:
    chat = WIDGET.streamed(
        b'{"sessionId":"a.b_c:d-9","message":" hi ","model":"fast","other":{"x":[1]}}', Head()
    )
    assert chat.session == "a.b_c:d-9"
    assert chat.messages == (Message("user", (Text(" hi "),)),)
    assert (chat.model, chat.stream, chat.profile, chat.dialect, chat.wire) == ("fast", True, "", "", None)


def test_a_turn_without_a_model_leaves_it_to_the_key() -> None:
    assert WIDGET.streamed(TURN, Head()).model is None
    assert WIDGET.streamed(b'{"sessionId":"s","message":"m","model":null}', Head()).model is None


def test_the_whole_endpoint_does_not_stream() -> None:
    assert WIDGET.whole(TURN, Head(FULL)).stream is False


@pytest.mark.parametrize(
    ("accept", "profile"),
    [
        ("", ""),
        ("*/*", ""),
        ("application/x-ndjson", ""),
        ("application/x-ndjson; profile=full", "full"),
        ('Application/X-NDJSON;charset=utf-8;  profile="full"', "full"),
        ("text/html, application/x-ndjson;profile=full;q=0.9", "full"),
        ("application/json; profile=full", ""),
        ("application/x-ndjson; profile=fuller", ""),
        (",;,;;profile=full", ""),
    ],
)
def test_the_accept_header_asks_for_the_profile(accept: str, profile: str) -> None:
    assert WIDGET.streamed(TURN, Head({"accept": accept})).profile == profile


SESSION_RULE = "must be a string of 1 to 128 letters, digits and . _ : -"
MESSAGE_RULE = "must be a string of at least 1 character"

BAD: list[tuple[str, Any, list[str]]] = [
    ("nothing in it", {}, ["sessionId", "message"]),
    ("no session", {"message": "m"}, ["sessionId"]),
    ("no message", {"sessionId": "s"}, ["message"]),
    ("an empty session", {"sessionId": "", "message": "m"}, ["sessionId"]),
    ("a session ending in a newline", {"sessionId": "s\n", "message": "m"}, ["sessionId"]),
    ("a session with a space", {"sessionId": "a b", "message": "m"}, ["sessionId"]),
    ("a session in another alphabet", {"sessionId": "sé", "message": "m"}, ["sessionId"]),
    ("digits of another alphabet", {"sessionId": "\u0663", "message": "m"}, ["sessionId"]),
    ("a session of 129", {"sessionId": "s" * 129, "message": "m"}, ["sessionId"]),
    ("a number as session", {"sessionId": 1, "message": "m"}, ["sessionId"]),
    ("an empty message", {"sessionId": "s", "message": ""}, ["message"]),
    ("a null message", {"sessionId": "s", "message": None}, ["message"]),
    ("a list as message", {"sessionId": "s", "message": ["m"]}, ["message"]),
    ("a number as model", {"sessionId": "s", "message": "m", "model": 1}, ["model"]),
    ("an empty model", {"sessionId": "s", "message": "m", "model": ""}, ["model"]),
    ("all of it", {"sessionId": None, "message": 5, "model": []}, ["sessionId", "message", "model"]),
    ("a session with messages", {"sessionId": "s", "messages": []}, ["message"]),
    ("no messages", {"messages": []}, ["messages"]),
    ("messages that are none", {"messages": "hello"}, ["messages"]),
    ("a message of no role", {"messages": [{"content": "x"}]}, ["messages[0].role"]),
]


@pytest.mark.parametrize("parse", [WIDGET.streamed, WIDGET.whole], ids=["stream", "whole"])
@pytest.mark.parametrize(("wire", "fields"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_turn_is_refused_field_by_field(parse: Parse, wire: Any, fields: list[str]) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(json.dumps(wire).encode(), Head())
    assert [detail["field"] for detail in refused.value.details] == fields
    assert refused.value.param == fields[0]
    body = WIDGET.error(refused.value, "req-1")
    assert body["error"] == "Invalid request payload"
    assert body["details"] == refused.value.details


def test_the_longest_session_is_taken() -> None:
    assert (
        WIDGET.streamed(json.dumps({"sessionId": "s" * 128, "message": "m"}).encode(), Head()).session
        == "s" * 128
    )


@pytest.mark.parametrize(("characters", "fits"), [(1, True), (4000, True), (4001, False)])
def test_a_messages_length_is_counted_in_code_points(characters: int, fits: bool) -> None:
    chat = WIDGET.streamed(
        json.dumps({"sessionId": "s", "message": "\U0001f600" * characters}).encode(), Head()
    )
    with contextlib.nullcontext() if fits else pytest.raises(BadRequest) as refused:
        prepared(chat, Alias(tiers=()))
    if not fits:
        assert refused.value.details == [{"field": "message", "reason": "must have 1 to 4000 characters"}]  # type: ignore[union-attr]


def test_only_a_request_without_a_history_is_opened_by_the_alias_s_prompt() -> None:
    alias = Alias(tiers=(), system="Be kind.")
    own = WIDGET.whole(b'{"messages":[{"role":"user","content":"hi"}]}', Head())
    assert [message.role for message in prepared(own, alias).messages] == ["system", "user"]
    turn = WIDGET.whole(TURN, Head())
    assert prepared(turn, alias) is turn


def test_a_client_may_bring_its_own_messages_and_then_no_history_is_kept() -> None:
    body = {
        "model": "fast",
        "stream": True,
        "max_tokens": 7,
        "messages": [{"role": "user", "content": "hello"}],
    }
    for parse, stream in ((WIDGET.streamed, True), (WIDGET.whole, False)):
        chat = parse(json.dumps(body).encode(), Head())
        assert (chat.session, chat.wire, chat.dialect, chat.stream) == (None, None, "", stream)
        assert chat.messages == (Message("user", (Text("hello"),)),)
        assert chat.sampling.max_tokens == 7


# the stream


def test_a_stream_has_the_contracts_shape_and_order() -> None:
    lines = encoder()
    out = lines.start()
    out += lines.encode([Started("up-1", "gpt-x"), TextDelta(" Hi"), TextDelta(""), TextDelta(' "you"\n')])
    out += lines.encode([TextDelta("\u2028é\U0001f600 ")])
    out += lines.encode([Finished("stop", Usage(3, 5, 1, 2))])
    assert out.decode() == (
        '{"type":"start","conversationId":"c_1"}\n'
        '{"type":"token","token":" Hi"}\n'
        '{"type":"token","token":" \\"you\\"\\n"}\n'
        '{"type":"token","token":"\\u2028é\U0001f600 "}\n'
        '{"type":"done","message":"Hi \\"you\\"\\n\\u2028é\U0001f600","conversationId":"c_1","model":"gpt-x","finishReason"'
        ':"stop","usage":{"inputTokens":3,"outputTokens":5,"cachedInputTokens":1,"reasoningTokens":2}}\n'
    )
    assert lines.content_type == "application/x-ndjson; charset=utf-8"


def test_a_hidden_target_is_called_by_the_alias() -> None:
    lines = encoder(answer=Answer("req-1", "assistant", 1, conversation="c_1", reveal=False))
    done = json.loads(lines.encode([Started("", "gpt-x"), Finished("length")]))
    assert done == {
        "type": "done",
        "message": "",
        "conversationId": "c_1",
        "model": "assistant",
        "finishReason": "length",
    }


def test_without_a_history_the_request_is_the_conversation() -> None:
    lines = encoder(answer=Answer("req-1", "assistant", 1))
    assert lines.start() == b'{"type":"start","conversationId":"req-1"}\n'
    assert json.loads(lines.encode([Finished("stop")]))["conversationId"] == "req-1"


EXTRAS: list[StreamEvent] = [
    Started("", "m"),
    ReasoningDelta("hmm"),
    ReasoningDelta(""),
    TextDelta("a"),
    ToolCallStarted(0, "t1", "search", "server"),
    ToolCallDelta(0, '{"q":'),
    ToolCallDelta(0, ""),
    ToolCallStarted(1, "t2", "weather"),
    ToolCallDelta(1, "{}"),
    TextDelta("b"),
]


def test_only_the_full_profile_is_told_of_reasoning_and_tools() -> None:
    assert encoder().encode(EXTRAS) == b'{"type":"token","token":"a"}\n{"type":"token","token":"b"}\n'
    assert encoder(FULL).encode(EXTRAS).decode().splitlines() == [
        '{"type":"reasoning","text":"hmm"}',
        '{"type":"token","token":"a"}',
        '{"type":"tool_call","index":0,"id":"t1","name":"search","kind":"server"}',
        '{"type":"tool_call_delta","index":0,"arguments":"{\\"q\\":"}',
        '{"type":"tool_call","index":1,"id":"t2","name":"weather","kind":"function"}',
        '{"type":"tool_call_delta","index":1,"arguments":"{}"}',
        '{"type":"token","token":"b"}',
    ]


def test_an_answer_of_tool_calls_alone_ends_in_an_empty_message() -> None:
    lines = encoder()
    assert lines.encode([Started(), ToolCallStarted(0, "t", "f"), ToolCallDelta(0, "{}")]) == b""
    done = json.loads(lines.encode([Finished("tool_calls")]))
    assert (done["message"], done["finishReason"]) == ("", "tool_calls")


def test_a_failed_stream_ends_in_the_contracts_error_with_a_code() -> None:
    assert encoder().fail(UpstreamTruncated()) == (
        b'{"type":"error","error":"Internal server error","code":"truncated","requestId":"req-1"}\n'
    )


def test_a_restart_is_told_to_the_full_profile_alone() -> None:
    plain, full = encoder(), encoder(FULL)
    for lines in (plain, full):
        lines.encode([Started(), TextDelta("wrong")])
    assert plain.restart() == b""
    assert full.restart() == b'{"type":"reset"}\n'
    full.encode([TextDelta("right")])
    assert json.loads(full.encode([Finished("stop")]))["message"] == "right"


def test_a_heartbeat_is_an_empty_line() -> None:
    assert encoder().heartbeat() == b"\n"


@given(
    st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=5), max_size=5)
)
def test_any_text_in_any_batches_arrives_whole(batches: list[list[str]]) -> None:
    lines = encoder()
    out = lines.start() + b"".join(lines.encode([TextDelta(text) for text in batch]) for batch in batches)
    out += lines.encode([Finished("stop")])
    assert out.endswith(b"\n")
    start, *tokens, done = [json.loads(line) for line in out.split(b"\n")[:-1]]
    text = "".join(text for batch in batches for text in batch)
    assert start["type"] == "start"
    assert all(token["type"] == "token" and token["token"] for token in tokens)
    assert "".join(token["token"] for token in tokens) == text
    assert (done["type"], done["message"]) == ("done", text.strip())


# the whole answer


def test_a_whole_answer_is_silent_until_it_is_complete() -> None:
    one = WIDGET.encoder(WIDGET.whole(TURN, Head()), ANSWER)
    assert one.start() == one.heartbeat() == one.restart() == b""
    assert (
        one.encode([Started("", "m"), ReasoningDelta("x"), TextDelta(" a"), ToolCallStarted(0, "t", "f")])
        == b""
    )
    assert (
        one.encode([TextDelta(" b "), Finished("stop", Usage(1, 1))])
        == b'{"conversationId":"c_1","message":"a b"}'
    )
    assert one.content_type == "application/json"
    assert json.loads(one.fail(UpstreamTruncated()))["error"] == "Internal server error"


# errors before the stream

ERRORS: list[tuple[GatewayError, str, str]] = [
    (BadRequest("x"), "Invalid request payload", "invalid_request"),
    (Unauthorized("unknown_key"), "Unauthorized", "unauthorized"),
    (Forbidden("x"), "Forbidden", "forbidden"),
    (ModelNotFound("x"), "Model not found", "model_not_found"),
    (NotFound("x"), "Not found", "not_found"),
    (MethodNotAllowed("GET"), "Method not allowed", "method_not_allowed"),
    (RequestTimeout("x"), "Request timeout", "request_timeout"),
    (PayloadTooLarge("x"), "Payload too large", "payload_too_large"),
    (UnsupportedMediaType("x"), "Unsupported media type", "unsupported_media_type"),
    (RateLimited(1.0, scope="key", resource="requests"), "Too many requests", "rate_limited"),
    (Unavailable("x"), "Service unavailable", "unavailable"),
    (GatewayError("x"), "Internal server error", "internal_error"),
    (UpstreamError("server_error", "x"), "Internal server error", "server_error"),
    (UpstreamTruncated("x"), "Internal server error", "truncated"),
    (UpstreamError("rate_limited", "x"), "Too many requests", "rate_limited"),
    (UpstreamError("bad_request", "x"), "Invalid request payload", "bad_request"),
    (UpstreamError("content_policy", "x"), "Invalid request payload", "content_policy"),
]


@pytest.mark.parametrize(
    ("error", "text", "code"), ERRORS, ids=[f"{type(row[0]).__name__} {row[2]}" for row in ERRORS]
)
def test_errors_have_the_contracts_texts(error: GatewayError, text: str, code: str) -> None:
    body = WIDGET.error(error, "req-1")
    assert list(body)[:3] == ["error", "code", "requestId"]
    assert (body["error"], body["code"], body["requestId"]) == (text, code, "req-1")


def test_the_providers_objection_to_a_request_is_a_detail() -> None:
    body = WIDGET.error(UpstreamError("context_length", "This model takes 8192 tokens"), "req-1")
    assert body["details"] == [
        {"field": "body", "reason": "This model takes 8192 tokens", "code": "context_length"}
    ]


def test_what_went_wrong_upstream_is_not_told() -> None:
    assert WIDGET.error(UpstreamError("bad_credentials", "refused at host x"), "r") == {
        "error": "Internal server error",
        "code": "bad_credentials",
        "requestId": "r",
    }


@given(
    st.binary(max_size=100)
    | st.dictionaries(
        st.sampled_from(["sessionId", "message", "messages", "model"]),
        st.none()
        | st.text()
        | st.integers()
        | st.lists(st.text() | st.dictionaries(st.sampled_from(["role", "content"]), st.text())),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_body_is_a_chat_or_a_bad_request(body: bytes) -> None:
    for parse in (WIDGET.streamed, WIDGET.whole):
        with contextlib.suppress(BadRequest):
            assert parse(body, Head()).messages


def test_sources_are_lines_of_the_full_profile() -> None:
    events = [Started(), TextDelta("a"), Cited("https://a", "A", 0, 1), Cited("", "a document", quote="q")]
    told = [json.loads(line) for line in encoder(FULL).encode(events).splitlines()]
    assert told[1:] == [
        {"type": "citation", "url": "https://a", "title": "A", "start": 0, "end": 1},
        {"type": "citation", "url": "", "title": "a document", "quote": "q"},
    ]
    assert b"citation" not in encoder().encode(events)
