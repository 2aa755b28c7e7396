"""Forwards answers of the Messages API to callers of the same dialect: frames unmodified, and the events that
they mean.

A frame is rewritten only where an SDK would misread it:
  - the `event:` line is missing or names another type (SDKs rely on it);
  - a field has a wrong type, or a surrogate pair is split over two deltas;
  - the type of a delta or a block is missing; a block's index is missing, negative or beyond the newest block; the id of a
    tool call is missing or not unique in the conversation;
  - the stop reason is `end_turn` though a tool of the client was called;
  - a delta comes before any block has begun: a content_block_start is inserted;
  - a message begins without content or usage, or ends without usage or a stop reason, or its last usage has zeros for the
    input counts that its first usage had.
Not forwarded are errors (the gateway reports them in its own words), a proxy's `[DONE]`, malformed data,
comments, and anything after the end. Events of unknown types are forwarded. A whole message in place of a
stream makes only events, which the encoder writes as a stream.

A whole answer (`WholeMessageDecoder`) is forwarded unmodified, too, except for ids and the stop reason.
"""

from collections.abc import Mapping
from typing import Any

from sluice.errors import UpstreamError
from sluice.model.events import Finished, StreamEvent, TextDelta, Verbatim
from sluice.wire.call_ids import new_call_id
from sluice.wire.jsontext import value_of
from sluice.wire.lenient import encoded, parse_again, whole_characters
from sluice.wire.sse import END, Event, named_event
from sluice_plugins.anthropic.event import TYPES, Message, ReportedUsage
from sluice_plugins.anthropic.stream import OF_PROMPT, MessagesDecoder
from sluice_plugins.decoding import MAX_EVENT
from sluice_plugins.documents import WholeOrStream

Values = dict[str, Any]
_OPENINGS: Mapping[str, Values] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "signature": {"type": "thinking", "thinking": "", "signature": ""},
}
"""The content_block to insert before a first delta, by the field that the delta has."""


class PassingDecoder(MessagesDecoder):
    """Decodes one message, and returns its frames after the events of each read."""

    __slots__ = ("_document_only", "_edits", "_fresh", "_passed")
    _verbatim = True

    def __init__(
        self,
        *,
        strict: bool = False,
        max_event: int = MAX_EVENT,
        keep_stop: bool = False,
        usage_is_end: bool = False,
    ) -> None:
        super().__init__(strict=strict, max_event=max_event, keep_stop=keep_stop, usage_is_end=usage_is_end)
        self._passed: list[bytes] = []
        self._edits: Values = {}  # new values of fields of the current event, and of its objects ("content_block" …)
        self._fresh: list[tuple[int, str]] = []  # generated ids of calls, with their content blocks
        self._document_only = False

    def _walk(self, data: bytes, events: list[StreamEvent]) -> None:
        if (texts := self._texts(data)) is not None:
            events += texts
            return
        body = self._body.complete(data)
        try:
            as_it_came = self._frames(body, events)
        finally:
            if passed := b"".join(self._passed):
                self._passed.clear()
                events.append(Verbatim(passed))
        if as_it_came and events and type(events[-1]) is Verbatim:
            events[-1] = Verbatim(body)

    def _frames(self, body: bytes, events: list[StreamEvent]) -> bool:
        """Decode complete frames. Returns whether all of them can be forwarded unmodified."""
        as_it_came = True
        for raw in body.split(END):
            if not raw:
                continue
            if self._done:
                return False
            frame = named_event(raw)
            if frame is None:
                as_it_came = False
                for odd in self._stream.events(raw):
                    self._take_and_pass(odd, events)
                    if self._done:
                        break
            elif not self._take_and_pass(frame, events, raw + END):
                as_it_came = False
        return as_it_came

    def _end(self, events: list[StreamEvent]) -> None:
        try:
            super()._end(events)
        finally:
            if passed := b"".join(self._passed):
                self._passed.clear()
                events.append(Verbatim(passed))

    # --- one frame

    def _take_last(self, frame: Event, events: list[StreamEvent]) -> None:
        self._take_and_pass(frame, events)

    def _take_and_pass(self, frame: Event, events: list[StreamEvent], raw: bytes = b"") -> bool:
        """Decode and forward a frame. `raw`: its bytes, if they are one `event: ` and one `data: ` line, else
        b"". Returns whether exactly these bytes are forwarded."""
        passed = self._passed
        before = len(passed)
        self._edits = {}
        self._values = None
        self._kind = ""
        self._take(frame, events)
        if self._document_only or not self._kind:
            return False
        edited = bool(self._edits) or self._values is not None
        if raw and not edited and frame.event == self._kind:
            passed.append(raw)
            return len(passed) == before + 1
        payload = frame.data if b"\n" not in frame.data else frame.data.replace(b"\n", b" ")
        if edited:
            payload = encoded(
                _edited(self._values if self._values is not None else parse_again(frame.data), self._edits)
            )
        passed.append(b"event: %b\ndata: %b\n\n" % (self._kind.encode(), payload))
        return False

    def _whole(self, document: bytes, events: list[StreamEvent]) -> None:
        self._document_only = True
        super()._whole(document, events)

    def _indexed(self, event: Any) -> None:
        newest = self._block_index
        given = event.index
        super()._indexed(event)
        if event.type == "content_block_delta" and newest < 0 and event.delta is not None:
            self._open(event.delta)
        if event.type != "content_block_start" and not 0 <= event.index <= newest:
            event.index = max(newest, 0)
        if event.index != given:
            self._edits["index"] = event.index

    def _open(self, delta: Any) -> None:
        """Begin the first block, for which the upstream sent no content_block_start."""
        block = next((_OPENINGS[name] for name in _OPENINGS if getattr(delta, name)), None)
        if block is not None:
            self._block_index = 0
            payload = encoded({"type": "content_block_start", "index": 0, "content_block": block})
            self._passed.append(b"event: content_block_start\ndata: %b\n\n" % payload)

    def _delta(self, block: int, delta: Any, events: list[StreamEvent]) -> None:
        super()._delta(block, delta, events)
        if not delta.type and self._kind == "content_block_delta":
            kind = next((kind for name, kind in TYPES.items() if getattr(delta, name)), "text_delta")
            self._edits["delta"] = {"type": kind}

    def _block(self, index: int, block: Any, events: list[StreamEvent]) -> None:
        super()._block(index, block, events)
        if not block.type:
            self._edits["content_block"] = {"type": "thinking" if block.thinking else "text"}

    def _id(self, given: str) -> str:
        found = super()._id(given)
        if not found:
            found = new_call_id()
            self._fresh.append((self._block_index, found))
            self._edits["content_block"] = {"id": found}
        return found

    def _start(self, message: Message, events: list[StreamEvent]) -> None:
        super()._start(message, events)
        if self._kind != "message_start":  # the encoder knows the answer's id, and writes a message_start
            return
        used = message.usage or ReportedUsage()
        edits: Values = {}
        if type(message.content) is not list:
            edits["content"] = []
        if used.input_tokens is None or used.output_tokens is None:
            edits["usage"] = {
                "input_tokens": used.input_tokens or 0,
                "output_tokens": used.output_tokens or 0,
            }
        if edits:
            self._edits["message"] = edits

    def _count(self, usage: ReportedUsage | None) -> None:
        super()._count(usage)
        known = self._usage
        if self._kind != "message_delta":
            return
        if usage is None or usage.output_tokens is None:
            self._edits["usage"] = {
                "output_tokens": (known.output_tokens if known is not None else None) or 0
            }
        if usage is not None and usage is not known:
            zeros = [name for name in OF_PROMPT if getattr(usage, name) == 0 and getattr(known, name)]
            if zeros:  # SDKs let later counts replace earlier ones
                counts = {name: getattr(known, name) for name in zeros}
                self._edits["usage"] = self._edits.get("usage", {}) | counts

    def _stop(self, delta: Any) -> None:
        super()._stop(delta)
        if not delta.stop_reason:
            told = self._stop_reason or ("tool_use" if self._called else "end_turn")
            self._edits["delta"] = {"stop_reason": told}
        elif delta.stop_reason == "end_turn" and self._called and not self._keep_stop:
            self._edits["delta"] = {"stop_reason": "tool_use"}

    def _end_halves(self, events: list[StreamEvent], index: int | None = None) -> None:
        if self._halves is None:
            return
        before = len(events)
        super()._end_halves(events, index)
        for event in events[before:]:
            if isinstance(event, TextDelta):
                block = self._block_index if index is None else index
                delta = {"type": "text_delta", "text": event.text}
                payload = encoded({"type": "content_block_delta", "index": block, "delta": delta})
                self._passed.append(b"event: content_block_delta\ndata: %b\n\n" % payload)

    # --- a whole message

    def message(self, document: bytes, events: list[StreamEvent]) -> None:
        """Append the events of a whole message. Raises UpstreamError."""
        self._whole(document, events)

    def message_edits(self, message: Values, finished: Finished) -> Values:
        """Returns the fields of a whole message to change, with their new values."""
        edits: Values = {}
        if finished.native == "end_turn" and finished.reason == "tool_calls":
            edits["stop_reason"] = "tool_use"
        if self._fresh and isinstance(content := message.get("content"), list):
            content = list(content)
            for index, id in self._fresh:
                content[index] = {**content[index], "id": id}
            edits["content"] = content
        return edits


def _edited(values: Values, edits: Values) -> Values:
    """Returns the event with these fields in place of its own."""
    out = dict(values)
    for name, value in edits.items():
        held = out.get(name)
        out[name] = _edited(held, value) if isinstance(value, dict) and isinstance(held, dict) else value
    return out


class WholeMessageDecoder(WholeOrStream[PassingDecoder]):
    """Decodes one whole message, or a stream that was sent in its place."""

    def __init__(self, *, strict: bool = False, max_event: int = MAX_EVENT, keep_stop: bool = False) -> None:
        super().__init__(PassingDecoder(strict=strict, max_event=max_event, keep_stop=keep_stop))

    def _answer(self, body: bytes) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        self._decoder.message(body, events)
        finished = events[-1]
        if not isinstance(finished, Finished):
            raise UpstreamError("truncated")
        try:
            values, as_it_came = value_of(body), True
        except ValueError:  # NaN or half a surrogate pair, which clients could not read
            values, as_it_came = whole_characters(parse_again(body)), False
        edits = self._decoder.message_edits(values, finished) if type(values) is dict else {}
        if type(values) is dict and "content" in values:
            whole = body if as_it_came and not edits else encoded(_edited(values, edits))
            events.append(Verbatim(whole, whole=True))
        return events
