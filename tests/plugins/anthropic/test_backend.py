"""The Messages API: what is asked of it, what its streams say, what its errors mean."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sluice.backends.protocol import with_rules
from sluice.config.types import Secret
from sluice.errors import BadRequest, UpstreamError, UpstreamErrorKind, UpstreamGarbled, UpstreamTruncated
from sluice.frontends.openai.dialect import OpenAI as Frontend
from sluice.model.chat import (
    ChatRequest,
    Image,
    Message,
    Other,
    Part,
    Role,
    Sampling,
    Text,
    Thought,
    Tool,
    ToolCall,
)
from sluice.model.events import (
    Finished,
    ReasoningBlock,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    Verbatim,
    Working,
)
from sluice.model.rules import ModelRules
from sluice_plugins.anthropic import stream as anthropic_stream
from sluice_plugins.anthropic.backend import FIRST_TURN, ONLY_JSON, Anthropic
from tests.wire import cuts

GOLDEN = Path(__file__).parents[2] / "golden" / "anthropic"
PNG = "data:image/png;base64,iVBORw0KGgo="


def said(role: Role, text: str = "", *, parts: tuple[Part, ...] = (), **more: Any) -> Message:
    return Message(role=role, parts=((Text(text),) if text else ()) + parts, **more)


def body(backend: Anthropic | None = None, **chat: Any) -> dict[str, Any]:
    chat.setdefault("messages", (said("user", "Hi"),))
    request = (backend or Anthropic()).request(
        ChatRequest(dialect="openai", model=None, **chat), "claude-example"
    )
    decoded: dict[str, Any] = msgspec.json.decode(request.body)
    return decoded


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


CALL = ToolCall(
    id="toolu_1", name="weather", arguments='{"city": "Berlin", "big": 123456789012345678901234567890}'
)
USE = {
    "type": "tool_use",
    "id": "toolu_1",
    "name": "weather",
    "input": {"city": "Berlin", "big": 123456789012345678901234567890},
}
EMPTY_CALL = ToolCall(id="toolu_2", name="clock", arguments="")
EMPTY_USE = {"type": "tool_use", "id": "toolu_2", "name": "clock", "input": {}}

CONVERSATIONS: dict[str, tuple[tuple[Message, ...], list[dict[str, Any]]]] = {
    "one question": ((said("user", "Hi"),), [user(text("Hi"))]),
    "neighbours of one role become one message": (
        (said("user", "a"), said("user", "b"), said("assistant", "c"), said("assistant", "d"), said("user", "e")),
        [user(text("a"), text("b")), assistant(text("c"), text("d")), user(text("e"))],
    ),
    "system messages stand elsewhere": (
        (said("system", "be"), said("user", "a"), said("system", "brief"), said("user", "b")),
        [user(text("a"), text("b"))],
    ),
    "blank messages are left out": (
        (said("user", " "), said("user", "a"), said("assistant"), said("user", "b")),
        [user(text("a"), text("b"))],
    ),
    "an assistant that begins is given a question": (
        (said("assistant", "Welcome"), said("user", "Hi")),
        [user(text(FIRST_TURN)), assistant(text("Welcome")), user(text("Hi"))],
    ),
    "a prefill loses white space at its end": (
        (said("user", "a"), said("assistant", "So \n")),
        [user(text("a")), assistant(text("So"))],
    ),
    "tool calls and their results": (
        (
            said("user", "Weather?"),
            said("assistant", "Let me look.", tool_calls=(CALL, EMPTY_CALL)),
            said("tool", "sunny", tool_call_id="toolu_1"),
            said("tool", "noon", tool_call_id="toolu_2"),
            said("user", "And?"),
        ),
        [
            user(text("Weather?")),
            assistant(text("Let me look."), USE, EMPTY_USE),
            user(
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("sunny")]},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": [text("noon")]},
                text("And?"),
            ),
        ],
    ),
    "an image in the request and one on the web": (
        (said("user", "See", parts=(Image(PNG), Image("https://example.com/a.png"))),),
        [
            user(
                text("See"),
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
            )
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONVERSATIONS)
def test_a_conversation_becomes_alternating_turns(case: str) -> None:
    messages, expected = CONVERSATIONS[case]
    assert body(messages=messages)["messages"] == expected


def test_system_messages_are_gathered_in_their_order() -> None:
    messages = (said("system", "be"), said("user", "a"), said("system", "brief"))
    assert body(messages=messages)["system"] == "be\n\nbrief"


TOOL = Tool("weather", "Tells it", {"type": "object", "properties": {"city": {"type": "string"}}})

FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"max_tokens": 4096, "stream": True, "model": "claude-example"}),
    ({"sampling": Sampling(max_tokens=7, temperature=0.0, top_p=0.5, stop=("a", "b"), seed=1)},
     {"max_tokens": 7, "temperature": 0.0, "top_p": 0.5, "stop_sequences": ["a", "b"]}),
    ({"sampling": Sampling(temperature=1.7)}, {"temperature": 1.0}),
    ({"tools": (TOOL,)}, {"tools": [{"name": "weather", "description": "Tells it",
                                     "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]}),
    ({"tools": (Tool("t"),)}, {"tools": [{"name": "t", "input_schema": {"type": "object", "properties": {}}}]}),
    ({"tools": (TOOL,), "tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
    ({"tools": (TOOL,), "tool_choice": "none", "parallel_tool_calls": False}, {"tool_choice": {"type": "none"}}),
    ({"tools": (TOOL,), "tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
    ({"tools": (TOOL,), "tool_choice": ("function", "weather")}, {"tool_choice": {"type": "tool", "name": "weather"}}),
    ({"tools": (TOOL,), "parallel_tool_calls": False}, {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
    ({"tools": (TOOL,), "tool_choice": "required", "parallel_tool_calls": False},
     {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}}),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}}}},
     {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}}}}),
]  # fmt: skip


@pytest.mark.parametrize(("chat", "expected"), FIELDS)
def test_fields_are_translated(chat: dict[str, Any], expected: dict[str, Any]) -> None:
    sent = body(**chat)
    assert {name: sent[name] for name in expected} == expected


@pytest.mark.parametrize(
    "chat",
    [
        {},
        {"tool_choice": "required", "parallel_tool_calls": False},
        {"response_format": {"type": "text"}},
        {"sampling": Sampling(seed=1, frequency_penalty=1.0, presence_penalty=1.0)},
    ],
)
def test_nothing_is_sent_that_was_not_asked_for(chat: dict[str, Any]) -> None:
    assert set(body(**chat)) == {"model", "max_tokens", "messages", "stream"}


BAD: dict[str, dict[str, Any]] = {
    "no message but the system's": {"messages": (said("system", "be brief"),)},
    "nothing but blanks": {"messages": (said("user", "  "),)},
    "an image of another scheme": {"messages": (said("user", parts=(Image("file:///etc/passwd"),)),)},
    "an image that is none": {"messages": (said("user", parts=(Image("data:text/html;base64,aGk="),)),)},
    "an image in a system message": {"messages": (said("system", parts=(Image(PNG),)), said("user", "Hi"))},
    "audio": {"messages": (said("user", parts=(Other("input_audio", {}),)),)},
    "a file that is only named": {
        "messages": (said("user", parts=(Other("file", {"file": {"file_id": "file-1"}}),)),)
    },
    "a file that is no document": {
        "messages": (
            said("user", parts=(Other("file", {"file": {"file_data": "data:application/zip;base64,aGk="}}),)),
        )
    },
    "a file of nothing": {"messages": (said("user", parts=(Other("file", {"file": {"file_data": "%%"}}),)),)},
    "a schema that is missing": {"response_format": {"type": "json_schema"}},
    "an unknown format": {"response_format": {"type": "yaml"}},
}


@pytest.mark.parametrize("case", BAD)
def test_refuses_what_the_api_cannot_express(case: str) -> None:
    with pytest.raises(BadRequest):
        body(**BAD[case])


def test_headers_carry_version_and_betas_and_the_key_stands_apart() -> None:
    backend = Anthropic(
        base_url="https://proxy.example/x/v1/",
        api_key=Secret("sk-secret"),
        beta=("a", "b"),
        headers={"X-Team": "one"},
    )
    request = backend.request(ChatRequest(dialect="openai", model=None, messages=(said("user", "Hi"),)), "m")
    assert request.url == "https://proxy.example/x/v1/messages"
    assert dict(request.headers) == {
        "accept": "text/event-stream", "content-type": "application/json",
        "anthropic-version": "2023-06-01", "anthropic-beta": "a,b", "x-team": "one",
    }  # fmt: skip
    assert backend.credentials() == (("x-api-key", "sk-secret"),)
    assert Anthropic().credentials() == ()
    assert "sk-secret" not in repr(backend) + repr(request)


def test_extra_body_goes_before_what_was_translated() -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    assert body(Anthropic(extra_body={"thinking": thinking, "max_tokens": 2048}))["thinking"] == thinking


@pytest.mark.parametrize("options", [{"base_url": "api.anthropic.com"}, {"headers": {"x-a": "1\r\nx-b: 2"}}])
def test_refuses_options_that_cannot_be_used(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Anthropic(**options)


# ---- answer


def fed(reads: Iterable[bytes], *, strict: bool = False) -> tuple[list[StreamEvent], UpstreamError | None]:
    decoder = Anthropic(strict=strict).decoder()
    events: list[StreamEvent] = []
    try:
        for read in reads:
            events += decoder.feed(read)
        events += decoder.close()
    except UpstreamError as error:
        return events, error
    return events, None


def merged(events: list[StreamEvent]) -> list[StreamEvent]:
    """Neighbouring pieces of one text as one piece."""
    out: list[StreamEvent] = []
    for event in events:
        match (out[-1] if out else None), event:
            case TextDelta(a), TextDelta(b):
                out[-1] = TextDelta(a + b)
            case ReasoningDelta(a), ReasoningDelta(b):
                out[-1] = ReasoningDelta(a + b)
            case ToolCallDelta(i, a), ToolCallDelta(j, b) if i == j:
                out[-1] = ToolCallDelta(i, a + b)
            case _:
                out.append(event)
    return out


STARTED = Started("msg_1", "claude-example", Usage(12, 1))

STREAMS: dict[str, tuple[list[StreamEvent], UpstreamErrorKind | None]] = {
    "text": ([STARTED, TextDelta("Grüß dich 🌍"), Finished("stop", Usage(12, 5), "end_turn")], None),
    "thinking": (
        [
            Started("msg_1", "claude-example", Usage(132, 1, 100, written_input=20)),
            Working(),
            ReasoningDelta("Let me see."),
            ReasoningBlock(0, "Let me see.", "c2lnbmVk"),
            ReasoningBlock(1, redacted="aGlkZGVu"),
            TextDelta("Seven."),
            Finished("stop", Usage(132, 30, 100, 24, written_input=20), "end_turn"),
        ],
        None,
    ),
    "thinking_omitted": (
        [
            STARTED,
            Working(),
            Working(),
            Working(),
            ReasoningBlock(0, "", "c2lnbmVk"),
            TextDelta("Seven."),
            Finished("stop", Usage(12, 30), "end_turn"),
        ],
        None,
    ),
    "fallback": (
        [
            STARTED,
            TextDelta("One"),
            Working("claude-other"),
            TextDelta(" two"),
            Finished("stop", Usage(12, 9), "end_turn"),
        ],
        None,
    ),
    "compaction": (
        [STARTED, Working(), Working(), TextDelta("Hi"), Finished("stop", Usage(12, 9), "end_turn")],
        None,
    ),
    "tool_use": (
        [
            STARTED,
            TextDelta("Looking."),
            ToolCallStarted(0, "toolu_1", "weather"),
            ToolCallDelta(0, '{"city": "Berlin"}'),
            ToolCallStarted(1, "toolu_2", "clock"),
            ToolCallDelta(1, "{}"),
            ToolCallStarted(2, "toolu_3", "whole"),
            ToolCallDelta(2, '{"a":[1]}'),
            Finished("tool_calls", Usage(12, 40), "tool_use"),
        ],
        None,
    ),
    "server_tool": (
        [
            STARTED,
            ToolCallStarted(0, "srvtoolu_1", "web_search", "server"),
            ToolCallDelta(0, '{"query":"x"}'),
            TextDelta("Found."),
            Finished("stop", Usage(900, 9), "end_turn"),
        ],
        None,
    ),
    "unknown_events": ([STARTED, TextDelta("Hi"), Finished("stop", Usage(12, 2), "end_turn")], None),
    "overloaded_first": ([], "overloaded"),
    "overloaded_after_text": ([STARTED, TextDelta("One")], "overloaded"),
    "cut_in_text": ([STARTED, TextDelta("One two")], "truncated"),
    "cut_before_message_stop": (
        [STARTED, TextDelta("All."), Finished("length", Usage(12, 3), "max_tokens")],
        None,
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_says_the_same_in_every_cut(name: str) -> None:
    expected, kind = STREAMS[name]
    for reads in cuts.exhaustive((GOLDEN / f"{name}.sse").read_bytes()):
        events, error = fed(reads)
        assert merged(events) == expected
        assert (error.kind if error else None) == kind


def test_what_stands_before_an_error_in_one_read_is_handed_over_first() -> None:
    decoder = Anthropic().decoder()
    assert decoder.feed((GOLDEN / "overloaded_after_text.sse").read_bytes()) == [STARTED, TextDelta("One")]
    for again in (lambda: decoder.feed(b"data: {}\n\n"), decoder.close):
        with pytest.raises(UpstreamError, match="Overloaded"):
            again()


def test_what_follows_the_terminator_is_not_looked_at() -> None:
    decoder = Anthropic().decoder()
    decoder.feed((GOLDEN / "text.sse").read_bytes() + b"data: nonsense\n\n")
    assert decoder.feed(b"data: nonsense\n\n") == []
    assert decoder.close() == []


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"), ("stop_sequence", "stop"), ("pause_turn", "stop"), ("something_new", "stop"),
        ("max_tokens", "length"), ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"), ("refusal", "content_filter"),
    ],
)  # fmt: skip
def test_stop_reasons(reason: str, expected: str) -> None:
    stream = (GOLDEN / "text.sse").read_bytes().replace(b"end_turn", reason.encode())
    events, _ = fed([stream])
    assert isinstance(events[-1], Finished)
    assert (events[-1].reason, events[-1].native) == (expected, reason)


@pytest.mark.parametrize(
    ("type_", "message", "kind"),
    [
        ("overloaded_error", "Overloaded", "overloaded"),
        ("rate_limit_error", "Too many", "rate_limited"),
        ("api_error", "Internal server error", "server_error"),
        ("invalid_request_error", "messages: bad", "bad_request"),
        ("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum", "context_length"),
        ("authentication_error", "no", "bad_credentials"),
        ("something_new", "Odd", "stream_error"),
    ],
)
def test_errors_in_the_stream(type_: str, message: str, kind: str) -> None:
    frame = msgspec.json.encode({"type": "error", "error": {"type": type_, "message": message}})
    _, error = fed([b"event: error\ndata: " + frame + b"\n\n"])
    assert error is not None
    assert error.kind == kind


@pytest.mark.parametrize(
    "shape", [b'{"type":"error"}', b'{"type":"error","error":"text"}', b'{"type":"error","error":[1]}']
)
def test_an_error_of_any_shape_is_an_error(shape: bytes) -> None:
    _, error = fed([b"data: " + shape + b"\n\n"])
    assert error is not None
    assert error.kind == "stream_error"


GARBLED = [
    b'{"type":"content_block_stop","index":0}',
    b'{"type":"message_stop"}',
]


@pytest.mark.parametrize("data", GARBLED)
def test_what_is_not_the_dialect_is_garbled(data: bytes) -> None:
    _, error = fed([b"data: " + data + b"\n\n"])
    assert isinstance(error, UpstreamGarbled)


@pytest.mark.parametrize(
    "noise", [b"[DONE]", b"keep-alive", b'{"type":', b'{"a":"\xff"}', b'{"id":"chatcmpl-1"}', b"[" * 100_000]
)
def test_data_that_is_no_event_is_skipped_unless_strict(noise: bytes) -> None:
    stream = (GOLDEN / "text.sse").read_bytes()
    reads = [b"data: " + noise + b"\n\n", stream]
    assert merged(fed(reads)[0]) == STREAMS["text"][0]
    assert isinstance(fed(reads, strict=True)[1], UpstreamGarbled)


@pytest.mark.parametrize(
    "stream", [b"", b": ping\n\n", b"<html>no</html>", b'{"type":"message","content":[]}']
)
def test_a_body_without_events_is_truncated(stream: bytes) -> None:
    assert isinstance(fed([stream])[1], UpstreamTruncated)


HTTP_ERRORS: list[tuple[int, str, str, UpstreamErrorKind]] = [
    (400, "invalid_request_error", "messages: at least one message is required", "bad_request"),
    (400, "invalid_request_error", "prompt is too long: 201000 tokens > 200000 maximum", "context_length"),
    (400, "invalid_request_error", "Your credit balance is too low to access the API", "billing"),
    (401, "authentication_error", "invalid x-api-key", "bad_credentials"),
    (403, "permission_error", "not for you", "bad_credentials"),
    (404, "not_found_error", "model: nope", "not_found"),
    (413, "request_too_large", "Request exceeds the maximum size", "context_length"),
    (429, "rate_limit_error", "Too many", "rate_limited"),
    (500, "api_error", "Internal server error", "server_error"),
    (529, "overloaded_error", "Overloaded", "overloaded"),
]


@pytest.mark.parametrize(("status", "type_", "message", "kind"), HTTP_ERRORS)
def test_http_errors(status: int, type_: str, message: str, kind: str) -> None:
    answer = msgspec.json.encode(
        {"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_1"}
    )
    error = Anthropic().error(status, {"retry-after": "7"}, answer)
    assert (error.kind, error.status, error.retry_after) == (kind, status, 7.0)


def test_an_http_error_that_is_not_json_is_told_by_its_status() -> None:
    assert Anthropic().error(502, {}, b"<html>Bad gateway</html>").kind == "server_error"


def test_thinking_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anthropic_stream, "MAX_SEALED", 5)
    events, error = fed([(GOLDEN / "thinking.sse").read_bytes()])
    assert error is None
    assert not [event for event in events if isinstance(event, ReasoningBlock)]


CACHE = {"type": "ephemeral", "ttl": "1h"}


def test_markers_for_the_cache_reach_every_place_that_has_them() -> None:
    sent = body(
        messages=(
            Message("system", (Text("Long.", CACHE), Text(" "))),
            Message("system", (Text("Short."),)),
            Message(
                "user",
                (
                    Text("Hi", CACHE),
                    Image(PNG, CACHE),
                    Other("file", {"file": PDF_FILE, "cache_control": CACHE}),
                ),
            ),
            said("assistant", "a", tool_calls=(CALL,)),
            Message("tool", (Text("r", CACHE),), tool_call_id="toolu_1"),
        ),
        tools=(Tool("f", "", None, CACHE), Tool("g")),
        cache=CACHE,
    )
    assert sent["system"] == [{**text("Long."), "cache_control": CACHE}, text("Short.")]
    assert [block["cache_control"] for block in sent["messages"][0]["content"]] == [CACHE] * 3
    [result] = sent["messages"][2]["content"]
    assert (result["content"], result["cache_control"]) == ([text("r")], CACHE)
    assert ["cache_control" in tool for tool in sent["tools"]] == [True, False]
    assert sent["cache_control"] == CACHE


def test_markers_are_read_from_parts_messages_and_tools() -> None:
    wire = {
        "cache_control": CACHE,
        "messages": [
            {"role": "system", "content": "s", "cache_control": CACHE},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                "cache_control": CACHE,
            },
            {"role": "user", "content": [{"type": "text", "text": "c", "cache_control": CACHE}]},
            {"role": "assistant", "content": "d", "cache_control": CACHE},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f"}, "cache_control": CACHE},
            {"type": "function", "function": {"name": "g", "cache_control": CACHE}},
        ],
    }
    chat = Frontend().parse(msgspec.json.encode(wire), {})
    sent = msgspec.json.decode(Anthropic().request(chat, "m").body)
    marked = {**text(""), "cache_control": CACHE}
    assert sent["system"] == [{**marked, "text": "s"}]
    assert sent["messages"][0]["content"] == [text("a"), {**marked, "text": "b"}, {**marked, "text": "c"}]
    assert sent["messages"][1]["content"] == [{**marked, "text": "d"}]
    assert [tool["cache_control"] for tool in sent["tools"]] == [CACHE, CACHE]
    assert sent["cache_control"] == CACHE


PDF_FILE = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}


def source(kind: str, **fields: str) -> dict[str, Any]:
    return {"type": "document", "source": {"type": kind, **fields}}


PDF = source("base64", media_type="application/pdf", data="JVBERg==")
FILES = [
    (PDF_FILE, {**PDF, "title": "a.pdf"}),
    ({"file_data": "JVBERg"}, PDF),
    ({"file_data": "https://x/a.pdf"}, source("url", url="https://x/a.pdf")),
    (
        {"file_data": "data:text/plain;charset=utf-8;base64,R3LDvMOf"},
        source("text", media_type="text/plain", data="Grüß"),
    ),
    ({"file_data": "data:text/csv;base64,YSxi"}, source("text", media_type="text/plain", data="a,b")),
    (
        {"file_data": "data:image/jpg;base64,aGk="},
        {**source("base64", media_type="image/jpeg", data="aGk="), "type": "image"},
    ),
]


@pytest.mark.parametrize(("file", "block"), FILES)
def test_files_become_documents(file: dict[str, Any], block: dict[str, Any]) -> None:
    sent = body(messages=(Message("user", (Other("file", {"type": "file", "file": file}),)),))
    assert sent["messages"][0]["content"] == [block]


def test_some_json_object_is_asked_for_in_words() -> None:
    wanted: dict[str, Any] = {"response_format": {"type": "json_object"}}
    assert body(**wanted)["system"] == ONLY_JSON
    assert (
        body(messages=(said("system", "Be brief."), said("user", "Hi")), **wanted)["system"]
        == f"Be brief.\n\n{ONLY_JSON}"
    )
    assert "output_config" not in body(**wanted)


def test_blank_stops_are_left_out_where_the_model_refuses_them() -> None:
    backend = with_rules(Anthropic(), ModelRules(blank_stops=False))
    assert body(backend, sampling=Sampling(stop=("\n", " ", "END")))["stop_sequences"] == ["END"]
    assert "stop_sequences" not in body(backend, sampling=Sampling(stop=("\n",)))
    assert body(sampling=Sampling(stop=("\n",)))["stop_sequences"] == ["\n"]


def test_ids_of_calls_are_made_to_fit() -> None:
    backend = with_rules(Anthropic(), ModelRules(tool_ids="[A-Za-z0-9_-]{1,64}"))
    messages = (said("user", "x"), said("assistant", tool_calls=(ToolCall("functions.w:0", "w", ""),)))
    turns = body(backend, messages=(*messages, said("tool", "r", tool_call_id="functions.w:0")))["messages"]
    assert turns[1]["content"][0]["id"] == turns[2]["content"][0]["tool_use_id"] != "functions.w:0"


def test_thinking_stands_at_the_beginning_of_a_turn_or_not_at_all() -> None:
    thought = Message("assistant", (Text("b"),), thoughts=(Thought("Hm.", "sig"),))
    block = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}
    behind = body(messages=(said("user", "x"), said("assistant", "a"), thought, said("user", "y")))
    assert behind["messages"][1] == assistant(text("a"), text("b"))
    before = body(messages=(said("user", "x"), thought, said("assistant", "a"), thought, said("user", "y")))
    assert before["messages"][1] == assistant(block, text("b"), text("a"), block, text("b"))


ITERATIONS = [
    {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500, "cache_read_input_tokens": 0},
    {
        "type": "advisor_message",
        "model": "claude-opus-5-5",
        "input_tokens": 800,
        "output_tokens": 500,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 50,
    },
    {"type": "message", "input_tokens": 23_000, "output_tokens": 1000},
    {"type": "fallback_message", "model": "claude-opus-5", "input_tokens": 1, "output_tokens": 1},
    {"type": "compaction", "input_tokens": "many", "output_tokens": 1},
    {"type": "compaction", "input_tokens": -5, "output_tokens": 1},
    "compaction",
]
"""https://platform.claude.com/docs/en/build-with-claude/compaction: the counts of the whole answer have nothing of
compactions, nor of advisors."""


def test_tokens_of_compactions_and_advisors_count() -> None:
    usage = {"input_tokens": 23_000, "output_tokens": 1000, "iterations": ITERATIONS}
    start = {
        "type": "message_start",
        "message": {"id": "m", "usage": {"input_tokens": 23_000, "output_tokens": 1}},
    }
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    stream = b"".join(
        [
            b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))  # type: ignore[attr-defined]
            for event in (start, end, {"type": "message_stop"})
        ]
    )
    expected = Usage(23_000 + 180_000 + 950, 1000 + 3500 + 500, cached_input=100, written_input=50)
    for cut in range(0, len(stream), 7):
        events, error = fed([stream[:cut], stream[cut:]])
        assert error is None
        assert events[-1] == Finished("stop", expected, "end_turn")
    whole = {"type": "message", "role": "assistant", "content": [], "stop_reason": "end_turn", "usage": usage}
    decoder = Anthropic().whole_decoder()
    events = [*decoder.feed(msgspec.json.encode(whole)), *decoder.close()]
    assert Finished("stop", expected, "end_turn") in events
    [verbatim] = [event for event in events if isinstance(event, Verbatim)]
    assert msgspec.json.decode(verbatim.data)["usage"] == usage


def test_zeros_at_the_end_do_not_take_back_what_a_message_began_with() -> None:
    began = {"input_tokens": 7, "cache_read_input_tokens": 40, "output_tokens": 1}
    told = {
        "input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
        "output_tokens": 5,
    }
    events = [
        {"type": "message_start", "message": {"id": "m", "usage": began}},
        {"type": "content_block_start", "index": 0, "content_block": text("")},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": told},
        {"type": "message_stop"},
    ]
    frames = [
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))  # type: ignore[attr-defined]
        for event in events
    ]
    found, error = fed([b"".join(frames)])
    assert error is None
    assert found[-1] == Finished("stop", Usage(47, 5, cached_input=40), "end_turn")
    decoder = Anthropic().decoder(verbatim=True)
    passed = [*decoder.feed(b"".join(frames)), *decoder.close()]
    data = b"".join([event.data for event in passed if isinstance(event, Verbatim)])
    last = next(line for line in data.split(b"\n") if line.startswith(b'data: {"type":"message_delta"'))
    assert msgspec.json.decode(last[6:])["usage"] == {
        "input_tokens": 7,
        "cache_read_input_tokens": 40,
        "cache_creation_input_tokens": 0,
        "output_tokens": 5,
    }


@pytest.mark.parametrize("odd", [None, [], {}, "x", 5, [{"type": ["compaction"]}, {"type": {}}, 7]])
def test_iterations_of_no_known_form_count_nothing(odd: Any) -> None:
    usage = {"input_tokens": 5, "output_tokens": 2, "iterations": odd}
    whole = {"type": "message", "role": "assistant", "content": [], "stop_reason": "end_turn", "usage": usage}
    decoder = Anthropic().whole_decoder()
    events = [*decoder.feed(msgspec.json.encode(whole)), *decoder.close()]
    assert Finished("stop", Usage(5, 2), "end_turn") in events


@pytest.mark.parametrize(
    ("details", "hour"),
    [
        ({"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 20}, 20),
        ({"ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 0}, 0),
        ({"ephemeral_1h_input_tokens": "20"}, 0),
        ({"ephemeral_1h_input_tokens": 51}, 0),
        ([], 0),
        (None, 0),
    ],
)
def test_what_was_written_to_the_cache_for_an_hour_is_told_apart(details: object, hour: int) -> None:
    usage = {
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_creation_input_tokens": 50,
        "cache_creation": details,
    }
    start = {"type": "message_start", "message": {"id": "m", "usage": usage}}
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
    stream = b"".join(
        b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), msgspec.json.encode(event))
        for event in (start, text, end, {"type": "message_stop"})
    )
    events, error = fed([stream])
    assert error is None
    expected = Usage(51, 2, written_input=50, written_input_1h=hour)
    assert events[-1] == Finished("stop", expected, "end_turn")
