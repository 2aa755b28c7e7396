"""An upstream's `tls`: authorities, client certificates, names, versions, replaced files; and what failures
are called."""

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from sluice.config.types import UpstreamTls
from sluice.config.units import Secret
from sluice.errors import TlsFailed
from sluice.upstream.tls import WatchedTls, context_of
from tests.fakes.rawserver import Peer, RawServer, Request, chunked, raw_server
from tests.upstream.calls import Caller, until


async def answer(request: Request, peer: Peer) -> None:
    peer.send(chunked(b"ok"))


class Pki:
    """Certificates in files below `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ca = trustme.CA()
        self.clients = trustme.CA()

    def ca_file(self, ca: trustme.CA | None = None, name: str = "ca.pem") -> str:
        return self.write(name, (ca or self.ca).cert_pem.bytes())

    def write(self, name: str, data: bytes) -> str:
        (self.path / name).write_bytes(data)
        return str(self.path / name)

    def client(self, ca: trustme.CA | None = None) -> dict[str, str]:
        """A client's certificate and key, as options."""
        issued = (ca or self.clients).issue_cert("gateway@example.com")
        return {
            "cert": self.write("client.pem", b"".join(part.bytes() for part in issued.cert_chain_pems)),
            "key": self.write("client.key", issued.private_key_pem.bytes()),
        }

    def server(self, *names: str, wants_client: bool = False, **options: object) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*(names or ("localhost",)), **options).configure_cert(context)  # type: ignore[arg-type]
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self.clients.cert_pem.bytes().decode())
        return context


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


class AlertingServer:
    """Speaks TLS from a thread with OpenSSL's own sockets: asyncio's server hangs up without the alert that
    others send."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"https://localhost:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._open: ssl.SSLSocket | None = None

    def __enter__(self) -> "AlertingServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with contextlib.suppress(OSError):  # the test's loop is not turning, so its end is not closed yet
            if self._open is not None:
                self._open.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            plain.settimeout(10)
            sock = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            self._open = sock
            with contextlib.suppress(OSError):
                try:
                    sock.do_handshake()
                    while sock.recv(65536):
                        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                except ssl.SSLError:  # closed with the request unread, the kernel would take the alert back
                    rest = socket.socket(fileno=sock.detach())
                    rest.shutdown(socket.SHUT_WR)
                    while rest.recv(65536):
                        pass
                    rest.close()
            sock.close()


async def failure(caller: Caller, server: "RawServer | AlertingServer", options: UpstreamTls) -> TlsFailed:
    caller.transport(server.url, tls=WatchedTls(options))
    with pytest.raises(TlsFailed) as failed:
        await caller.whole(server.url)
    assert (failed.value.kind, failed.value.message) == ("tls_error", "The upstream could not be reached")
    return failed.value


async def test_a_private_authority_stands_in_place_of_the_systems_or_beside_them(
    caller: Caller, pki: Pki
) -> None:
    async with raw_server(answer, tls=pki.server()) as server:
        for beside in (None, True, False):
            caller.transport(server.url, tls=WatchedTls(UpstreamTls(ca=pki.ca_file(), system_store=beside)))
            assert await caller.whole(server.url) == (200, b"ok")
            await caller.transports[-1].close()
        failed = await failure(caller, server, UpstreamTls())
        assert failed.reason == "unknown_ca"
    assert len(context_of(UpstreamTls(ca=pki.ca_file())).get_ca_certs()) == 1


YESTERDAY, TOMORROW = (datetime.now(UTC) + timedelta(days=days) for days in (-1, 1))


@pytest.mark.parametrize(
    ("server", "reason", "words"),
    [
        (lambda pki: pki.server("other.example"), "wrong_host", "doesn't match|mismatch|not valid for"),
        (lambda pki: pki.server(not_after=YESTERDAY), "expired", "expired"),
        (lambda pki: pki.server(not_before=TOMORROW, not_after=TOMORROW), "not_yet_valid", "not yet valid"),
        (lambda pki: Pki(pki.path).server(), "unknown_ca", "issuer|self"),
    ],
)
async def test_a_certificate_that_does_not_fit_has_its_reason(
    server: Callable[[Pki], ssl.SSLContext], reason: str, words: str, caller: Caller, pki: Pki
) -> None:
    async with raw_server(answer, tls=server(pki)) as served:
        failed = await failure(caller, served, UpstreamTls(ca=pki.ca_file()))
        assert failed.reason == reason
        assert failed.detail.startswith(f"localhost:{served.port}: its certificate is not trusted (")
        assert served.requests == []


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_is_shown(newest: ssl.TLSVersion, caller: Caller, pki: Pki) -> None:
    context = pki.server(wants_client=True)
    context.maximum_version = newest
    async with raw_server(answer, tls=context) as server:
        caller.transport(server.url, tls=WatchedTls(UpstreamTls(ca=pki.ca_file(), **pki.client())))
        assert await caller.whole(server.url) == (200, b"ok")
        await caller.transports[-1].close()


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_that_is_refused_is_called_so(
    newest: ssl.TLSVersion, caller: Caller, pki: Pki
) -> None:
    """TLS 1.3 tells of it behind the handshake, when the request is under way."""
    context = pki.server(wants_client=True)
    context.maximum_version = newest
    with AlertingServer(context) as server:
        stranger = pki.client(trustme.CA())
        failed = await failure(caller, server, UpstreamTls(ca=pki.ca_file(), **stranger))
        assert failed.reason == "client_certificate"
        assert "refused the client certificate" in failed.detail
        assert caller.transports[-1].open == 0


async def test_a_server_that_wants_a_client_certificate_is_called_so(caller: Caller, pki: Pki) -> None:
    with AlertingServer(pki.server(wants_client=True)) as server:
        failed = await failure(caller, server, UpstreamTls(ca=pki.ca_file()))
        assert failed.reason == "client_certificate"
        assert "wants a client certificate" in failed.detail


async def test_another_name_is_asked_for_and_checked(caller: Caller, pki: Pki) -> None:
    asked: list[str | None] = []
    context = pki.server("llm.internal")
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with raw_server(answer, tls=context) as server:
        options = UpstreamTls(ca=pki.ca_file(), server_name="llm.internal")
        caller.transport(server.url, tls=WatchedTls(options))
        assert await caller.whole(server.url) == (200, b"ok")
        assert asked == ["llm.internal"]
        assert server.requests[0].headers["host"] == f"localhost:{server.port}"
        await caller.transports[-1].close()


async def test_an_old_version_of_tls_is_refused(caller: Caller, pki: Pki) -> None:
    context = pki.server()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with AlertingServer(context) as server:
        failed = await failure(caller, server, UpstreamTls(ca=pki.ca_file(), min_version="1.3"))
        assert failed.reason == "version"
        caller.transport(server.url, tls=WatchedTls(UpstreamTls(ca=pki.ca_file())))
        assert await caller.whole(server.url) == (200, b"ok")
        await caller.transports[-1].close()


async def test_replaced_files_are_used_by_new_connections(caller: Caller, pki: Pki) -> None:
    """As Kubernetes replaces a secret: the path leads through a link that is pointed elsewhere."""
    for name in ("first", "second"):
        (pki.path / name).mkdir()
    stranger = trustme.CA()
    (pki.path / "first" / "ca.pem").write_bytes(stranger.cert_pem.bytes())
    (pki.path / "second" / "ca.pem").write_bytes(pki.ca.cert_pem.bytes())
    (pki.path / "data").symlink_to("first")
    replaced: list[bool] = []
    tls = WatchedTls(
        UpstreamTls(ca=str(pki.path / "data" / "ca.pem")), replaced=lambda: replaced.append(True)
    )
    async with raw_server(answer, tls=pki.server()) as server:
        caller.transport(server.url, tls=tls)
        with pytest.raises(TlsFailed):
            await caller.whole(server.url)
        (pki.path / "next").symlink_to("second")
        os.replace(pki.path / "next", pki.path / "data")
        assert await caller.whole(server.url) == (200, b"ok")
        assert await caller.whole(server.url) == (200, b"ok")
        assert replaced == [True]
        assert caller.transports[-1].dialed == 2
        await caller.transports[-1].close()


async def test_files_that_are_of_no_use_leave_the_last_good_ones(caller: Caller, pki: Pki) -> None:
    said: list[str] = []
    options = UpstreamTls(ca=pki.ca_file(), **pki.client())
    tls = WatchedTls(options, failed=said.append)
    async with raw_server(answer, tls=pki.server(wants_client=True)) as server:
        transport = caller.transport(server.url, tls=tls)

        async def again() -> None:
            transport.pool.distrust(float("inf"))
            assert await caller.whole(server.url) == (200, b"ok")

        await again()
        assert options.cert is not None
        other = pki.clients.issue_cert("new@example.com")
        Path(options.cert).write_bytes(
            b"".join(part.bytes() for part in other.cert_chain_pems)
        )  # its key comes later
        await again()
        await again()
        assert len(said) == 1
        assert "is not the key of the certificate" in said[0]
        assert options.key is not None
        Path(options.key).write_bytes(other.private_key_pem.bytes())
        first = await tls.context()
        Path(options.cert).unlink()
        assert await tls.context() is first
        assert len(said) == 2
        assert "cannot be read" in said[1]
        await transport.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ca": "missing.pem"}, "ca: .*missing.pem cannot be read: no such file"),
        ({"ca": "garbage"}, "ca: .*garbage holds no certificates"),
        ({"ca": "empty"}, "ca: .*empty holds no certificates"),
        ({"cert": "ca.pem"}, "hold no certificate with its key"),
        ({"cert": "client.pem", "key": "other.key"}, "is not the key of the certificate"),
        (
            {"cert": "client.pem", "key": "locked.key", "key_password": Secret("canary")},
            "key_password is not the key's",
        ),
        ({"cert": "client.pem", "key": "locked.key"}, "key_password is not the key's"),
    ],
)
def test_files_that_cannot_be_used_are_named(options: dict[str, object], words: str, pki: Pki) -> None:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
    from cryptography.hazmat.primitives.serialization import load_pem_private_key as load

    pki.ca_file()
    pki.write("garbage", b"-----BEGIN CERTIFICATE-----\nx")
    pki.write("empty", b"")
    client = pki.client()
    pki.write("other.key", trustme.CA().issue_cert("a.example").private_key_pem.bytes())
    key = load(Path(client["key"]).read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"right"))
    pki.write("locked.key", locked)
    placed = {
        name: str(pki.path / value) if name != "key_password" else value for name, value in options.items()
    }
    with pytest.raises(ValueError, match=words) as refused:
        context_of(UpstreamTls(**placed))  # type: ignore[arg-type]
    assert "canary" not in str(refused.value)
    right = {
        "cert": str(pki.path / "client.pem"),
        "key": str(pki.path / "locked.key"),
        "key_password": Secret("right"),
    }
    context_of(UpstreamTls(**right))  # type: ignore[arg-type]


async def test_many_connections_look_at_the_files_together(pki: Pki) -> None:
    import asyncio

    tls = WatchedTls(UpstreamTls(ca=pki.ca_file()))
    looks: list[int] = []
    inner = tls._again

    def counted() -> object:
        looks.append(1)
        return inner()

    tls._again = counted  # type: ignore[method-assign, assignment]
    contexts = await asyncio.gather(*(tls.context() for _ in range(50)))
    assert len({id(context) for context in contexts}) == 1
    assert len(looks) == 1
    await until(lambda: tls._looking is None)
