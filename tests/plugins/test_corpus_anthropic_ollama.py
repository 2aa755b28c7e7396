"""Every recorded stream of Anthropic and Ollama says what the vendors' own SDKs made of it, however the bytes
are cut.

The manifest's usage holds the vendor's own numbers. Anthropic's input_tokens leaves out what its cache was
asked for, so our input is input_tokens + cache_read_input_tokens + cache_creation_input_tokens; Ollama's
counts are taken as they are.
"""

import json
from collections.abc import Iterator

import pytest

from sluice.backends.protocol import Backend
from sluice.errors import UpstreamErrorKind
from sluice.model.events import (
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from sluice_plugins.anthropic.backend import Anthropic
from sluice_plugins.ollama.backend import Ollama
from tests import corpus
from tests.wire import cuts

BACKENDS: dict[str, Backend] = {"anthropic": Anthropic(), "ollama": Ollama()}

REASONS: dict[str | None, FinishReason] = {
    "end_turn": "stop", "stop_sequence": "stop", "stop": "stop",
    "max_tokens": "length", "length": "length",
    "tool_use": "tool_calls", "refusal": "content_filter",
}  # fmt: skip

HTTP_ERRORS: dict[int, UpstreamErrorKind] = {401: "bad_credentials", 404: "not_found"}


def ways(body: bytes) -> Iterator[list[bytes]]:
    yield [body]
    yield cuts.bytewise(body)
    yield from (cuts.random(body, seed) for seed in range(3))


def decoded(backend: Backend, reads: list[bytes]) -> list[StreamEvent]:
    decoder = backend.decoder()
    events = [event for read in reads for event in decoder.feed(read)]
    return events + decoder.close()


def whole_calls(events: list[StreamEvent]) -> list[tuple[str, str, str, str]]:
    arguments: dict[int, str] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            arguments[event.index] = arguments.get(event.index, "") + event.arguments
    started = [event for event in events if isinstance(event, ToolCallStarted)]
    assert [call.index for call in started] == list(range(len(started)))
    return [(call.id, call.name, call.kind, arguments.get(call.index, "")) for call in started]


def same_json(one: str, other: str) -> bool:
    try:
        return bool(json.loads(one or "{}") == json.loads(other or "{}"))
    except ValueError:  # cut short by max_tokens
        return one == other


@pytest.mark.parametrize("recorded", corpus.params("anthropic", "ollama"))
def test_every_recorded_stream_says_what_its_manifest_says(recorded: corpus.Recorded) -> None:
    backend = BACKENDS[recorded.protocol]
    if recorded.outcome == "http_error":
        error = backend.error(recorded.http_status, {}, recorded.body)
        assert error.kind == HTTP_ERRORS[recorded.http_status]
        assert error.status == recorded.http_status
        return
    for reads in ways(recorded.body):
        check(recorded, decoded(backend, reads))


def check(recorded: corpus.Recorded, events: list[StreamEvent]) -> None:
    expected = recorded.expected
    assert isinstance(events[0], Started)
    assert sum(isinstance(event, Started) for event in events) == 1
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert sum(isinstance(event, Finished) for event in events) == 1

    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == expected.text
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == (
        expected.reasoning or ""
    )
    check_calls(expected.tool_calls or [], whole_calls(events))

    assert finished.native == expected.finish_reason
    function_called = any(isinstance(event, ToolCallStarted) and event.kind == "function" for event in events)
    ollama_calls = recorded.protocol == "ollama" and function_called
    assert finished.reason == ("tool_calls" if ollama_calls else REASONS[expected.finish_reason])
    check_usage(expected.usage or {}, finished)


def check_calls(expected: list[corpus.ToolCall], calls: list[tuple[str, str, str, str]]) -> None:
    assert len(calls) == len(expected)
    for wanted, (identity, name, kind, arguments) in zip(expected, calls, strict=True):
        assert identity == wanted.id if wanted.id else identity
        assert name == wanted.name
        assert kind == ("function" if wanted.kind in (None, "tool_use") else "server")
        assert same_json(arguments, wanted.arguments)


def check_usage(expected: dict[str, int | None], finished: Finished) -> None:
    assert finished.usage is not None
    cache_read = expected.get("cache_read_input_tokens") or 0
    cache_written = expected.get("cache_creation_input_tokens") or 0
    assert finished.usage.input == (expected["input_tokens"] or 0) + cache_read + cache_written
    assert finished.usage.output == expected["output_tokens"]
    assert finished.usage.cached_input == cache_read
