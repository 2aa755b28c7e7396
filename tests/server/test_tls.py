"""A listener with TLS: the same connections behind a handshake; who is let in; files that are replaced;
clients that stall."""

import asyncio
import contextlib
import gc
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from sluice.config.types import ServerTls
from sluice.config.units import Secret
from sluice.server.exchange import HttpExchange
from sluice.server.tls import Served, WatchedCertificate, served_by
from tests.server.served import served
from tests.server.test_connection import GET, Held, echo, get, post
from tests.upstream.calls import until


class Pki:
    """Certificates of localhost in files below `path`, and clients that believe them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ca = trustme.CA()
        self.clients = trustme.CA()

    def write(self, name: str, data: bytes) -> str:
        """Replaced as a deployment does: another file takes the name."""
        (self.path / "new").write_bytes(data)
        os.replace(self.path / "new", self.path / name)
        return str(self.path / name)

    def issue(self, **options: object) -> trustme.LeafCert:
        return self.ca.issue_cert("localhost", **options)  # type: ignore[arg-type]

    def cert(self, issued: trustme.LeafCert) -> str:
        return self.write("tls.crt", b"".join(part.bytes() for part in issued.cert_chain_pems))

    def key(self, issued: trustme.LeafCert) -> str:
        return self.write("tls.key", issued.private_key_pem.bytes())

    def options(self, issued: trustme.LeafCert | None = None, **more: object) -> ServerTls:
        issued = issued or self.issue()
        return ServerTls(cert=self.cert(issued), key=self.key(issued), **more)  # type: ignore[arg-type]

    def client_ca(self) -> str:
        return self.write("clients.pem", self.clients.cert_pem.bytes())

    def client(self, of: trustme.CA | None = None) -> ssl.SSLContext:
        """A client's context; `of`: the authority that its own certificate is of."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        if of is not None:
            of.issue_cert("client@example.com").configure_cert(context)
        return context


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def shown(wire_tls: ssl.SSLObject) -> int:
    """The serial number of the certificate that the server has shown."""
    from cryptography import x509

    der = wire_tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def serial(issued: trustme.LeafCert) -> int:
    from cryptography import x509

    return x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).serial_number


async def test_a_connection_serves_one_request_after_the_other(pki: Pki) -> None:
    async with served(echo, WatchedCertificate(pki.options())) as server:
        wire = await server.wire(pki.client())
        for number in range(3):
            assert (await wire.ask(get(f"/{number}"))).body == f"/{number}".encode()
            assert (await wire.ask(post("/", b"abc"))).body == b"abc"
        assert server.connection.peer == "127.0.0.1"
        assert (await wire.ask(get("/last", "Connection: close"))).status == 200
        assert await wire.closed()


async def test_a_stream_arrives_piece_by_piece(pki: Pki) -> None:
    held = Held()
    async with served(held, WatchedCertificate(pki.options())) as server:
        wire = await server.wire(pki.client())
        wire.writer.write(get("/a"))
        await until(lambda: server.paths == ["/a"])
        held.go.set()
        assert (await wire.answer()).body == b"first /a"


async def test_an_answer_before_the_body_was_read_arrives_and_the_connection_is_closed(pki: Pki) -> None:
    async def refuse(exchange: HttpExchange) -> None:
        exchange.reply(413, b"too large")

    async with served(refuse, WatchedCertificate(pki.options())) as server:
        wire = await server.wire(pki.client())
        answer = await wire.ask(post("/", b"x" * 100_000)[:50_000])
        assert (answer.status, answer.body) == (413, b"too large")
        server.later(10)
        assert await wire.closed()


@pytest.mark.parametrize("leaves", ["orderly", "by reset"])
@pytest.mark.parametrize("when", ["new", "idle", "busy"])
async def test_a_client_that_leaves_takes_everything_with_it(leaves: str, when: str, pki: Pki) -> None:
    held = Held()
    async with served(held if when == "busy" else echo, WatchedCertificate(pki.options())) as server:
        wire = await server.wire(pki.client())
        if when == "busy":
            wire.writer.write(get("/silent"))
            await until(lambda: server.paths == ["/silent"])
        elif when == "idle":
            await wire.ask(GET)
        if leaves == "orderly":
            wire.writer.close()
        else:
            wire.writer.transport.abort()
        await server.emptied()
        await until(lambda: len(server.cancelled) == (when == "busy"))


async def test_a_reader_that_takes_nothing_holds_back_who_writes_and_is_closed_at_last(pki: Pki) -> None:
    written = asyncio.Event()

    async def endless(exchange: HttpExchange) -> None:
        exchange.begin("text/plain")
        while not exchange.blocked_since:
            exchange.write(b"x" * 10_000)
            await asyncio.sleep(0)
        written.set()
        await exchange.writable()
        exchange.write(b"", last=True)

    async with served(endless, WatchedCertificate(pki.options()), send_buffer=20_000) as server:
        wire = await server.wire(pki.client())
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        wire.writer.write(GET)
        async with asyncio.timeout(60):
            await written.wait()
        transport = server.connection.transport
        assert transport is not None
        assert transport.get_write_buffer_size() < 200_000
        del transport
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await wire.answer()).body.startswith(b"xxx")


# --- who is let in


async def test_only_clients_with_a_certificate_of_the_authority_are_let_in(pki: Pki) -> None:
    async with served(echo, WatchedCertificate(pki.options(client_ca=pki.client_ca()))) as server:
        wire = await server.wire(pki.client(pki.clients))
        assert (await wire.ask(GET)).status == 200
        for number, stranger in enumerate((None, trustme.CA()), 1):
            with contextlib.suppress(
                OSError, asyncio.IncompleteReadError
            ):  # TLS 1.3 says so behind the client's handshake
                refused = await server.wire(pki.client(stranger))
                await refused.ask(GET)
                raise AssertionError("it was let in")
            await until(lambda number=number: len(server.handshakes) == number)  # type: ignore[misc]
        assert server.handshakes == ["client_certificate"] * 2
        assert server.paths == ["/"]


async def test_an_older_version_is_not_spoken(pki: Pki) -> None:
    async with served(echo, WatchedCertificate(pki.options(min_version="1.3"))) as server:
        old = pki.client()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError):
            await server.wire(old)
        await until(lambda: bool(server.handshakes))
        assert server.handshakes == ["version"]
        wire = await server.wire(pki.client())
        assert wire.writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert wire.writer.get_extra_info("ssl_object").selected_alpn_protocol() is None
        assert (await wire.ask(GET)).status == 200


async def test_who_speaks_no_tls_is_closed_unheard(pki: Pki) -> None:
    async with served(echo, WatchedCertificate(pki.options())) as server:
        wire = await server.wire()
        wire.writer.write(GET)
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in await wire.reader.read()
        await server.emptied()
        assert (server.handshakes, server.paths) == (["no_tls"], [])


async def test_one_connection_too_many_is_told_so(pki: Pki) -> None:
    async with served(echo, WatchedCertificate(pki.options()), max_connections=1) as server:
        first = await server.wire(pki.client())
        assert (await first.ask(GET)).status == 200
        second = await server.wire(pki.client())
        assert (await second.answer()).status == 503


# --- clients that stall


async def test_a_handshake_that_does_not_end_is_given_up(pki: Pki) -> None:
    async with served(echo, WatchedCertificate(pki.options()), header_timeout=0.05) as server:
        await server.wire()
        await until(lambda: len(server.listener.connections) == 1)
        server.later(86_400)  # the sweep has nothing to close yet
        await server.emptied()
        assert server.handshakes == ["timeout"]


async def test_a_shutdown_does_not_wait_for_handshakes(pki: Pki) -> None:
    async with served(echo, WatchedCertificate(pki.options()), header_timeout=3600) as server:
        for _ in range(3):
            await server.wire()
        await until(lambda: len(server.listener.connections) == 3)
        async with asyncio.timeout(30):
            await server.listener.shutdown(10)
        assert not server.listener.connections


# --- files


class Watched:
    """A certificate that is looked at by the test."""

    def __init__(self, options: ServerTls) -> None:
        self.replaced: list[Served] = []
        self.failed: list[str] = []
        self.certificate = WatchedCertificate(
            options, failed=self.failed.append, replaced=self.replaced.append
        )

    async def look(self) -> None:
        await self.certificate.look()


async def test_replaced_files_are_used_by_new_connections(pki: Pki) -> None:
    first, second = pki.issue(), pki.issue()
    watched = Watched(pki.options(first))
    async with served(echo, watched.certificate) as server:
        before = await server.wire(pki.client())
        await before.ask(GET)
        pki.cert(second)
        pki.key(second)
        await watched.look()
        after = await server.wire(pki.client())
        assert (await after.ask(GET)).status == (await before.ask(GET)).status == 200
        serials = [shown(wire.writer.get_extra_info("ssl_object")) for wire in (before, after)]
        assert serials == [serial(first), serial(second)]
        assert (len(watched.replaced), watched.failed) == (1, [])


async def test_a_half_replaced_pair_is_waited_for_and_said_once_when_it_stays(pki: Pki) -> None:
    first, second = pki.issue(), pki.issue()
    watched = Watched(pki.options(first))
    kept = watched.certificate.now
    pki.cert(second)
    await watched.look()
    assert (watched.failed, watched.certificate.now) == ([], kept)
    for _ in range(3):
        await watched.look()
    assert len(watched.failed) == 1
    assert "is not the key of the certificate" in watched.failed[0]
    assert watched.certificate.now is kept
    pki.key(second)
    await watched.look()
    assert watched.replaced == [watched.certificate.now]
    assert watched.certificate.now is not kept


async def test_files_that_come_back_as_they_were_end_the_trouble(pki: Pki, tmp_path: Path) -> None:
    watched = Watched(pki.options())
    (tmp_path / "tls.crt").rename(tmp_path / "aside")
    for _ in range(2):
        await watched.look()
    assert ["cannot be read" in reason for reason in watched.failed] == [True]
    (tmp_path / "aside").rename(tmp_path / "tls.crt")
    await watched.look()
    assert len(watched.replaced) == 1


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda pki: pki.write("tls.crt", b"nonsense"), "hold no certificate"),
        (lambda pki: pki.write("tls.key", b""), "hold no certificate"),
        (lambda pki: pki.key(pki.issue()), "is not the key"),
        (lambda pki: pki.write("tls.crt", b"x" * (2 << 20)), "larger than 1024 KiB"),
        (lambda pki: (pki.path / "tls.key").unlink(), "key: .* cannot be read"),
        (lambda pki: pki.write("clients.pem", b"nonsense"), "client_ca: .* holds no certificates"),
        (lambda pki: pki.write("clients.pem", b""), "client_ca: .* holds no certificates"),
        (
            lambda pki: pki.write("tls.crt", _trusted(pki.path / "tls.crt")),
            "cert: .*tls.crt .*BEGIN CERTIFICATE",
        ),
    ],
)
def test_files_that_cannot_be_used_are_named(break_it: Callable[[Pki], object], words: str, pki: Pki) -> None:
    options = pki.options(client_ca=pki.client_ca())
    served_by(options)
    break_it(pki)
    with pytest.raises(ValueError, match=words):
        served_by(options)


def _trusted(file: Path) -> bytes:
    """OpenSSL's own form of a certificate, which no other library reads."""
    return file.read_bytes().replace(b" CERTIFICATE-", b" TRUSTED CERTIFICATE-")


def test_an_encrypted_key_needs_its_password_and_nobody_is_asked_for_it(pki: Pki) -> None:
    from cryptography.hazmat.primitives import serialization

    issued = pki.issue()
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"sesame"),
    )
    cert, path = pki.cert(issued), pki.write("locked.key", locked)
    served_by(ServerTls(cert=cert, key=path, key_password=Secret("sesame")))
    for wrong in (None, Secret("open")):
        with pytest.raises(ValueError, match="key_password is not the key's"):
            served_by(ServerTls(cert=cert, key=path, key_password=wrong))


def test_one_file_may_hold_both(pki: Pki) -> None:
    both = pki.write("both.pem", pki.issue().private_key_and_cert_chain_pem.bytes())
    served_by(ServerTls(cert=both))


@pytest.mark.parametrize(
    ("lasts", "left", "soon"), [(90, 15, False), (90, 13, True), (6, 3, False), (6, 1.9, True), (6, -1, True)]
)
def test_a_certificate_ends_soon_two_weeks_or_a_third_of_its_time_before(
    lasts: float, left: float, soon: bool, pki: Pki
) -> None:
    now = datetime.now(UTC)
    begins, ends = now + timedelta(days=left - lasts), now + timedelta(days=left)
    found = served_by(pki.options(pki.issue(not_before=begins, not_after=ends)))
    assert abs(found.ends - ends.timestamp()) < 2
    assert found.ends_soon(now.timestamp()) is soon


async def test_connections_leave_nothing_that_only_the_collector_finds(pki: Pki) -> None:
    async with served(echo, WatchedCertificate(pki.options())) as server:
        for _ in range(5):
            wire = await server.wire(pki.client())
            await wire.ask(GET)
            wire.writer.close()
        await server.emptied()
        assert not gc.isenabled()
