"""The interface of credentials, which authenticate the gateway to an upstream. They are plugins by entry
point `sluice.credentials`.

A kind of credentials is a frozen msgspec Struct; its fields are its options in the configuration, strictly
checked. Its `open` makes a working credential, which keeps a key or token fresh in the background and adds it
to each request without waiting. The backend says which kinds fit it (`credential_kinds`), and how a static
key is sent (`key_field`).
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
    """Returns the names of the installed kinds of credentials."""
    return list(entrypoints.installed(GROUP))


def find_kind(name: str) -> type[msgspec.Struct]:
    """Returns the kind called `name`, a Struct. Raises LookupError, which says which kinds there are or why
    it cannot be loaded."""
    return struct_of(GROUP, name, "credentials of the kind")


class KeyField(msgspec.Struct, frozen=True):
    """The header field that carries a static key: its `name`, and the `prefix` before the key."""

    name: str
    prefix: str = ""

    def header(self, key: str) -> tuple[str, str]:
        return self.name, self.prefix + key

    def line(self, key: str) -> bytes:
        """Returns the header line of a request, with its CR LF. Raises ValueError for a key that cannot be
        sent."""
        return lines_of((self.header(key),))


BEARER = KeyField("authorization", "Bearer ")


def lines_of(headers: Headers) -> bytes:
    """Returns the header lines of a request, each with its CR LF. Raises ValueError (without the value) for a
    field that cannot be sent."""
    check_fields(headers)
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")


def key_field_of(backend: object, header: str | None = None) -> KeyField:
    """Returns the field in which a backend sends a static key; the configured `header`, if there is one."""
    if header is None:
        field: KeyField = getattr(backend, "key_field", BEARER)
        return field
    return BEARER if header.lower() == BEARER.name else KeyField(header.lower())


def kinds_of(backend: object) -> tuple[str, ...]:
    """Returns the kinds of credentials that fit a backend."""
    kinds: tuple[str, ...] = getattr(backend, "credential_kinds", ())
    return kinds


class CredentialFailed(Exception):
    """No key or token is available. The message is for the log and contains no secret."""


class FetchedAnswer(msgspec.Struct, frozen=True):
    """The response of a token endpoint. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    __repr__ = object.__repr__  # it holds a token


Fetch = Callable[[UpstreamRequest], Awaitable[FetchedAnswer]]
"""Makes one HTTP request for a credential, with bounds of time and size. Raises CredentialFailed."""


class Setting(msgspec.Struct, frozen=True):
    """The environment of a credential.

    `backend`: the upstream's. `clock` is monotonic, `wall` counts from the epoch, both in seconds; `chance`
    returns numbers in [0, 1). `failed` gets the reason when no key or token is available; `recovered` is
    called when one is again. `environ`: the process's variables.
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
        """Returns the header fields that `sign_now` writes, in lower case: nothing else sets them."""
        ...

    def sign_now(self, request: UpstreamRequest) -> bytes | None:
        """Returns the header lines that authenticate this request, each with its CR LF; None if there is no
        key or token yet. No I/O."""
        ...

    async def ready(self) -> None:
        """Waits, for a bounded time, until `sign_now` can return lines. Raises CredentialFailed."""
        ...

    async def renewed(self, lines: bytes) -> bool:
        """Notes that the upstream refused a request with these lines. Returns whether there are other lines
        by now (a replaced file, a new token), after a bounded time. Never raises."""
        ...

    def secrets(self) -> Iterable[str]:
        """Returns the secrets to be masked in errors and logs."""
        ...

    async def close(self) -> None:
        """Ends the work in the background."""
        ...


@runtime_checkable
class Kind(Protocol):
    """The options of a credential, as configured."""

    def check(self, backend: object, environ: Mapping[str, str]) -> None:
        """Checks what the options refer to (files, commands, environment variables), for this backend. Raises
        ValueError with a sentence for `sluice check`."""
        ...

    def open(self, setting: Setting) -> Credential:
        """Makes the working credential. To be called in the event loop."""
        ...


@runtime_checkable
class Fixed(Protocol):
    """A kind that sends the same header fields with every request. If an upstream has no other credentials,
    they are part of the prepared request heads."""

    def headers(self, backend: object) -> Headers: ...


class ConfiguredCredential(msgspec.Struct, frozen=True):
    """One of an upstream's credentials. `name`: its name in metrics and logs."""

    name: str
    weight: float
    kind: Kind
