"""The listeners, and what they take from callers."""

from typing import Annotated, Literal

from msgspec import Meta

from sluice.config.types.values import Address, Count, Name, Section
from sluice.config.units import Bytes, Seconds, Secret


class ServerTls(Section, frozen=True):
    """TLS on the API's port. Files that are replaced are used by new connections, without a restart."""

    cert: str  # a file with the certificate that is shown (PEM, with its chain)
    key: str | None = None  # a file with its key (PEM); null: it is in cert, too
    key_password: Secret | None = None  # of an encrypted key
    client_ca: str | None = (
        None  # a file of certificates (PEM or DER): only clients with a certificate of theirs are let in
    )
    min_version: Literal["1.2", "1.3"] = "1.2"  # the oldest version of TLS that is spoken


class Server(Section, frozen=True):
    """The listeners, and the bounds of what callers may send."""

    listen: Address = "127.0.0.1:8080"  # host:port of the API, or unix:/path
    admin_listen: Address = "127.0.0.1:8081"  # host:port of metrics, probes and admin routes, or unix:/path
    socket_mode: Annotated[str, Meta(pattern="^0?[0-7]{3}$")] = (
        "0660"  # who may connect to Unix sockets, in octal
    )
    tls: ServerTls | None = None  # https on `listen`; null: plain HTTP, as behind a proxy that ends TLS
    http2: bool = False  # also HTTP/2 on `listen`: by ALPN with tls, else by prior knowledge (h2c); needs the extra [http2]
    trusted_proxies: tuple[
        str, ...
    ] = ()  # networks whose X-Forwarded-For or Forwarded is believed, rightmost first
    body_limit: Bytes = Bytes(4 << 20)  # bytes of a request's body, decompressed
    form_limit: Bytes = Bytes(
        100 << 20
    )  # bytes of a form (recordings, images); with a body_limit below 1MiB: as that
    form_spool: Bytes = Bytes(
        1 << 30
    )  # bytes of temporary files that large forms may take together, in each process
    form_directory: str | None = None  # where these are; null: where temporary files go (TMPDIR, /tmp)
    body_timeout: Seconds = Seconds(30)  # of silence, or of less than 1 KiB a second on average
    body_memory: Bytes = Bytes(64 << 20)  # for unfinished bodies of all connections together, in each process
    header_timeout: Seconds = Seconds(15)  # for a request's head
    keepalive_timeout: Seconds = Seconds(75)  # for which an idle connection is kept
    write_idle: Seconds = Seconds(60)  # a reader that takes nothing for so long is closed
    send_buffer: Bytes = Bytes(64 << 10)  # per client connection: what the kernel has taken and not sent yet
    max_connections: Count = 10_000  # client connections; further ones are answered 503
    workers: Annotated[int, Meta(ge=1, le=1024)] = 1  # processes on one port
    watch: bool = False  # reload when this file is changed; SIGHUP and POST /admin/reload do it, too
    drain_delay: Seconds = Seconds(5)  # after SIGTERM: not ready, still serving
    drain_timeout: Seconds = Seconds(60)  # then: streams may finish for so long
    demo: Name | None = (
        None  # a key with origins: a page at /demo shows the chat widget in its name; null: no page
    )
    frontends: tuple[str, ...] | None = (
        None  # client dialects that are served; default: all that are installed
    )
