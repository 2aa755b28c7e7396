"""The chunks that Gemini's clients read, lists of them, and whole answers."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from sluice.errors import (
    BadRequest,
    GatewayError,
    ModelNotFound,
    RateLimited,
    Unauthorized,
    UpstreamError,
    UpstreamTruncated,
)
from sluice.frontends import Answer, Encoder
from sluice.frontends.gemini.answer import usage_metadata
from sluice.frontends.gemini.dialect import Gemini
from sluice.frontends.gemini.operations import ONE
from sluice.frontends.gemini.request import LIST, SILENT
from sluice.model.chat import ChatRequest
from sluice.model.events import (
    Cited,
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
from sluice.model.operations import OperationRequest
from sluice_plugins.gemini.stream import GenerateDecoder

USAGE = Usage(input=7, output=5, cached_input=3, reasoning=2)
EVENTS: list[StreamEvent] = [
    Started("u-1", "gemini-x"),
    ReasoningDelta("h"),
    ReasoningDelta("m"),
    ReasoningBlock(0, "hm", "gemini:c2ln"),
    TextDelta("a"),
    TextDelta(""),
    TextDelta("\u2028ü"),
    ToolCallStarted(0, "call_1", "f", signature="czI="),
    ToolCallDelta(0, '{"x":'),
    ToolCallDelta(0, "1}"),
    ToolCallStarted(1, "srv", "search", "server"),
    ToolCallStarted(2, "call_2", "g"),
    Finished("tool_calls", USAGE),
]
CALLS = [
    {"functionCall": {"id": "call_1", "name": "f", "args": {"x": 1}}, "thoughtSignature": "czI="},
    {"functionCall": {"id": "call_2", "name": "g", "args": {}}},
]
PARTS = [
    {"text": "hm", "thought": True},
    {"text": "", "thoughtSignature": "c2ln"},
    {"text": "a\u2028ü"},
    *CALLS,
]
COUNTS = {
    "promptTokenCount": 7, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "cachedContentTokenCount": 3,
    "totalTokenCount": 12,
}  # fmt: skip
NAMED = {"modelVersion": "gemini-x", "responseId": "u-1"}


def encoder(*, stream: bool = True, profile: str = "", reveal: bool = True) -> Encoder:
    answer = Answer("req-1", "alias", 1790000000, reveal=reveal)
    return Gemini().encoder(ChatRequest("gemini", None, (), stream=stream, profile=profile), answer)


def chunks(data: bytes) -> list[dict[str, Any]]:
    frames = data.split(b"\r\n\r\n")
    assert frames.pop() == b""
    assert all(frame.startswith(b"data: {") and b"\n" not in frame for frame in frames)
    return [json.loads(frame[6:]) for frame in frames]


def content(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": [*parts]}, **more, "index": 0}]}


def all_parts(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for chunk in found for part in chunk["candidates"][0]["content"]["parts"]]


def test_what_came_together_is_told_together() -> None:
    [told] = chunks(encoder().encode(EVENTS))
    assert told == {**content(*PARTS, finishReason="STOP"), "usageMetadata": COUNTS, **NAMED}


def test_one_by_one_it_is_the_same() -> None:
    encode = encoder()
    told = chunks(b"".join(encode.encode([event]) for event in EVENTS))
    merged: list[dict[str, Any]] = []
    for part in all_parts(told):
        if merged and part.keys() <= {"text", "thought"} and merged[-1].keys() == part.keys():
            merged[-1] = {**part, "text": merged[-1]["text"] + part["text"]}
        else:
            merged.append(part)
    assert merged == PARTS
    assert ["finishReason" in chunk["candidates"][0] for chunk in told] == [False] * (len(told) - 1) + [True]
    assert ["usageMetadata" in chunk for chunk in told] == [False] * (len(told) - 1) + [True]
    assert all(chunk.items() >= NAMED.items() for chunk in told)


def test_an_end_by_itself_has_an_empty_text() -> None:
    encode = encoder()
    encode.encode([Started(), TextDelta("a")])
    assert chunks(encode.encode([Finished("length")])) == [
        {**content({"text": ""}, finishReason="MAX_TOKENS"), "modelVersion": "alias", "responseId": "req-1"}
    ]


def test_what_is_told_is_read_again() -> None:
    decoder = GenerateDecoder()
    events = [*decoder.feed(encoder().encode(EVENTS)), *decoder.close()]
    assert [event for event in events if isinstance(event, ReasoningBlock)] == [EVENTS[3]]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "a\u2028ü"
    assert [(event.name, event.signature) for event in events if isinstance(event, ToolCallStarted)] == [
        ("f", "czI="),
        ("g", ""),
    ]
    assert events[-1] == Finished("tool_calls", USAGE, "STOP")


def test_a_list_has_a_chunk_an_element() -> None:
    encode = encoder(profile=LIST)
    data = b"".join([encode.encode([event]) + encode.heartbeat() for event in EVENTS])
    assert all_parts(json.loads(data))[0] == {"text": "h", "thought": True}
    assert encode.content_type.startswith("application/json")
    assert (
        json.loads(encoder(profile=LIST).encode([Started(), Finished("stop")]))[0]["candidates"][0][
            "finishReason"
        ]
        == "STOP"
    )


def test_an_error_ends_a_list() -> None:
    encode = encoder(profile=LIST)
    said = encode.encode([Started(), TextDelta("a")])
    told = json.loads(said + encode.fail(UpstreamTruncated()))
    assert told[1]["error"]["code"] == 503
    assert json.loads(encoder(profile=LIST).fail(UpstreamTruncated()))[0]["error"]["status"] == "UNAVAILABLE"


def test_a_whole_answer_is_one_response() -> None:
    encode = encoder(stream=False)
    assert (
        b"".join(encode.encode([event]) for event in EVENTS[:-1])
        == encode.start()
        == encode.heartbeat()
        == b""
    )
    told = json.loads(encode.encode(EVENTS[-1:]))
    assert told == {**content(*PARTS, finishReason="STOP"), "usageMetadata": COUNTS, **NAMED}


@pytest.mark.parametrize("profile", [SILENT, SILENT + LIST])
def test_thoughts_are_hidden_where_they_are_not_wanted(profile: str) -> None:
    encode = encoder(profile=profile)
    assert b'thought"' not in encode.encode(EVENTS[:3])
    assert b'"thoughtSignature":"c2ln"' in encode.encode(EVENTS[3:])


REASONS: list[tuple[Finished, str]] = [
    (Finished("stop"), "STOP"), (Finished("tool_calls"), "STOP"), (Finished("length"), "MAX_TOKENS"),
    (Finished("content_filter"), "SAFETY"), (Finished("content_filter", native="RECITATION"), "RECITATION"),
    (Finished("content_filter", native="refusal"), "SAFETY"), (Finished("stop", native="OTHER"), "STOP"),
]  # fmt: skip


@pytest.mark.parametrize(("finished", "reason"), REASONS)
def test_finish_reasons(finished: Finished, reason: str) -> None:
    assert chunks(encoder().encode([Started(), finished]))[0]["candidates"][0]["finishReason"] == reason


@pytest.mark.parametrize(("usage", "counts"), [
    (Usage(3, 4), (3, 4, None, 7)), (Usage(3, 4, reasoning=4), (3, 0, 4, 7)), (Usage(3, 4, reasoning=9), (3, 4, 9, 7)),
    (Usage(3, 4, reasoning=2, total=9), (3, 4, 2, 9)),
])  # fmt: skip
def test_thoughts_are_counted_apart(usage: Usage, counts: tuple[int | None, ...]) -> None:
    told = usage_metadata(usage)
    names = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount")
    assert tuple(map(told.get, names)) == counts


def test_sources_are_grounding_in_bytes() -> None:
    cited: list[StreamEvent] = [
        Started(), TextDelta("Grüße aus "), TextDelta("Köln"), Cited("https://a", "A", 10, 14), Cited("https://a", "A", 0, 5),
        Cited("", "doc", quote="q"), Finished("stop"),
    ]  # fmt: skip
    encode = encoder()
    told = chunks(b"".join(encode.encode([event]) for event in cited))
    assert told[-1]["candidates"][0]["groundingMetadata"] == {
        "groundingChunks": [
            {"web": {"uri": "https://a", "title": "A"}}, {"retrievedContext": {"title": "doc", "text": "q"}},
        ],
        "groundingSupports": [
            {"segment": {"startIndex": 12, "endIndex": 17, "text": "Köln"}, "groundingChunkIndices": [0]},
            {"segment": {"startIndex": 0, "endIndex": 7, "text": "Grüße"}, "groundingChunkIndices": [0]},
        ],
    }  # fmt: skip
    assert not any("groundingMetadata" in chunk["candidates"][0] for chunk in told[:-1])


@pytest.mark.parametrize("stream", [True, False])
def test_arguments_that_are_none_are_an_error_unless_they_were_cut(stream: bool) -> None:
    broken: list[StreamEvent] = [
        Started(),
        TextDelta("a"),
        ToolCallStarted(0, "c", "f"),
        ToolCallDelta(0, '{"x":'),
    ]
    data = encoder(stream=stream).encode([*broken, Finished("stop")])
    last = chunks(data)[-1] if stream else json.loads(data)
    assert last["error"]["details"][0]["reason"] == "garbled"
    data = encoder(stream=stream).encode([*broken, Finished("length")])
    last = chunks(data)[-1] if stream else json.loads(data)
    assert all_parts([last]) == [{"text": "a"}]


def test_a_heartbeat_is_a_chunk_with_an_empty_text() -> None:
    assert chunks(encoder().heartbeat()) == [content({"text": ""})]


def test_a_hidden_model_is_the_alias() -> None:
    told = chunks(
        encoder(reveal=False).encode([Started("", "x"), Working("better"), TextDelta("a"), Finished("stop")])
    )
    assert told[0]["modelVersion"] == "alias"
    encode = encoder()
    encode.resume(Started(model="other"))
    assert chunks(encode.encode([TextDelta("a")]))[0]["modelVersion"] == "other"


ERRORS: list[tuple[GatewayError, int, str]] = [
    (BadRequest("x"), 400, "INVALID_ARGUMENT"), (Unauthorized("unknown_key"), 401, "UNAUTHENTICATED"),
    (ModelNotFound("x"), 404, "NOT_FOUND"), (RateLimited(1.5, scope="key", resource="tokens"), 429, "RESOURCE_EXHAUSTED"),
    (UpstreamError("overloaded"), 503, "UNAVAILABLE"), (UpstreamError("server_error"), 503, "UNAVAILABLE"),
    (UpstreamError("bad_credentials"), 500, "INTERNAL"), (UpstreamError("idle_timeout"), 504, "DEADLINE_EXCEEDED"),
    (GatewayError("x"), 500, "INTERNAL"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "status", "name"), ERRORS)
def test_errors_have_googles_statuses(error: GatewayError, status: int, name: str) -> None:
    told = Gemini().error(error, "r")["error"]
    assert (told["code"], told["status"], told["message"]) == (status, name, error.message)
    assert Gemini().status(error) == status
    assert told["details"][0]["reason"] == error.code


def test_errors_say_what_clients_act_upon() -> None:
    wrong = Gemini().error(BadRequest("x", details=[{"field": "a", "reason": "b"}]), "r")["error"]["details"][
        1
    ]
    assert wrong == {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{"field": "a", "description": "b"}],
    }
    wait = Gemini().error(RateLimited(1.5, scope="key", resource="tokens"), "r")["error"]["details"][1]
    assert wait == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.500s"}
    [told] = chunks(encoder().fail(UpstreamTruncated()))
    assert told["error"]["details"][0]["reason"] == "truncated"


def test_vectors_are_passed_on_as_they_are_written() -> None:
    body = b'{"data":[{"index":1,"embedding":[2e-3]},{"index":0,"embedding":[0.10, 1]}]}'
    events: list[StreamEvent] = [Started(), TextDelta(""), Finished("stop"), Verbatim(body, whole=True)]

    def encoded(profile: str, operation: str = "embeddings") -> bytes:
        asked = OperationRequest(
            "x", None, (), stream=False, profile=profile, operation=operation, tokens=1, longest=1
        )
        return Gemini().encoder(asked, Answer("r", "alias", 0)).encode(events)

    assert encoded("") == b'{"embeddings":[{"values":[0.10, 1]},{"values":[2e-3]}]}'
    assert encoded(ONE) == b'{"embedding":{"values":[0.10, 1]}}'
    assert encoded("", "count_tokens") == body
