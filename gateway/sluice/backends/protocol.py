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
    """Returns the backends of this environment by name: those that come with the gateway and those of other
    distributions."""
    return entrypoints.installed(GROUP)


def find_backend(name: str) -> type[msgspec.Struct]:
    """Returns the backend called `name`, a Struct. Raises LookupError, which says which ones there are or why
    it cannot be loaded."""
    return struct_of(GROUP, name, "backend")


B = TypeVar("B", bound="Backend")


def with_rules(backend: B, rules: ModelRules) -> B:
    """Returns the backend for one target: a copy with the target's rules, if it uses rules.

    A backend that follows rules itself has a class variable `rules`, and `dict=True` so that it can get
    another value.
    """
    if rules is NO_RULES or not hasattr(type(backend), "rules"):
        return backend
    copied = copy.copy(backend)
    copied.__dict__.clear()  # cached properties of the other rules
    copied.__dict__["rules"] = rules
    return copied


class Decoder(Protocol):
    """Decodes an upstream's bytes into events: sans-io, a new one for each response, bounded in memory.

    It counts what it ignored: `skipped` events that are not in the dialect, `skipped_fields` with another
    type than they should have, `finish_missing` answers without a finish reason. A subclass that counts
    nothing inherits zeros. `reported`: the usage that the provider has reported so far, for an answer that
    may be cut; None if there is none. The decoder of a whole answer may have `begin(headers)`, which is
    called with the response's headers before the first byte.
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
        """Sets the ids of the tool calls in the conversation; called before the first byte.

        A new call with one of these ids gets another one (or "": then an id is made for it), because some
        servers number their calls from zero in each answer.
        """
        return None

    def feed(self, data: bytes) -> list[StreamEvent]:
        """Returns the events that `data` completes.

        If an error follows events in the same read, the events are returned first, and the error is raised by
        the next `feed` or `close`, so that no event is lost. Raises UpstreamError for an error inside the
        stream, UpstreamGarbled for bytes that are not in the dialect.
        """
        ...

    def close(self) -> list[StreamEvent]:
        """Ends the body. Returns the pending events (including the Finished event if the stream is complete).

        If the dialect's own terminator is missing, it returns the events of a last frame, without a Finished
        event, and raises UpstreamTruncated in the next call; without pending events it raises that at once.
        """
        ...


DecoderT = TypeVar("DecoderT", bound=Decoder)


class WrappedDecoder(Decoder, Generic[DecoderT]):
    """A decoder around another one, whose counts and reported usage it passes on. Subclasses define what is
    done with the events."""

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
    """One upstream dialect.

    `dialect`: the client dialect that it can pass through, or empty. A backend that uses HTTP has its address
    as the option `base_url`, and may have `endings`: parts that people leave at the address's end.
    `credential_kinds`: the kinds of credentials that fit it (missing: none). `key_field`: how a static key is
    sent (`sluice.backends.credentials`; missing: as a Bearer token). `forwards`: headers of callers that it
    takes in addition to those of the option `forward`, with the values that may pass
    (`sluice.wire.forwarding.Allowed`). `tell(request, headers)`: another way to put these into a request than
    as its headers. `takes`: the features of other dialects' requests that it can express
    (`sluice.model.features`); others are refused or left out before it is called. Missing: nothing is refused
    or left out.
    """

    dialect: ClassVar[str]

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        """Returns the request for a streamed answer to this chat. Raises BadRequest, with what it is, if the
        dialect cannot express something."""
        ...

    def decoder(self, *, verbatim: bool = False) -> Decoder:
        """Returns a decoder. `verbatim`: it also returns the raw frames as Verbatim events, at the end of
        each batch (only if `dialect` is set)."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Returns the error for a response with a status other than 200. Never raises; `body` may be cut or
        not JSON; header names are lower case."""
        ...

    def transport(self) -> Transport | None:
        """Returns the transport of an embedded model (echo); None: requests are sent over HTTP."""
        ...

    def credentials(self) -> Headers:
        """Returns the headers with the credentials, which are sent to this upstream only and never logged."""
        ...


class Operation(Protocol):
    """Requests answers in one piece, which are passed on unchanged, to callers of the same dialect only."""

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        """Returns the request as its caller made it; the caller wants no stream and speaks this dialect."""
        ...

    def whole_decoder(self) -> Decoder:
        """Returns a decoder for the events of the answer, followed by its Verbatim, `whole`; or for those of
        a stream, if the upstream sends one all the same."""
        ...


@runtime_checkable
class FansOut(Operation, Protocol):
    """An operation that may send several requests to its upstream (`UpstreamRequest.beside`). If one of them
    fails, the call's attempt fails in the same way."""

    def joined(self, answers: Sequence[ReadResponse]) -> ReadResponse:
        """Joins the answers to all requests, in their order, into one answer for the decoder."""
        ...


@runtime_checkable
class AnswersWhole(Operation, Protocol):
    """A backend that can request answers to chats in one piece."""

    @property
    def always_stream(self) -> bool:
        """Whether the configuration asks for a stream even if the caller wants a whole answer."""
        ...


@runtime_checkable
class CarriesOperations(Protocol):
    """A backend that carries operations other than chat."""

    def operation(self, name: str, dialect: str) -> Operation | None:
        """Returns the operation called `name` ("embeddings") for callers of this dialect; None if it is not
        carried.

        An operation whose answers may be streamed ("completions") is also a `Backend`, which is used in place
        of this one.
        """
        ...


@runtime_checkable
class ListsModels(Protocol):
    """A backend whose upstream can list its models."""

    def listing(self) -> UpstreamRequest | None:
        """Returns the request for the list of models, or for as much of it as one answer has; None if this
        upstream has no list."""
        ...


def unread(headers: Headers) -> Headers:
    """Returns the headers of a request without a body."""
    return tuple([(name, value) for name, value in headers if name != "content-type"])


def default_output(output: int, backend: Backend | None) -> int:
    """Returns the output tokens to reserve for a caller who sets no maximum: `output`, or the maximum that
    its backend then sends, if that is more."""
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
