"""Decodes a stream of Chat Completions (chunks of JSON in server-sent events) into events.

Usage may come with any chunk, most often after the finish reason; the last one counts. How a stream ends:

    a finish reason, then [DONE] or the body's end    complete
    [DONE] after content, without a finish reason     complete: `stop`, or `tool_calls` after calls (`finish_missing`)
    usage after content, then the body's end          the same if `usage_is_end`, else truncated
    a finish reason that means failure                an error (`sluice_plugins.decoding.FAILURES`)
    the body's end with none of these                 truncated

A last frame that is complete JSON counts even without the empty line after it. `stop` after tool calls
becomes `tool_calls`, unless `keep_stop`. Most of this file handles vendors' deviations: a chunk that msgspec
refuses because a field has another type, or contains half of a surrogate pair, is decoded field by field
(`sluice.wire.lenient`).

If frames are forwarded (`verbatim`) they are unmodified, and these are left out: the terminator, errors,
malformed frames, comments, and a chunk with nothing but usage (not every client requested it; it is in
`Finished`). A frame that the client's SDK would misread is re-encoded with as few changes as possible: fields
of another type, halves of surrogate pairs, usage beside a choice, tool calls with ambiguous indexes or ids,
`stop` after tool calls. A frame that ends with the name of a call is held back until the next one comes,
which may continue the name.

Standard: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from typing import Any

import msgspec

from sluice.errors import UpstreamError, UpstreamGarbled, UpstreamTruncated
from sluice.model.events import (
    Finished,
    Started,
    StreamEvent,
    TextDelta,
    Usage,
    Verbatim,
)
from sluice.wire import sse
from sluice.wire.jsonedit import without_known_object
from sluice.wire.lenient import Halves, encoded, fit, parse, parse_again, whole_characters
from sluice.wire.upstream_errors import reported_error, stream_error
from sluice_plugins.decoding import MALFORMED, MAX_EVENT, is_last
from sluice_plugins.openai.choices import ChoiceDecoder, ChoiceState, NamedCall
from sluice_plugins.openai.chunk import (
    Chunk,
    decode_ordinary,
)
from sluice_plugins.openai.chunk import decode as _decode
from sluice_plugins.openai.edits import Edits, end_chunk, frames_of, join_halves, renamed
from sluice_plugins.openai.ends import newest_usage, usage_of
from sluice_plugins.openai.form import learn
from sluice_plugins.openai.instead import WHITE, as_error, payloads_of, whole_answer_as_chunk
from sluice_plugins.openai.variants import has_only_text, in_standard_form, unwrapped
from sluice_plugins.text_form import Form

MAX_DOCUMENT = 12 << 20
"""Bytes of a whole answer sent in place of a stream, chosen so that no step of decoding blocks the loop for
100 ms."""
FORMS = 50
"""Most forms learnt from one answer (`openai.form`): some vendors change theirs every second, or with every
chunk."""


def _event_stream() -> sse.EventStream:
    return sse.EventStream(MAX_EVENT)


class ChunkDecoder(ChoiceDecoder, eq=False):
    """Decodes the body of one response into events; `stream` splits it into server-sent events.

    `skipped` counts malformed events that were ignored (see `OpenAI.strict`), `skipped_fields` fields of a
    wrong type.
    """

    strict: bool = False
    stream: sse.EventStream = msgspec.field(default_factory=_event_stream)
    usage_is_end: bool = False
    skipped: int = 0
    skipped_fields: int = 0
    _document: bytearray | None = None
    _first: bytes = b""  # the body's first byte that is not white space: a document begins with { or [
    _error: UpstreamError | None = None
    _started: bool = False
    _done: bool = False
    _ordinary: bool = True  # every chunk so far was an OrdinaryChunk: one choice with text, decoded faster
    _held: list[bytes] = msgspec.field(default_factory=list)  # frames that end in the name of a call
    _held_at: NamedCall | None = None  # that call, and its position in the first of these frames
    _sample: bytes = b""  # the first forwarded chunk: `end_chunk` copies its head
    _halves: Halves | None = None
    _form: Form | None = None
    _texts: int = 0  # reads that ended in text since a form was last learnt
    _forms_left: int = FORMS

    @property
    def reported(self) -> Usage | None:
        return usage_of(self._usage)

    def feed(self, data: bytes) -> list[StreamEvent]:
        form, stream = self._form, self.stream
        if form is not None and stream.clean and len(data) <= stream.limit:
            events = form.events(data)
            if events is not None:
                return events
        if self._error is not None:
            raise self._error
        if self._done:
            return []
        if not self._first:
            self._recognize(data)
        if self._document is not None:
            return self._collect(data)
        body = stream.complete(data)
        if not body:
            return []
        found = sse.payloads(body)
        if found is not None:
            return self._batch(found, body)
        return self._batch(self._odd_frames(body), None)

    def close(self) -> list[StreamEvent]:
        if self._error is not None:
            raise self._error
        if self._done:
            return []
        if self._document is not None:
            return self._batch(payloads_of(self._document), None, closing=True)
        return self._batch(self._last_frame(), None, closing=True)

    def _recognize(self, data: bytes) -> None:
        self._first = data.lstrip(WHITE)[:1]
        if self._first in (b"{", b"["):
            self._document = bytearray()
        elif self._first == b"<":
            raise UpstreamGarbled("The upstream answered with a page of HTML or XML")

    def _collect(self, data: bytes) -> list[StreamEvent]:
        document = self._document = self._document or bytearray()
        document += data
        if len(document) > MAX_DOCUMENT:
            raise UpstreamGarbled(
                f"The upstream sent a document longer than {MAX_DOCUMENT} bytes in place of a stream"
            )
        return []

    def _odd_frames(self, body: bytes) -> list[bytes]:
        """Returns the payloads of frames, of which some are not a single `data: ` line."""
        events = map(self.stream.event, sse.separated(body).split(sse.END))
        return [
            as_error(event.data) if event.event == "error" else event.data
            for event in events
            if event is not None
        ]

    def _last_frame(self) -> list[bytes]:
        """Returns the payload after the last empty line, if it is complete."""
        found = self._odd_frames(self.stream.close())
        return [payload for payload in found if is_last(payload)]

    def _batch(
        self, payloads: list[bytes], body: bytes | None, *, closing: bool = False
    ) -> list[StreamEvent]:
        """Returns the events of one read. `body`: the bytes of the frames with exactly these payloads; None
        if there was anything else between them. `closing`: the body has ended."""
        events: list[StreamEvent] = []
        passed: list[bytes] = []
        try:
            for payload in payloads:
                self._chunk(payload, events, passed)
                if self._done:
                    break
            if closing and not self._done:
                self._finish(events, passed, closing=True)
        except UpstreamError as error:
            self._error = error
            self._form = None
            self._release(events, passed)
        if events and type(events[-1]) is TextDelta:
            self._learn(payloads[-1])
        if not self._sample:
            self._sample = passed[0] if passed else b""
        if passed:
            events.append(Verbatim(frames_of(passed, payloads, body)))
        if self._error is not None and not events:
            raise self._error
        return events

    def _learn(self, payload: bytes) -> None:
        """Learn the form of this chunk, since later reads are likely to have it; not for an answer of one
        token."""
        self._texts += 1
        if self._texts > 1 and self._forms_left and self._error is None and self._is_settled:
            self._texts = 0
            self._forms_left -= 1
            self._form = learn(payload, _text_of, verbatim=self.verbatim)

    @property
    def _is_settled(self) -> bool:
        """Whether the next chunk can be decoded by itself: no half of a surrogate pair or unfinished name is
        pending."""
        state = self._main
        named = state is None or state.calls is None or state.calls.naming is None
        return named and self._held_at is None and (self._halves is None or not self._halves.pending)

    def _chunk(self, payload: bytes, events: list[StreamEvent], passed: list[bytes]) -> None:
        """Decode one chunk into `events`, and append the payload to forward to `passed`."""
        if payload == b"[DONE]":
            self._finish(events, passed)
            return
        if not self._ordinary:
            self._any_chunk(payload, events, passed)
            return
        try:
            chunk = decode_ordinary(payload)
        except MALFORMED:
            self._ordinary = False  # a vendor keeps to its form: its next chunks will not be ordinary either
            self._any_chunk(payload, events, passed)
            return
        if not chunk.choices:
            if chunk.usage is None or self._usage is not None or payload.find(b'"base_resp"') >= 0:
                self._any_chunk(payload, events, passed)
            else:
                self._usage = chunk.usage
            return
        if chunk.usage is not None:
            self._any_chunk(payload, events, passed)
            return
        choice = chunk.choices[0]
        content = choice.delta.content
        if not content and choice.text:
            self._any_chunk(payload, events, passed)
            return
        state = self._main
        if state is None:
            state = self._begin(chunk.id, chunk.model, events)
        if content:
            state.content = True
            events.append(TextDelta(content))
        if choice.finish_reason:
            state.native = choice.finish_reason
        if self.verbatim:
            passed.append(payload)

    def _begin(self, id: str | None, model: str | None, events: list[StreamEvent]) -> ChoiceState:
        """Handle the first chunk that has a choice."""
        if not self._started:
            self._started = True
            events.append(Started(id or "", model or ""))
        self._main = state = ChoiceState()
        return state

    def _any_chunk(self, payload: bytes, events: list[StreamEvent], passed: list[bytes]) -> None:
        """Decode a chunk that is not an OrdinaryChunk."""
        values: dict[str, Any] | None = None
        try:
            chunk = _decode(payload) if self._halves is None or not self._halves.pending else None
        except MALFORMED:
            chunk = None
        if chunk is None:
            values = self._mended(payload)
            if values is None:
                self._not_a_chunk(payload, events, passed)
                return
            chunk = msgspec.convert(values, Chunk)
        if chunk.error:
            raise reported_error(payload) or stream_error({"error": chunk.error})
        usage = chunk.usage
        if usage is not None:
            self._usage = usage if self._usage is None else newest_usage(usage, self._usage)
        elif chunk.x_groq is not None and chunk.x_groq.usage is not None:
            self._usage = newest_usage(chunk.x_groq.usage, self._usage)
        choices = chunk.choices
        if not choices:
            if choices is None and (inner := unwrapped(payload)):
                self._chunk(inner, events, passed)
                return
            if self._without_choices(chunk, payload) and self.verbatim:
                self._release(events, passed)
                passed.append(payload if values is None else encoded(values))
            return
        if (
            choices[0].delta is None
            and (self._main is None or not self._main.content)
            and (whole := whole_answer_as_chunk(payload))
        ):
            self._chunk(whole, events, passed)
            return
        if choices[0].text is not None and values is None and has_only_text(choices):
            values = self._mended(payload) or {}
            choices = msgspec.convert(values, Chunk).choices or []
        if not self._started:
            self._started = True
            events.append(Started(chunk.id or "", chunk.model or ""))
        if len(choices) == 1 and choices[0].index == 0:
            state = self._main
            if state is None:
                state = self._main = ChoiceState()
            self._choice(choices[0], state, events)
        else:
            self._several(choices, events)
        if self._called:
            self._called = False
            self._form = None
        if self._as_it_came and values is None and usage is None:
            if self.verbatim:
                passed.append(payload)
            return
        if self.verbatim:
            self._pass_on(payload, values, chunk, events, passed)
        if self._failure is not None:
            raise self._failure

    def _pass_on(
        self,
        payload: bytes,
        values: dict[str, Any] | None,
        chunk: Chunk,
        events: list[StreamEvent],
        passed: list[bytes],
    ) -> None:
        """Forward a chunk, unmodified or edited, or hold it back if the next chunk may continue the name of a
        call."""
        edits, self._edits = self._edits, None
        self._as_it_came = True
        if chunk.usage is not None:
            bare = without_known_object(payload, b'"usage"') if edits is None and values is None else None
            if bare is not None:
                payload = bare
            else:
                edits = edits or Edits()
                edits.drop("usage")
        if edits is not None or values is not None:
            values = parse_again(payload) if values is None else values
            if edits is not None:
                edits.apply(values)
            payload = encoded(values)
        naming, self._naming = self._naming, None
        joined, self._joined = self._joined, ""
        held_at = self._held_at
        if held_at is not None and joined:
            self._held[0] = renamed(self._held[0], joined, held_at.choice, held_at.place)
            if naming is None and held_at.calls.naming is held_at.call:
                self._held.append(payload)
                self._as_it_came = False
                return
        self._release(events, passed)
        if naming is not None and naming.calls.naming is naming.call:
            self._held.append(payload)
            self._held_at = naming
            self._as_it_came = False
        else:
            passed.append(payload)

    def _release(self, events: list[StreamEvent], passed: list[bytes]) -> None:
        """Forward the frames that were held back, now that the name is complete."""
        held_at, self._held_at = self._held_at, None
        if held_at is not None:
            passed += self._held
            self._held.clear()
            held_at.announce(events if self._main is not None and held_at.calls is self._main.calls else [])

    def _mended(self, payload: bytes) -> dict[str, Any] | None:
        """Decode a chunk that msgspec refused, field by field; None if it is not a JSON object."""
        try:
            value = parse(payload)
            if type(value) is list and len(value) == 1:
                value = value[0]
            value, odd_ends = in_standard_form(value)
            values, odd = fit(value, Chunk)
            if self._halves is not None or b"\\u" in payload:
                halves = self._halves = self._halves or Halves()
                join_halves(values, halves)
                if halves.pending:
                    self._form = None
                values = whole_characters(values)
        except (ValueError, RecursionError):
            return None
        self.skipped_fields += odd + odd_ends
        return values

    def _without_choices(self, chunk: Chunk, payload: bytes) -> bool:
        """Returns whether to forward a chunk without choices: Azure's content filter results are forwarded,
        usage alone is not."""
        if chunk.usage is None or b'"base_resp"' in payload:
            error = reported_error(payload)
            if error is not None:
                raise error
        if chunk.usage is None and chunk.choices is None:
            self._skip()
        return chunk.usage is None and chunk.choices is not None

    def _not_a_chunk(self, payload: bytes, events: list[StreamEvent], passed: list[bytes]) -> None:
        word = payload.strip()
        if word.upper() == b"[DONE]":
            self._finish(events, passed)
        elif word:
            self._skip()

    def _skip(self) -> None:
        if self.strict:
            raise UpstreamGarbled("The upstream sent an event that is not a chunk of a chat completion")
        self.skipped += 1

    def _finish(self, events: list[StreamEvent], passed: list[bytes], *, closing: bool = False) -> None:
        """End the stream, by its terminator or (`closing`) at the body's end. Raises UpstreamTruncated if the
        answer is incomplete."""
        state = self._main
        if state is None and len(self._others) == 1:  # the only choice has another index
            [state] = self._others.values()
        if state is None:
            raise self._cut()
        native = state.native
        if not native:
            ended = not closing or (self.usage_is_end and self._usage is not None)
            if not state.content or not ended:
                raise self._cut()
            self.finish_missing = 1
        if not native or self._others:
            self._make_ends(events, passed)
        self._done = True
        self._form = None
        if self._held_at is not None:
            self._release(events, passed)
        events.append(Finished(state.reason(keep_stop=self.keep_stop), usage_of(self._usage), native))

    def _make_ends(self, events: list[StreamEvent], passed: list[bytes]) -> None:
        """Add a chunk with finish reasons for the choices that have none."""
        every = {0: self._main, **self._others}
        open_ = {index: state for index, state in every.items() if state is not None and not state.native}
        if open_:
            reasons = {index: "tool_calls" if state.called else "stop" for index, state in open_.items()}
            self._chunk(end_chunk(self._sample or b"".join(passed[:1]), reasons), events, passed)

    def _cut(self) -> UpstreamError:
        if self._started or (self._first in b"deir:" and not self.skipped):
            return UpstreamTruncated()
        return UpstreamGarbled("The upstream's answer is not a stream of chat completion chunks")


def _text_of(payload: bytes) -> str:
    """Returns the text of a chunk that has nothing else and is forwarded unmodified; "" for any other."""
    decoder = ChunkDecoder(verbatim=True)
    decoder._started = True
    events: list[StreamEvent] = []
    passed: list[bytes] = []
    try:
        decoder._chunk(payload, events, passed)
    except UpstreamError:
        return ""
    state = decoder._main
    match events:
        case [TextDelta(text=text)] if (
            passed == [payload] and decoder._usage is None and state is not None and _only_texts(state)
        ):
            return text
        case _:
            return ""


def _only_texts(state: ChoiceState | None) -> bool:
    return state is not None and not state.native and state.calls is None
