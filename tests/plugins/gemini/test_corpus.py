"""Every recorded stream of Gemini says what its manifest says, however the bytes are cut."""

import json
from collections.abc import Iterator

import pytest

from sluice.errors import UpstreamError, UpstreamErrorKind
from sluice.model.events import (
    Finished,
    FinishReason,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from sluice_plugins.gemini.backend import Gemini
from tests import corpus
from tests.wire import cuts

HTTP_ERRORS: dict[int, tuple[UpstreamErrorKind, ...]] = {
    400: ("bad_request", "bad_credentials"),
    404: ("not_found",),
}
ENDS: dict[str, UpstreamErrorKind] = {
    "prompt_blocked": "content_policy",
    "malformed_but_parsable": "truncated",
    "stream_error": "stream_error",
}
REASONS: dict[str, FinishReason] = {
    "STOP": "stop", "1": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter", "RECITATION": "content_filter",
}  # fmt: skip


def ways(body: bytes) -> Iterator[list[bytes]]:
    yield [body]
    yield cuts.bytewise(body)
    yield from (cuts.random(body, seed) for seed in range(3))


def decoded(reads: list[bytes]) -> tuple[list[StreamEvent], UpstreamError | None]:
    decoder = Gemini().decoder()
    events: list[StreamEvent] = []
    try:
        for read in reads:
            events += decoder.feed(read)
        events += decoder.close()
        decoder.close()  # raises what stood behind these
    except UpstreamError as error:
        return events, error
    return events, None


@pytest.mark.parametrize("recorded", corpus.params("gemini"))
def test_every_recorded_stream_says_what_its_manifest_says(recorded: corpus.Recorded) -> None:
    if recorded.outcome == "http_error":
        error = Gemini().error(recorded.http_status, {}, recorded.body)
        assert error.kind in HTTP_ERRORS[recorded.http_status]
        return
    for reads in ways(recorded.body):
        check(recorded, *decoded(reads))


def check(recorded: corpus.Recorded, events: list[StreamEvent], error: UpstreamError | None) -> None:
    expected = recorded.expected
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == expected.text
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == (
        expected.reasoning or ""
    )
    if recorded.outcome in ENDS:
        assert error is not None
        assert error.kind == ENDS[recorded.outcome]
        return
    assert error is None
    finished = events[-1]
    assert isinstance(finished, Finished)
    check_calls(expected.tool_calls or [], events)
    assert finished.native == str(expected.finish_reason)
    assert finished.reason == ("tool_calls" if expected.tool_calls else REASONS[finished.native])
    usage = expected.usage
    if usage is None:
        assert finished.usage is None
        return
    assert finished.usage is not None
    assert finished.usage.tokens == usage["total_tokens"]
    assert finished.usage.input >= (usage["input_tokens"] or 0)
    assert finished.usage.reasoning in (
        usage.get("thoughts_tokens") or 0,
        finished.usage.tokens - sum_of(usage),
    )
    assert finished.usage.output == (usage.get("output_tokens") or 0) + finished.usage.reasoning


def sum_of(usage: dict[str, int | None]) -> int:
    return (usage["input_tokens"] or 0) + (usage.get("output_tokens") or 0)


def check_calls(expected: list[corpus.ToolCall], events: list[StreamEvent]) -> None:
    """The SDK shows a call that comes in pieces as many: those without a name are pieces of the one
    before."""
    named = [call for call in expected if call.name]
    started = [event for event in events if isinstance(event, ToolCallStarted)]
    assert [(call.index, call.name) for call in started] == [(n, call.name) for n, call in enumerate(named)]
    arguments = [
        "".join(e.arguments for e in events if isinstance(e, ToolCallDelta) and e.index == c.index)
        for c in started
    ]
    for told, wanted in zip(arguments, named, strict=True):
        assert isinstance(json.loads(told), dict)
        if wanted.arguments != "null":
            assert json.loads(told) == json.loads(wanted.arguments)
