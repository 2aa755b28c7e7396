"""Every recorded stream of a server that speaks Chat Completions says what the vendor's own SDK made of it,
in any cut."""

from collections.abc import Iterable

import pytest

from sluice.errors import UpstreamError
from sluice.model.events import (
    Finished,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Verbatim,
)
from sluice_plugins.openai.backend import OpenAI
from tests import corpus
from tests.wire import cuts

PROTOCOLS = ("openai-chat", "azure-openai")
STREAMS = corpus.params(*PROTOCOLS, where=lambda recorded: recorded.http_status == 200)
REFUSALS = corpus.params(*PROTOCOLS, where=lambda recorded: recorded.http_status != 200)

GLUED = {"cerebras/ai-cererebras-structured-output-tools.1.sse", "openai/llm-tools-streaming-variant-a.sse"}
"""Streams in which an index is used for a second call, or a name is repeated: the SDK glues the names to one
("pingping"), and its manifest says so. Here each call is told by its id, and a repeated name is still one
name."""

UNSEEN = {"groq/pydantic-ai-groq-model-web-search-tool-stream.sse": (5003, 359)}
"""Usage that the SDK does not see, as it stands in Groq's own place (x_groq) alone."""

ERRORS: dict[str, frozenset[str]] = {
    "ended_without_finish_reason": frozenset({"truncated", "garbled"}),
    "stream_error": frozenset({"stream_error"}),
}

HTTP_ERRORS = {
    "doubleword/rig-error-matrix-unknown-model-streaming.json": "not_found",
    "llamacpp/llamacpp-xllamacpp-context-overflow.json": "context_length",
    "mistral/rig-logprobs-rejection-matrix-streaming-ministral-3b.json": "bad_request",
    "mistral/rig-response-identity-edge-streaming-error-carries-the-correlation-id.json": "not_found",
    "venice/rig-error-envelope-nonexistent-model-streaming-error-preserves-status-and-body.json": "not_found",
}


class Answer:
    """What the events add up to."""

    def __init__(self, reads: Iterable[bytes], *, verbatim: bool = False) -> None:
        self.error: UpstreamError | None = None
        self.events: list[StreamEvent] = []
        self.raw = b""
        decoder = OpenAI().decoder(verbatim=verbatim)
        try:
            for read in reads:
                self._take(decoder.feed(read))
            self._take(decoder.close())
        except UpstreamError as error:
            self.error = error

    def _take(self, events: list[StreamEvent]) -> None:
        for event in events:
            if isinstance(event, Verbatim):
                assert event is events[-1]
                self.raw += event.data
            else:
                self.events.append(event)

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def reasoning(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, ReasoningDelta))

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        started = [event for event in self.events if isinstance(event, ToolCallStarted)]
        assert [event.index for event in started] == list(range(len(started)))
        pieces = [event for event in self.events if isinstance(event, ToolCallDelta)]
        return [
            (call.id, call.name, "".join(piece.arguments for piece in pieces if piece.index == call.index))
            for call in started
        ]

    @property
    def finished(self) -> Finished | None:
        last = self.events[-1] if self.events else None
        return last if isinstance(last, Finished) else None

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Answer)
        return (self.events, str(self.error)) == (other.events, str(other.error))


def expected_calls(expected: corpus.Expected) -> list[tuple[str, str, str]]:
    return [(call.id or "", call.name or "", call.arguments) for call in expected.tool_calls or []]


def succeeded(recorded: corpus.Recorded) -> bool:
    return recorded.outcome not in ERRORS or ends_without_a_reason(recorded)


def ends_without_a_reason(recorded: corpus.Recorded) -> bool:
    """A whole answer, behind whose content [DONE] stands but no finish reason; to the SDK it has none."""
    said = recorded.expected.text or recorded.expected.tool_calls
    return (
        recorded.outcome == "ended_without_finish_reason" and bool(said) and b"data: [DONE]" in recorded.body
    )


def finish(recorded: corpus.Recorded) -> str | int | None:
    """The finish reason that callers are told."""
    if ends_without_a_reason(recorded):
        return "tool_calls" if recorded.expected.tool_calls else "stop"
    return recorded.expected.finish_reason


@pytest.mark.parametrize("recorded", STREAMS)
def test_says_what_the_manifest_says(recorded: corpus.Recorded) -> None:
    answer = Answer([recorded.body])
    expected = recorded.expected
    assert answer.text == expected.text + (expected.refusal or "")
    assert answer.reasoning == (expected.reasoning or "")
    if recorded.file in GLUED:
        assert all(name * 2 == expected_calls(expected)[0][1] for _, name, _ in answer.calls)
        assert "".join(arguments for *_, arguments in answer.calls) == expected_calls(expected)[0][2]
    else:
        assert answer.calls == expected_calls(expected)
    if succeeded(recorded):
        assert answer.error is None
        assert [type(event) for event in answer.events].count(Started) == 1
        finished = answer.finished
        assert finished is not None
        assert (finished.reason, finished.native) == (finish(recorded), expected.finish_reason or "")
        usage = expected.usage and (expected.usage["input_tokens"], expected.usage["output_tokens"])
        assert (finished.usage and (finished.usage.input, finished.usage.output)) == UNSEEN.get(
            recorded.file, usage
        )
    else:
        assert answer.error is not None
        assert answer.error.kind in ERRORS[recorded.outcome]
        if recorded.outcome == "stream_error":
            assert recorded.sdk_error is not None
            assert answer.error.message == recorded.sdk_error["message"]


@pytest.mark.parametrize("recorded", STREAMS)
@pytest.mark.parametrize("verbatim", [False, True], ids=["events", "verbatim"])
def test_says_the_same_in_any_cut(recorded: corpus.Recorded, verbatim: bool) -> None:
    body = recorded.body
    whole = Answer([body], verbatim=verbatim)
    for reads in (cuts.bytewise(body), *(cuts.random(body, seed) for seed in range(5))):
        answer = Answer(reads, verbatim=verbatim)
        assert answer == whole
        assert answer.raw == whole.raw


@pytest.mark.parametrize("recorded", STREAMS)
def test_verbatim_frames_decode_to_the_same_content(recorded: corpus.Recorded) -> None:
    whole = Answer([recorded.body], verbatim=True)
    assert b"[DONE]" not in whole.raw
    again = Answer([whole.raw, b"data: [DONE]\n\n" if whole.finished else b""])
    strip = (Finished,)  # usage alone is withheld
    assert [e for e in again.events if not isinstance(e, strip)] == [
        e for e in whole.events if not isinstance(e, strip)
    ]
    assert (again.finished is None) == (whole.finished is None)


@pytest.mark.parametrize("recorded", REFUSALS)
def test_knows_what_an_error_answer_means(recorded: corpus.Recorded) -> None:
    error = OpenAI().error(recorded.http_status, {}, recorded.body)
    assert error.kind == HTTP_ERRORS[recorded.file]
    assert recorded.sdk_error is not None
    assert error.message in recorded.sdk_error["message"]
