"""Decodes a whole chat completion into events, with the document itself to be forwarded.

A stream sent in its place, or a document that is not an ordinary completion (an error, a vendor's own form),
is passed to `openai.stream`, which decodes both.

Standard: https://platform.openai.com/docs/api-reference/chat/object
"""

from typing import Any

import msgspec

from sluice.errors import UpstreamGarbled
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Usage, Verbatim
from sluice.wire.jsontext import is_shallow
from sluice.wire.lenient import encoded, fit, parse, parse_again, whole_characters
from sluice.wire.sse import EventStream
from sluice_plugins.decoding import MALFORMED, MAX_EVENT, failure_of
from sluice_plugins.openai import stream as openai_stream
from sluice_plugins.openai.choices import ChoiceDecoder, failed_natively
from sluice_plugins.openai.chunk import Choice, Delta, ReportedUsage, decode_ordinary_document
from sluice_plugins.openai.edits import Edits
from sluice_plugins.openai.ends import COUNTS, FINISH, completed, finished
from sluice_plugins.openai.instead import WHITE, check_size
from sluice_plugins.openai.stream import ChunkDecoder
from sluice_plugins.openai.variants import has_only_text, in_standard_form, unwrapped


class _MessageChoice(Choice, gc=False):
    message: Delta | None = None


class _Completion(msgspec.Struct, gc=False):
    choices: list[_MessageChoice] | None = None
    usage: ReportedUsage | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")  # not decoded: it may be of any type
    id: str | None = None
    model: str | None = None


MAX_DOCUMENT = 32 << 20
"""Most bytes of an ordinary completion. Any other document, or one that needs edits, may have
`stream.MAX_DOCUMENT`."""
ORDINARY = 64 << 10
"""A document of at most so many bytes cannot have too many values (`check_size`)."""
_NO_ERROR = (b"null", b"false", b"{}", b'""', b"[]", b"0")
_decode = msgspec.json.Decoder(_Completion).decode


class DocumentDecoder(msgspec.Struct, eq=False):
    """Collects the body, and decodes it at its end. It has the same counters as `ChunkDecoder`.

    The answer is edited only where the client's SDK would misread it.
    """

    strict: bool = False
    max_event: int = MAX_EVENT
    keep_stop: bool = False
    _fields: int = 0  # fields of a wrong type
    _missing: int = 0  # missing finish reasons
    _taken: frozenset[str] = frozenset()  # ids of the conversation's calls
    _body: bytes | bytearray = b""
    _document: bool = False  # the body begins with { or [
    _other: ChunkDecoder | None = None  # decodes a body that is not an ordinary completion

    __repr__ = object.__repr__  # the fields hold the model's text

    @property
    def skipped(self) -> int:
        return self._other.skipped if self._other is not None else 0

    @property
    def skipped_fields(self) -> int:
        return self._other.skipped_fields if self._other is not None else self._fields

    @property
    def finish_missing(self) -> int:
        return self._other.finish_missing if self._other is not None else self._missing

    @property
    def reported(self) -> Usage | None:
        return self._other.reported if self._other is not None else None

    def distinguish(self, ids: frozenset[str]) -> None:
        self._taken = ids

    def feed(self, data: bytes) -> list[StreamEvent]:
        if self._other is not None:
            return self._other.feed(data)
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        if len(self._body) > MAX_DOCUMENT:
            raise UpstreamGarbled(f"The upstream sent a document longer than {MAX_DOCUMENT} bytes")
        if not self._document:
            first = data.lstrip(WHITE)[:1]
            if first and first not in (b"{", b"["):
                return self._by_chunk_decoder()
            self._document = bool(first)
        return []

    def close(self) -> list[StreamEvent]:
        if self._other is not None:
            return self._other.close()
        body = bytes(self._body)
        if len(body) <= ORDINARY and is_shallow(body) and (ordinary := _ordinary(body)):
            return ordinary
        check_size(body)
        completion, values = self._completion(body)
        choices = completion.choices if completion is not None else None
        if choices is None and (inner := unwrapped(body)):
            self._body = inner
            return self.close()
        if completion is None or not choices:
            return self._by_chunk_decoder() + self.close()
        usage = completion.usage
        events: list[StreamEvent] = [Started(completion.id or "", completion.model or "")]
        text = _only_text(choices)
        edits: Edits | None = None
        if text:
            events += (TextDelta(text), finished(choices[0].finish_reason or "", usage))
        elif _as_deltas(choices):
            decoder = ChoiceDecoder(verbatim=True, keep_stop=self.keep_stop)
            decoder.distinguish(self._taken)
            edits = decoder.take(choices, usage, events)
            self._missing = decoder.finish_missing
        else:
            return self._by_chunk_decoder() + self.close()
        known = completed(usage) if usage is not None else None
        odd = usage is not None and known != (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.total_tokens,
        )
        if edits is not None or values is not None or odd:
            self._check_length()
            values = parse_again(body) if values is None else values
            if edits is not None:
                edits.apply(values)
            if odd:
                values["usage"] = (
                    {**values["usage"], **dict(zip(COUNTS, known, strict=True))}
                    if known is not None
                    else None
                )
            body = encoded(values)
        events.append(Verbatim(body, whole=True))
        return events

    def _check_length(self) -> None:
        if len(self._body) > openai_stream.MAX_DOCUMENT:
            raise UpstreamGarbled(
                f"The upstream sent a document longer than {openai_stream.MAX_DOCUMENT} bytes that is odd"
            )

    def _completion(self, body: bytes) -> tuple[_Completion | None, dict[str, Any] | None]:
        """Returns the completion, or None for any other document; and its parsed values, if it had to be
        decoded field by field."""
        values: dict[str, Any] | None = None
        try:
            completion = _decode(body)
            fits = not (completion.choices and has_only_text(completion.choices, "message"))
        except MALFORMED:
            fits = False
        if not fits:
            self._check_length()
            try:
                value, odd_ends = in_standard_form(parse(body), "message")
                values, odd = fit(value, _Completion)
                values = whole_characters(values)
            except (ValueError, RecursionError):
                return None, None
            completion = msgspec.convert(values, _Completion)
            self._fields = odd + odd_ends
        return (completion if bytes(completion.error) in _NO_ERROR else None), values

    def _by_chunk_decoder(self) -> list[StreamEvent]:
        self._check_length()
        self._other = ChunkDecoder(
            verbatim=True, keep_stop=self.keep_stop, strict=self.strict, stream=EventStream(self.max_event)
        )
        self._other.distinguish(self._taken)
        body, self._body = bytes(self._body), b""
        return self._other.feed(body)


def _ordinary(body: bytes) -> list[StreamEvent]:
    """Returns the events of an OrdinaryDocument; [] for any other document."""
    try:
        document = decode_ordinary_document(body)
    except MALFORMED:
        return []
    answer, usage = document.choices[0], document.usage
    if usage is not None and usage.prompt_tokens + usage.completion_tokens != usage.total_tokens:
        return []
    native = answer.finish_reason
    return [
        Started(document.id or "", document.model or ""),
        TextDelta(answer.message.content),
        Finished(FINISH[native], usage.used() if usage is not None else None, native),
        Verbatim(body, whole=True),
    ]


def _only_text(choices: list[_MessageChoice]) -> str:
    """Returns the text of an answer with one choice and nothing but text, as most are; "" for any other."""
    choice = choices[0]
    message, native = choice.message, choice.finish_reason
    if (
        message is None
        or not native
        or failure_of(native) is not None
        or failed_natively(choice)
        or choice.index != 0
        or choice.usage is not None
        or len(choices) > 1
    ):
        return ""
    text = message.content
    return text if type(text) is str and message == Delta(text) else ""


def _as_deltas(choices: list[_MessageChoice]) -> bool:
    """Make each message the delta of its choice, with numbered tool calls. Returns False if one is
    missing."""
    for choice in choices:
        if choice.message is None:
            return False
        for index, call in enumerate(choice.message.tool_calls or ()):
            call.index = index
        choice.delta = choice.message
    return True
