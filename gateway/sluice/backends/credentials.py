"""The interface of credentials, which authenticate the gateway to an upstream. Discovery is by entry point
`sluice.credentials`.

A kind of credentials is a frozen msgspec Struct; its fields are its options in the configuration, strictly
checked. `open` makes the credential of it that is at work: it keeps a key or token fresh in the background,
and adds it to each request without waiting. Which kinds fit is the backend's to say (`credential_kinds`), and
so is how a static key is sent (`key_field`).
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol, runtime_checkable

import msgspec

from sluice import entrypoints
from sluice.backends.discovery import struct_of
from sluice.backends.transport import Headers, UpstreamRequest
from sluice.wire.fields import check_fields

GROUP = "sluice.credentials"
DEFAULT_KIND = "static"


def installed_kinds() -> list[str]:
    """The kinds of credentials of this environment."""
    return list(entrypoints.installed(GROUP))


def find_kind(name: str) -> type[msgspec.Struct]:
    """The kind called `name`, a Struct. Raises LookupError, saying which there are or why it cannot be
    loaded."""
    return struct_of(GROUP, name, "credentials of the kind")


class KeyField(msgspec.Struct, frozen=True):
    """The header field of a static key: `name`, and the `prefix` before the key."""

    name: str
    prefix: str = ""

    def header(self, key: str) -> tuple[str, str]:
        return self.name, self.prefix + key

    def line(self, key: str) -> bytes:
        """The header line of a request, with its CR LF. Raises ValueError for a key that cannot be sent."""
        return lines_of((self.header(key),))


BEARER = KeyField("authorization", "Bearer ")


def lines_of(headers: Headers) -> bytes:
    """Header lines of a request, each with its CR LF. Raises ValueError (without the value) for what cannot
    be sent."""
    check_fields(headers)
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")


def key_field_of(backend: object, header: str | None = None) -> KeyField:
    """The field in which a backend sends a static key; the configured `header`, if there is one."""
    if header is None:
        field: KeyField = getattr(backend, "key_field", BEARER)
        return field
    return BEARER if header.lower() == BEARER.name else KeyField(header.lower())


def kinds_of(backend: object) -> tuple[str, ...]:
    """The kinds of credentials that fit a backend."""
    kinds: tuple[str, ...] = getattr(backend, "credential_kinds", ())
    return kinds


class CredentialFailed(Exception):
    """No key or token could be had. The message is for the log and holds no secret."""


class FetchedAnswer(msgspec.Struct, frozen=True):
    """The answer of a token endpoint. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    __repr__ = object.__repr__  # it holds a token


Fetch = Callable[[UpstreamRequest], Awaitable[FetchedAnswer]]
"""One HTTP request of a credential's own, within bounds of time and size. Raises CredentialFailed."""


class Setting(msgspec.Struct, frozen=True):
    """The context of a credential: clocks, chance, fetching, and callbacks.

    `backend` is the upstream's. `clock` is monotonic, `wall` counts from the epoch, both in seconds; `chance`
    in [0, 1). `failed` gets the reason why no key or token could be had, `recovered` ends that. `environ` are
    the process's variables.
    """

    backend: object
    clock: Callable[[], float]
    wall: Callable[[], float]
    chance: Callable[[], float]
    fetch: Fetch
    failed: Callable[[str], object]
    recovered: Callable[[], object]
    environ: Mapping[str, str]


class Credential(Protocol):
    """Authenticates requests as one account."""

    @property
    def fields(self) -> frozenset[str]:
        """The header fields that `sign_now` writes, in lower case: nobody else sets them."""
        ...

    def sign_now(self, request: UpstreamRequest) -> bytes | None:
        """The header lines that prove this request, each with its CR LF; None where there is no key or token
        yet. No I/O."""
        ...

    async def ready(self) -> None:
        """Wait, within bounds, until `sign_now` can write. Raises CredentialFailed."""
        ...

    async def renewed(self, lines: bytes) -> bool:
        """The upstream refused a request with these lines. Returns whether there is another proof to send by
        now (a file that was replaced, a new token), within bounds. Never raises."""
        ...

    def secrets(self) -> Iterable[str]:
        """The secrets, which are masked in errors and logs."""
        ...

    async def close(self) -> None:
        """End what goes on in the background."""
        ...


@runtime_checkable
class Kind(Protocol):
    """The options of a credential, as they were configured."""

    def check(self, backend: object, environ: Mapping[str, str]) -> None:
        """Look at what the options point to (files, commands, variables of the environment), for this
        backend. Raises ValueError with a sentence for `sluice check`."""
        ...

    def open(self, setting: Setting) -> Credential:
        """The credential at work; within the event loop."""
        ...


@runtime_checkable
class Fixed(Protocol):
    """A kind whose proof is the same for every request: where it is the only one, it stands in prepared
    request heads."""

    def headers(self, backend: object) -> Headers: ...


class ConfiguredCredential(msgspec.Struct, frozen=True):
    """One of an upstream's credentials. `name` is what metrics and logs call it."""

    name: str
    weight: float
    kind: Kind
