"""The stream of Chat Completions: chunks of JSON in server-sent events -> events. The other half of `backend`.

Usage may come on any chunk (the last one counts), most often behind the finish reason. How it ends:

    a finish reason, then [DONE] or the body's end    complete
    [DONE] behind content, without a finish reason    complete: `stop`, or `tool_calls` where calls were made; counted
    usage behind content, then the body's end         the same, where `usage_is_end`; else cut
    the body's end with none of these                 cut
    a finish reason that means failure                an error (`sluice_plugins.decoding.FAILURES`)

A last frame that is whole JSON counts, though the empty line behind it is missing. `stop` where calls were made is
`tool_calls`, unless `keep_stop`. The rest of this file's length is vendors: a chunk that msgspec refuses because one
field is of another type, or half of a surrogate pair, is read field by field (`sluice.wire.lenient`).

Verbatim: the frames come back as they were, but for the terminator, errors, malformed frames, comments and the chunk
that carries nothing but usage (not every client asked for it; it is in `Finished`). A frame that the client's SDK would
read otherwise than we do is written anew, with no more changed than has to be: fields of another type, halves of
surrogate pairs, usage beside a choice, tool calls whose indexes or ids do not tell them apart, `stop` behind calls. A
frame that ends in the name of a call is held back until the next one comes, which may go on with the name.

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
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
    Verbatim,
    believed,
)
from sluice.wire import sse
from sluice.wire.call_ids import new_call_id
from sluice.wire.jsonedit import without_known_object
from sluice.wire.jsontext import oversized, slow_numbers
from sluice.wire.lenient import REPLACEMENT, Halves, encoded, fit, is_object, parse, whole_characters
from sluice.wire.upstream_errors import stream_error, tells_error, told_error
from sluice_plugins.decoding import MAX_EVENT, failure_of
from sluice_plugins.openai.calls import Call, Calls
from sluice_plugins.openai.chunk import MALFORMED, Choice, Chunk, ContentPart, ReportedUsage, ToolCallPart, decode_ordinary
from sluice_plugins.openai.chunk import decode as _decode
from sluice_plugins.openai.form import Form, learn

FRAMING = len(b"data: \n\n")
MAX_DOCUMENT = 12 << 20
"""Bytes of an answer that came whole where a stream was asked for: no step of its reading keeps the interpreter 100 ms."""
WHITE = b"\xef\xbb\xbf \t\r\n"
"""What may stand before all else, a byte order mark included."""
MAX_CHOICES = 128
"""Choices of one answer that are passed on."""
FORMS = 50
"""Forms that are learnt of one answer at most (`openai.form`): some vendors' change every second, or every time."""

FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
    "blocklist": "content_filter",
}


TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
"""The fields of a delta that are pieces of a text."""
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_DROPPED: Any = object()


class _Said:
    """What one choice has said so far. `native` is its finish reason, "" until there is one; `legacy`: it called a function
    by `function_call`."""

    __slots__ = ("calls", "content", "legacy", "native")

    def __init__(self) -> None:
        self.calls: Calls | None = None
        self.content = False
        self.legacy = False
        self.native = ""

    @property
    def called(self) -> bool:
        return self.calls is not None and any(call.started or call.name for call in self.calls.made)

    def reason(self, *, keep_stop: bool) -> FinishReason:
        """Why it ended. Callers end their tool loop on `stop`, so that where calls were made it is `tool_calls`."""
        reason = FINISH.get(self.native.lower(), "stop")
        if reason == "stop" and self.calls is not None and self.called and not keep_stop:
            return "tool_calls"
        return reason


class Edits:
    """What must be changed in a chunk (or a whole answer) before it is passed on, by where it stands."""

    __slots__ = ("_calls", "_changes")

    def __init__(self) -> None:
        self._changes: list[tuple[tuple[str | int, ...], Any]] = []
        self._calls: list[tuple[int, list[dict[str, Any]]]] = []

    def set(self, value: Any, *path: str | int) -> None:
        self._changes.append((path, value))

    def drop(self, *path: str | int) -> None:
        self._changes.append((path, _DROPPED))

    def set_or_drop(self, value: str, *path: str | int) -> None:
        self._changes.append((path, value or _DROPPED))

    def more_calls(self, calls: list[dict[str, Any]], choice: int) -> None:
        """Add pieces of calls to the delta of the choice at this position."""
        self._calls.append((choice, calls))

    def apply(self, plain: Any) -> None:
        thinned: list[list[Any]] = []
        for (*way, last), value in self._changes:
            at = plain
            for step in way:
                at = at[step]
            if value is not _DROPPED:
                at[last] = value
            elif type(at) is dict:
                at.pop(last, None)
            else:
                at[last] = _DROPPED  # until nothing is to be found by its place any more
                thinned.append(at)
        for position, calls in self._calls:
            choice = plain["choices"][position]
            delta = choice["delta"] = choice.get("delta") or {}
            delta["tool_calls"] = [*(delta.get("tool_calls") or ()), *calls]
        for entries in thinned:
            entries[:] = [entry for entry in entries if entry is not _DROPPED]


class _Named(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A call whose name may go on: its choice's calls, and the positions of choice and call in its chunk."""

    calls: Calls
    call: Call
    choice: int
    place: int

    def told(self, events: list[StreamEvent]) -> None:
        if self.calls.naming is self.call:
            self.calls.told(events)


def _event_stream() -> sse.EventStream:
    return sse.EventStream(MAX_EVENT)


class ChunkDecoder(msgspec.Struct, eq=False):
    """Bytes of one response -> events; `stream` cuts them into events.

    `skipped` counts malformed events that were passed over (see `OpenAI.strict`), `skipped_fields` fields of another type
    than they should be, `finish_missing` answers that ended without a finish reason (0 or 1). `new_id` makes the ids of
    calls that have none, where frames are passed on.
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
    _first: bytes = b""  # the body's first byte that is not white space: tells a stream from a document
    _error: UpstreamError | None = None
    _failure: UpstreamError | None = None  # what the finish reason of the chunk under way means
    _started: bool = False
    _done: bool = False
    _usage: ReportedUsage | None = None
    _said: _Said | None = None  # of choice 0
    _others: dict[int, _Said] = {}
    _ordinary: bool = True  # every chunk was an OrdinaryChunk so far
    _as_it_came: bool = True  # the chunk under way has nothing to be changed, and no frame is held back
    _edits: Edits | None = None  # of the chunk under way
    _held: list[bytes] = []  # frames that end in the name of a call
    _held_at: "_Named | None" = None  # the call, and where it stands in the first of them
    _joined: str = ""  # the name that the chunk under way has gone on with
    _naming: "_Named | None" = None  # the last call whose name began in the chunk under way
    _like: bytes = b""  # a chunk that was passed on, for what is made in its likeness
    _halves: Halves | None = None
    _form: Form | None = None
    _texts: int = 0  # reads that ended in a text of no known form
    _forms_left: int = FORMS

    __repr__ = object.__repr__  # it holds what was said

    @property
    def reported(self) -> Usage | None:
        return _usage(self._usage)

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
            events = self._batch(_payloads(self._document), None, closing=True)
        else:
            events = self._batch(self._last_frame(), None, closing=True)
        if self._error is not None:
            raise self._error
        return events

    def _recognize(self, data: bytes) -> None:
        self._first = data.lstrip(WHITE)[:1]
        if self._first in (b"{", b"["):
            self._document = bytearray()
        elif self._first == b"<":
            raise UpstreamGarbled("The upstream answered with a page of HTML or XML")

    def _collect(self, data: bytes) -> list[StreamEvent]:
        assert self._document is not None
        self._document += data
        if len(self._document) > MAX_DOCUMENT:
            raise UpstreamGarbled(f"The upstream sent a document longer than {MAX_DOCUMENT} bytes in place of a stream")
        return []

    def _odd_frames(self, body: bytes) -> list[bytes]:
        """The payloads of frames that are not all one `data: ` line."""
        events = map(self.stream.event, body.split(sse.END))
        return [_as_error(event.data) if event.event == "error" else event.data for event in events if event is not None]

    def _last_frame(self) -> list[bytes]:
        """The payload behind the last empty line, where it is whole."""
        found = self._odd_frames(self.stream.close())
        return [payload for payload in found if payload.strip() == b"[DONE]" or is_object(payload)]

    def _batch(self, payloads: list[bytes], body: bytes | None, *, closing: bool = False) -> list[StreamEvent]:
        """The events of one read. `body` holds exactly these payloads' frames, None where it holds anything else.
        `closing`: nothing will follow."""
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
            events.append(Verbatim(_frames(passed, payloads, body)))
        if self._error is not None and not events:
            raise self._error
        return events

    def _learn(self, payload: bytes) -> None:
        """The next reads may well be of this one's form. An answer of one token is not worth the while."""
        self._texts += 1
        if self._texts > 1 and self._forms_left and self._error is None and self._is_settled:
            self._texts = 0
            self._forms_left -= 1
            self._form = learn(payload, _text_of, verbatim=self.verbatim)

    @property
    def _is_settled(self) -> bool:
        """Whether nothing waits for the next chunk: half a surrogate pair, or a name that may go on."""
        said = self._said
        named = said is None or said.calls is None or said.calls.naming is None
        return named and self._held_at is None and (self._halves is None or not self._halves.pending)

    def _chunk(self, payload: bytes, events: list[StreamEvent], passed: list[bytes]) -> None:
        """Translate one chunk, and add what is to be forwarded to `passed`."""
        if payload == b"[DONE]":
            self._finish(events, passed)
            return
        if not self._ordinary:
            self._any_chunk(payload, events, passed)
            return
        try:
            chunk = decode_ordinary(payload)
        except MALFORMED:
            self._ordinary = False  # nor will the next ones be
            self._any_chunk(payload, events, passed)
            return
        if not chunk.choices:
            if chunk.usage is None or self._usage is not None or b'"base_resp"' in payload:
                self._any_chunk(payload, events, passed)
            else:
                self._usage = chunk.usage
            return
        if chunk.usage is not None:
            self._any_chunk(payload, events, passed)
            return
        choice = chunk.choices[0]
        said = self._said
        if said is None:
            said = self._begin(chunk.id, chunk.model, events)
        content = choice.delta.content
        if content:
            said.content = True
            events.append(TextDelta(content))
        if choice.finish_reason:
            said.native = choice.finish_reason
        if self.verbatim:
            passed.append(payload)

    def _begin(self, id: str | None, model: str | None, events: list[StreamEvent]) -> _Said:
        """The first chunk with a choice has come."""
        if not self._started:
            self._started = True
            events.append(Started(id or "", model or ""))
        self._said = said = _Said()
        return said

    def _any_chunk(self, payload: bytes, events: list[StreamEvent], passed: list[bytes]) -> None:
        """A chunk that is more than an OrdinaryChunk, or less."""
        plain: dict[str, Any] | None = None
        try:
            chunk = _decode(payload) if self._halves is None or not self._halves.pending else None
        except MALFORMED:
            chunk = None
        if chunk is None:
            plain = self._mended(payload)
            if plain is None:
                self._not_a_chunk(payload, events, passed)
                return
            chunk = msgspec.convert(plain, Chunk)
        if chunk.error:
            raise told_error(payload) or stream_error({"error": chunk.error})
        usage = chunk.usage
        if usage is not None:
            self._usage = usage if self._usage is None else self._counted(usage, self._usage)
        elif chunk.x_groq is not None and chunk.x_groq.usage is not None:
            self._usage = self._counted(chunk.x_groq.usage, self._usage)
        choices = chunk.choices
        if not choices:
            if self._without_choices(chunk, payload) and self.verbatim:
                self._release(events, passed)
                passed.append(payload if plain is None else encoded(plain))
            return
        if choices[0].delta is None and (self._said is None or not self._said.content) and (whole := _whole_answer(payload)):
            self._chunk(whole, events, passed)
            return
        if not self._started:
            self._started = True
            events.append(Started(chunk.id or "", chunk.model or ""))
        if len(choices) == 1 and choices[0].index == 0:
            said = self._said
            if said is None:
                said = self._said = _Said()
            self._choice(choices[0], said, events)
        else:
            self._several(choices, events)
        if self._as_it_came and plain is None and usage is None:
            if self.verbatim:
                passed.append(payload)
            return
        if self.verbatim:
            self._pass_on(payload, plain, chunk, events, passed)
        if self._failure is not None:
            raise self._failure

    def _several(self, choices: Sequence[Choice], events: list[StreamEvent]) -> None:
        """A chunk's choices, or one that is not choice 0 by its own word. Only of choice 0 there are events."""
        for position, choice in enumerate(choices):
            if not choice.index:
                if choice.index is None and self.verbatim:
                    self._edit().set(0, "choices", position, "index")
                self._choice(choice, self._said or self._choice_of(0), events, position)
            elif self.verbatim:
                self._choice(choice, self._choice_of(choice.index), [], position)

    def _choice_of(self, index: int) -> _Said:
        """The choice with this index, which begins now or has begun."""
        if not index:
            self._said = self._said or _Said()
            return self._said
        said = self._others.get(index)
        if said is None:
            if len(self._others) >= MAX_CHOICES:
                raise UpstreamGarbled(f"The upstream sent more than {MAX_CHOICES} choices")
            said = self._others[index] = _Said()
        return said

    def _choice(self, choice: Choice, said: _Said, events: list[StreamEvent], position: int = 0, key: str = "delta") -> None:
        """`position` in the chunk, for what has to be edited in it; `key`: what holds its delta there."""
        delta = choice.delta
        if delta is not None:
            calls = said.calls
            if calls is not None and calls.naming is not None and not delta.tool_calls:
                calls.told(events)
            reasoning = delta.reasoning_content or delta.reasoning
            if reasoning:
                events.append(ReasoningDelta(reasoning))
                said.content = True
            content = delta.content
            if content:
                said.content = True
                if type(content) is str:
                    events.append(TextDelta(content))
                else:
                    text = _parts(content, events)  # type: ignore[arg-type]
                    if text is not None and self.verbatim:
                        self._edit().set(text, "choices", position, key, "content")
            if delta.refusal:
                events.append(TextDelta(delta.refusal))
                said.content = True
            if delta.tool_calls:
                for place, call in enumerate(delta.tool_calls):
                    if calls is not None and calls.goes_on(call, events):
                        continue
                    if not call.says_something:
                        self._say_nothing(call, said, position, key, place)
                        continue
                    self._tool_call(call, said, events, position, key, "tool_calls", place)
            if delta.function_call is not None and delta.function_call.says_something:
                said.legacy = True
                self._tool_call(ToolCallPart(function=delta.function_call), said, events, position, key, "function_call")
        if choice.finish_reason:
            self._end(choice.finish_reason, position, key, said, events)
            if self._failure is not None and choice.error:
                self._failure = stream_error({"error": choice.error})
        if choice.usage is not None:
            self._usage = self._counted(choice.usage, self._usage)
            if self.verbatim:
                self._edit().drop("choices", position, "usage")

    def _say_nothing(self, delta: ToolCallPart, said: _Said, position: int, key: str, place: int) -> None:
        """An entry without anything in it is taken away, where an SDK would make a call of it."""
        known = delta.index is not None and said.calls is not None and delta.index < len(said.calls.made)
        if self.verbatim and (key == "message" or not known):
            self._edit().drop("choices", position, key, "tool_calls", place)

    def _tool_call(self, delta: ToolCallPart, said: _Said, events: list[StreamEvent], position: int, *path: str | int) -> None:
        """One entry of a delta's calls, at `path` of the choice at `position`."""
        if said.calls is None:
            said.calls = Calls(self.new_id if self.verbatim else None, self._taken)
        said.content = True
        calls = said.calls
        told = calls.take(delta, events)
        self._form = None
        legacy = path[-1] == "function_call"
        if legacy:
            calls.told(events)
        if not self.verbatim:
            return
        call, function = told.call, delta.function
        if not legacy:
            if told.joined:
                self._joined = told.joined
            elif calls.naming is call and told.name:
                self._naming = _Named(calls, call, position, int(path[-1]))
                self._as_it_came = False
            if path[0] == "message":
                call.place = int(path[-1])
            elif delta.index != call.index:
                self._edit().set(call.index, "choices", position, *path, "index")
            if told.id != (delta.id or "") and (told.id or delta.id != call.id or self._edits is not None):
                self._edit().set_or_drop(told.id, "choices", position, *path, "id")
            # openai's helper for JavaScript refuses a call with an index and without a type; one without either it passes over
            if told.id and not delta.type and self._edits is not None:
                self._edits.set("function", "choices", position, *path, "type")
        if function is None:
            return
        place = ("choices", position, *path) if legacy else ("choices", position, *path, "function")
        if told.name != (function.name or "") and not (legacy and not told.name):
            self._edit().set_or_drop(told.name, *place, "name")
        arguments = function.arguments
        if path[0] == "message" and type(arguments) is not str and not told.arguments:
            call.empty = True
        elif arguments is not None and told.arguments != arguments:
            self._edit().set(told.arguments, *place, "arguments")

    def _end(self, native: str, position: int, key: str, said: _Said, events: list[StreamEvent]) -> None:
        """The choice's finish reason."""
        failure = failure_of(native) if native not in FINISH else None
        if failure is not None:
            self._failure = failure
            self._as_it_came = False
            if self.verbatim:
                self._edit().set(None, "choices", position, "finish_reason")
            return
        said.native = native
        if said.calls is None:
            return
        said.calls.told(events)
        empty = said.calls.without_arguments()
        for call in empty:
            call.empty, call.worded = False, True
            events.append(ToolCallDelta(call.index, "{}"))
        if not self.verbatim:
            return
        if empty and key == "delta" and not said.legacy:
            self._edit().more_calls([{"index": call.index, "function": {"arguments": "{}"}} for call in empty], position)
        elif empty and not said.legacy:
            for call in empty:
                self._edit().set("{}", "choices", position, key, "tool_calls", call.place, "function", "arguments")
        if FINISH.get(native.lower(), "stop") == "stop" and said.called and not self.keep_stop:
            self._edit().set("function_call" if said.legacy else "tool_calls", "choices", position, "finish_reason")

    def _edit(self) -> Edits:
        if self._edits is None:
            self._edits = Edits()
            self._as_it_came = False
        return self._edits

    def _pass_on(
        self, payload: bytes, plain: dict[str, Any] | None, chunk: Chunk, events: list[StreamEvent], passed: list[bytes]
    ) -> None:
        """Forward a chunk: as it came, or with what has to be changed; or hold it back for its name's sake."""
        edits, self._edits = self._edits, None
        self._as_it_came = True
        if chunk.usage is not None:
            bare = without_known_object(payload, b'"usage"') if edits is None and plain is None else None
            if bare is not None:
                payload = bare
            else:
                edits = edits or Edits()
                edits.drop("usage")
        if edits is not None or plain is not None:
            plain = _plain(payload) if plain is None else plain
            if edits is not None:
                edits.apply(plain)
            payload = encoded(plain)
        naming, self._naming = self._naming, None
        joined, self._joined = self._joined, ""
        held_at = self._held_at
        if held_at is not None and joined:
            self._held[0] = _renamed(self._held[0], joined, held_at.choice, held_at.place)
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
        """Forward what was held back: the name is complete."""
        held_at, self._held_at = self._held_at, None
        if held_at is not None:
            passed += self._held
            self._held.clear()
            held_at.told(events if self._said is not None and held_at.calls is self._said.calls else [])

    def _mended(self, payload: bytes) -> dict[str, Any] | None:
        """The chunk that msgspec refused, field by field; None for what is no JSON object."""
        try:
            value = parse(payload)
            if type(value) is list and len(value) == 1:
                value = value[0]
            plain, odd = fit(value, Chunk)
            if self._halves is not None or b"\\u" in payload:
                self._join_halves(plain)
                plain = whole_characters(plain)
        except (ValueError, RecursionError):
            return None
        self.skipped_fields += odd
        return plain

    def _join_halves(self, plain: dict[str, Any]) -> None:
        """Join the halves of surrogate pairs that stand in two chunks; at a choice's end, each that is left is U+FFFD."""
        halves = self._halves = self._halves or Halves()
        for choice in plain.get("choices") or ():
            number, delta = choice.get("index") or 0, choice.get("delta")
            if type(delta) is dict:
                for name in TEXTS:
                    _join_text(delta, name, halves, number, name)
                for call in delta.get("tool_calls") or ():
                    _join_function(call.get("function"), halves, number, call.get("index"))
                _join_function(delta.get("function_call"), halves, number, "function_call")
            if choice.get("finish_reason"):
                _end_halves(choice, halves, number)
        if halves.pending:
            self._form = None

    def _counted(self, usage: ReportedUsage, known: ReportedUsage | None) -> ReportedUsage:
        """The last word counts; what says nothing of it is left as it was."""
        if known is not None and (usage.prompt_tokens is None or usage.completion_tokens is None):
            for name in ReportedUsage.__struct_fields__:
                if getattr(usage, name) is None:
                    setattr(usage, name, getattr(known, name))
        return usage

    def _without_choices(self, chunk: Chunk, payload: bytes) -> bool:
        """Azure's verdict on the prompt is a chunk like any other; usage alone is withheld; anything else is none of ours."""
        if chunk.usage is None or b'"base_resp"' in payload:
            error = told_error(payload)
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
        """The stream's end, by its terminator or (`closing`) the body's end."""
        said = self._said
        if said is None:
            raise self._cut()
        native = said.native
        if not native:
            ended = not closing or (self.usage_is_end and self._usage is not None)
            if not said.content or not ended:
                raise self._cut()
            self.finish_missing = 1
        if not native or self._others:
            self._make_ends(events, passed)
        self._done = True
        self._form = None
        if self._held_at is not None:
            self._release(events, passed)
        events.append(Finished(said.reason(keep_stop=self.keep_stop), _usage(self._usage), native))

    def _make_ends(self, events: list[StreamEvent], passed: list[bytes]) -> None:
        """Say why they ended for the choices whose provider has not, by a chunk in the likeness of its own."""
        every = {0: self._said, **self._others}
        open_ = {index: said for index, said in every.items() if said is not None and not said.native}
        if open_:
            reasons = {index: "tool_calls" if said.called else "stop" for index, said in open_.items()}
            self._chunk(_end_chunk(self._like or b"".join(passed[:1]), reasons), events, passed)

    def take(self, choices: Sequence[Choice], usage: ReportedUsage | None, events: list[StreamEvent]) -> Edits | None:
        """A whole answer's choices at once: what follows `Started`. Returns what must be changed in the answer, by paths
        from its top. Raises UpstreamError where a choice has failed, UpstreamTruncated where nothing was said."""
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
        said = self._said
        if self._failure is not None:
            raise self._failure
        if said is None or not said.native:
            raise self._cut()
        self._done = True
        reported = _usage(self._usage)
        native = said.native if not self.finish_missing else ""
        events.append(Finished(said.reason(keep_stop=self.keep_stop), reported, native))
        return self._edits

    def _whole_end(self, choice: Choice, position: int, events: list[StreamEvent]) -> None:
        """A whole answer's choice has ended, whether or not it says why."""
        said = self._choice_of(choice.index or 0)
        if said.native or self._failure is not None or not said.content:
            return
        self.finish_missing = 1
        reason = "tool_calls" if said.called else "stop"
        self._edit().set(reason, "choices", position, "finish_reason")
        self._end(reason, position, "message", said, events if not choice.index else [])

    def _cut(self) -> UpstreamError:
        if self._started or (self._first in b"deir:" and not self.skipped):
            return UpstreamTruncated()
        return UpstreamGarbled("The upstream's answer is not a stream of chat completion chunks")


def _text_of(payload: bytes) -> str:
    """What a chunk says where that is text and nothing else, and it is passed on as it is; else ""."""
    decoder = ChunkDecoder(verbatim=True)
    decoder._started = True
    events: list[StreamEvent] = []
    passed: list[bytes] = []
    try:
        decoder._chunk(payload, events, passed)
    except UpstreamError:
        return ""
    said = decoder._said
    match events:
        case [TextDelta(text=text)] if (
            passed == [payload] and decoder._usage is None and said is not None and _only_texts(said)
        ):
            return text
        case _:
            return ""


def _only_texts(said: _Said | None) -> bool:
    return said is not None and not said.native and said.calls is None


def _parts(parts: Sequence[ContentPart], events: list[StreamEvent]) -> str | None:
    """Add the events of content that is a list of parts. Returns its text, where it is nothing else."""
    plain = True
    for part in parts:
        if part.text:
            events.append(TextDelta(part.text))
        plain = plain and part.thinking is None and (part.text is not None or part.type in ("text", ""))
        match part.thinking:
            case None | "":
                pass
            case str(text):
                events.append(ReasoningDelta(text))
            case thoughts:
                events.extend(ReasoningDelta(thought.text) for thought in thoughts if thought.text)
    return "".join(part.text or "" for part in parts) if plain else None


def finished(native: str, usage: ReportedUsage | None) -> Finished:
    return Finished(FINISH.get(native.lower(), "stop"), _usage(usage), native)


def _usage(usage: ReportedUsage | None) -> Usage | None:
    """What a provider reports. Of input, output and their total, any two say the third; None where too little is said."""
    if usage is None:
        return None
    given, said, total = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens or 0
    if given is None and said is None:
        given, said = usage.input_tokens, usage.output_tokens
    if given is None and said is None:
        return None
    if given is None:
        given = max(0, total - (said or 0))
    elif said is None:
        said = max(0, total - given)
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details is not None else None
    reasoning = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details is not None else None
    return Usage(
        input=given,
        output=said or 0,
        cached_input=cached or usage.cached_tokens or usage.prompt_cache_hit_tokens or 0,
        reasoning=reasoning or 0,
        total=total if total != given + (said or 0) else 0,
    )


def completed(usage: ReportedUsage) -> tuple[int, int, int] | None:
    """The three counts that every client of the dialect reads (COUNTS); None where too little is said for that, or what
    is not to be believed."""
    known = _usage(usage)
    known = None if known is None else believed(known)
    return None if known is None else (known.input, known.output, known.tokens)


def _renamed(payload: bytes, name: str, choice: int, call: int) -> bytes:
    """A chunk with another name of the call at this place."""
    plain = _plain(payload)
    plain["choices"][choice]["delta"]["tool_calls"][call]["function"]["name"] = name
    return encoded(plain)


def _plain(payload: bytes) -> Any:
    """The values of a chunk that is to be written anew. Raises UpstreamGarbled for one beyond what is read of any text."""
    try:
        return parse(payload)
    except ValueError as error:
        raise UpstreamGarbled(f"The upstream sent an event that cannot be passed on: it {error}") from None


def _end_chunk(like: bytes, reasons: dict[int, str]) -> bytes:
    """The chunk that tells choices' finish reasons, with the head of another one."""
    try:
        head = parse(like) if like else {}
    except ValueError:
        head = {}
    known = {key: head[key] for key in ("id", "object", "created", "model", "system_fingerprint") if key in head}
    choices = [{"index": index, "delta": {}, "finish_reason": reason} for index, reason in reasons.items()]
    return encoded({**known, "choices": choices})


def _frames(passed: list[bytes], payloads: list[bytes], body: bytes | None) -> bytes:
    """The frames that are passed on. `body` are the frames of `payloads`, and serves where they stand at its beginning;
    else they are written anew."""
    if body is not None:
        if passed == payloads:
            return body
        if passed == payloads[: len(passed)]:
            return body[: sum(map(len, passed)) + FRAMING * len(passed)]
    return b"".join([b"data: %b\n\n" % payload.replace(b"\n", b"\ndata: ") for payload in passed])


# halves of surrogate pairs


def _join_text(holder: dict[str, Any], field: str, halves: Halves, *text_id: Any) -> None:
    value = holder.get(field)
    if type(value) is str:
        holder[field] = halves.join(text_id, value)
    elif type(value) is list:
        for part in value:
            _join_text(part, "text", halves, *text_id)
            _join_text(part, "thinking", halves, *text_id, "thinking")


def _join_function(function: Any, halves: Halves, choice: int, call: Any) -> None:
    if type(function) is dict:
        for name in ("name", "arguments"):
            if type(function.get(name)) is str:
                function[name] = halves.join((choice, name, call), function[name])
        if function.get("arguments") and halves.pending.pop((choice, "name", call), ""):
            function["name"] = (function.get("name") or "") + REPLACEMENT  # the name is complete


def _end_halves(choice: dict[str, Any], halves: Halves, number: int) -> None:
    """The choice ends: what still waits for its other half ends in U+FFFD."""
    delta = choice["delta"] if type(choice.get("delta")) is dict else {}
    choice["delta"] = delta
    for ended in [text_id for text_id in halves.pending if text_id[0] == number]:
        del halves.pending[ended]
        match ended:
            case (_, "arguments" | "name" as field, call) if call != "function_call":
                index = {} if call is None else {"index": call}
                delta["tool_calls"] = [*(delta.get("tool_calls") or ()), {**index, "function": {field: REPLACEMENT}}]
            case (_, "content", *_):
                said = delta.get("content")
                delta["content"] = (said if type(said) is str else "") + REPLACEMENT
            case (_, str(field)) if field in TEXTS:
                delta[field] = (delta.get(field) or "") + REPLACEMENT


def _as_error(payload: bytes) -> bytes:
    """The payload of an `event: error`, so that it reads as an error whether or not it says so itself."""
    try:
        value = parse(payload)
    except ValueError:
        value = payload.decode("utf-8", "replace")
    if isinstance(value, dict) and value.get("error"):
        return payload
    return encoded({"error": value or "The upstream sent an error event"})


def check_size(document: bytes | bytearray) -> None:
    """Raises UpstreamGarbled for a JSON document that is too deep or has too many values, before it is parsed."""
    if bound := oversized(document):
        raise UpstreamGarbled(f"The upstream sent a document that {bound}")


def _payloads(document: bytes | bytearray) -> list[bytes]:
    """The payloads of the stream that a document stands for; chunks may be its lines, or the entries of its list."""
    check_size(document)
    lines = [line for line in document.splitlines() if line.strip()]
    if len(lines) > 1 and all(is_object(bytes(line)) for line in lines):
        return [bytes(line) for line in lines]
    try:
        value = parse(document) if document.lstrip(WHITE)[:1] == b"[" else None
    except ValueError:
        value = None
    if type(value) is list and all(type(entry) is dict and "choices" in entry for entry in value):
        return [encoded(entry) for entry in value]
    return [_as_chunk(document), b"[DONE]"]


def _whole_answer(payload: bytes) -> bytes:
    """The chunk that a frame with a whole chat completion stands for; b"" for any other frame."""
    if b'"message"' not in payload:
        return b""
    try:
        value = parse(payload)
    except ValueError:
        return b""
    match value:
        case {"choices": [{"message": dict()}, *_]}:
            return _as_chunk(payload)
        case _:
            return b""


def _as_chunk(document: bytes | bytearray) -> bytes:
    """A whole chat completion as the one chunk that would have said the same; an error document as it is."""
    check_size(document)
    if slow_numbers(document):
        raise UpstreamGarbled("The upstream sent a document whose numbers would take too long to read")
    try:
        value = parse(document)
    except ValueError:
        value = None
    match value:
        case {"error": error} if error:
            pass
        case [{"error": error}, *_]:
            value = {"error": error}
        case {"choices": [_, *_] as choices}:
            value = {**value, "object": "chat.completion.chunk", "choices": _as_chunk_choices(choices)}
        case {"choices": dict(choice)}:
            value = {**value, "object": "chat.completion.chunk", "choices": _as_chunk_choices([choice])}
        case _ if tells_error(value):
            value = {"error": value}
        case _:
            raise UpstreamGarbled("The upstream answered with something other than a chat completion")
    return encoded(whole_characters(value))


def _as_chunk_choices(choices: list[Any]) -> list[Any]:
    """Choices of which none has the index 0 are numbered by their order."""
    made = [_as_chunk_choice(choice) for choice in choices]
    if all(type(choice) is dict and choice.get("index") for choice in made):
        made = [{**choice, "index": position} for position, choice in enumerate(made)]
    return made


def _as_chunk_choice(choice: Any) -> Any:
    match choice:
        case {"message": {"tool_calls": [*calls]}}:
            numbered = [{**call, "index": index} for index, call in enumerate(calls) if isinstance(call, dict)]
            return {**choice, "delta": {**choice["message"], "tool_calls": numbered}, "message": None}
        case {"message": dict(message)}:
            return {**choice, "delta": message, "message": None}
        case _:
            return choice
