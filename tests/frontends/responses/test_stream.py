"""Events -> streamed and whole Responses: read by a strict reader, and equal to each other."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from sluice.errors import RateLimited, UpstreamError
from sluice.frontends import Answer
from sluice.frontends.responses.dialect import Responses
from sluice.frontends.responses.request import chat_of
from sluice.model.chat import ChatRequest, Message, Text, Tool
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
    Working,
)
from tests.frontends.responses.reading import Reader, events_of

ANSWER = Answer("r1", "chat", 1_700_000_000)
TOOLS: list[dict[str, Any]] = [
    {
        "type": "custom",
        "name": "patch",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
    },
    {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "stop"}]},
    {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True},
]
REQUEST: dict[str, Any] = {
    "model": "chat",
    "input": "?",
    "stream": True,
    "tools": TOOLS,
    "instructions": "Be kind",
}
USAGE = Usage(20, 9, cached_input=5, reasoning=3, written_input=2)
DONE = Finished("stop", USAGE)
CALL = [ToolCallStarted(0, "call_1", "weather"), ToolCallDelta(0, '{"city":'), ToolCallDelta(0, '"Bonn"}')]

ANSWERS: dict[str, list[StreamEvent]] = {
    "text": [Started("x", "m"), TextDelta("Hel"), TextDelta(""), TextDelta("lo \u2028 \U0001f600"), DONE],
    "empty": [Started("x", "m"), DONE],
    "reasoned": [Started("x", "m"), ReasoningDelta("Hm"), ReasoningDelta("m"), TextDelta("Hi"), DONE],
    "sealed": [Started(), ReasoningDelta("Hm"), ReasoningBlock(0, "Hm", "sig=="), TextDelta("Hi"), *CALL, DONE],
    "redacted": [Started(), ReasoningBlock(0, redacted="data"), Working("other"), TextDelta("Hi"), DONE],
    "called": [Started("x", "m"), *CALL, Finished("tool_calls", USAGE)],
    "parallel": [
        Started(), TextDelta("Both"), ToolCallStarted(0, "a", "weather"), ToolCallStarted(1, "b", "weather"),
        ToolCallDelta(1, "{"), ToolCallDelta(0, '{"a":1}'), ToolCallDelta(1, "}"), TextDelta("Done"), DONE,
    ],
    "signed call": [Started(), ReasoningDelta("Hm"), ToolCallStarted(0, "g1", "weather", signature="g"), DONE],
    "custom": [
        Started(), ToolCallStarted(0, "c", "patch"), ToolCallDelta(0, '{"input": "*** Be'),
        ToolCallDelta(0, 'gin\\nA \\"q\\" \\ud83d'), ToolCallDelta(0, '\\ude00"}'), Finished("tool_calls"),
    ],
    "namespace": [Started(), ToolCallStarted(0, "n", "agents__stop"), ToolCallDelta(0, "{}"), Finished("tool_calls")],
    "cited": [
        Started(), Cited("https://a.example", "A", 0, 2), TextDelta("One"), Cited("https://b.example", "B", 1, 3),
        *CALL, TextDelta("Two"), Cited(title="doc", start=4, end=6), Cited("https://c.example"), DONE,
    ],
    "searched": [
        Started(), ToolCallStarted(0, "s", "web_search", "server"), ToolCallDelta(0, '{"query":"x"}'),
        ToolCallStarted(1, "t", "code_execution", "server"), ToolCallDelta(1, "{}"), TextDelta("Found"), DONE,
    ],
    "long": [Started(), TextDelta("Hel"), Finished("length", USAGE)],
    "long call": [Started(), *CALL[:2], Finished("length")],
    "filtered": [Started(), TextDelta("Hel"), Finished("content_filter")],
}  # fmt: skip


def chat(**fields: Any) -> ChatRequest:
    return chat_of({**REQUEST, **fields})


def streamed(batches: Sequence[Sequence[StreamEvent]], answer: Answer = ANSWER) -> bytes:
    encoder = Responses().encoder(chat(), answer)
    return b"".join([encoder.start(), *(encoder.encode(batch) for batch in batches)])


def whole(events: Sequence[StreamEvent], answer: Answer = ANSWER) -> dict[str, Any]:
    encoder = Responses().encoder(chat(stream=False), answer)
    said = [encoder.encode([event]) for event in events]
    assert not any(said[:-1])
    found: dict[str, Any] = json.loads(said[-1])
    return found


@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_and_a_whole_answer_say_the_same_however_the_events_come(name: str) -> None:
    events = ANSWERS[name]
    said = streamed([events])
    assert streamed([[event] for event in events]) == said
    for cut, _ in pairwise(range(len(events) + 1)):
        assert streamed([events[:cut], events[cut:]]) == said
    response = Reader().read(said).response
    assert response == whole(events)


def output(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = whole(ANSWERS[name])["output"]
    return found


def test_a_response_repeats_what_was_asked_for_and_says_what_it_cost() -> None:
    response = whole(ANSWERS["text"])
    assert response["id"] == "resp_r1"
    assert response["object"] == "response"
    assert response["model"] == "m"
    assert response["instructions"] == "Be kind"
    assert response["tools"] == TOOLS
    assert response["text"] == {"format": {"type": "text"}, "verbosity": "medium"}
    assert response["status"] == "completed"
    assert response["usage"] == {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 29,
    }


def test_the_models_own_name_is_hidden_where_the_alias_wants_it() -> None:
    assert whole(ANSWERS["redacted"])["model"] == "other"
    assert whole(ANSWERS["redacted"], Answer("r1", "chat", 1, reveal=False))["model"] == "chat"


def test_seals_of_reasoning_travel_in_reasoning_items() -> None:
    assert output("sealed")[0] == {
        "id": "rs_r1_0",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "Hm"}],
        "encrypted_content": "sluice:s:sig==",
    }
    assert output("redacted")[0]["encrypted_content"] == "sluice:r:data"
    assert [item["type"] for item in output("signed call")] == ["reasoning", "function_call"]
    assert output("signed call")[0]["encrypted_content"] == "sluice:c:g"


def test_seals_come_back_as_the_thoughts_that_they_were() -> None:
    again = chat_of(
        {
            "input": [
                *output("sealed"),
                {"type": "function_call_output", "call_id": "call_1", "output": "mild"},
            ]
        }
    )
    [said, result] = again.messages
    assert [(thought.text, thought.signature) for thought in said.thoughts] == [("Hm", "sig==")]
    assert said.parts == (Text("Hi"),)
    assert said.tool_calls[0].arguments == '{"city":"Bonn"}'
    assert result == Message("tool", (Text("mild"),), tool_call_id="call_1")
    signed = chat_of({"input": output("signed call")}).messages[0]
    assert signed.tool_calls[0].signature == "g"
    assert chat_of({"input": [*output("redacted")]}).messages[0].thoughts[0].redacted == "data"


def test_a_custom_tools_call_has_its_input_as_text() -> None:
    [item] = output("custom")
    assert (item["type"], item["name"], item["input"]) == (
        "custom_tool_call",
        "patch",
        '*** Begin\nA "q" \U0001f600',
    )


def test_a_call_of_a_tool_in_a_namespace_names_both() -> None:
    [item] = output("namespace")
    assert (item["type"], item["name"], item["namespace"]) == ("function_call", "stop", "agents")


def test_sources_are_annotations_of_the_text_that_they_stand_in() -> None:
    first, _, second = output("cited")
    assert [(a["url"], a["start_index"], a["end_index"]) for a in first["content"][0]["annotations"]] == [
        ("https://a.example", 0, 2),
        ("https://b.example", 1, 3),
    ]
    [document, site] = second["content"][0]["annotations"]
    assert document == {"type": "file_citation", "file_id": "", "filename": "doc", "index": 1}
    assert (site["start_index"], site["end_index"]) == (3, 3)


def test_what_was_not_finished_is_incomplete() -> None:
    response = whole(ANSWERS["long"])
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"
    assert whole(ANSWERS["filtered"])["incomplete_details"] == {"reason": "content_filter"}
    assert whole(ANSWERS["long call"])["output"][0]["arguments"] == '{"city":'


@pytest.mark.parametrize("before", [[], [Started("x", "m"), TextDelta("Hel")]])
def test_a_stream_that_breaks_says_so_once_and_for_all_clients(before: list[StreamEvent]) -> None:
    encoder = Responses().encoder(chat(), ANSWER)
    body = encoder.encode(before) + encoder.fail(UpstreamError("truncated", "cut"))
    reader = Reader().read(body)
    assert reader.over == "failed"
    assert reader.error is not None
    assert (reader.error["code"], reader.error["message"]) == ("truncated", "cut")
    assert reader.response is not None
    assert reader.response["error"] == {"code": "truncated", "message": "cut"}


def test_a_continued_answer_goes_on_in_the_same_item() -> None:
    encoder = Responses().encoder(chat(), ANSWER)
    body = encoder.encode([Started("x", "m"), TextDelta("Hel")])
    encoder.resume(Started("y", "other"))
    body += encoder.heartbeat() + encoder.encode([TextDelta("lo"), DONE])
    reader = Reader().read(body)
    assert reader.response is not None
    assert reader.response["output"][0]["content"][0]["text"] == "Hello"
    assert reader.response["model"] == "other"


def test_nothing_is_said_before_the_model_is_and_errors_have_openais_form() -> None:
    assert Responses().encoder(chat(), ANSWER).start() == b""
    error = Responses().error(RateLimited(2, scope="key", resource="requests"), "r1")
    assert error["error"]["code"] == "rate_limit_exceeded"


def test_a_request_whose_messages_were_changed_still_has_its_tools_told() -> None:
    changed = ChatRequest(
        "responses", "chat", (), tools=(Tool("patch", custom=True), Tool("f", "d", {"type": "object"}))
    )
    events = events_of(Responses().encoder(changed, ANSWER).encode([Started(), TextDelta("x")]))
    assert [tool["type"] for tool in events[0]["response"]["tools"]] == ["custom", "function"]
