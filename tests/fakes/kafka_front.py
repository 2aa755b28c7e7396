"""What a broker has in front of its requests: TLS, and SASL by SaslHandshake and SaslAuthenticate.

https://kafka.apache.org/protocol#sasl_handshake; PLAIN is RFC 4616, SCRAM RFC 5802, OAUTHBEARER RFC 7628.
"""

import asyncio
import base64
import hashlib
import hmac
import ssl
import struct
from collections.abc import Callable, Generator
from contextlib import suppress
from types import TracebackType
from typing import Self

SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE = 17, 18, 36
FAILED = 58
"""SASL_AUTHENTICATION_FAILED"""
Exchange = Generator[bytes, bytes, tuple[str, bytes]]
"""Gets the client's messages and gives the broker's; returns who it is, and the broker's last message. Raises
ValueError where it is somebody else."""
Mechanism = Callable[[bytes], Exchange]


class KafkaFront:
    """Listens on `port` before one broker, which gets the bytes of those who have shown who they are. `shown` are
    their names."""

    def __init__(
        self, broker: int, *, tls: ssl.SSLContext | None = None, mechanism: Mechanism | None = None
    ) -> None:
        self._broker = broker
        self._tls = tls
        self._mechanism = mechanism
        self.shown: list[str] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            behind, to_broker = await asyncio.open_connection("127.0.0.1", self._broker)
            try:
                if self._mechanism is None or await self._admitted(reader, writer, behind, to_broker):
                    await asyncio.gather(_copy(reader, to_broker), _copy(behind, writer))
            finally:
                to_broker.close()
                writer.close()

    async def _admitted(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        behind: asyncio.StreamReader,
        to_broker: asyncio.StreamWriter,
    ) -> bool:
        assert self._mechanism is not None
        exchange: Exchange | None = None
        while True:
            frame = await _frame(reader)
            kind, version, correlation, name = struct.unpack_from(">hhih", frame)
            body = frame[10 + max(name, 0) :]
            head = struct.pack(">i", correlation)
            if kind == API_VERSIONS:
                _send(to_broker, frame)
                answer = await _frame(behind)
                _send(writer, _with_sasl(answer) if version == 0 else answer)
            elif kind == SASL_HANDSHAKE:
                _send(writer, head + struct.pack(">hi", 0, 1) + body)
            else:
                assert kind == SASL_AUTHENTICATE
                message = body[4:]
                try:
                    if exchange is None:
                        exchange = self._mechanism(message)
                        said = next(exchange)
                    else:
                        said = exchange.send(message)
                    done = False
                except StopIteration as end:
                    who, said = end.value
                    self.shown.append(who)
                    done = True
                except ValueError:
                    _send(writer, head + struct.pack(">hhi", FAILED, -1, 0))
                    return False
                _send(writer, head + struct.pack(">hhi", 0, -1, len(said)) + said)
                if done:
                    return True


def plain(message: bytes) -> Exchange:
    _, user, password = message.decode().split("\0")
    if password != "secret":
        raise ValueError
    yield from ()
    return user, b""


def oauthbearer(message: bytes) -> Exchange:
    if b"auth=Bearer token-1" not in message.split(b"\x01"):
        raise ValueError
    yield from ()
    return "token-1", b""


def scram(first: bytes) -> Exchange:
    """SCRAM-SHA-512, of whoever has the password `secret`."""
    bare = first.decode().removeprefix("n,,")
    user, nonce = (part.partition("=")[2] for part in bare.split(","))
    server = f"r={nonce}front,s={base64.b64encode(b'salt').decode()},i=4096"
    without, _, proof = (yield server.encode()).decode().rpartition(",p=")
    salted = hashlib.pbkdf2_hmac("sha512", b"secret", b"salt", 4096)
    key = hmac.digest(salted, b"Client Key", "sha512")
    message = f"{bare},{server},{without}".encode()
    signature = hmac.digest(hashlib.sha512(key).digest(), message, "sha512")
    if base64.b64decode(proof) != bytes(one ^ other for one, other in zip(key, signature, strict=True)):
        raise ValueError
    verifier = hmac.digest(hmac.digest(salted, b"Server Key", "sha512"), message, "sha512")
    return user, b"v=" + base64.b64encode(verifier)


def _with_sasl(answer: bytes) -> bytes:
    """An ApiVersions response (version 0) that also has the two requests of SASL."""
    correlation, error, count = struct.unpack_from(">ihi", answer)
    more = struct.pack(">6h", SASL_HANDSHAKE, 0, 1, SASL_AUTHENTICATE, 0, 0)
    return struct.pack(">ihi", correlation, error, count + 2) + answer[10:] + more


async def _frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))


def _send(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(len(frame).to_bytes(4, "big") + frame)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
