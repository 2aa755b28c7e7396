"""The listeners, and the bounds of requests."""

from typing import Annotated, Literal

from msgspec import Meta

from sluice.config.types.values import Address, Count, Name, Section
from sluice.config.units import Bytes, Seconds, Secret


class ServerTls(Section, frozen=True):
    """TLS on the API's port. When the files are replaced, new connections use the new ones, without a
    restart."""

    cert: str  # a file with the server certificate (PEM, with its chain)
    key: str | None = None  # a file with its key (PEM); null: it is in cert, too
    key_password: Secret | None = None  # password of an encrypted key
    client_ca: str | None = (
        None  # a file of CA certificates (PEM or DER): only clients with a certificate of theirs are accepted
    )
    min_version: Literal["1.2", "1.3"] = "1.2"  # the oldest accepted version of TLS


class Server(Section, frozen=True):
    """The listeners, and the bounds of what clients may send."""

    listen: Address = "127.0.0.1:8080"  # host:port of the API, or unix:/path
    admin_listen: Address = "127.0.0.1:8081"  # host:port of metrics, probes and admin routes, or unix:/path
    socket_mode: Annotated[str, Meta(pattern="^0?[0-7]{3}$")] = (
        "0660"  # permissions of Unix sockets, in octal
    )
    tls: ServerTls | None = (
        None  # https on `listen`; null: plain HTTP, for example behind a proxy that terminates TLS
    )
    http2: bool = False  # HTTP/2 on `listen`, too: by ALPN with tls, else by prior knowledge (h2c); needs the extra [http2]
    trusted_proxies: tuple[
        str, ...
    ] = ()  # networks of proxies whose X-Forwarded-For or Forwarded is used, rightmost first
    body_limit: Bytes = Bytes(4 << 20)  # most bytes of a request's body, decompressed
    form_limit: Bytes = Bytes(
        100 << 20
    )  # most bytes of a form (recordings, images); if body_limit is below 1MiB, that applies
    form_spool: Bytes = Bytes(1 << 30)  # most bytes of temporary files for large forms, in each process
    form_directory: str | None = (
        None  # the directory of these files; null: the default for temporary files (TMPDIR, /tmp)
    )
    body_timeout: Seconds = Seconds(
        30
    )  # how long a request body may stall, or arrive at less than 1 KiB a second
    body_memory: Bytes = Bytes(
        64 << 20
    )  # most bytes of unfinished bodies of all connections together, in each process
    header_timeout: Seconds = Seconds(15)  # the longest time for a request's headers
    keepalive_timeout: Seconds = Seconds(75)  # how long an idle connection is kept
    write_idle: Seconds = Seconds(60)  # a client that reads nothing for so long is disconnected
    send_buffer: Bytes = Bytes(64 << 10)  # bytes per client connection that the kernel may hold unsent
    max_connections: Count = 10_000  # most client connections; further ones get a 503
    workers: Annotated[int, Meta(ge=1, le=1024)] = 1  # number of worker processes on the port
    watch: bool = (
        False  # whether to reload when this file changes; SIGHUP and POST /admin/reload do it in any case
    )
    drain_delay: Seconds = Seconds(5)  # after SIGTERM: how long it is not ready, but still serves
    drain_timeout: Seconds = Seconds(60)  # after that: how long streams may take to finish
    demo: Name | None = (
        None  # id of a key with origins, with which a page at /demo shows the chat widget; null: no page
    )
    frontends: tuple[str, ...] | None = None  # client dialects to serve; default: all that are installed
