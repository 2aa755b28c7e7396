"""TLS on a listener: its certificate, the clients that are allowed, and the causes of failed handshakes.

Imported only if `server.tls` is configured. The event loop handles the handshake and the records (OpenSSL,
through asyncio's or uvloop's protocol); above them a connection is the same as without TLS. Files may be
replaced while the gateway runs. They are checked once a second, in a thread because a file system may hang;
open connections are not affected. While files cannot be used (a certificate without its key, during a
replacement), the last valid ones stay in use.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Literal, get_args

import msgspec
from cryptography import x509

from sluice.certificates import MAX_FILE, VERSIONS, State, identify, states, trust
from sluice.config.types import Server, ServerTls
from sluice.server.connection import ServerConnection
from sluice.server.exchange import HttpExchange
from sluice.server.listener import MAX_REFUSED_CONNECTIONS, Listener

LOOK_EVERY = 1.0
"""Seconds between two checks of the files."""
EXPIRES_SOON_SECONDS = 14 * 86400.0
"""Seconds before a certificate's end from which it is reported; a third of its lifetime if that is shorter.
"""

Failure = Literal["timeout", "closed", "no_tls", "version", "client_certificate", "other"]
"""The causes of failed handshakes."""
FAILURES: tuple[Failure, ...] = get_args(Failure)


class Served(msgspec.Struct, frozen=True, eq=False):
    """The certificate for new connections. `begins`, `ends`: Unix times of the certificate in the chain that
    ends first."""

    context: ssl.SSLContext
    begins: float
    ends: float

    def ends_soon(self, now: float) -> bool:
        return self.ends - now < min(EXPIRES_SOON_SECONDS, (self.ends - self.begins) / 3)


def served_by(options: ServerTls, protocols: tuple[str, ...] = ("http/1.1",)) -> Served:
    """Makes a listener's context. Raises ValueError for a file that cannot be used, with its name and the
    reason."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[options.min_version]
    context.set_alpn_protocols(list(protocols))
    # Clients can cause work by renegotiation (CVE-2011-1473); compression leaks what it compresses (CRIME).
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    password = options.key_password
    identify(context, options.cert, options.key, lambda: password.reveal() if password is not None else "")
    if options.client_ca is not None:
        trust(context, options.client_ca, option="client_ca")
        context.verify_mode = ssl.CERT_REQUIRED
    return Served(context, *_lasts(options.cert))


def _lasts(path: str) -> tuple[float, float]:
    """Returns the times at which the chain's certificate that ends first begins and ends. Raises ValueError
    for a file that only OpenSSL can read (its TRUSTED CERTIFICATE)."""
    with open(path, "rb") as file:
        data = file.read(MAX_FILE)
    try:
        chain = x509.load_pem_x509_certificates(data)
    except ValueError:
        raise ValueError(
            f"cert: {path} holds a certificate that cannot be read: PEM is expected, -----BEGIN CERTIFICATE-----"
        ) from None
    first = min(chain, key=lambda certificate: certificate.not_valid_after_utc)
    return first.not_valid_before_utc.timestamp(), first.not_valid_after_utc.timestamp()


class WatchedCertificate:
    """The certificate in use, which is loaded again when one of its files is replaced.

    To be made outside the event loop; raises ValueError. `failed` is called with the reason if replaced files
    cannot be used and are still the same at the next check (a certificate and its key are rarely replaced at
    the same moment); `replaced` when new files are in use; `looked` after each check.
    """

    def __init__(
        self,
        options: ServerTls,
        protocols: tuple[str, ...] = ("http/1.1",),
        *,
        failed: Callable[[str], object] = lambda reason: None,
        replaced: Callable[[Served], object] = lambda served: None,
        looked: Callable[[Served], object] = lambda served: None,
    ) -> None:
        self._options = options
        self._protocols = protocols
        self._failed = failed
        self._replaced = replaced
        self._looked = looked
        self._files = [path for path in (options.cert, options.key, options.client_ca) if path is not None]
        self._used = states(self._files)  # before they are read, so that a later replacement is noticed
        self._refused: tuple[State, ...] | None = None
        self._problem = ""
        self._looking = asyncio.Lock()
        self.now = served_by(options, protocols)

    async def watch(self) -> None:
        """Checks the files periodically, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self.look()

    async def look(self) -> None:
        """Loads the files if they have changed and can be used."""
        async with self._looking:
            seen = await asyncio.to_thread(states, self._files)
            if seen == self._refused:
                if self._problem:
                    self._failed(self._problem)
                    self._problem = ""
            elif seen != self._used or self._refused is not None:
                await self._follow(seen)
            self._looked(self.now)

    async def _follow(self, seen: tuple[State, ...]) -> None:
        try:
            self.now = await asyncio.to_thread(served_by, self._options, self._protocols)
        except (ValueError, OSError) as error:
            self._refused, self._problem = seen, str(error)
        else:
            self._used, self._refused, self._problem = seen, None, ""
            self._replaced(self.now)


class TlsListener(Listener):
    """A listener whose connections begin with a handshake, which counts as part of the time for a request's
    head.

    `broken_handshake` gets the cause of each failed handshake. A connection counts against `max_connections`
    from its acceptance on.
    """

    def __init__(
        self,
        dispatch: Callable[[HttpExchange], Awaitable[None]],
        config: Server,
        broken: Callable[[int], None],
        *,
        certificate: WatchedCertificate,
        broken_handshake: Callable[[Failure], object] = lambda failure: None,
        connections: int | None = None,
        refused: int = MAX_REFUSED_CONNECTIONS,
        warn: Callable[..., object] = lambda event, **fields: None,
    ) -> None:
        super().__init__(dispatch, config, broken, connections=connections, refused=refused, warn=warn)
        self._certificate = certificate
        self._broken_handshake = broken_handshake
        self._shaking: set[asyncio.Task[None]] = set()

    def begin(self, connection: ServerConnection, accepted: socket.socket) -> None:
        shaking = self.loop.create_task(self._shake(connection, accepted))
        self._shaking.add(shaking)
        shaking.add_done_callback(self._shaking.discard)

    async def _shake(self, connection: ServerConnection, accepted: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._certificate.now.context,
                ssl_handshake_timeout=self.bounds["head"],
                # From `close` on, unsent bytes still have the time that a slow reader has.
                ssl_shutdown_timeout=self.bounds["unread"],
            )
        except OSError as error:  # ssl.SSLError is one
            self._broken_handshake(failure_of(error))
            # asyncio's frames hold the future that holds the error that holds the frames: a port scan is no
            # work for the gc
            error.__traceback__ = None
        finally:
            if connection.transport is None:  # the event loop reports neither its beginning nor its end
                connection.connection_lost(None)

    def turn_away(self, accepted: socket.socket) -> None:
        accepted.close()  # an answer would cost a handshake

    async def shutdown(self, timeout: float) -> None:
        self.draining = self.closing = True
        for shaking in self._shaking:
            shaking.cancel()
        if self._shaking:
            await asyncio.wait(list(self._shaking))
        await super().shutdown(timeout)


def failure_of(error: OSError) -> Failure:
    """Returns the cause of a failed handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "client_certificate"
    if not isinstance(error, ssl.SSLError):
        return "timeout" if isinstance(error, ConnectionAbortedError) else "closed"
    code = error.reason or ""
    if "CERTIFICATE" in code or "UNKNOWN_CA" in code:
        return "client_certificate"
    if code in ("HTTP_REQUEST", "WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "HTTPS_PROXY_REQUEST"):
        return "no_tls"
    if "PROTOCOL" in code and ("VERSION" in code or "UNSUPPORTED" in code):
        return "version"
    return "closed" if "EOF" in code else "other"
