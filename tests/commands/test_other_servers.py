"""Commands that ask a gateway, where something else answers, or half an answer: one line says so, never a
traceback. `sluice init` at a terminal."""

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from sluice.config.loader import load
from tests.test_cli import sluice


class Other(BaseHTTPRequestHandler):
    """Answers each request with the next of `answers`: (media type, body). A stream's pieces are chunks, and
    its end is missing."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar[list[tuple[str, bytes]]] = []

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        kind, body = self.answers.pop(0)
        cut = kind == "cut"
        self.send_response(int(kind) if kind.isdigit() else 200)
        self.send_header("Content-Type", "text/event-stream" if cut else kind)
        fields = ("Transfer-Encoding", "chunked") if cut else ("Content-Length", str(len(body)))
        self.send_header(*fields)
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body) if cut else body)
        self.close_connection = True

    do_GET = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


HTML = ("text/html", b"<html>\xff\xfe not ours</html>")


@pytest.mark.parametrize("answer", [HTML, ("application/json", b"[1]"), ("text/plain", b"")])
@pytest.mark.parametrize(
    "arguments",
    [["status", "--watch"], ["conversations", "export", "--tenant", "a"], ["chat", "hi"]],
    ids=lambda arguments: arguments[0],
)
def test_what_is_no_gateway_is_told_in_one_line(
    other: str, arguments: list[str], answer: tuple[str, bytes]
) -> None:
    Other.answers = [answer] * 3
    done = sluice(*arguments, "--url", other, SLUICE_ADMIN_KEY="k", SLUICE_API_KEY="k")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("sluice: ")
    assert "the answer is no" in done.stderr
    assert done.stderr.count("\n") == 1


def test_events_that_are_no_utf_8_are_read_as_far_as_they_go(other: str) -> None:
    Other.answers = [("text/event-stream", b'event: problem\ndata: {"error": "bad \xff byte"}\n\n')]
    done = sluice("status", "--watch", "--url", other, SLUICE_ADMIN_KEY="k")
    assert (done.returncode, "bad \ufffd byte" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[::1", "127.0.0.1:8080", "http://"])
def test_a_chat_with_an_address_that_is_none_is_refused(url: str) -> None:
    done = sluice("chat", "hi", "--url", url)
    assert (done.returncode, done.stderr) == (1, f"sluice: --url: expected http://HOST:PORT, found {url}\n")


@pytest.mark.parametrize(
    ("key", "hint"),
    [("", "set $SLUICE_API_KEY to a key of it"), ("sk-x", "$SLUICE_API_KEY is not a key of it")],
)
def test_a_chat_that_is_not_let_in_says_what_to_do(other: str, key: str, hint: str) -> None:
    Other.answers = [("401", b'{"error": {"message": "No"}}')]
    done = sluice("chat", "--model", "m", "--url", other, "hi", SLUICE_API_KEY=key)
    assert (done.returncode, done.stderr) == (1, f"sluice: 401: No; {hint}\n")


PIECE = b'data: {"choices": [{"delta": {"content": "half an"}}]}\n\n'
WHOLE = PIECE.replace(b"}}", b'}, "finish_reason": "stop"}')


@pytest.mark.parametrize(
    ("answer", "code"),
    [(("cut", PIECE), 1), (("text/event-stream", PIECE), 1), (("cut", WHOLE), 0), (("cut", PIECE + b"data: [DONE]\n\n"), 0)],
)  # fmt: skip
def test_a_chat_whose_stream_ends_without_its_end_fails(
    other: str, answer: tuple[str, bytes], code: int
) -> None:
    Other.answers = [answer]
    done = sluice("chat", "--model", "m", "--url", other, "hi")
    assert (done.returncode, done.stdout) == (code, "half an\n")
    assert done.stderr.startswith("sluice: the stream broke") == bool(code)


def test_init_asks_three_questions_at_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "sluice", "init"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path
    ) as process:
        os.close(theirs)
        told = b""
        for question, answer in (
            (b"Providers", b"echo\n"), (b"callers name", b"support\n"), (b"listens", b"127.0.0.1:9090\n"),
        ):  # fmt: skip
            while question not in told:
                told += os.read(ours, 4096)
            os.write(ours, answer)
        while b"sign in with the admin key" not in told:
            told += os.read(ours, 4096)
        assert process.wait(60) == 0
    os.close(ours)
    config = load(str(tmp_path / "gateway.yaml")).config
    assert ([*config.aliases], config.server.listen) == (["support"], "127.0.0.1:9090")
