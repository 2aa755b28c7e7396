"""Decodes streamed Responses (SSE): https://platform.openai.com/docs/api-reference/responses-streaming

How a stream ends:

    response.completed                      complete
    response.incomplete                     complete: too long, or filtered (`incomplete_details.reason`)
    response.failed, response.cancelled, error   an error
    [DONE] after content                    complete, and counted: proxies send it, OpenAI does not
                                            (if frames are forwarded, a `response.completed` is added)
    the body's end with none of these       truncated

A last event that is complete JSON counts even without the empty line after it, and so does a whole Response
in place of a stream. `obfuscation`, which hides the length of a delta, is ignored, as are unknown events and
fields.
"""

import re
from typing import Any

import msgspec

from sluice.errors import UpstreamError, UpstreamGarbled, UpstreamTruncated
from sluice.model.events import (
    Finished,
    FinishReason,
    RefusalDelta,
    Started,
    StreamEvent,
    Usage,
    Verbatim,
    Working,
)
from sluice.wire import sse
from sluice.wire.call_ids import new_call_id
from sluice.wire.lenient import REPLACEMENT, Halves, encoded, fit, parse, parse_again, whole_characters
from sluice.wire.upstream_errors import reported_error, stream_error
from sluice_plugins.decoding import MALFORMED, MAX_EVENT, is_last
from sluice_plugins.responses.answer import FUNCTIONS, Answer
from sluice_plugins.responses.wire import Item, Response, ResponsesEvent, decode_event, decode_response

REASONS: dict[str, FinishReason] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
MAX_DOCUMENT = 32 << 20
"""Most bytes of a whole answer."""
MAX_ITEMS = 4 << 20
"""Most bytes of items that are kept for a Response without its output."""
MAX_PLACE = 1 << 31
MAX_IDS = 10_000
"""Most ids of items whose positions are remembered."""
_HALF = re.compile(rb"\\u[dD][89a-fA-F]").search
_FAILED = "The upstream's answer failed"


class ResponsesDecoder:
    """Decodes one streamed Response.

    `verbatim`: frames are forwarded unmodified; frames that clients could not read (fields of a wrong type,
    NaN, split surrogate pairs) are re-encoded, and malformed data is left out. `strict`: malformed data is an
    error, otherwise it is skipped and counted in `skipped`. `skipped_fields` counts fields of a wrong type,
    `finish_missing` answers that only `[DONE]` ended.
    """

    def __init__(self, *, verbatim: bool = False, strict: bool = False, max_event: int = MAX_EVENT) -> None:
        self._stream = sse.EventStream(max_event)
        self._verbatim = verbatim
        self._strict = strict
        self._ids: set[str] = set()
        self._answer = Answer(self._ids, keeps=verbatim)
        self._started = False
        self._done = False
        self._error: UpstreamError | None = None
        self._usage: Usage | None = None
        self._document: bytearray | None = None
        self._halves: Halves | None = None
        self._instead: bytes | None = None  # what is forwarded in place of the current frame
        self._known = False  # whether the body is a stream or a document
        self._items: dict[int, bytes] = {}  # the newest event of each item, if frames are forwarded
        self._kept = 0  # bytes of those events
        self._begun = b""  # the newest event that has the Response, before the last event
        self._before = b""  # the previous event
        self._places: dict[str, int] = {}  # positions of items, by their ids
        self._call_ids: dict[int, str] = {}  # ids of calls by position, if frames are forwarded
        self._begun_at: dict[int, int] = {}  # by `output_index`: the position of the newest item that has it
        self._by_id = False  # items are identified by their ids, because several have the same `output_index`
        self._newest = -1  # the position of the newest item
        self._last = -1  # the largest position of an item
        self.skipped = 0
        self.skipped_fields = 0
        self.finish_missing = 0

    @property
    def reported(self) -> Usage | None:
        return self._usage

    def distinguish(self, ids: frozenset[str]) -> None:
        if not self._verbatim:  # forwarded frames keep the ids that they have
            self._ids |= ids

    def feed(self, data: bytes) -> list[StreamEvent]:
        if self._error is not None:
            raise self._error
        if self._done:
            return []
        if not self._known:
            first = data.lstrip(b" \t\r\n\xef\xbb\xbf")[:1]
            self._known = bool(first)
            if first in (b"{", b"["):
                self._document = bytearray()
        if self._document is not None:
            self._document += data
            if len(self._document) > MAX_DOCUMENT:
                raise UpstreamGarbled(f"The upstream sent a document longer than {MAX_DOCUMENT} bytes")
            return []
        body = self._stream.complete(data)
        return self._batch(body) if body else []

    def close(self) -> list[StreamEvent]:
        if self._error is not None:
            raise self._error
        if self._done:
            return []
        events: list[StreamEvent] = []
        if self._document is not None:
            self._whole(bytes(self._document), events)
            return events
        rest = self._stream.close()
        last = self._stream.event(rest)
        if last is not None and is_last(last.data):
            events = self._batch(rest.rstrip(b"\n") + sse.END)
        if not self._done and self._error is None:
            self._error = UpstreamTruncated()
        if self._error is not None and not events:
            raise self._error
        return events

    def _batch(self, body: bytes) -> list[StreamEvent]:
        """Returns the events of complete frames, and, if they are forwarded, the frames."""
        events: list[StreamEvent] = []
        passed = 0
        written: list[bytes] = []  # the data that replaces the frames up to `since`
        since = 0
        body = sse.separated(body)
        try:
            for frame in body.split(sse.END)[:-1]:
                event = self._stream.event(frame)
                if event is not None:
                    self._take(event, events)
                size = len(frame) + 2
                if self._instead is not None:
                    written += body[since:passed], self._instead
                    since, self._instead = passed + size, None
                passed += size
                if self._done:
                    break
        except UpstreamError as error:
            self._error, self._instead = error, None
        if written:
            body = b"".join([*written, body[since:passed]])
            passed = len(body)
        if self._verbatim and passed:
            events.append(Verbatim(body if passed == len(body) else body[:passed]))
        if self._error is not None and not events:
            raise self._error
        return events

    def _take(self, frame: sse.Event, events: list[StreamEvent]) -> None:
        event = self._event(frame)
        if event is None:
            return
        index = self._place(event)
        of_item = event.item_id or event.item is not None or event.delta is not None
        if self._verbatim and of_item and index != event.output_index:
            self._instead = _frame(frame, {**_values(self._passed(frame)), "output_index": index})
        if self._verbatim and event.item is not None and event.item.type in FUNCTIONS:
            self._identify(frame, index, event.item)
        answer = self._answer
        match event.type.removeprefix("response."):
            case "output_text.delta":
                self._start(None, events)
                answer.text(index, event.delta or "", events)
            case "refusal.delta":
                self._start(None, events)
                answer.text(index, event.delta or "", events, RefusalDelta)
            case (
                "function_call_arguments.delta" | "custom_tool_call_input.delta" | "mcp_call_arguments.delta"
            ):
                answer.arguments(index, event.delta or "", events)
            case "reasoning_summary_text.delta":
                answer.think(index, event.delta or "", "summary", events)
            case "reasoning_text.delta":
                answer.think(index, event.delta or "", "content", events)
            case "output_item.added":
                self._start(None, events)
                answer.begin(index, event.item or Item(), events)
                if self._verbatim:
                    self._keep(index, self._passed(frame))
            case "output_item.done":
                self._start(None, events)
                answer.done(index, event.item or Item(), events)
                if self._verbatim:
                    self._keep(index, self._passed(frame))
            case "output_text.annotation.added" if event.annotation is not None:
                answer.cite(index, event.annotation, events)
            case "created" | "in_progress" | "queued":
                self._start(event.response, events)
                used = event.response.usage if event.response is not None else None
                if used is not None and used.output_tokens:
                    self._usage = used.usage()
                if self._verbatim:
                    self._begun = self._passed(frame)
            case "completed" | "incomplete" | "failed" | "cancelled" as state:
                if self._verbatim and event.response is not None:
                    self._identify_all(frame, event.response)
                self._end(state, event.response or Response(), frame.data, events)
                if self._verbatim and not (event.response and event.response.output):
                    self._fill(frame, state)
            case "[DONE]":
                self._end_early(events)
            case "error":
                raise reported_error(frame.data) or stream_error(event.error or _values(frame.data))
            case _:
                if self._started:  # an unknown event: the provider is working
                    events.append(Working())
        self._before = frame.data

    def _place(self, event: ResponsesEvent) -> int:
        """Returns the position of an event's item: its `output_index`. If that is missing, or several items
        have the same, the item is found by its id; without an id it is the newest item."""
        id = event.item_id or (event.item.id if event.item is not None else None)
        given = event.output_index
        if given is not None and not 0 <= given <= MAX_PLACE:
            given = None
        known = self._places.get(id) if id and (given is None or self._by_id) else None
        if event.type.endswith("output_item.added"):
            if given is not None and given in self._begun_at:
                self._by_id, known, place = True, None, self._last + 1
            else:
                place = self._last + 1 if given is None else given
            if known is not None:
                return known
            self._last = max(self._last, place)
            self._begun_at[place if given is None else given] = self._newest = place
            if id and len(self._places) < MAX_IDS:
                self._places[id] = place
            return place
        if known is not None:
            return known
        return max(self._newest, 0) if given is None else self._begun_at.get(given, given)

    def _identify(self, frame: sse.Event, index: int, item: Item) -> None:
        """Set the `call_id` of a call that has none: the one that its item had before, else the item's id,
        else a new one. Clients need it to send the call's result."""
        known = self._call_ids.get(index)
        if not item.call_id:
            item.call_id = known or item.id or new_call_id()
            values = parse_again(self._passed(frame))
            values["item"]["call_id"] = item.call_id
            self._instead = _frame(frame, values)
        if known is None:
            self._call_ids[index] = item.call_id

    def _identify_all(self, frame: sse.Event, response: Response) -> None:
        """Set missing `call_id`s in the last event's Response to those of the events before."""
        if lacks_call_ids(response):
            values = parse_again(self._passed(frame))
            self._give_call_ids(response, values["response"])
            self._instead = _frame(frame, values)

    def _give_call_ids(self, response: Response, values: dict[str, Any]) -> None:
        for place, (item, written) in enumerate(zip(response.output or (), values["output"], strict=True)):
            if item.type in FUNCTIONS and not item.call_id:
                at = self._places.get(item.id or "", place)
                item.call_id = written["call_id"] = self._call_ids.get(at) or item.id or new_call_id()

    def _event(self, frame: sse.Event) -> ResponsesEvent | None:
        data = frame.data
        event: ResponsesEvent | None = None
        if self._halves is None or not self._halves.pending:
            try:
                event = decode_event(data)
            except MALFORMED:
                event = None
        if event is None:
            event = self._mended(frame)
        if event is None or not event.type:
            if data.strip() == b"[DONE]":
                return ResponsesEvent("[DONE]")
            if (error := reported_error(data)) is not None:  # an error of a proxy
                raise error
            if (
                event is not None and frame.event != "message"
            ):  # the frame's `event:` line names the type, too
                event.type = frame.event
                return event
            if self._strict:
                raise UpstreamGarbled
            self.skipped += 1
            self._instead = b""
            return None
        return event

    def _mended(self, frame: sse.Event) -> ResponsesEvent | None:
        """Returns an event that msgspec refused, decoded field by field; None if it is not a JSON object."""
        data = frame.data
        try:
            values, odd = fit(parse(data), ResponsesEvent)
            if self._halves is not None or _HALF(data):
                self._join_halves(values)
                values = whole_characters(values)
        except (ValueError, RecursionError):
            return None
        self.skipped_fields += odd
        self._instead = _frame(frame, values)
        return msgspec.convert(values, ResponsesEvent)

    def _join_halves(self, values: dict[str, Any]) -> None:
        """Join surrogate pairs that are split over two deltas of one item."""
        halves = self._halves = self._halves or Halves()
        kind, delta = values.get("type"), values.get("delta")
        if type(delta) is str and type(kind) is str:
            values["delta"] = halves.join((values.get("output_index"), kind), delta)

    def _end_halves(self, events: list[StreamEvent]) -> None:
        """Replace pending halves of surrogate pairs by U+FFFD."""
        pending = [*self._halves.pending] if self._halves is not None else []
        for index, kind in pending:
            if kind == "response.output_text.delta":
                self._answer.text(index or 0, REPLACEMENT, events)
            elif kind == "response.refusal.delta":
                self._answer.text(index or 0, REPLACEMENT, events, RefusalDelta)

    def _start(self, response: Response | None, events: list[StreamEvent]) -> None:
        if not self._started:
            self._started = True
            events.append(Started((response and response.id) or "", (response and response.model) or ""))

    def _end(self, state: str, response: Response, data: bytes, events: list[StreamEvent]) -> None:
        """Handle the Response in the last event, in any state. Raises UpstreamError if it has failed, and
        UpstreamTruncated if it is complete but empty, without even usage (Wei-Shaw/sub2api#5415)."""
        if response.usage is not None:
            self._usage = response.usage.usage()
        if state in ("failed", "cancelled"):
            raise failure(response)
        self._start(response, events)
        self._end_halves(events)
        if not self._answer.begun:  # the last event is the only one
            for index, item in enumerate(response.output or ()):
                self._answer.done(index, item, events)
        if state == "completed" and self._usage is None and not self._answer.begun:
            raise UpstreamTruncated
        events.append(self._finished(state, response))
        self._done = True

    def _keep(self, index: int, data: bytes) -> None:
        """Store the newest event of an item, for a Response that comes without its output."""
        self._kept += len(data) - len(self._items.get(index, b""))
        if self._kept <= MAX_ITEMS:
            self._items[index] = data
        else:
            self._items.clear()

    def _passed(self, frame: sse.Event) -> bytes:
        """Returns the data of the current frame as it is forwarded."""
        return frame.data if self._instead is None else self._instead.partition(b"data: ")[2].rstrip(b"\n")

    def _fill(self, frame: sse.Event, state: str) -> None:
        """Set the output of the last event's Response to the items that came before. Servers that do not
        store Responses (Codex's) leave it empty, but SDKs return it to their callers as the answer."""
        values, output = _values(self._passed(frame)), self._output()
        if type(values) is not dict:
            return
        if type(values.get("response")) is not dict:
            values["response"] = self._response(state)
        elif not output:
            return
        values["response"]["output"] = output
        self._instead = _frame(frame, values)

    def _output(self) -> list[dict[str, Any]]:
        """Returns the items of the answer; unfinished ones are completed by their deltas. Returns [] if they
        were longer than MAX_ITEMS."""
        answer = self._answer
        if self._kept > MAX_ITEMS or answer.too_long:
            return []
        items: dict[int, dict[str, Any]] = {}
        for index, data in self._items.items():
            event = _values(data)
            if type(event) is dict and type(item := event.get("item")) is dict:
                items[index] = item
        for index in answer.unfinished:
            items[index] = answer.finished(index, items.get(index, {}))
        return [item for _, item in sorted(items.items()) if item]

    def _response(self, state: str) -> dict[str, Any]:
        """Returns the Response as it had begun, with another status."""
        event = _values(self._begun) if self._begun else None
        begun = event.get("response") if type(event) is dict else None
        plain = {"id": "", "object": "response", "created_at": 0, "model": "", "error": None, "output": []}
        return {**plain, **(begun if type(begun) is dict else {}), "status": state}

    def _finished(self, state: str, response: Response) -> Finished:
        native = (response.incomplete_details and response.incomplete_details.reason) or ""
        if state == "incomplete":
            reason: FinishReason = REASONS.get(native, "length")
        else:
            reason = "tool_calls" if self._answer.called else "stop"
        return Finished(reason, self._usage, native or state)

    def _end_early(self, events: list[StreamEvent]) -> None:
        """End the answer at [DONE] without a Response. Raises UpstreamTruncated if there was no content, or
        if frames are forwarded and the items are too long to make the Response that the client waits for."""
        if not self._answer.content:
            raise UpstreamTruncated
        self._end_halves(events)
        if self._verbatim:
            output = self._output()
            if not output:
                raise UpstreamTruncated
            response = {**self._response("completed"), "output": output}
            last: dict[str, Any] = {"type": "response.completed", "response": response}
            number = _values(self._before).get("sequence_number")
            if type(number) is int:
                last["sequence_number"] = number + 1
            self._instead = _frame(sse.Event(b"", "response.completed"), last) + b"data: [DONE]\n\n"
        self.finish_missing = 1
        events.append(self._finished("completed", Response()))
        self._done = True

    def _whole(self, document: bytes, events: list[StreamEvent]) -> None:
        """Decode a whole Response that was sent in place of a stream."""
        response, values, odd = response_of(document)
        self.skipped_fields += odd
        if self._verbatim and lacks_call_ids(response):
            values = parse_again(document) if values is None else values
            self._give_call_ids(response, values)
        self._end(checked_state(response, document), response, document, events)
        if self._verbatim:
            events.append(Verbatim(document if values is None else encoded(values), whole=True))


def response_of(document: bytes) -> tuple[Response, dict[str, Any] | None, int]:
    """Returns the Response in a document, and, if it had to be decoded field by field, its values and the
    number of fields of a wrong type. Raises UpstreamError for any other document."""
    try:
        return decode_response(document), None, 0
    except MALFORMED:
        pass
    try:
        values, odd = fit(parse(document), Response)
        values = whole_characters(values)
        response = msgspec.convert(values, Response)
    except (ValueError, RecursionError):
        raise UpstreamGarbled from None
    return response, values, odd


def lacks_call_ids(response: Response) -> bool:
    """Returns whether a call of the caller's tools has no `call_id`."""
    return any([item.type in FUNCTIONS and not item.call_id for item in response.output or ()])


def checked_state(response: Response, document: bytes) -> str:
    """Returns the status of a whole Response. Raises UpstreamError if it is not an answer."""
    state = response.status or ""
    if state in ("completed", "incomplete", "failed", "cancelled"):
        return state
    if response.output and state not in ("queued", "in_progress"):  # none, or one of this server alone
        return "completed"
    raise reported_error(document) or UpstreamGarbled("The upstream's answer is not complete")


def failure(response: Response) -> UpstreamError:
    """Returns the error of a failed Response."""
    match response.error:
        case {"message": str()} | {"code": str()} as error:
            return stream_error({"error": error})
        case _:
            return UpstreamError("stream_error", _FAILED, status=200)


def _frame(frame: sse.Event, values: dict[str, Any]) -> bytes:
    """Returns the frame with other data."""
    name = b"" if frame.event == "message" else b"event: %b\n" % frame.event.encode()
    return b"%bdata: %b\n\n" % (name, encoded(values))


def _values(data: bytes) -> Any:
    try:
        return parse(data)
    except ValueError:
        return {}
