"""What a command that takes longer than a second says on a terminal, and that it says nothing elsewhere."""

import io
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

from sluice.commands.progress import Progress

ROOT = Path(__file__).parents[2]
ERASED = "\r\033[K"
HANG = 60.0
"""Seconds after which a test gives up."""


class Terminal(io.StringIO):
    """Notes when a line has been written with this text."""

    def __init__(self, awaited: str) -> None:
        super().__init__()
        self._awaited = awaited
        self.seen = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        length = super().write(text)
        if self._awaited in text:
            self.seen.set()
        return length


def test_what_is_done_is_shown_and_erased_at_the_end() -> None:
    out = Terminal("7 lines")
    with Progress("reading", out=out, first=0.0, every=0.001) as progress:
        progress.doing = "7 lines"
        assert out.seen.wait(HANG)
    lines = out.getvalue().split(ERASED)
    assert lines[0] == ""  # every line is written over the one before it
    assert lines[-2:] != ["", ""]
    assert lines[-1] == ""
    assert "7 lines … 0 s" in lines or any(line.startswith("7 lines … ") for line in lines)


def test_what_is_over_soon_says_nothing() -> None:
    out = Terminal("")
    with Progress("reading", out=out, first=HANG):
        pass
    assert out.getvalue() == ""


def test_where_there_is_no_terminal_nothing_is_said_and_no_thread_runs() -> None:
    out = io.StringIO()
    before = threading.active_count()
    with Progress("reading", out=out, first=0.0, every=0.0):
        assert threading.active_count() == before
    assert out.getvalue() == ""


def test_a_terminal_that_is_gone_stops_nothing() -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            self.seen.set()
            raise OSError(5, "Input/output error")

    out = Gone("")
    with Progress("reading", out=out, first=0.0):
        assert out.seen.wait(HANG)


# --- commands at a terminal


class Slow(BaseHTTPRequestHandler):
    """A gateway whose answers wait until it is let go."""

    go = threading.Event()
    answers: ClassVar[dict[str, tuple[str, bytes]]] = {}

    def do_GET(self) -> None:
        Slow.go.wait(HANG)
        kind, body = Slow.answers[self.path.partition("?")[0]]
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def slow() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Slow.go.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    Slow.go.set()
    server.shutdown()
    server.server_close()
    thread.join()


JSON = "application/json"
CHUNK = b'data: {"choices": [{"delta": {"content": "hello"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    ("arguments", "path", "answer", "doing", "printed"),
    [
        (["keys", "list"], "/admin/keys", (JSON, b'{"keys": [], "next": null}'), "waiting for", "EXPIRES"),
        (["usage"], "/admin/usage", (JSON, b'{"by": [], "rows": [], "total": {}}'), "waiting for", "USD"),
        (
            ["conversations", "export"],
            "/v1/admin/conversations/export",
            ("application/x-ndjson", b"{}\n"),
            "waiting for",
            "{}\n",
        ),
        (
            ["chat", "--model", "m", "hi"],
            "/v1/chat/completions",
            ("text/event-stream", CHUNK),
            "waiting for the first token",
            "hello\n",
        ),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_command_that_waits_says_for_what(
    slow: str, arguments: list[str], path: str, answer: tuple[str, bytes], doing: str, printed: str
) -> None:
    """Its stderr is a terminal, its stdout is not."""
    Slow.answers = {path: answer}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sluice", *arguments, "--url", slow],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SLUICE_ADMIN_KEY": "k", "SLUICE_API_KEY": "k"},
    )
    os.close(theirs)
    shown = b""
    try:
        while doing.encode() not in shown:
            shown += os.read(ours, 4096)
    finally:
        Slow.go.set()
        out, _ = process.communicate(timeout=HANG)
    shown += rest_of(ours)
    assert process.returncode == 0, shown
    assert out.decode().endswith(printed) or printed in out.decode()
    assert shown.decode().endswith(ERASED)


def rest_of(terminal: int) -> bytes:
    """What is still to be read of a terminal that nobody writes to any more."""
    data = b""
    try:
        while part := os.read(terminal, 4096):
            data += part
    except OSError:  # Linux says so at the end
        pass
    finally:
        os.close(terminal)
    return data
