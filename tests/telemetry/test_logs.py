"""Log lines: what does not fit or cannot be written is dropped, counted and said later; nothing waits."""

import fcntl
import io
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sluice.telemetry.logs import LogLine, LogLines, open_lines, open_log, text_line
from sluice.telemetry.output import LogOutput, OutputText


class Reader:
    """A destination that takes what the test allows: `room` bytes, or raises `error`."""

    def __init__(self) -> None:
        self.room = 0
        self.error: OSError | None = None
        self.taken = b""

    def write(self, data: bytes) -> int:
        if self.error is not None:
            raise self.error
        if not self.room:
            raise BlockingIOError
        piece = data[: self.room]
        self.room -= len(piece)
        self.taken += piece
        return len(piece)


class Small(LogLines):
    BACKLOG = 100


def small(reader: Any, lost: list[int], full: int = 40) -> LogLines:
    return Small(reader, lambda: lost.append(1), full=full)


def line(number: int) -> bytes:
    return json.dumps({"n": number, "pad": "x"}).encode()


def numbers(taken: bytes) -> list[Any]:
    """The numbers of whole lines, and what was said about lines that are missing."""
    assert taken.endswith(b"\n") or not taken
    return [
        found.get("n", (found.get("event"), found.get("lines")))
        for found in map(json.loads, taken.splitlines())
    ]


def test_what_a_slow_reader_does_not_take_is_kept_up_to_a_bound_then_counted_and_said_once() -> None:
    reader, lost = Reader(), list[int]()
    lines = small(reader, lost)
    for number in range(20):
        lines.msg(line(number))
    lines.flush()
    kept = 20 - len(lost)
    assert 2 <= kept <= 5
    reader.room = 10_000
    lines.flush()
    assert numbers(reader.taken) == [*range(kept), ("log_lines_dropped", 20 - kept)]
    lines.msg(line(99))
    lines.flush()
    assert numbers(reader.taken)[-1] == 99
    assert not lines.pending


@pytest.mark.parametrize("step", [1, 3, 7, 25])
def test_lines_stay_whole_and_in_order_however_few_bytes_are_taken_at_a_time(step: int) -> None:
    reader, lost = Reader(), list[int]()
    lines = small(reader, lost)
    for number in range(60):
        lines.msg(line(number))
        reader.room = step
        lines.flush()
    reader.room = 10_000
    lines.flush()
    written = numbers(reader.taken)
    seen = [found for found in written if isinstance(found, int)]
    said = sum(found[1] for found in written if not isinstance(found, int))
    assert seen == sorted(seen)
    assert len(seen) + said == 60
    assert said == len(lost)


def test_what_cannot_be_written_is_counted_and_said_when_writing_works_again() -> None:
    reader, lost = Reader(), list[int]()
    reader.error = OSError(28, "No space left on device")
    lines = small(reader, lost)
    for number in range(3):
        lines.now(line(number))
    assert len(lost) == 3
    reader.error, reader.room = None, 10_000
    lines.flush()  # as the ticker does, though nothing has happened since
    assert numbers(reader.taken) == [("log_lines_dropped", 3)]
    lines.flush()
    assert not lines.pending


def test_a_notice_that_cannot_be_written_is_not_counted_as_a_line() -> None:
    reader, lost = Reader(), list[int]()
    reader.error = BrokenPipeError()
    lines = small(reader, lost)
    lines.now(line(1))
    for _ in range(5):
        lines.flush()
    assert len(lost) == 1
    reader.error, reader.room = None, 10_000
    lines.flush()
    assert numbers(reader.taken) == [("log_lines_dropped", 1)]


def test_one_write_for_many_lines_and_none_is_longer_than_asked_for() -> None:
    writes = []

    class Out(io.BytesIO):
        def write(self, data: Any) -> int:
            writes.append(len(data))
            return super().write(data)

    out = Out()
    lines = LogLines(out, full=200)
    for number in range(50):
        lines.msg(line(number))
    lines.flush()
    assert numbers(out.getvalue()) == list(range(50))
    assert max(writes) <= 200
    assert len(writes) < 10


# --- real descriptors


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def fill(number: int) -> int:
    """Fill a pipe or socket until it takes nothing. Returns the bytes; the descriptor is a waiting one, as
    before."""
    os.set_blocking(number, False)
    filled = 0
    try:
        while True:
            filled += os.write(number, b"." * 4096)
    except BlockingIOError:
        os.set_blocking(number, True)
        return filled


def write_on(output: LogOutput) -> None:
    while True:
        output.write(b"." * 4096)


def refuse_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the pipe belongs to another user."""
    really = os.open

    def opened(path: Any, *args: Any, **options: Any) -> int:
        if str(path).startswith("/proc/self/fd/"):
            raise PermissionError
        return really(path, *args, **options)

    monkeypatch.setattr(os, "open", opened)


def refuse_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    """As kernels before 6.5."""
    refuse_to_open(monkeypatch)

    def unknown(*_: Any) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "pwritev", unknown)


WAYS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "opened again": lambda _: None,
    "not allowed to": refuse_to_open,
    "old kernel": refuse_the_flag,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_full_pipe_takes_nothing_and_nobody_waits(
    way: str, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    WAYS[way](monkeypatch)
    reads, writes = pipe
    filled = fill(writes)
    output = LogOutput(writes)
    with pytest.raises(BlockingIOError):
        output.write(b"x\n")
    assert not fcntl.fcntl(writes, fcntl.F_GETFL) & os.O_NONBLOCK, "others write to it, too"
    while filled:
        filled -= len(os.read(reads, filled))
    assert output.write(b"x\n") == 2
    assert os.read(reads, 10) == b"x\n"
    output.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_pipe_whose_reader_has_left_is_an_error_now_and_later(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    WAYS[way](monkeypatch)
    for before in (True, False):
        reads, writes = os.pipe()
        if before:
            os.close(reads)
        output = LogOutput(writes)
        if not before:
            os.close(reads)
        with pytest.raises(BrokenPipeError):
            output.write(b"x\n")
        output.close()
        os.close(writes)


def test_a_full_socket_takes_nothing_and_nobody_waits() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fill(ours.fileno())
        output = LogOutput(ours.fileno())
        with pytest.raises(BlockingIOError):
            output.write(b"x\n")
        assert ours.getblocking()
        assert not fcntl.fcntl(ours, fcntl.F_GETFL) & os.O_NONBLOCK
        output._socket.close()


def test_a_stopped_terminal_takes_nothing_and_nobody_waits() -> None:
    master, terminal = os.openpty()
    try:
        output = LogOutput(terminal)
        assert output.isatty()
        assert output.write(b"hello\n") == 6
        with pytest.raises(BlockingIOError):  # nobody reads the other end
            write_on(output)
        assert not fcntl.fcntl(terminal, fcntl.F_GETFL) & os.O_NONBLOCK
        output.close()
    finally:
        os.close(terminal)
        os.close(master)


def test_a_full_device_and_a_closed_descriptor_are_errors() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    output = LogOutput(full)
    with pytest.raises(OSError, match="space"):
        output.write(b"x\n")
    os.close(full)
    with pytest.raises(OSError, match="descriptor"):
        output.write(b"x\n")
    with pytest.raises(OSError, match="descriptor"):
        LogOutput(full).write(b"x\n")


def test_the_end_of_a_process_waits_for_a_reader_but_not_for_ever(pipe: tuple[int, int]) -> None:
    _, writes = pipe
    fill(writes)
    lines = LogLines(LogOutput(writes))
    lines.msg(line(1))
    lines.close(0.01)
    assert lines.pending
    lines.release()


def test_prints_are_lost_where_nobody_takes_them(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    output = LogOutput(writes)
    text = OutputText(output)
    print("grüße \udcff", file=text, flush=True)
    assert os.read(reads, 100) == "grüße \\udcff\n".encode()
    fill(writes)
    print("nobody", file=text, flush=True)
    assert stat.S_ISFIFO(os.fstat(writes).st_mode)
    output.close()


# --- how lines look


class Finished(LogLine, kw_only=True):
    alias: str
    attempts: list[str]
    error: str | None = None
    event: str = "request"


def test_text_lines_are_short_and_cannot_move_the_cursor() -> None:
    out = io.BytesIO()
    lines = LogLines(out, render=text_line)
    log = open_log(lines, "info", wall=lambda: 0.0)
    open_lines(lines, "info", wall=lambda: 0.0)(Finished(alias="chat", attempts=["a/b ok", "c"]))
    log.warning(
        "odd", detail="\x1b[2J\x9b2J two", empty=None, number=1.5, request_id="r", who=ValueError("x")
    )
    text = out.getvalue().decode()
    assert text.splitlines() == [
        '00:00:00 request alias=chat attempts="a/b ok",c',
        r'00:00:00 WARNING odd detail="\u001b[2J\u009b2J two" number=1.5 who=x',
    ]
