"""Forwards answers of Ollama's API to callers of the same dialect: lines unmodified, and the events that they
mean.

A line is rewritten only where a client would misread it: a field has a wrong type, a surrogate pair is split
over two lines, the arguments of a tool call are not an object, a call names no function, or the last line
does not say `done`. Not forwarded are errors and finish reasons that mean failure (the gateway reports them
in its own words), and data that is not a line of JSON. Answers of /api/generate are decoded, too; they have
another form.
"""

from typing import Any

import msgspec

from sluice.errors import UpstreamError
from sluice.model.events import Finished, StreamEvent, Verbatim
from sluice.wire.lenient import encoded, parse, parse_again
from sluice.wire.separators import without_separators
from sluice_plugins.decoding import MAX_EVENT, arguments_of
from sluice_plugins.documents import MAX_DOCUMENT, WHITE, WholeOrStream
from sluice_plugins.ollama.stream import ChatDecoder, Line, LineMessage

Values = dict[str, Any]
_CONTENT = ("content", "thinking", "response", "tool_calls")


class PassingDecoder(ChatDecoder):
    """Decodes one answer, and returns its lines after the events of each read. `rewritten` counts the lines
    that were changed."""

    __slots__ = ("_has_odd_call", "_passed", "_silent_end", "rewritten")

    def __init__(self, *, strict: bool = False, max_event: int = MAX_EVENT, keep_stop: bool = False) -> None:
        super().__init__(strict=strict, max_event=max_event, keep_stop=keep_stop)
        self._passed: list[bytes] = []
        self._has_odd_call = False  # the current line has a call that a client would misread
        self._silent_end = False  # the current line ends the answer without `done`
        self.rewritten = 0

    def _walk(self, data: bytes, events: list[StreamEvent]) -> None:
        try:
            super()._walk(data, events)
        finally:
            self._flush(events)

    def _end(self, events: list[StreamEvent]) -> None:
        try:
            super()._end(events)
        finally:
            self._flush(events)

    def _flush(self, events: list[StreamEvent]) -> None:
        if self._passed:
            events.append(Verbatim(b"".join(self._passed)))
            self._passed.clear()

    def _take(self, frame: bytes, events: list[StreamEvent]) -> None:
        self._parsed, self._has_odd_call = None, False
        before, skipped = len(events), self.skipped
        try:
            super()._take(frame, events)
        except UpstreamError:
            if len(events) > before:
                self._pass_content(self._parsed if self._parsed is not None else parse_again(frame))
            raise
        if self.skipped > skipped:
            return
        if self._parsed is None and not self._has_odd_call and not self._silent_end:
            self._passed.append(b"%b\n" % without_separators(_one_line(frame)))
            return
        values = self._parsed if self._parsed is not None else parse_again(frame)
        if self._silent_end:
            values = {**values, "done": True}
        self._pass(_with_objects(values) if self._has_odd_call else values)

    def _decode(self, frame: bytes) -> Line | None:
        line = super()._decode(frame)
        if line is not None and line.message is None and (line.response or line.thinking or line.tool_calls):
            line.message = LineMessage(line.response, line.thinking, line.tool_calls)
        return line

    def _finish(self, line: Line) -> Finished:
        self._silent_end = line.done is None
        return super()._finish(line)

    def _message(self, message: LineMessage, events: list[StreamEvent]) -> None:
        super()._message(message, events)
        for call in message.tool_calls or ():
            if call.function is None or not bytes(call.function.arguments).lstrip().startswith(b"{"):
                self._has_odd_call = True

    def _pass(self, values: Values) -> None:
        self.rewritten += 1
        self._passed.append(encoded(values) + b"\n")

    def _pass_content(self, values: Values) -> None:
        """Forward the content of a line that also has an error."""
        if values.get("message") or any([values.get(name) for name in _CONTENT]):
            told = {name: value for name, value in values.items() if name not in ("done_reason", "error")}
            self._pass({**_with_objects(told), "done": False})


def _one_line(frame: bytes) -> bytes:
    """Returns a document of several lines as one line: JSON strings contain no line ends."""
    if b"\n" not in frame and b"\r" not in frame:
        return frame
    return frame.replace(b"\r", b" ").replace(b"\n", b" ")


def _with_objects(values: Values) -> Values:
    """Returns the line with objects as arguments of its calls, and without calls that name no function."""
    message = values.get("message")
    if type(message) is dict:
        return {**values, "message": _with_objects(message)}
    calls = values.get("tool_calls")
    if type(calls) is not list:
        return values
    return {
        **values,
        "tool_calls": [_with_object(call) for call in calls if type(call) is dict and call.get("function")],
    }


def _with_object(call: Values) -> Values:
    function = call["function"]
    given = function.get("arguments", {}) if type(function) is dict else {}
    if type(given) is dict or type(function) is not dict:
        return call
    written = arguments_of(given if type(given) is msgspec.Raw else msgspec.Raw(encoded(given)))
    try:
        found = parse(written.encode()) if written else {}
    except ValueError:
        found = {}
    return {**call, "function": {**function, "arguments": found if type(found) is dict else {}}}


class WholeAnswerDecoder(WholeOrStream[PassingDecoder]):
    """Decodes one whole answer, or a stream that was sent in its place."""

    def __init__(self, *, strict: bool = False, max_event: int = MAX_EVENT, keep_stop: bool = False) -> None:
        super().__init__(
            PassingDecoder(strict=strict, max_event=max(max_event, MAX_DOCUMENT), keep_stop=keep_stop)
        )

    def _answer(self, body: bytes) -> list[StreamEvent]:
        """A document and a line begin in the same way, so both are decoded as lines; a single line that is
        the whole answer is forwarded as a document."""
        stream = self._decoder
        stream.whole = b"}\n{" not in body.replace(b"\r", b"")
        events = [*stream.feed(body), *stream.close()]
        passed = [event.data for event in events if type(event) is Verbatim]
        if len(passed) == 1 and passed[0].count(b"\n") == 1:
            events = [event for event in events if type(event) is not Verbatim]
            events.append(Verbatim(passed[0] if stream.rewritten else body.strip(WHITE), whole=True))
        return events
