"""Every recorded stream of Bedrock says what its manifest says, however the bytes are cut."""

import json
from collections.abc import Iterator

import pytest

from sluice.backends.protocol import Decoder
from sluice.errors import UpstreamError
from sluice.model.events import (
    Finished,
    FinishReason,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from sluice_plugins.bedrock.backend import Bedrock
from tests import corpus
from tests.wire import cuts

REASONS: dict[str, FinishReason] = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "LENGTH": "length", "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
}  # fmt: skip


SERVED = frozenset({"nova_code_interpreter"})
"""Tools that Bedrock runs itself: the manifest, as boto3, does not tell them from the client's."""


def ways(body: bytes) -> Iterator[list[bytes]]:
    yield [body]
    yield cuts.bytewise(body)
    yield from (cuts.random(body, seed) for seed in range(3))


def decoded(decoder: Decoder, reads: list[bytes]) -> tuple[list[StreamEvent], UpstreamError | None]:
    events: list[StreamEvent] = []
    try:
        for read in reads:
            events += decoder.feed(read)
        events += decoder.close()
    except UpstreamError as error:
        return events, error
    assert (decoder.skipped, decoder.skipped_fields) == (0, 0)
    return events, None


@pytest.mark.parametrize("recorded", corpus.params("bedrock-converse"))
def test_every_recorded_stream_says_what_its_manifest_says(recorded: corpus.Recorded) -> None:
    for reads in ways(recorded.body):
        check(recorded, *decoded(Bedrock(region="us-east-1").decoder(), reads))


@pytest.mark.parametrize("recorded", corpus.params("bedrock-converse"))
def test_every_recorded_stream_that_is_cut_before_its_stop_reason_is_an_error(
    recorded: corpus.Recorded,
) -> None:
    stop = recorded.body.rindex(b"messageStop")
    for end in range(0, stop, 97):
        _, error = decoded(Bedrock(region="us-east-1").decoder(), [recorded.body[:end]])
        assert error is not None
        assert error.kind == "truncated"


def check(recorded: corpus.Recorded, events: list[StreamEvent], error: UpstreamError | None) -> None:
    expected = recorded.expected
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == expected.text
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == (
        expected.reasoning or ""
    )
    if recorded.outcome == "ended_without_finish_reason":
        assert error is not None
        assert error.kind == "truncated"
        return
    assert error is None
    finished = events[-1]
    assert isinstance(finished, Finished)
    check_calls(expected.tool_calls or [], events)
    assert finished.native == expected.finish_reason
    assert finished.reason == REASONS[finished.native]
    usage = expected.usage
    assert usage is not None
    assert finished.usage is not None
    assert (finished.usage.input, finished.usage.output) == (usage["input_tokens"], usage["output_tokens"])
    assert finished.usage.tokens == usage.get("total_tokens", finished.usage.tokens)


def check_calls(expected: list[corpus.ToolCall], events: list[StreamEvent]) -> None:
    started = [event for event in events if isinstance(event, ToolCallStarted)]
    assert {call.name for call in started if call.kind == "server"} == SERVED & {
        call.name for call in started
    }
    assert [(call.index, call.id, call.name) for call in started] == [
        (n, c.id, c.name) for n, c in enumerate(expected)
    ]
    for call, wanted in zip(started, expected, strict=True):
        told = "".join(e.arguments for e in events if isinstance(e, ToolCallDelta) and e.index == call.index)
        assert json.loads(told) == json.loads(wanted.arguments or "{}")
