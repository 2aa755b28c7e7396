"""Decodes the formats that models other than Claude have in InvokeModelWithResponseStream: Nova, Titan,
Claude's text completions, Llama, Mistral.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html

Nova's events are Converse's, each the value of the only key of an object. For the others each event has the
next text, and the last one the stop reason. Usage is in `amazon-bedrock-invocationMetrics` of the last event,
for Titan and Llama also in fields of their own.
"""

import msgspec

from sluice.errors import UpstreamTruncated
from sluice.model.events import Finished, FinishReason, Started, StreamEvent, TextDelta, Usage
from sluice.wire.lenient import encoded, parse, read
from sluice_plugins.bedrock.payload import EVENTS
from sluice_plugins.bedrock.stream import ConverseDecoder

REASONS: dict[str, FinishReason] = {
    "LENGTH": "length", "length": "length", "max_tokens": "length",
    "CONTENT_FILTERED": "content_filter", "RAG_QUERY_WHEN_RAG_DISABLED": "content_filter",
}  # fmt: skip
"""Stop reasons of older models; any other reason is `stop`."""


class _Metrics(msgspec.Struct):
    inputTokenCount: int | None = None
    outputTokenCount: int | None = None


class _Output(msgspec.Struct):
    text: str | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct, rename={"metrics": "amazon-bedrock-invocationMetrics"}):
    """An event of Titan (outputText), Claude's text completions (completion), Llama (generation) or Mistral
    (outputs)."""

    outputText: str | None = None
    completionReason: str | None = None
    completion: str | None = None
    generation: str | None = None
    stop_reason: str | None = None
    stop: str | None = None
    outputs: list[_Output] | None = None
    inputTextTokenCount: int | None = None
    totalOutputTextTokenCount: int | None = None
    prompt_token_count: int | None = None
    generation_token_count: int | None = None
    metrics: _Metrics | None = None


_TEXTS = frozenset({"outputText", "completion", "generation", "outputs"})


class NativeDecoder(ConverseDecoder):
    """Decodes one answer; `take` gets the model's events one by one, without the surrounding chunks."""

    __slots__ = ("_in", "_native", "_out", "_stop_text")

    def __init__(self, *, strict: bool = False, max_event: int, keep_stop: bool = False) -> None:
        super().__init__(strict=strict, max_event=max_event, keep_stop=keep_stop)
        self._native = ""  # the stop reason of an older model
        self._stop_text = ""
        self._in: int | None = None
        self._out: int | None = None

    @staticmethod
    def knows(event: bytes) -> bool:
        """Returns whether this is an event of one of these formats."""
        try:
            value = parse(event)
        except (ValueError, RecursionError):
            return False
        return type(value) is dict and not (EVENTS | _TEXTS).isdisjoint(value)

    @property
    def reported(self) -> Usage | None:
        if self._in is None and self._out is None:
            return super().reported
        return Usage(self._in or 0, self._out or 0)

    def take(self, event: bytes) -> list[StreamEvent]:
        """Returns the gateway's events for one event of the model. Raises UpstreamError."""
        events: list[StreamEvent] = []
        try:
            value = parse(event)
        except (ValueError, RecursionError):
            value = None
        named = EVENTS.intersection(value) if type(value) is dict else frozenset()
        if self._done:
            return events
        if named:
            for name in named:
                self._event(name, encoded(value[name]), events)
        elif type(value) is dict and not _TEXTS.isdisjoint(value):
            self._older(event, events)
        else:
            self.skipped += 1
        return events

    def _older(self, event: bytes, events: list[StreamEvent]) -> None:
        value, odd = read(event, _Event)
        self.skipped_fields += odd
        if not self._started:
            self._started = True
            events.append(Started())
        outputs = value.outputs or []
        text = (value.outputText or value.completion or value.generation or "") + "".join(
            [o.text or "" for o in outputs]
        )
        if text:
            events.append(TextDelta(text))
        metrics = value.metrics or _Metrics()
        self._in = _first(
            metrics.inputTokenCount, value.inputTextTokenCount, value.prompt_token_count, self._in
        )
        self._out = _first(
            metrics.outputTokenCount, value.totalOutputTextTokenCount, value.generation_token_count, self._out
        )
        reasons = [value.completionReason, value.stop_reason, *(output.stop_reason for output in outputs)]
        self._native = next((reason for reason in reasons if reason), self._native)
        self._stop_text = value.stop or self._stop_text

    def _end(self, events: list[StreamEvent]) -> None:
        if self._stopped:
            return super()._end(events)
        if not self._native:
            raise UpstreamTruncated
        self._done = True
        reason = REASONS.get(self._native, "stop")
        events.append(Finished(reason, self.reported, self._native, stop_sequence=self._stop_text))
        return None


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)
