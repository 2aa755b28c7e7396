"""Defines a backend: one upstream dialect, as a plugin. Discovery is by entry point `sluice.backends`.

A backend is a frozen msgspec Struct; its fields are its options in the configuration, strictly checked.
It is pure: no I/O, no clock, no state between calls. A vendor that speaks a known dialect is configuration.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import msgspec

from sluice import entrypoints
from sluice.backends.discovery import struct_of
from sluice.backends.read_response import ReadResponse
from sluice.backends.transport import Headers, Transport, UpstreamRequest
from sluice.errors import UpstreamError
from sluice.model.chat import ChatRequest
from sluice.model.events import StreamEvent, Usage
from sluice.model.rules import NO_RULES, ModelRules

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "sluice.backends"


def installed() -> dict[str, "EntryPoint"]:
    """The backends of this environment, by name: ours and everyone's, wherever a distribution declares
    them."""
    return entrypoints.installed(GROUP)


def find_backend(name: str) -> type[msgspec.Struct]:
    """The backend called `name`, a Struct. Raises LookupError, saying which there are or why it cannot be
    loaded."""
    return struct_of(GROUP, name, "backend")


B = TypeVar("B", bound="Backend")


def with_rules(backend: B, rules: ModelRules) -> B:
    """The backend for one target: a copy with the target's rules, if it uses rules.

    A backend that has rules of its own to follow has a class variable `rules`, and `dict=True` to take
    another value.
    """
    if rules is NO_RULES or not hasattr(type(backend), "rules"):
        return backend
    copied = copy.copy(backend)
    copied.__dict__.clear()  # cached properties of the other rules
    copied.__dict__["rules"] = rules
    return copied


class Decoder(Protocol):
    """An upstream's bytes -> events; sans-io, fresh for each response, bounded in memory.

    It counts what it ignored: `skipped` events that are none of the dialect, `skipped_fields` of another type
    than they should be, `finish_missing` answers that ended without a finish reason. A subclass that counts
    nothing inherits zeros. `reported` is the usage that the provider has reported so far, for an answer that
    may be cut; None if there is none. One of an answer in one piece may have `begin(headers)`: it is called
    before the first byte with the response's headers.
    """

    @property
    def skipped(self) -> int:
        return 0

    @property
    def skipped_fields(self) -> int:
        return 0

    @property
    def finish_missing(self) -> int:
        return 0

    @property
    def reported(self) -> Usage | None:
        return None

    def distinguish(self, ids: frozenset[str]) -> None:
        """Set, before the first byte, the ids of the tool calls in the conversation. A new call with one of
        them gets another id (or "": one is made for it): some servers number their calls from zero in each
        answer."""
        return None

    def feed(self, data: bytes) -> list[StreamEvent]:
        """Events completed by `data`.

        Where an error stands behind events in the same read, the events are returned first and the error
        is raised by the next `feed` or `close`, so that no event is lost.
        Raises UpstreamError for an error inside the stream, UpstreamGarbled for what is not the dialect.
        """
        ...

    def close(self) -> list[StreamEvent]:
        """The body has ended. Returns what was pending (the Finished event among it, where the stream is
        complete).

        Where the dialect's own terminator has not been seen, returns what a last frame still had, without a
        Finished event, and raises UpstreamTruncated from the next call; at once where nothing was left.
        """
        ...


DecoderT = TypeVar("DecoderT", bound=Decoder)


class WrappedDecoder(Decoder, Generic[DecoderT]):
    """A decoder around another one, which counts and reports; a subclass says what is done to its events."""

    def __init__(self, decoder: DecoderT) -> None:
        self._decoder = decoder

    @property
    def skipped(self) -> int:
        return self._decoder.skipped

    @property
    def skipped_fields(self) -> int:
        return self._decoder.skipped_fields

    @property
    def finish_missing(self) -> int:
        return self._decoder.finish_missing

    @property
    def reported(self) -> Usage | None:
        return self._decoder.reported

    def distinguish(self, ids: frozenset[str]) -> None:
        self._decoder.distinguish(ids)


@runtime_checkable
class Backend(Protocol):
    """One upstream dialect. `dialect` names the client dialect that it can pass through, or is empty.

    One that speaks HTTP has its address as the option `base_url`, and may have `endings`: what people leave
    at the end of it. `credential_kinds` names the kinds of credentials that fit it (none, if it is not
    there), `key_field` says how a static key is sent (`sluice.backends.credentials`; a Bearer token, if it is
    not there). `forwards` may name headers of callers that it takes beside those of the option `forward`,
    with the values that may pass (`sluice.wire.forwarding.Allowed`), and `tell(request, headers)` another way
    to put these into a request than as its headers. `takes` names the features of other dialects' requests
    that it can express (`sluice.model.features`); what it lacks is refused or left out before it is asked.
    Where it is not there, nothing is.
    """

    dialect: ClassVar[str]

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        """The request for a streamed answer to this chat.

        Raises BadRequest for what the dialect cannot express (the message says what).
        """
        ...

    def decoder(self, *, verbatim: bool = False) -> Decoder:
        """`verbatim`: also yield the raw frames as Verbatim events, at the end of each batch (only where
        `dialect` is set)."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """The error that a response with another status than 200 means. Never raises; `body` may be cut or
        not JSON; header names are lower case."""
        ...

    def transport(self) -> Transport | None:
        """None: over HTTP. An embedded model (echo) brings its own."""
        ...

    def credentials(self) -> Headers:
        """Headers that carry the credentials; sent to this upstream only and never logged."""
        ...


class Operation(Protocol):
    """Requests answers in one piece, which are passed on as they came, to callers of the same dialect
    only."""

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        """The request as its caller made it, who wants no stream and speaks this dialect."""
        ...

    def whole_decoder(self) -> Decoder:
        """Yields the events of the answer and then its Verbatim, `whole`; or those of a stream, where one
        came nevertheless."""
        ...


@runtime_checkable
class FansOut(Operation, Protocol):
    """An operation that may take several requests to its upstream (`UpstreamRequest.beside`): all of them
    succeed, or the call's attempt fails as the first of them did."""

    def joined(self, answers: Sequence[ReadResponse]) -> ReadResponse:
        """One answer of those to all requests, in their order, for the decoder."""
        ...


@runtime_checkable
class AnswersWhole(Operation, Protocol):
    """A backend that can be asked for chats so."""

    @property
    def always_stream(self) -> bool:
        """True where the configuration asks for a stream even if the caller wants a whole answer."""
        ...


@runtime_checkable
class CarriesOperations(Protocol):
    """A backend that carries other operations than chat."""

    def operation(self, name: str, dialect: str) -> Operation | None:
        """The operation called `name` ("embeddings") for callers of this dialect; None where it is not
        carried.

        One whose answers may be streamed ("completions") is a `Backend`, too, which then is asked in place of
        this one."""
        ...


@runtime_checkable
class ListsModels(Protocol):
    """A backend whose upstream can be asked which models it has."""

    def listing(self) -> UpstreamRequest | None:
        """The request for all of them, or as many as one answer has; None where this upstream has no such
        list."""
        ...


def unread(headers: Headers) -> Headers:
    """Headers of a request without a body."""
    return tuple([(name, value) for name, value in headers if name != "content-type"])


def default_output(output: int, backend: Backend | None) -> int:
    """Output tokens that are reserved for a caller without a maximum: `output`, or what its backend then
    sends, if more."""
    return max(output, getattr(backend, "default_max_tokens", 0))


__all__ = [
    "GROUP",
    "AnswersWhole",
    "Backend",
    "CarriesOperations",
    "Decoder",
    "Headers",
    "ListsModels",
    "Operation",
    "UpstreamRequest",
    "default_output",
    "find_backend",
    "installed",
    "unread",
    "with_rules",
]
