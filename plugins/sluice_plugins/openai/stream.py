"""Decodes a stream of Chat Completions: chunks of JSON in server-sent events -> events. `backend` writes the
requests.

Usage may come on any chunk (the last one counts), most often after the finish reason. How a stream ends:

    a finish reason, then [DONE] or the body's end    complete
    [DONE] behind content, without a finish reason    complete: `stop`, or `tool_calls` where calls were made; counted
    usage behind content, then the body's end         the same, where `usage_is_end`; else cut
    the body's end with none of these                 cut
    a finish reason that means failure                an error (`sluice_plugins.decoding.FAILURES`)

A last frame that is complete JSON counts even without the empty line after it. `stop` where calls were made
becomes `tool_calls`, unless `keep_stop`. Most of this file handles vendors' deviations: a chunk that msgspec
refuses because a field has another type, or holds half of a surrogate pair, is read field by field
(`sluice.wire.lenient`).

Verbatim: the frames are returned unmodified, except for the terminator, errors, malformed frames, comments
and the chunk that carries nothing but usage (not every client requested it; it is in `Finished`). A frame
that the client's SDK would read differently is re-encoded with the fewest possible changes: fields of another
type, halves of surrogate pairs, usage beside a choice, tool calls with ambiguous indexes or ids, `stop` after
calls. A frame that ends in the name of a call is held back until the next one comes, which may continue the
name.

Standard: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sluice.errors import UpstreamError, UpstreamGarbled, UpstreamTruncated
from sluice.model.events import (
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
    Verbatim,
)
from sluice.wire import sse
from sluice.wire.call_ids import new_call_id
from sluice.wire.jsonedit import without_known_object
from sluice.wire.lenient import Halves, encoded, fit, parse, parse_again, whole_characters
from sluice.wire.upstream_errors import reported_error, stream_error
from sluice_plugins.decoding import MAX_EVENT, failure_of, is_last
from sluice_plugins.openai.calls import ReceivedCall, ReceivedCalls
from sluice_plugins.openai.chunk import (
    MALFORMED,
    Choice,
    Chunk,
    ContentPart,
    ReportedUsage,
    ToolCallPart,
    decode_ordinary,
)
from sluice_plugins.openai.chunk import decode as _decode
from sluice_plugins.openai.edits import (
    TEXTS,
    Edits,
    end_chunk,
    end_halves,
    frames_of,
    join_function,
    join_text,
    renamed,
)
from sluice_plugins.openai.ends import FINISH, usage_of
from sluice_plugins.openai.form import Form, learn
from sluice_plugins.openai.instead import WHITE, as_error, payloads_of, whole_answer_as_chunk

MAX_DOCUMENT = 12 << 20
"""Bytes of a whole answer sent in place of a stream, chosen so that no step of decoding blocks the loop for
100 ms."""
MAX_CHOICES = 128
"""Most choices of one answer."""
FORMS = 50
"""Most forms learnt from one answer (`openai.form`): some vendors change theirs every second, or with every
chunk."""


class _ChoiceState(msgspec.Struct, eq=False):
    """One choice as received so far. `native` is its finish reason, "" until there is one; `content`: it has
    text, reasoning or calls; `legacy`: it called a function by the deprecated `function_call`."""

    calls: ReceivedCalls | None = None
    content: bool = False
    legacy: bool = False
    native: str = ""

    __repr__ = object.__repr__  # it holds what was said

    @property
    def called(self) -> bool:
        return self.calls is not None and any(call.started or call.name for call in self.calls.made)

    def reason(self, *, keep_stop: bool) -> FinishReason:
        """The finish reason for the client: clients end their tool loop on `stop`, so after calls it is
        `tool_calls`."""
        reason = FINISH.get(self.native.lower(), "stop")
        if reason == "stop" and self.calls is not None and self.called and not keep_stop:
            return "tool_calls"
        return reason


class _Named(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A call whose name the next chunk may continue; `choice` and `place` are its positions in the chunk."""

    calls: ReceivedCalls
    call: ReceivedCall
    choice: int
    place: int

    def announce(self, events: list[StreamEvent]) -> None:
        if self.calls.naming is self.call:
            self.calls.announce(events)


def _event_stream() -> sse.EventStream:
    return sse.EventStream(MAX_EVENT)


class ChunkDecoder(msgspec.Struct, eq=False):
    """Decodes the bytes of one response into events; `stream` splits them into server-sent events.

    `skipped` counts malformed events that were ignored (see `OpenAI.strict`), `skipped_fields` fields of a
    wrong type, `finish_missing` answers without a finish reason (0 or 1). `new_id` makes ids for calls that
    have none, where frames are forwarded.
    """

    verbatim: bool = False
    strict: bool = False
    stream: sse.EventStream = msgspec.field(default_factory=_event_stream)
    keep_stop: bool = False
    usage_is_end: bool = False
    new_id: Callable[[], str] = new_call_id
    skipped: int = 0
    skipped_fields: int = 0
    finish_missing: int = 0
    _taken: frozenset[str] = frozenset()  # ids of the conversation's calls
    _document: bytearray | None = None
    _first: bytes = b""  # the body's first byte that is not white space: a document begins with { or [
    _error: UpstreamError | None = None
    _failure: UpstreamError | None = None  # set by a finish reason of the current chunk that means failure
    _started: bool = False
    _done: bool = False
    _usage: ReportedUsage | None = None
    _main: _ChoiceState | None = None  # choice 0
    _others: dict[int, _ChoiceState] = {}
    _ordinary: bool = True  # every chunk so far was an OrdinaryChunk
    _as_it_came: bool = True  # the current chunk needs no change, and no frame is held back
    _edits: Edits | None = None  # of the current chunk
    _held: list[bytes] = []  # frames that end in the name of a call
    _held_at: "_Named | None" = None  # the call, and where it stands in the first of them
    _joined: str = ""  # a held call's name so far, continued by the current chunk
    _naming: "_Named | None" = None  # the last call whose name began in the current chunk
    _like: bytes = b""  # the first forwarded chunk: `end_chunk` copies its head
    _halves: Halves | None = None
    _form: Form | None = None
    _texts: int = 0  # reads since the last form was learnt that ended in text
    _forms_left: int = FORMS

    __repr__ = object.__repr__  # the fields hold the model's text

    @property
    def reported(self) -> Usage | None:
        return usage_of(self._usage)

    def distinguish(self, ids: frozenset[str]) -> None:
        self._taken = ids

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
        """The payloads of frames of which some are not a single `data: ` line."""
        events = map(self.stream.event, sse.separated(body).split(sse.END))
        return [
            as_error(event.data) if event.event == "error" else event.data
            for event in events
            if event is not None
        ]

    def _last_frame(self) -> list[bytes]:
        """The payload after the last empty line, if it is complete."""
        found = self._odd_frames(self.stream.close())
        return [payload for payload in found if is_last(payload)]

    def _batch(
        self, payloads: list[bytes], body: bytes | None, *, closing: bool = False
    ) -> list[StreamEvent]:
        """The events of one read. `body`: the bytes of exactly these payloads' frames, None if there was
        anything else. `closing`: the body has ended."""
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
        if not self._like:
            self._like = passed[0] if passed else b""
        if passed:
            events.append(Verbatim(frames_of(passed, payloads, body)))
        if self._error is not None and not events:
            raise self._error
        return events

    def _learn(self, payload: bytes) -> None:
        """Learn the form of this chunk, since the next reads likely have it; not for an answer of a single
        token."""
        self._texts += 1
        if self._texts > 1 and self._forms_left and self._error is None and self._is_settled:
            self._texts = 0
            self._forms_left -= 1
            self._form = learn(payload, _text_of, verbatim=self.verbatim)

    @property
    def _is_settled(self) -> bool:
        """Whether nothing depends on the next chunk: neither half a surrogate pair nor an unfinished name."""
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
            self._ordinary = False  # a vendor keeps its form: the next chunks will not be ordinary either
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
        state = self._main
        if state is None:
            state = self._begin(chunk.id, chunk.model, events)
        content = choice.delta.content
        if content:
            state.content = True
            events.append(TextDelta(content))
        if choice.finish_reason:
            state.native = choice.finish_reason
        if self.verbatim:
            passed.append(payload)

    def _begin(self, id: str | None, model: str | None, events: list[StreamEvent]) -> _ChoiceState:
        """Handle the first chunk with a choice."""
        if not self._started:
            self._started = True
            events.append(Started(id or "", model or ""))
        self._main = state = _ChoiceState()
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
            self._usage = usage if self._usage is None else self._counted(usage, self._usage)
        elif chunk.x_groq is not None and chunk.x_groq.usage is not None:
            self._usage = self._counted(chunk.x_groq.usage, self._usage)
        choices = chunk.choices
        if not choices:
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
        if not self._started:
            self._started = True
            events.append(Started(chunk.id or "", chunk.model or ""))
        if len(choices) == 1 and choices[0].index == 0:
            state = self._main
            if state is None:
                state = self._main = _ChoiceState()
            self._choice(choices[0], state, events)
        else:
            self._several(choices, events)
        if self._as_it_came and values is None and usage is None:
            if self.verbatim:
                passed.append(payload)
            return
        if self.verbatim:
            self._pass_on(payload, values, chunk, events, passed)
        if self._failure is not None:
            raise self._failure

    def _several(self, choices: Sequence[Choice], events: list[StreamEvent]) -> None:
        """Handle several choices, or a single one without the index 0. Only choice 0 makes events."""
        for position, choice in enumerate(choices):
            if not choice.index:
                if choice.index is None and self.verbatim:
                    self._edit().set(0, "choices", position, "index")
                self._choice(choice, self._main or self._choice_of(0), events, position)
            elif self.verbatim:
                self._choice(choice, self._choice_of(choice.index), [], position)

    def _choice_of(self, index: int) -> _ChoiceState:
        """The state of the choice with this index, created if it is new. Raises UpstreamGarbled beyond
        MAX_CHOICES."""
        if not index:
            self._main = self._main or _ChoiceState()
            return self._main
        state = self._others.get(index)
        if state is None:
            if len(self._others) >= MAX_CHOICES:
                raise UpstreamGarbled(f"The upstream sent more than {MAX_CHOICES} choices")
            state = self._others[index] = _ChoiceState()
        return state

    def _choice(
        self,
        choice: Choice,
        state: _ChoiceState,
        events: list[StreamEvent],
        position: int = 0,
        key: str = "delta",
    ) -> None:
        """Handle one choice. `position` is its place in the chunk, `key` the field that holds its delta there
        (for edits)."""
        delta = choice.delta
        if delta is not None:
            calls = state.calls
            if calls is not None and calls.naming is not None and not delta.tool_calls:
                calls.announce(events)
            reasoning = delta.reasoning_content or delta.reasoning
            if reasoning:
                events.append(ReasoningDelta(reasoning))
                state.content = True
            content = delta.content
            if content:
                state.content = True
                if type(content) is str:
                    events.append(TextDelta(content))
                else:
                    text = _parts(content, events)  # type: ignore[arg-type]
                    if text is not None and self.verbatim:
                        self._edit().set(text, "choices", position, key, "content")
            if delta.refusal:
                events.append(RefusalDelta(delta.refusal))
                state.content = True
            if delta.tool_calls:
                for place, call in enumerate(delta.tool_calls):
                    if calls is not None and calls.goes_on(call, events):
                        continue
                    if not call.has_content:
                        self._drop_empty_call(call, state, position, key, place)
                        continue
                    self._tool_call(call, state, events, position, key, "tool_calls", place)
            if delta.function_call is not None and delta.function_call.has_content:
                state.legacy = True
                self._tool_call(
                    ToolCallPart(function=delta.function_call), state, events, position, key, "function_call"
                )
        if choice.finish_reason:
            self._end(choice.finish_reason, position, key, state, events)
            if self._failure is not None and choice.error:
                self._failure = stream_error({"error": choice.error})
        if choice.usage is not None:
            self._usage = self._counted(choice.usage, self._usage)
            if self.verbatim:
                self._edit().drop("choices", position, "usage")

    def _drop_empty_call(
        self, delta: ToolCallPart, state: _ChoiceState, position: int, key: str, place: int
    ) -> None:
        """Drop an empty entry of `tool_calls` if an SDK would make a call of it."""
        known = delta.index is not None and state.calls is not None and delta.index < len(state.calls.made)
        if self.verbatim and (key == "message" or not known):
            self._edit().drop("choices", position, key, "tool_calls", place)

    def _tool_call(
        self,
        delta: ToolCallPart,
        state: _ChoiceState,
        events: list[StreamEvent],
        position: int,
        *path: str | int,
    ) -> None:
        """Handle one entry of a delta's calls, at `path` of the choice at `position`."""
        if state.calls is None:
            state.calls = ReceivedCalls(self.new_id if self.verbatim else None, self._taken)
        state.content = True
        calls = state.calls
        normalized = calls.take(delta, events)
        self._form = None
        legacy = path[-1] == "function_call"
        if legacy:
            calls.announce(events)
        if not self.verbatim:
            return
        call, function = normalized.call, delta.function
        if not legacy:
            if normalized.joined:
                self._joined = normalized.joined
            elif calls.naming is call and normalized.name:
                self._naming = _Named(calls, call, position, int(path[-1]))
                self._as_it_came = False
            if path[0] == "message":
                call.place = int(path[-1])
            elif delta.index != call.index:
                self._edit().set(call.index, "choices", position, *path, "index")
            if normalized.id != (delta.id or "") and (
                normalized.id or delta.id != call.id or self._edits is not None
            ):
                self._edit().set_or_drop(normalized.id, "choices", position, *path, "id")
            # openai's helper for JavaScript refuses a call with an index but no type; one without either it
            # ignores
            if normalized.id and not delta.type and self._edits is not None:
                self._edits.set("function", "choices", position, *path, "type")
        if function is None:
            return
        place = ("choices", position, *path) if legacy else ("choices", position, *path, "function")
        if normalized.name != (function.name or "") and not (legacy and not normalized.name):
            self._edit().set_or_drop(normalized.name, *place, "name")
        arguments = function.arguments
        if path[0] == "message" and type(arguments) is not str and not normalized.arguments:
            call.empty = True
        elif arguments is not None and normalized.arguments != arguments:
            self._edit().set(normalized.arguments, *place, "arguments")

    def _end(
        self, native: str, position: int, key: str, state: _ChoiceState, events: list[StreamEvent]
    ) -> None:
        """Handle the choice's finish reason."""
        failure = failure_of(native) if native not in FINISH else None
        if failure is not None:
            self._failure = failure
            self._as_it_came = False
            if self.verbatim:
                self._edit().set(None, "choices", position, "finish_reason")
            return
        state.native = native
        if state.calls is None:
            return
        state.calls.announce(events)
        empty = state.calls.without_arguments()
        for call in empty:
            call.empty, call.worded = False, True
            events.append(ToolCallDelta(call.index, "{}"))
        if not self.verbatim:
            return
        if empty and key == "delta" and not state.legacy:
            self._edit().more_calls(
                [{"index": call.index, "function": {"arguments": "{}"}} for call in empty], position
            )
        elif empty and not state.legacy:
            for call in empty:
                self._edit().set(
                    "{}", "choices", position, key, "tool_calls", call.place, "function", "arguments"
                )
        if FINISH.get(native.lower(), "stop") == "stop" and state.called and not self.keep_stop:
            self._edit().set(
                "function_call" if state.legacy else "tool_calls", "choices", position, "finish_reason"
            )

    def _edit(self) -> Edits:
        if self._edits is None:
            self._edits = Edits()
            self._as_it_came = False
        return self._edits

    def _pass_on(
        self,
        payload: bytes,
        values: dict[str, Any] | None,
        chunk: Chunk,
        events: list[StreamEvent],
        passed: list[bytes],
    ) -> None:
        """Forward a chunk, unmodified or edited; or hold it back because the next one may continue a call's
        name."""
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
        """Forward the frames that were held back: the name is complete."""
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
            values, odd = fit(value, Chunk)
            if self._halves is not None or b"\\u" in payload:
                self._join_halves(values)
                values = whole_characters(values)
        except (ValueError, RecursionError):
            return None
        self.skipped_fields += odd
        return values

    def _join_halves(self, values: dict[str, Any]) -> None:
        """Join surrogate pairs split over two chunks; a half that is left at its choice's end becomes
        U+FFFD."""
        halves = self._halves = self._halves or Halves()
        for choice in values.get("choices") or ():
            number, delta = choice.get("index") or 0, choice.get("delta")
            if type(delta) is dict:
                for name in TEXTS:
                    join_text(delta, name, halves, number, name)
                for call in delta.get("tool_calls") or ():
                    join_function(call.get("function"), halves, number, call.get("index"))
                join_function(delta.get("function_call"), halves, number, "function_call")
            if choice.get("finish_reason"):
                end_halves(choice, halves, number)
        if halves.pending:
            self._form = None

    def _counted(self, usage: ReportedUsage, known: ReportedUsage | None) -> ReportedUsage:
        """The newest usage, with the fields it lacks taken from the one before."""
        if known is not None and (usage.prompt_tokens is None or usage.completion_tokens is None):
            for name in ReportedUsage.__struct_fields__:
                if getattr(usage, name) is None:
                    setattr(usage, name, getattr(known, name))
        return usage

    def _without_choices(self, chunk: Chunk, payload: bytes) -> bool:
        """Returns whether to forward a chunk without choices: Azure's content filter results are, usage alone
        is not."""
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
        """End the stream, by its terminator or (`closing`) the body's end. Raises UpstreamTruncated if it was
        cut."""
        state = self._main
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
            self._chunk(end_chunk(self._like or b"".join(passed[:1]), reasons), events, passed)

    def take(
        self, choices: Sequence[Choice], usage: ReportedUsage | None, events: list[StreamEvent]
    ) -> Edits | None:
        """Decode the choices of a whole answer into the events after `Started`. Returns the edits that the
        answer needs, None for none. Raises UpstreamError if a choice failed, UpstreamTruncated for an answer
        without content."""
        self._started = True
        if usage is not None:
            self._usage = usage
        numbers = [choice.index for choice in choices]
        if None in numbers or 0 not in numbers:
            for position, choice in enumerate(choices):
                choice.index = position
                self._edit().set(position, "choices", position, "index")
        for position, choice in enumerate(choices):
            if not choice.index:
                self._choice(choice, self._choice_of(0), events, position, "message")
            else:
                self._choice(choice, self._choice_of(choice.index), [], position, "message")
            self._whole_end(choice, position, events)
        state = self._main
        if self._failure is not None:
            raise self._failure
        if state is None or not state.native:
            raise self._cut()
        self._done = True
        reported = usage_of(self._usage)
        native = state.native if not self.finish_missing else ""
        events.append(Finished(state.reason(keep_stop=self.keep_stop), reported, native))
        return self._edits

    def _whole_end(self, choice: Choice, position: int, events: list[StreamEvent]) -> None:
        """End a choice of a whole answer that has no finish reason."""
        state = self._choice_of(choice.index or 0)
        if state.native or self._failure is not None or not state.content:
            return
        self.finish_missing = 1
        reason = "tool_calls" if state.called else "stop"
        self._edit().set(reason, "choices", position, "finish_reason")
        self._end(reason, position, "message", state, events if not choice.index else [])

    def _cut(self) -> UpstreamError:
        if self._started or (self._first in b"deir:" and not self.skipped):
            return UpstreamTruncated()
        return UpstreamGarbled("The upstream's answer is not a stream of chat completion chunks")


def _text_of(payload: bytes) -> str:
    """The text of a chunk that holds nothing else and is forwarded unmodified; "" for any other."""
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


def _only_texts(state: _ChoiceState | None) -> bool:
    return state is not None and not state.native and state.calls is None


def _parts(parts: Sequence[ContentPart], events: list[StreamEvent]) -> str | None:
    """Append the events of content that is a list of parts. Returns its text if it has nothing else, else
    None."""
    only_text = True
    for part in parts:
        if part.text:
            events.append(TextDelta(part.text))
        only_text = (
            only_text and part.thinking is None and (part.text is not None or part.type in ("text", ""))
        )
        match part.thinking:
            case None | "":
                pass
            case str(text):
                events.append(ReasoningDelta(text))
            case thoughts:
                events.extend(ReasoningDelta(thought.text) for thought in thoughts if thought.text)
    return "".join(part.text or "" for part in parts) if only_text else None
