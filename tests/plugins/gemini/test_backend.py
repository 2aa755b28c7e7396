"""Gemini's API: what is asked of it and where, what its streams say, what its errors mean."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sluice.config.types import Secret
from sluice.errors import BadRequest, UpstreamError, UpstreamErrorKind
from sluice.frontends import Answer
from sluice.frontends.openai.dialect import OpenAI as Frontend
from sluice.model.chat import (
    ChatRequest,
    Image,
    Message,
    Other,
    Part,
    Reasoning,
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
)
from sluice_plugins.anthropic.backend import Anthropic
from sluice_plugins.gemini.backend import FIRST_TURN, UNSIGNED, Gemini, thinking_config
from tests.wire import cuts

GOLDEN = Path(__file__).parents[2] / "golden" / "gemini"
PNG = "data:image/png;base64,iVBORw0KGgo="


def said(role: Role, text: str = "", *, parts: tuple[Part, ...] = (), **more: Any) -> Message:
    return Message(role=role, parts=((Text(text),) if text else ()) + parts, **more)


def body(backend: Gemini | None = None, model: str = "gemini-2.5-flash", **chat: Any) -> dict[str, Any]:
    chat.setdefault("messages", (said("user", "Hi"),))
    request = (backend or Gemini()).request(ChatRequest(dialect="openai", model=None, **chat), model)
    decoded: dict[str, Any] = msgspec.json.decode(request.body)
    return decoded


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


def model(*parts: Any) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


URLS: list[tuple[Gemini, str, str]] = [
    (
        Gemini(),
        "gemini-2.5-flash",
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash",
    ),
    (Gemini(base_url="http://h:1/x/v1/"), "models/m", "http://h:1/x/v1/models/m"),
    (Gemini(base_url="http://h:1/v1beta/models"), "tunedModels/m", "http://h:1/v1beta/tunedModels/m"),
    (
        Gemini(project="p-1"),
        "gemini-2.5-pro",
        "https://aiplatform.googleapis.com/v1/projects/p-1/locations/global/publishers/google/models/gemini-2.5-pro",
    ),
    (
        Gemini(project="p-1", location="europe-west4"),
        "google/gemini-2.5-pro",
        "https://europe-west4-aiplatform.googleapis.com/v1/projects/p-1/locations/europe-west4/publishers/google/models/gemini-2.5-pro",
    ),
    (
        Gemini(project="p-1", location="eu"),
        "endpoints/77",
        "https://aiplatform.eu.rep.googleapis.com/v1/projects/p-1/locations/eu/endpoints/77",
    ),
    (Gemini(vertex=True), "m", "https://aiplatform.googleapis.com/v1/publishers/google/models/m"),
]


@pytest.mark.parametrize(("backend", "name", "url"), URLS)
def test_where_a_model_is_asked(backend: Gemini, name: str, url: str) -> None:
    request = backend.request(ChatRequest(dialect="openai", model=None, messages=(said("user", "Hi"),)), name)
    assert request.url == url + ":streamGenerateContent?alt=sse"


def test_the_key_stands_apart() -> None:
    backend = Gemini(api_key=Secret("AIza-secret"), headers={"X-Team": "one"})
    request = backend.request(ChatRequest(dialect="openai", model=None, messages=(said("user", "Hi"),)), "m")
    assert backend.credentials() == (("x-goog-api-key", "AIza-secret"),)
    assert dict(request.headers)["x-team"] == "one"
    assert "AIza-secret" not in repr(backend) + repr(request)


@pytest.mark.parametrize("options", [{"location": "a/b"}, {"project": "p/../q"}, {"base_url": "example.com"}])
def test_refuses_options_that_cannot_be_used(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Gemini(**options)


CALLS = (ToolCall("1", "f", '{"a": 1}', signature="c2ln"), ToolCall("2", "f", ""))

CONVERSATIONS: dict[str, tuple[tuple[Message, ...], list[dict[str, Any]]]] = {
    "neighbours of one role become one": (
        (
            said("user", "a"),
            said("user", "b"),
            said("assistant", "c"),
            said("system", "x"),
            said("assistant", "d"),
        ),
        [user({"text": "a"}, {"text": "b"}), model({"text": "c"}, {"text": "d"})],
    ),
    "an assistant that begins is given a question": (
        (said("assistant", "Welcome"), said("user", "Hi")),
        [user({"text": FIRST_TURN}), model({"text": "Welcome"}), user({"text": "Hi"})],
    ),
    "results stand in the order of their calls": (
        (
            said("user", "?"),
            said("assistant", tool_calls=CALLS),
            said("tool", "noon", tool_call_id="2"),
            said("tool", '{"b": 2}', tool_call_id="1"),
            said("user", "And?"),
        ),
        [
            user({"text": "?"}),
            model(
                {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"},
                {"functionCall": {"name": "f", "args": {}}},
            ),
            user(
                {"functionResponse": {"name": "f", "response": {"b": 2}}},
                {"functionResponse": {"name": "f", "response": {"output": "noon"}}},
                {"text": "And?"},
            ),
        ],
    ),
    "signatures of thoughts come back, those of another vendor do not": (
        (
            said("user", "?"),
            said("assistant", "Yes", thoughts=(Thought("Hm", "gemini:c2ln"),)),
            said("assistant", "No", thoughts=(Thought("Hm", "c2ln"),)),
        ),
        [user({"text": "?"}), model({"text": "Yes", "thoughtSignature": "c2ln"}, {"text": "No"})],
    ),
    "images, audio and files": (
        (
            said(
                "user",
                "See",
                parts=(
                    Image(PNG),
                    Image("https://example.com/a.webp?x=1"),
                    Other("input_audio", {"input_audio": {"data": "aGk=", "format": "mp3"}}),
                    Other("file", {"file": {"file_data": "data:application/pdf;base64,aGk="}}),
                    Other("file", {"file": {"file_data": "aGk=", "filename": "a.txt"}}),
                    Other("file", {"file": {"file_id": "gs://bucket/film.mp4"}}),
                ),
            ),
        ),
        [
            user(
                {"text": "See"},
                {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
                {"fileData": {"fileUri": "https://example.com/a.webp?x=1", "mimeType": "image/webp"}},
                {"inlineData": {"mimeType": "audio/mp3", "data": "aGk="}},
                {"inlineData": {"mimeType": "application/pdf", "data": "aGk="}},
                {"inlineData": {"mimeType": "text/plain", "data": "aGk="}},
                {"fileData": {"fileUri": "gs://bucket/film.mp4", "mimeType": "video/mp4"}},
            )
        ],
    ),
}


@pytest.mark.parametrize("case", CONVERSATIONS)
def test_a_conversation_becomes_contents(case: str) -> None:
    messages, expected = CONVERSATIONS[case]
    assert body(messages=messages)["contents"] == expected


def test_a_tool_that_failed_has_an_error() -> None:
    called = said("assistant", tool_calls=(ToolCall("t", "f", ""), ToolCall("u", "f", "")))
    told = {"t": "gone", "u": '{"code": 5}'}
    results = [said("tool", text, tool_call_id=id, failed=True) for id, text in told.items()]
    *_, turn = body(messages=(said("user", "?"), called, *results))["contents"]
    assert [part["functionResponse"]["response"] for part in turn["parts"]] == [
        {"error": "gone"},
        {"error": {"code": 5}},
    ]


@pytest.mark.parametrize("text", ['{"$ref": "#/a"}', '{"properties": {"x": {"$ref": "#/$defs/X"}}}'])
def test_a_result_with_a_reference_is_told_as_a_text(text: str) -> None:
    called = said("assistant", tool_calls=(ToolCall("t", "f", ""),))
    *_, turn = body(messages=(said("user", "?"), called, said("tool", text, tool_call_id="t")))["contents"]
    assert turn["parts"][0]["functionResponse"]["response"] == {"output": text}


def test_anthropic_is_not_sent_googles_signatures() -> None:
    messages = (
        said("user", "?"),
        said("assistant", "Yes", thoughts=(Thought("Hm", "gemini:c2ln"), Thought("Hm", "own"))),
    )
    request = Anthropic().request(
        ChatRequest(dialect="openai", model=None, messages=messages), "claude-example"
    )
    assert b"own" in request.body
    assert b"c2ln" not in request.body


def test_gemini_3_gets_images_within_results_and_a_word_for_calls_without_signature() -> None:
    messages = (
        said("user", "?"),
        said("assistant", tool_calls=(ToolCall("1", "f", "{}"), ToolCall("2", "g", "{}"))),
        said("tool", "here", tool_call_id="1", parts=(Image(PNG),)),
        said("tool", "ok", tool_call_id="2"),
    )
    _, calls, results = body(model="gemini-3-pro-preview", messages=messages)["contents"]
    assert [part.get("thoughtSignature") for part in calls["parts"]] == [UNSIGNED, None]
    image = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    assert results["parts"][0] == {
        "functionResponse": {"name": "f", "response": {"output": "here"}, "parts": [image]}
    }


TOOL = Tool("weather", "Tells it", {"type": "object", "properties": {"city": {"type": "string"}}})
DECLARED = {"name": "weather", "description": "Tells it", "parametersJsonSchema": TOOL.parameters}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}

REFERRING = {"properties": {"a": {"$ref": "#/definitions/A", "title": "T"}}, "definitions": {"A": SCHEMA}}
ALONE = {"properties": {"a": {**SCHEMA, "title": "T"}}, "$defs": {"A": SCHEMA}}

FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"messages": (said("system", "be"), said("user", "a"), said("system", "brief"))},
     {"systemInstruction": {"parts": [{"text": "be"}, {"text": "brief"}]}}),
    ({"sampling": Sampling(7, 0.0, 0.5, ("a",), 1, 0.1, 0.2, 40)},
     {"generationConfig": {"maxOutputTokens": 7, "temperature": 0.0, "topP": 0.5, "topK": 40, "seed": 1, "stopSequences": ["a"],
                           "frequencyPenalty": 0.1, "presencePenalty": 0.2}}),
    ({"tools": (TOOL,)}, {"tools": [{"functionDeclarations": [DECLARED]}]}),
    ({"tools": (Tool("t", "", REFERRING),),
      "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": REFERRING}}},
     {"tools": [{"functionDeclarations": [{"name": "t", "parametersJsonSchema": ALONE}]}],
      "generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": ALONE}}),
    ({"tools": (Tool("t"),), "tool_choice": "none"},
     {"tools": [{"functionDeclarations": [{"name": "t"}]}], "toolConfig": {"functionCallingConfig": {"mode": "NONE"}}}),
    ({"tools": (Tool("t"),), "tool_choice": ("function", "t")},
     {"tools": [{"functionDeclarations": [{"name": "t"}]}],
      "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["t"]}}}),
    ({"response_format": {"type": "json_object"}}, {"generationConfig": {"responseMimeType": "application/json"}}),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
     {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}}),
    ({"reasoning": Reasoning("low")},
     {"generationConfig": {"thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": True}}}),
]  # fmt: skip


@pytest.mark.parametrize(("chat", "expected"), FIELDS)
def test_fields_are_translated(chat: dict[str, Any], expected: dict[str, Any]) -> None:
    sent = body(**chat)
    del sent["contents"]
    assert sent == expected


def test_options_go_into_each_request() -> None:
    backend = Gemini(
        safety_settings={"HARM_CATEGORY_HARASSMENT": "OFF"},
        extra_body={"generationConfig": {"topK": 3}, "cachedContent": "cachedContents/1"},
    )
    sent = body(backend, sampling=Sampling(temperature=1.0))
    assert sent["safetySettings"] == [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}]
    assert sent["generationConfig"] == {"temperature": 1.0, "topK": 3}
    assert sent["cachedContent"] == "cachedContents/1"


THINKING: list[tuple[str, Reasoning | None, dict[str, Any]]] = [
    ("gemini-2.0-flash", Reasoning("high"), {}),
    ("gemini-2.5-flash", None, {}),
    ("gemini-2.5-flash", Reasoning("none"), {"thinkingBudget": 0}),
    ("gemini-2.5-flash", Reasoning(budget=300), {"thinkingBudget": 300, "includeThoughts": True}),
    ("gemini-2.5-pro", Reasoning("none"), {"thinkingBudget": 128}),
    ("gemini-3-flash-preview", Reasoning("none"), {"thinkingLevel": "minimal"}),
    ("gemini-3-pro-preview", Reasoning("medium"), {"thinkingLevel": "high", "includeThoughts": True}),
    ("gemini-3.1-pro-preview", Reasoning("medium"), {"thinkingLevel": "medium", "includeThoughts": True}),
    ("gemini-3.1-pro-preview", Reasoning("minimal"), {"thinkingLevel": "low", "includeThoughts": True}),
    ("gemini-3-flash-preview", Reasoning("max"), {"thinkingLevel": "high", "includeThoughts": True}),
    ("gemma-3-27b-it", Reasoning("high"), {}),
]


@pytest.mark.parametrize(("name", "wish", "config"), THINKING)
def test_thinking_by_model(name: str, wish: Reasoning | None, config: dict[str, Any]) -> None:
    assert thinking_config(wish, name) == config


BAD: dict[str, dict[str, Any]] = {
    "no message but the system's": {"messages": (said("system", "be brief"),)},
    "an image of another scheme": {"messages": (said("user", parts=(Image("file:///etc/passwd"),)),)},
    "an image in a system message": {"messages": (said("system", parts=(Image(PNG),)), said("user", "Hi"))},
    "a file of OpenAI's": {
        "messages": (said("user", parts=(Other("file", {"file": {"file_id": "file-1"}}),)),)
    },
    "audio without data": {"messages": (said("user", parts=(Other("input_audio", {"input_audio": {}}),)),)},
    "content that nobody knows": {"messages": (said("user", parts=(Other("hologram", {}),)),)},
    "a schema that is missing": {"response_format": {"type": "json_schema"}},
}


@pytest.mark.parametrize("case", BAD)
def test_refuses_what_the_api_cannot_express(case: str) -> None:
    with pytest.raises(BadRequest):
        body(**BAD[case])


# ---- answer


def fed(reads: list[bytes], **options: Any) -> tuple[list[StreamEvent], UpstreamError | None]:
    decoder = Gemini(**options).decoder()
    events: list[StreamEvent] = []
    try:
        for read in reads:
            events += decoder.feed(read)
        events += decoder.close()
    except UpstreamError as error:
        return events, error
    return events, None


def chunk(*parts: Any, **more: Any) -> bytes:
    return (
        b"data: "
        + json.dumps({"candidates": [{"content": {"parts": list(parts)}, **more}]}).encode()
        + b"\r\n\r\n"
    )


STARTED = Started("r1", "gemini-example")

STREAMS: dict[str, tuple[list[StreamEvent], UpstreamErrorKind | None]] = {
    "thinking": (
        [
            STARTED,
            ReasoningDelta("Let me see."),
            TextDelta("Seven"),
            TextDelta(" 🌍"),
            ReasoningBlock(0, "Let me see.", "gemini:c2ln"),
            Finished("stop", Usage(12, 30, 4, 24), "STOP"),
        ],
        None,
    ),
    "tools": (
        [
            STARTED,
            ToolCallStarted(0, "", "weather", signature="c2ln"),
            ToolCallDelta(0, '{"city": "Berlin"}'),
            ToolCallStarted(1, "", "weather"),
            ToolCallDelta(1, "{}"),
            Finished("tool_calls", Usage(12, 5, total=20), "STOP"),
        ],
        None,
    ),
    "cut": ([STARTED, TextDelta("Sev")], "truncated"),
    "overloaded_after_text": ([STARTED, TextDelta("Sev")], "overloaded"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_however_it_is_cut(name: str) -> None:
    wire = (GOLDEN / f"{name}.sse").read_bytes()
    events, kind = STREAMS[name]
    for reads in cuts.exhaustive(wire):
        got, error = fed(reads)
        assert got == events
        assert (error and error.kind) == kind


@pytest.mark.parametrize("stream", [True, False])
def test_a_calls_signature_comes_back_through_a_client_of_openais_dialect(stream: bool) -> None:
    events, _ = fed([(GOLDEN / "tools.sse").read_bytes()])
    encoder = Frontend().encoder(
        ChatRequest("openai", "a", (), stream=stream), Answer("req-1", "a", 1790000000), verbatim=False
    )
    out = encoder.encode(events)
    if stream:
        chunks = [json.loads(frame[6:]) for frame in out.split(b"\n\n") if frame[:7] == b"data: {"]
        calls = [
            call
            for chunk in chunks
            for call in chunk["choices"][0]["delta"].get("tool_calls", ())
            if "id" in call
        ]
        for call in calls:
            del call["index"]
    else:
        calls = json.loads(out)["choices"][0]["message"]["tool_calls"]
    assert calls[0]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert "extra_content" not in calls[1]
    wire = {
        "model": "a",
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": calls}],
    }
    chat = Frontend().parse(msgspec.json.encode(wire), {})
    sent = msgspec.json.decode(Gemini().request(chat, "gemini-2.5-flash").body)
    assert [part.get("thoughtSignature") for part in sent["contents"][1]["parts"]] == ["c2ln", None]


def test_arguments_in_pieces_become_one_object() -> None:
    pieces: list[dict[str, Any]] = [
        {"name": "f", "willContinue": True},
        {
            "partialArgs": [{"jsonPath": "$.a.b[1].c", "stringValue": "x", "willContinue": True}],
            "willContinue": True,
        },
        {"partialArgs": [{"jsonPath": "$.a.b[1].c", "stringValue": "y"}], "willContinue": True},
        {
            "partialArgs": [
                {"jsonPath": "$['d e']", "numberValue": 2},
                {"jsonPath": "$.n", "nullValue": None},
            ],
            "willContinue": True,
        },
        {
            "partialArgs": [
                {"jsonPath": "$.a[0]", "boolValue": True},
                {"jsonPath": "$.t", "boolValue": True},
            ],
            "willContinue": True,
        },
        {},
    ]
    events, error = fed(
        [b"".join(chunk({"functionCall": piece}) for piece in pieces), chunk(finishReason="STOP")]
    )
    assert error is None
    (delta,) = [event for event in events if isinstance(event, ToolCallDelta)]
    assert json.loads(delta.arguments) == {"a": {"b": [None, {"c": "xy"}]}, "d e": 2, "n": None, "t": True}


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("MALFORMED_FUNCTION_CALL", "stream_error"),
        ("UNEXPECTED_TOOL_CALL", "stream_error"),
        ("TOO_MANY_TOOL_CALLS", "stream_error"),
        ("MALFORMED_RESPONSE", "stream_error"),
    ],
)
def test_reasons_that_mean_failure(reason: str, kind: str) -> None:
    events, error = fed([chunk({"text": "a"}, finishReason=reason)])
    assert TextDelta("a") in events
    assert error is not None
    assert error.kind == kind


@pytest.mark.parametrize(
    "reason", ["SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY"]
)
def test_reasons_that_filter(reason: str) -> None:
    assert fed([chunk(finishReason=reason)])[0][-1] == Finished("content_filter", None, reason)


ODD: dict[str, tuple[bytes, str]] = {
    "halves of a pair in two chunks": (
        b'data: {"candidates":[{"content":{"parts":[{"text":"\\ud83c"}]}}]}\n\n'
        b'data: {"candidates":[{"content":{"parts":[{"text":"\\udf0d"}]},"finishReason":"STOP"}]}\n\n',
        "🌍",
    ),
    "half a pair at the end": (
        b'data: {"candidates":[{"content":{"parts":[{"text":"a\\ud83c"}]},"finishReason":"STOP"}]}\n\n',
        "a\N{REPLACEMENT CHARACTER}",
    ),
    "fields of other types": (
        b'data: {"candidates":{"content":{"parts":{"text":7}},"finishReason":1,"index":"0"},'
        b'"usageMetadata":[],"responseId":5}\n\n',
        "7",
    ),
    "null everywhere": (
        b'data: {"candidates":null,"usageMetadata":null,"modelVersion":null,"error":null}\n\n'
        b'data: {"candidates":[{"content":null},{"content":{"parts":[{"text":"other"}]},"index":1}]}\n\n'
        b'data: {"candidates":[{"content":{"parts":[{"text":"a","thought":null}]},"finishReason":"STOP"}]}',
        "a",
    ),
    "a list without events": (
        b'[{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}\n,\n{"candidates":[{"finishReason":"STOP"}]}]',
        "a",
    ),
    "noise between": (
        b"data: <html>\n\n" + chunk({"text": "a"}, finishReason="STOP") + b"data: [DONE]\n\n",
        "a",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_streams_are_read_for_what_they_are(case: str) -> None:
    wire, text = ODD[case]
    for reads in cuts.exhaustive(wire):
        events, error = fed(reads)
        assert error is None
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == text
        assert isinstance(events[-1], Finished)


ERRORS: list[tuple[int, Any, UpstreamErrorKind, float | None]] = [
    (400, {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT",
           "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]},
     "bad_credentials", None),
    (429, {"code": 429, "message": "You exceeded your current quota.", "status": "RESOURCE_EXHAUSTED",
           "details": [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "PerMinute"}]},
                       {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "39s"}]},
     "rate_limited", 39.0),
    (503, {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}, "overloaded", None),
    (400, {"code": 400, "message": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
           "status": "INVALID_ARGUMENT"}, "context_length", None),
    (404, {"code": 404, "message": "models/x is not found", "status": "NOT_FOUND"}, "not_found", None),
    (499, {"code": 499, "message": "The operation was cancelled.", "status": "CANCELLED"}, "server_error", None),
    (500, {"code": 500, "message": "An internal error has occurred.", "status": "INTERNAL"}, "server_error", None),
]  # fmt: skip


@pytest.mark.parametrize(("status", "error", "kind", "wait"), ERRORS)
@pytest.mark.parametrize("listed", [False, True])
def test_errors(status: int, error: Any, kind: UpstreamErrorKind, wait: float | None, listed: bool) -> None:
    told = {"error": error}
    got = Gemini().error(status, {}, msgspec.json.encode([told] if listed else told))
    assert got.kind == kind
    if wait is not None:
        assert got.retry_after == wait
