"""Sends requests to a running gateway's admin API, for `sluice reload`, `drain`, `restart` and `status`.

Unlike a signal to a process id from a file, the API answers with the result, works from another container,
and cannot hit a stranger that has got the id meanwhile.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.request import HTTPHandler, ProxyHandler, Request, build_opener

import msgspec

KEY_VARIABLE = "SLUICE_ADMIN_KEY"
MAX_REPLY_BYTES = 16 << 20


class Out(Protocol):
    """A file that an answer is written to."""

    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> object: ...


class NoAdminAnswer(Exception):
    """The gateway did not answer; the text says why."""


class AdminRefused(Exception):
    """The gateway refused a request. `answer`: why, as JSON."""

    def __init__(self, status: int, answer: Any) -> None:
        super().__init__(status, answer)
        self.status = status
        self.answer = answer


def admin_url(listen: str) -> str:
    """Returns the base URL of the admin port that is configured as `listen`, or unix:/path; the loopback
    address for a port on every interface.
    """
    if listen.startswith("unix:"):
        return listen
    host, _, port = listen.rpartition(":")
    return f"http://{'127.0.0.1' if host in ('', '0.0.0.0', '[::]') else host}:{port}"  # noqa: S104 (it is not bound to)


def ask(url: str, method: str, path: str, timeout: float = 60.0, *, body: object = None) -> tuple[int, Any]:
    """Returns the response's status and JSON. The key is $SLUICE_ADMIN_KEY. Raises NoAdminAnswer."""
    try:
        with _opened(url, method, path, timeout, body) as response:
            return response.status, _decoded(response.read(MAX_REPLY_BYTES))
    except HTTPError as answer:
        if answer.code == 401:
            raise _not_the_key(url) from None
        return answer.code, _decoded(answer.read(MAX_REPLY_BYTES))
    except (OSError, HTTPException, ValueError) as error:
        raise NoAdminAnswer(f"{url}: {why(error)}") from None


def why(error: Exception) -> str:
    """Returns why nobody answered, for people."""
    reason = getattr(error, "reason", error)
    match reason:
        case ConnectionRefusedError() | FileNotFoundError():
            return "nobody listens there: is the gateway running, and is that its port?"
        case socket.gaierror():
            return "there is no such host"
        case TimeoutError():
            return "no answer in time"
        case _:
            return str(reason)


def copy(url: str, path: str, out: Out, timeout: float = 60.0) -> None:
    """Writes the body of a response of any length, JSON lines, to `out`. `timeout`: seconds of silence. Raises
    AdminRefused if the request is refused, NoAdminAnswer if the body ends early, and what `out` raises.
    """
    with _refusals(url):
        response = _opened(url, "GET", path, timeout, None)
    with response:
        _expect(response, "application/x-ndjson")
        while data := _part(url, response):
            out.write(data)
    out.flush()


def events(url: str, path: str, timeout: float = 30.0) -> Iterator[tuple[str, Any]]:
    """Yields the events of a stream (server-sent events), each with its data as JSON, until it ends. `timeout`:
    seconds of silence. Raises AdminRefused, NoAdminAnswer.
    """
    name = ""
    for line in _lines(url, path, timeout):
        field, _, value = line.decode("utf-8", "replace").rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, _decoded(value.encode())


def _lines(url: str, path: str, timeout: float) -> Iterator[bytes]:
    with _refusals(url), _opened(url, "GET", path, timeout, None) as response:
        _expect(response, "text/event-stream")
        while line := response.readline(MAX_REPLY_BYTES):
            yield line


@contextmanager
def _refusals(url: str) -> Iterator[None]:
    """Raises AdminRefused for a refused request, NoAdminAnswer for a gateway that cannot be asked."""
    try:
        yield
    except HTTPError as answer:
        if answer.code == 401:
            raise _not_the_key(url) from None
        raise AdminRefused(answer.code, _decoded(answer.read(MAX_REPLY_BYTES))) from None
    except (OSError, HTTPException, ValueError) as error:
        raise NoAdminAnswer(f"{url}: {why(error)}") from None


def _part(url: str, response: Any) -> bytes:
    try:
        data: bytes = response.read(64 << 10)
    except (OSError, HTTPException, ValueError) as error:
        raise NoAdminAnswer(f"{url}: the answer ended too early ({type(error).__name__})") from None
    return data


def _not_the_key(url: str) -> NoAdminAnswer:
    return NoAdminAnswer(f"{url}: ${KEY_VARIABLE} is not the admin key")


def _opened(url: str, method: str, path: str, timeout: float, body: object) -> Any:
    if not url.startswith(("http://", "https://", "unix:")):
        raise NoAdminAnswer(f"{url}: expected http:// or https:// or unix:/path")
    key = os.environ.get(KEY_VARIABLE, "")
    if not key:
        raise NoAdminAnswer(f"set ${KEY_VARIABLE} to the admin key (admin.digest is its digest)")
    headers = {"x-admin-api-key": key} | ({} if body is None else {"content-type": "application/json"})
    data = None if body is None else msgspec.json.encode(body)
    socket_path = url.removeprefix("unix:") if url.startswith("unix:") else None
    opener = build_opener(ProxyHandler({}), *([] if socket_path is None else [_unix_handler(socket_path)]))
    base = url.rstrip("/") if socket_path is None else "http://localhost"
    request = Request(base + path, data, headers, method=method)  # noqa: S310
    return opener.open(request, timeout=timeout)


def _unix_handler(path: str) -> HTTPHandler:
    """Returns the handler that opens http:// addresses by a Unix socket, whatever their host is."""

    class Connection(HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(path)

    class Handler(HTTPHandler):
        def http_open(self, request: Request) -> HTTPResponse:
            return self.do_open(Connection, request)

    return Handler()


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        raise NoAdminAnswer("the answer is no JSON: is this the admin port?") from None


def _expect(response: Any, kind: str) -> None:
    """Raises NoAdminAnswer if the response is of another media type: it is another server's."""
    if response.headers.get_content_type() != kind:
        raise NoAdminAnswer(f"the answer is no {kind}: is this the admin port?")
