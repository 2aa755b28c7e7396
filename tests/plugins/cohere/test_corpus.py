"""Every recorded stream of Cohere says what its manifest says, however the bytes are cut."""

import json
from collections.abc import Iterator

import pytest

from sluice.model.events import (
    Cited,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from sluice_plugins.cohere.backend import Cohere
from tests import corpus
from tests.wire import cuts

REASONS: dict[str, FinishReason] = {"COMPLETE": "stop", "MAX_TOKENS": "length", "TOOL_CALL": "tool_calls"}


def ways(body: bytes) -> Iterator[list[bytes]]:
    yield [body]
    yield cuts.bytewise(body)
    yield from (cuts.random(body, seed) for seed in range(3))


def decoded(reads: list[bytes], *, billed: bool = False) -> list[StreamEvent]:
    decoder = Cohere(billed=billed).decoder()
    events = [event for read in reads for event in decoder.feed(read)] + decoder.close()
    assert (decoder.skipped, decoder.skipped_fields) == (0, 0)
    return events


@pytest.mark.parametrize("recorded", corpus.params("cohere-v2"))
def test_every_recorded_stream_says_what_its_manifest_says(recorded: corpus.Recorded) -> None:
    for reads in ways(recorded.body):
        check(recorded, decoded(reads))
    finished = decoded([recorded.body], billed=True)[-1]
    assert isinstance(finished, Finished)
    assert finished.usage is not None
    usage = recorded.expected.usage or {}
    assert (finished.usage.input, finished.usage.output) == (usage["billed_input"], usage["billed_output"])


def check(recorded: corpus.Recorded, events: list[StreamEvent]) -> None:
    expected = recorded.expected
    assert isinstance(events[0], Started)
    assert events[0].id
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == expected.text
    thought = (expected.reasoning or "") + (expected.tool_plan or "")
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == thought
    finished = events[-1]
    assert isinstance(finished, Finished)
    check_calls(expected.tool_calls or [], events)
    assert (finished.native, finished.reason) == (expected.finish_reason, REASONS[finished.native])
    assert finished.usage is not None
    usage = expected.usage or {}
    assert (finished.usage.input, finished.usage.output) == (usage["input_tokens"], usage["output_tokens"])


def check_calls(expected: list[corpus.ToolCall], events: list[StreamEvent]) -> None:
    started = [event for event in events if isinstance(event, ToolCallStarted)]
    assert [(call.index, call.id, call.name) for call in started] == [
        (n, c.id, c.name) for n, c in enumerate(expected)
    ]
    for call, wanted in zip(started, expected, strict=True):
        told = "".join(e.arguments for e in events if isinstance(e, ToolCallDelta) and e.index == call.index)
        assert json.loads(told) == json.loads(wanted.arguments or "{}")


@pytest.mark.parametrize(
    "recorded", corpus.params("cohere-v2", where=lambda entry: b"citation-start" in entry.body)
)
def test_citations_stand_for_the_words_that_they_quote(recorded: corpus.Recorded) -> None:
    said = [
        json.loads(line[6:])
        for line in recorded.body.splitlines()
        if line.startswith(b'data: {"type":"citation-start"')
    ]
    cited = [event for event in decoded([recorded.body]) if isinstance(event, Cited)]
    quoted = [recorded.expected.text[event.start : event.end] for event in cited]
    assert quoted == [one["delta"]["message"]["citations"]["text"] for one in said]
    assert all(event.title for event in cited)
