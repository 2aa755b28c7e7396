"""Every recorded stream of the Responses API says what its manifest says, however the bytes are cut."""

from collections.abc import Iterator

import pytest

from sluice.errors import UpstreamError
from sluice.model.events import (
    Finished,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Verbatim,
)
from sluice_plugins.responses.backend import Responses
from tests import corpus
from tests.wire import cuts


def ways(body: bytes) -> Iterator[list[bytes]]:
    yield [body]
    yield cuts.bytewise(body)
    yield from (cuts.random(body, seed) for seed in range(3))


def decoded(reads: list[bytes], *, verbatim: bool = False) -> tuple[list[StreamEvent], UpstreamError | None]:
    decoder = Responses().decoder(verbatim=verbatim)
    events: list[StreamEvent] = []
    try:
        for read in reads:
            events += decoder.feed(read)
        events += decoder.close()
    except UpstreamError as error:
        return events, error
    return events, None


@pytest.mark.parametrize("recorded", corpus.params("openai-responses"))
def test_every_recorded_stream_says_what_its_manifest_says(recorded: corpus.Recorded) -> None:
    for reads in ways(recorded.body):
        events, error = decoded(reads)
        assert error is None
        check(recorded, events)


def check(recorded: corpus.Recorded, events: list[StreamEvent]) -> None:
    expected = recorded.expected
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == expected.text
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == (
        expected.reasoning or ""
    )
    wanted = expected.tool_calls or []
    started = [event for event in events if isinstance(event, ToolCallStarted) and event.kind == "function"]
    assert [(call.id, call.name) for call in started] == [(call.id, call.name) for call in wanted]
    for call, want in zip(started, wanted, strict=True):
        pieces = [
            event.arguments
            for event in events
            if isinstance(event, ToolCallDelta) and event.index == call.index
        ]
        assert "".join(pieces) == want.arguments
    finished = events[-1]
    assert isinstance(finished, Finished)
    ends = {"incomplete": "length", "completed": "tool_calls" if wanted else "stop"}
    assert finished.reason == ends[str(expected.finish_reason)]
    assert finished.usage is not None
    assert expected.usage is not None
    assert (finished.usage.input, finished.usage.output) == (
        expected.usage["input_tokens"],
        expected.usage["output_tokens"],
    )


@pytest.mark.parametrize("recorded", corpus.params("openai-responses"))
def test_frames_are_passed_on_as_they_came(recorded: corpus.Recorded) -> None:
    body = recorded.body.replace(b"\r\n", b"\n")
    for reads in ways(recorded.body):
        events, _ = decoded(reads, verbatim=True)
        passed = b"".join(event.data for event in events if isinstance(event, Verbatim))
        assert body.startswith(passed)
        assert body[len(passed) :].strip(b"\n") in (b"", b"data: [DONE]")
