"""TLS to an upstream: verification, client certificates, and the causes of failures.

Files (an authority, a client's certificate and its key) may be replaced while the gateway runs. They are
checked before each new connection, in a thread because a file system may hang; open connections are not
affected. Kubernetes replaces a secret by pointing a symbolic link at another directory, so the target of a
path is compared instead of the path itself. While files cannot be used (a certificate without its key, during
a replacement), the last valid ones stay in use.
"""

import asyncio
import ssl
from collections.abc import Callable

from sluice.certificates import VERSIONS, identify, states, trust
from sluice.config.types import Picker, UpstreamTls
from sluice.errors import TlsFailed, TlsReason


class TlsContext(ssl.SSLContext):
    """A client's context that resumes the last session of its only origin, which saves a round trip and a
    signature. asyncio has no parameter for sessions, but it gets its SSLObject from the context, and the
    context sets the session."""

    session: ssl.SSLSession | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session or self.session)


def tls_context(*, cafile: str | None = None) -> TlsContext:
    """Makes a context: verified TLS 1.2 or later, by the system's authorities or those of `cafile`; ALPN
    http/1.1 only.
    """
    return context_of(UpstreamTls(ca=cafile))


def context_of(options: UpstreamTls) -> TlsContext:
    """Makes a context by an upstream's options. Raises ValueError for a file that cannot be used, with its
    name and the reason.
    """
    context = TlsContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    context.minimum_version = VERSIONS[options.min_version]
    context.set_alpn_protocols(["http/1.1"])
    if options.uses_system_store:
        context.load_default_certs()
    if options.ca is not None:
        trust(context, options.ca)
    if options.cert is not None:
        password = options.key_password
        identify(
            context, options.cert, options.key, lambda: password.reveal() if password is not None else ""
        )
    return context


def picker_tls(options: Picker) -> ssl.SSLContext:
    """TLS to an endpoint picker. Raises OSError or ValueError for a file that cannot be used."""
    context = grpc_tls(options.ca)
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def grpc_tls(ca: str | None = None) -> ssl.SSLContext:
    """Returns a context for TLS 1.2 or later, verified by the system's authorities or those of the file `ca`;
    ALPN h2. Raises OSError or ValueError for a file that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    if ca is not None:
        trust(context, ca)
    else:
        context.load_default_certs()
    return context


class WatchedTls:
    """An upstream's context, made again when one of its files is replaced.

    To be made outside the event loop; raises ValueError if the files cannot be used at first. `failed` is
    called with the reason each time that replaced files cannot be used, and `replaced` when a new context is
    in use.
    """

    def __init__(
        self,
        options: UpstreamTls,
        failed: Callable[[str], object] = lambda reason: None,
        replaced: Callable[[], object] = lambda: None,
    ) -> None:
        self.server_name = options.server_name
        self._options = options
        self._failed = failed
        self._replaced = replaced
        self._files = [path for path in (options.ca, options.cert, options.key) if path is not None]
        self._seen = states(self._files)  # before they are read, so that a later replacement is noticed
        self._current = context_of(options)
        self._looking: asyncio.Task[None] | None = None

    async def context(self) -> ssl.SSLContext:
        """Returns the context for a connection that is opened now."""
        if self._files:
            if self._looking is None:
                self._looking = asyncio.get_running_loop().create_task(self._follow())
            await asyncio.shield(self._looking)
        return self._current

    async def _follow(self) -> None:
        try:
            made = await asyncio.to_thread(self._again)
            if made is not None:
                self._current = made
                self._replaced()
        except (ValueError, OSError) as error:
            self._failed(str(error))
        finally:
            self._looking = None

    def _again(self) -> TlsContext | None:
        """Makes a new context if a file has changed. Raises ValueError, once for each change."""
        seen = states(self._files)
        if seen == self._seen:
            return None
        self._seen = seen
        return context_of(self._options)


# --- the meaning of a failure

_VERIFY: dict[int, TlsReason] = {  # OpenSSL's x509_vfy.h
    9: "not_yet_valid", 10: "expired", 62: "wrong_host", 63: "wrong_host", 64: "wrong_host", 18: "unknown_ca", 19: "unknown_ca",
    2: "unknown_ca", 20: "unknown_ca", 21: "unknown_ca", 27: "unknown_ca",
}  # fmt: skip
_OF_OURS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "DECRYPT_ERROR")
"""The names of alerts (RFC 8446 6.2) that a server sends about the client's certificate."""


def tls_failed(name: str, error: BaseException) -> TlsFailed:
    """Returns the error for a failed TLS handshake with `name` (host:port). TLS 1.3 reports a refused client
    certificate after the handshake.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = _VERIFY.get(error.verify_code, "untrusted")
        return TlsFailed(reason, f"{name}: its certificate is not trusted ({error.verify_message})")
    if not isinstance(error, ssl.SSLError):
        return TlsFailed("handshake", f"{name}: the connection was closed during the TLS handshake")
    code = error.reason or "no reason given"
    if "ALERT" in code and any(word in code for word in _OF_OURS):
        wanted = "REQUIRED" in code
        what = (
            "wants a client certificate (tls.cert and tls.key)"
            if wanted
            else "refused the client certificate"
        )
        return TlsFailed("client_certificate", f"{name}: it {what} ({code})")
    if "PROTOCOL" in code and ("VERSION" in code or "UNSUPPORTED" in code):
        return TlsFailed("version", f"{name}: it has no TLS version that is allowed here ({code})")
    if code in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
        return TlsFailed("handshake", f"{name}: it does not speak TLS ({code})")
    return TlsFailed("handshake", f"{name}: TLS failed ({code})")
