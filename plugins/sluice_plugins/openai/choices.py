"""Decodes the choices of one answer, be it a stream or whole, into events, and into the edits that its frames
need before they are forwarded.

Choices arrive as the types of `openai.chunk`, whichever way they were parsed. Only one choice makes events;
the state of the others is kept because their frames are forwarded, too.
"""

from collections.abc import Callable, Sequence

import msgspec

from sluice.errors import UpstreamError, UpstreamGarbled, UpstreamTruncated
from sluice.model.events import (
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
)
from sluice.wire.call_ids import new_call_id
from sluice.wire.upstream_errors import stream_error
from sluice_plugins.decoding import failure_of
from sluice_plugins.openai.calls import ReceivedCall, ReceivedCalls
from sluice_plugins.openai.chunk import Choice, ContentPart, ReportedUsage, ToolCallPart
from sluice_plugins.openai.edits import Edits
from sluice_plugins.openai.ends import FINISH, newest_usage, usage_of

MAX_CHOICES = 128
"""Most choices of one answer."""


class ChoiceState(msgspec.Struct, eq=False):
    """The state of one choice. `native`: its finish reason, "" until it has one; `content`: it has text,
    reasoning or calls; `legacy`: it called a function by the deprecated field `function_call`."""

    calls: ReceivedCalls | None = None
    content: bool = False
    legacy: bool = False
    native: str = ""

    __repr__ = object.__repr__  # it holds the model's text

    @property
    def called(self) -> bool:
        return self.calls is not None and any(call.started or call.name for call in self.calls.made)

    def reason(self, *, keep_stop: bool) -> FinishReason:
        """Returns the finish reason for the client: after tool calls `tool_calls`, since clients end their
        tool loop on `stop`, unless `keep_stop`."""
        reason = FINISH.get(self.native.lower(), "stop")
        if reason == "stop" and self.calls is not None and self.called and not keep_stop:
            return "tool_calls"
        return reason


class NamedCall(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A call whose name the next chunk may continue; `choice` and `place` are its positions in its chunk."""

    calls: ReceivedCalls
    call: ReceivedCall
    choice: int
    place: int

    def announce(self, events: list[StreamEvent]) -> None:
        if self.calls.naming is self.call:
            self.calls.announce(events)


class ChoiceDecoder(msgspec.Struct, eq=False):
    """Decodes the choices of one answer. `verbatim`: its frames are forwarded, so the edits that they need
    are recorded.

    `finish_missing` counts answers without a finish reason (0 or 1). `new_id` makes ids for calls that have
    none, if frames are forwarded. `keep_stop`: `stop` after calls is not changed.
    """

    verbatim: bool = False
    keep_stop: bool = False
    new_id: Callable[[], str] = new_call_id
    finish_missing: int = 0
    _taken: frozenset[str] = frozenset()  # ids of the conversation's calls
    _failure: UpstreamError | None = None  # set by a finish reason of the current chunk that means failure
    _usage: ReportedUsage | None = None
    _main: ChoiceState | None = None  # choice 0
    _main_index: int = 0  # the index of that choice, which is not 0 at some servers
    _others: dict[int, ChoiceState] = {}
    _as_it_came: bool = True  # the current chunk needs no edit, and no frame is held back
    _edits: Edits | None = None  # edits of the current chunk
    _joined: str = ""  # the name so far of a call that was held back, continued by the current chunk
    _naming: NamedCall | None = None  # the last call whose name began in the current chunk
    _called: bool = False  # the current chunk has a piece of a call

    __repr__ = object.__repr__  # the fields hold the model's text

    def distinguish(self, ids: frozenset[str]) -> None:
        self._taken = ids

    def take(
        self, choices: Sequence[Choice], usage: ReportedUsage | None, events: list[StreamEvent]
    ) -> Edits | None:
        """Decode the choices of a whole answer into the events after `Started`. Returns the edits that the
        answer needs; None if none. Raises UpstreamError if a choice failed, UpstreamTruncated for an answer
        without content."""
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
            raise UpstreamTruncated()
        reported = usage_of(self._usage)
        native = state.native if not self.finish_missing else ""
        events.append(Finished(state.reason(keep_stop=self.keep_stop), reported, native))
        return self._edits

    def _several(self, choices: Sequence[Choice], events: list[StreamEvent]) -> None:
        """Handle several choices, or a single one whose index is not 0. Only one choice makes events: the one
        with the index 0, or, if a single choice was requested, the first."""
        for position, choice in enumerate(choices):
            if choice.index is not None and choice.index < 0:
                choice.index = None
            if not self.verbatim and self._main is None:
                self._main_index = choice.index or 0
            if not choice.index or (not self.verbatim and choice.index == self._main_index):
                if choice.index is None and self.verbatim:
                    self._edit().set(0, "choices", position, "index")
                self._choice(choice, self._main or self._choice_of(0), events, position)
            elif self.verbatim:
                self._choice(choice, self._choice_of(choice.index), [], position)

    def _choice_of(self, index: int) -> ChoiceState:
        """Returns the state of the choice with this index, created if it is new. Raises UpstreamGarbled for
        more than MAX_CHOICES."""
        if not index:
            self._main = self._main or ChoiceState()
            return self._main
        state = self._others.get(index)
        if state is None:
            if len(self._others) >= MAX_CHOICES:
                raise UpstreamGarbled(f"The upstream sent more than {MAX_CHOICES} choices")
            state = self._others[index] = ChoiceState()
        return state

    def _choice(
        self,
        choice: Choice,
        state: ChoiceState,
        events: list[StreamEvent],
        position: int = 0,
        key: str = "delta",
    ) -> None:
        """Handle one choice. For edits: `position` is its place in the chunk, `key` the field of the choice
        that holds its delta."""
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
                    text, thoughts = _parts(content, events)  # type: ignore[arg-type]
                    if text is not None and self.verbatim:
                        self._edit().set(text, "choices", position, key, "content")
                        if thoughts:
                            self._edit().set(thoughts, "choices", position, key, "reasoning_content")
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
        ended = choice.native_finish_reason if failed_natively(choice) else choice.finish_reason
        if ended:
            self._end(ended, position, key, state, events)
            if self._failure is not None and choice.error:
                self._failure = stream_error({"error": choice.error})
        if choice.usage is not None:
            self._usage = newest_usage(choice.usage, self._usage)
            if self.verbatim:
                self._edit().drop("choices", position, "usage")

    def _drop_empty_call(
        self, delta: ToolCallPart, state: ChoiceState, position: int, key: str, place: int
    ) -> None:
        """Drop an empty entry of `tool_calls` if the client's SDK would read it as a call."""
        known = delta.index is not None and state.calls is not None and delta.index < len(state.calls.made)
        if self.verbatim and (key == "message" or not known):
            self._edit().drop("choices", position, key, "tool_calls", place)

    def _tool_call(
        self,
        delta: ToolCallPart,
        state: ChoiceState,
        events: list[StreamEvent],
        position: int,
        *path: str | int,
    ) -> None:
        """Handle one entry of a delta's tool calls, found at `path` within the choice at `position`."""
        if state.calls is None:
            state.calls = ReceivedCalls(self.new_id if self.verbatim else None, self._taken)
        state.content = True
        calls = state.calls
        normalized = calls.take(delta, events)
        self._called = True
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
                self._naming = NamedCall(calls, call, position, int(path[-1]))
                self._as_it_came = False
            if path[0] == "message":
                call.place = int(path[-1])
            elif delta.index != call.index:
                self._edit().set(call.index, "choices", position, *path, "index")
            if normalized.id != (delta.id or "") and (
                normalized.id or delta.id != call.id or self._edits is not None
            ):
                self._edit().set_or_drop(normalized.id, "choices", position, *path, "id")
            # openai's helper for JavaScript refuses a call with an index but no type, and ignores one that has
            # neither
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
        self, native: str, position: int, key: str, state: ChoiceState, events: list[StreamEvent]
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

    def _whole_end(self, choice: Choice, position: int, events: list[StreamEvent]) -> None:
        """End a choice of a whole answer that has no finish reason."""
        state = self._choice_of(choice.index or 0)
        if state.native or self._failure is not None or not state.content:
            return
        self.finish_missing = 1
        reason = "tool_calls" if state.called else "stop"
        self._edit().set(reason, "choices", position, "finish_reason")
        self._end(reason, position, "message", state, events if not choice.index else [])

    def _edit(self) -> Edits:
        if self._edits is None:
            self._edits = Edits()
            self._as_it_came = False
        return self._edits


def failed_natively(choice: Choice) -> bool:
    """Returns whether OpenRouter's own upstream failed, though the finish reason is that of a complete
    answer."""
    native = choice.native_finish_reason
    return type(native) is str and failure_of(native) is not None


def _parts(parts: Sequence[ContentPart], events: list[StreamEvent]) -> tuple[str | None, str]:
    """Append the events of content that is a list of parts. Returns its text and its reasoning if it has
    nothing else, else None as text: clients of this dialect accept only a text."""
    known = True
    thoughts: list[str] = []
    for part in parts:
        if part.text:
            events.append(TextDelta(part.text))
        thinking = part.thinking
        known = known and (
            part.text is not None or thinking is not None or part.type in ("text", "thinking", "")
        )
        pieces = (
            [thinking or ""]
            if not isinstance(thinking, list)
            else [thought.text or "" for thought in thinking]
        )
        events.extend([ReasoningDelta(piece) for piece in pieces if piece])
        thoughts += pieces
    return ("".join([part.text or "" for part in parts]) if known else None), "".join(thoughts)
