"""Ollama's chat API: what is asked of it, what its streams say, what its errors mean."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sluice.config.types import Secret
from sluice.errors import BadRequest, UpstreamError, UpstreamErrorKind, UpstreamGarbled, UpstreamTruncated
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
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from sluice_plugins.ollama.backend import Ollama
from tests.wire import cuts

GOLDEN = Path(__file__).parent.parent / "golden" / "ollama"
PNG = "data:image/png;base64,iVBORw0KGgo="


def said(role: Role, text: str = "", *, parts: tuple[Part, ...] = (), **more: Any) -> Message:
    return Message(role=role, parts=((Text(text),) if text else ()) + parts, **more)


def body(backend: Ollama | None = None, **chat: Any) -> dict[str, Any]:
    chat.setdefault("messages", (said("user", "Hi"),))
    request = (backend or Ollama()).request(ChatRequest(dialect="openai", model=None, **chat), "example:1b")
    decoded: dict[str, Any] = msgspec.json.decode(request.body)
    return decoded


def test_a_conversation_keeps_its_order_and_results_name_their_tool() -> None:
    call = ToolCall("call_0", "weather", '{"city": "Berlin"}')
    messages = (
        said("system", "Be brief"),
        said("user", "Look", parts=(Image(PNG),)),
        said("assistant", tool_calls=(call,)),
        said("tool", "sunny", tool_call_id="call_0"),
        said("assistant", "Sunny.", tool_calls=(ToolCall("call_0", "clock", ""),)),
        said("tool", "noon", tool_call_id="call_0"),
    )
    assert body(messages=messages)["messages"] == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Look", "images": ["iVBORw0KGgo="]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call_0", "function": {"name": "weather", "arguments": {"city": "Berlin"}}}
            ],
        },
        {"role": "tool", "content": "sunny", "tool_call_id": "call_0", "tool_name": "weather"},
        {
            "role": "assistant",
            "content": "Sunny.",
            "tool_calls": [{"id": "call_0", "function": {"name": "clock", "arguments": {}}}],
        },
        {"role": "tool", "content": "noon", "tool_call_id": "call_0", "tool_name": "clock"},
    ]


TOOL = Tool("weather", "Tells it", {"type": "object", "properties": {}})
WIRE_TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells it", "parameters": TOOL.parameters},
}

FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"model": "example:1b", "stream": True}),
    ({"sampling": Sampling(max_tokens=7, temperature=0.0, top_p=0.5, stop=("a",), seed=1)},
     {"options": {"num_predict": 7, "temperature": 0.0, "top_p": 0.5, "seed": 1, "stop": ["a"]}}),
    ({"tools": (TOOL,), "tool_choice": "auto", "parallel_tool_calls": False}, {"tools": [WIRE_TOOL]}),
    ({"response_format": {"type": "json_object"}}, {"format": "json"}),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}},
     {"format": {"type": "object"}}),
]  # fmt: skip


@pytest.mark.parametrize(("chat", "expected"), FIELDS)
def test_fields_are_translated(chat: dict[str, Any], expected: dict[str, Any]) -> None:
    sent = body(**chat)
    assert {name: sent[name] for name in expected} == expected


@pytest.mark.parametrize(
    "chat", [{}, {"tools": (TOOL,), "tool_choice": "none"}, {"response_format": {"type": "text"}}]
)
def test_nothing_is_sent_that_was_not_asked_for(chat: dict[str, Any]) -> None:
    assert set(body(**chat)) == {"model", "messages", "stream"}


def test_the_calls_own_sampling_goes_before_the_configured_options() -> None:
    backend = Ollama(think=False, keep_alive="10m", model_options={"num_ctx": 8192, "temperature": 0.1})
    sent = body(backend, sampling=Sampling(temperature=0.9))
    assert sent["options"] == {"num_ctx": 8192, "temperature": 0.9}
    assert (sent["think"], sent["keep_alive"]) == (False, "10m")


BAD: dict[str, dict[str, Any]] = {
    "an image on the web": {"messages": (said("user", parts=(Image("https://example.com/a.png"),)),)},
    "audio": {"messages": (said("user", parts=(Other("input_audio", {}),)),)},
    "a call that must be": {"tools": (TOOL,), "tool_choice": "required"},
    "a call of one function": {"tools": (TOOL,), "tool_choice": ("function", "weather")},
    "an unknown format": {"response_format": {"type": "yaml"}},
}


@pytest.mark.parametrize("case", BAD)
def test_refuses_what_the_api_cannot_express(case: str) -> None:
    with pytest.raises(BadRequest):
        body(**BAD[case])


def test_the_key_is_sent_as_bearer_and_shown_nowhere() -> None:
    backend = Ollama(base_url="https://ollama.example/", api_key=Secret("secret"))
    request = backend.request(ChatRequest(dialect="openai", model=None, messages=(said("user", "Hi"),)), "m")
    assert request.url == "https://ollama.example/api/chat"
    assert backend.credentials() == (("authorization", "Bearer secret"),)
    assert "secret" not in repr(backend) + repr(request)


# ---- answer


def fed(reads: Iterable[bytes]) -> tuple[list[StreamEvent], UpstreamError | None]:
    decoder = Ollama().decoder()
    events: list[StreamEvent] = []
    try:
        for read in reads:
            events += decoder.feed(read)
        events += decoder.close()
        decoder.close()  # raises what stood behind these
    except UpstreamError as error:
        return events, error
    return events, None


STARTED = Started(model="example:1b")

STREAMS: dict[str, tuple[list[StreamEvent], UpstreamErrorKind | None]] = {
    "text": (
        [STARTED, TextDelta("Grüß"), TextDelta(" dich 🌍"), Finished("stop", Usage(12, 5), "stop")],
        None,
    ),
    "thinking": (
        [
            STARTED,
            ReasoningDelta("Let me"),
            ReasoningDelta(" see."),
            TextDelta("Seven."),
            Finished("stop", Usage(12, 9), "stop"),
        ],
        None,
    ),
    "tool_calls": (
        [
            STARTED,
            ToolCallStarted(0, "", "weather"),
            ToolCallDelta(0, '{"city":"Berlin"}'),
            ToolCallStarted(1, "", "clock"),
            ToolCallDelta(1, "{}"),
            ToolCallStarted(2, "call_given", "weather"),
            ToolCallDelta(2, '{"city":"Rom"}'),
            Finished("tool_calls", Usage(30, 20), "stop"),
        ],
        None,
    ),
    "length": ([STARTED, TextDelta("One"), Finished("length", Usage(0, 1), "length")], None),
    "error_first": ([], "stream_error"),
    "error_after_text": ([STARTED, TextDelta("One")], "stream_error"),
    "cut": ([STARTED, TextDelta("One"), TextDelta(" two")], "truncated"),
    "cut_in_a_line": ([STARTED, TextDelta("One")], "truncated"),
    "no_final_newline": ([STARTED, TextDelta("One"), Finished("stop", Usage(1, 1), "stop")], None),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_says_the_same_in_every_cut(name: str) -> None:
    expected, kind = STREAMS[name]
    for reads in cuts.exhaustive((GOLDEN / f"{name}.ndjson").read_bytes()):
        events, error = fed(reads)
        assert events == expected
        assert (error.kind if error else None) == kind


LINES: dict[str, tuple[bytes, list[StreamEvent]]] = {
    "no usage": (b'{"done":true}', [Started(), Finished("stop", None, "")]),
    "a reason nobody knows": (
        b'{"done":true,"done_reason":"new"}',
        [Started(), Finished("stop", None, "new")],
    ),
    "text in the last line": (
        b'{"message":{"content":"x"},"done":true,"done_reason":"stop"}',
        [Started(), TextDelta("x"), Finished("stop", None, "stop")],
    ),
    "arguments as text, and none": (
        b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":"{\\"a\\":1}"}},{"function":{"name":"g"}}]},"done":true}',
        [
            Started(),
            ToolCallStarted(0, "", "f"),
            ToolCallDelta(0, '{"a":1}'),
            ToolCallStarted(1, "", "g"),
            ToolCallDelta(1, "{}"),
            Finished("tool_calls", None, ""),
        ],
    ),
}


@pytest.mark.parametrize("case", LINES)
def test_odd_lines(case: str) -> None:
    line, expected = LINES[case]
    assert fed([line + b"\n"]) == (expected, None)


@pytest.mark.parametrize("line", [b"<html>", b"[1]", b"{}}", b'{"a": 1}'])
def test_what_is_not_the_dialect_is_garbled(line: bytes) -> None:
    assert isinstance(fed([line + b"\n"])[1], UpstreamGarbled | UpstreamTruncated)


@pytest.mark.parametrize("line", [b"data: {}", b'{"message":', b'{"a":' * 100_000])
def test_half_a_document_is_truncated(line: bytes) -> None:
    assert isinstance(fed([line + b"\n"])[1], UpstreamTruncated)


def test_an_empty_body_is_truncated() -> None:
    assert isinstance(fed([b""])[1], UpstreamTruncated)


def test_an_error_in_the_stream_keeps_its_words() -> None:
    error = fed([(GOLDEN / "error_after_text.ndjson").read_bytes()])[1]
    assert error is not None
    assert error.message == "an error was encountered while running the model"


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (400, "example does not support tools", "bad_request"),
        (400, "the input length exceeds the context length", "context_length"),
        (401, "unauthorized", "bad_credentials"),
        (404, "model 'example' not found", "not_found"),
        (429, "you've reached your usage limit", "rate_limited"),
        (500, "llama runner process has terminated", "server_error"),
        (503, "server busy, please try again. maximum pending requests exceeded", "overloaded"),
    ],
)
def test_http_errors(status: int, words: str, kind: str) -> None:
    error = Ollama().error(status, {}, msgspec.json.encode({"error": words}))
    assert (error.kind, error.status) == (kind, status)


def test_sampling_penalties_and_the_limit_are_options() -> None:
    sampling = Sampling(7, 0.5, 0.9, ("x",), 3, 0.4, -0.5, 40)
    assert body(sampling=sampling)["options"] == {
        "num_predict": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "seed": 3, "stop": ["x"], "frequency_penalty": 0.4,
        "presence_penalty": -0.5,
    }  # fmt: skip


def test_no_maximum_is_no_num_predict_and_the_configurations_stands() -> None:
    wire = {"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}
    chat = Frontend().parse(msgspec.json.encode(wire), {})
    assert "options" not in msgspec.json.decode(Ollama().request(chat, "m").body)
    configured = Ollama(model_options={"num_predict": -1, "num_ctx": 99})
    assert msgspec.json.decode(configured.request(chat, "m").body)["options"] == {
        "num_predict": -1,
        "num_ctx": 99,
    }


EFFORTS: list[tuple[Reasoning | None, bool | str | None, bool | str | None]] = [
    (None, None, None), (None, "low", "low"), (Reasoning("none"), True, False), (Reasoning("minimal"), None, "low"),
    (Reasoning("low"), "high", "low"), (Reasoning("medium"), None, "medium"), (Reasoning("high"), None, "high"),
    (Reasoning("xhigh"), None, "max"), (Reasoning("max"), None, "max"), (Reasoning(budget=100), None, True),
    (Reasoning(budget=100), "low", "low"),
]  # fmt: skip


@pytest.mark.parametrize(("wish", "configured", "think"), EFFORTS)
def test_an_effort_is_how_hard_it_thinks(
    wish: Reasoning | None, configured: Any, think: bool | str | None
) -> None:
    assert body(Ollama(think=configured), reasoning=wish).get("think") == think


def test_a_tool_that_failed_says_so_in_its_result() -> None:
    results = [said("tool", text, tool_call_id="t", failed=True) for text in ("gone", "error 5")]
    assert [message["content"] for message in body(messages=(*results,))["messages"]] == [
        "Error: gone",
        "error 5",
    ]


def test_earlier_reasoning_comes_back() -> None:
    thoughts = (Thought("Let me see.", "sig"), Thought(redacted="x"), Thought("Seven."))
    sent = body(messages=(said("user", "x"), Message("assistant", (Text("7"),), thoughts=thoughts)))
    assert sent["messages"][1] == {"role": "assistant", "content": "7", "thinking": "Let me see.\n\nSeven."}
